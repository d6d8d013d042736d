"""Pictures that a csv names by their files: which file is meant, wherever the reader put it."""

import os
import unicodedata
from pathlib import Path

import pytest

from pipeline.releases.picture_folder import PictureFolder
from pipeline.releases.wikiart import BadImage


def folder(root: Path, *files: str) -> PictureFolder:
    for file in files:
        path = root / "pictures" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return PictureFolder(root / "pictures")


def found(pictures: PictureFolder, image: str, data_set: str = "") -> str:
    return pictures.find(data_set, image.rpartition("/")[2], image).relative_to(pictures.root).as_posix()


@pytest.mark.parametrize(
    ("image", "file"),
    [
        ("a.jpg", "a.jpg"),  # not b/a.jpg
        ("b/a.jpg", "b/a.jpg"),
        ("home/anna/b/a.jpg", "b/a.jpg"),
        ("c/d/only.png", "c/d/only.png"),
        ("only.png", "c/d/only.png"),
        ("elsewhere/only.png", "c/d/only.png"),
        ("only", "c/d/only.png"),
        ("ONLY.PNG", "c/d/only.png"),
        ("only.jpg", "c/d/only.png"),  # converted since
        ("winter.-evening", "winter.-evening.jpg"),
        ("p/two.jpg", "p/two.jpg"),
        ("p/two.png", "p/two.png"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
    ],
)
def test_the_file_whose_path_ends_alike(tmp_path: Path, image: str, file: str) -> None:
    files = (
        "a.jpg",
        "b/a.jpg",
        "c/d/only.png",
        "winter.-evening.jpg",
        "p/two.jpg",
        "p/two.png",
        "cafe\u0301.jpg",
    )
    assert found(folder(tmp_path, *files), image) == file


def test_equal_names_in_two_data_sets(tmp_path: Path) -> None:
    pictures = folder(tmp_path, "coco/train/1.jpg", "visual_genome/1.jpg", "others/1.jpg")
    assert found(pictures, "1.jpg", "coco_affective") == "coco/train/1.jpg"
    assert found(pictures, "1.jpg", "visual_genome_affective") == "visual_genome/1.jpg"
    with pytest.raises(BadImage, match="could be") as caught:
        found(pictures, "1.jpg", "flickr30k_affective")
    assert caught.value.reason == "ambiguous-name"


def test_what_is_not_there(tmp_path: Path) -> None:
    pictures = folder(tmp_path, "a.jpg", ".hidden/b.jpg", "notes.txt")
    for image in ("b.jpg", "notes.txt", "notes"):
        with pytest.raises(BadImage) as caught:
            found(pictures, image)
        assert caught.value.reason == "missing"
    with pytest.raises(BadImage, match="missing"):
        found(PictureFolder(tmp_path / "nowhere"), "a.jpg")


def test_links_are_followed_once(tmp_path: Path) -> None:
    pictures = folder(tmp_path, "a/one.jpg")
    elsewhere = folder(tmp_path / "disk", "two.jpg").root
    (pictures.root / "linked").symlink_to(elsewhere)
    (pictures.root / "a" / "loop").symlink_to(pictures.root)
    assert found(pictures, "one.jpg") == "a/one.jpg"
    assert found(pictures, "two.jpg") == "linked/two.jpg"


def test_a_name_that_is_no_text_is_left_alone(tmp_path: Path) -> None:
    pictures = folder(tmp_path, "a.jpg")
    Path(os.fsdecode(os.fsencode(pictures.root) + b"/b\xff.jpg")).write_bytes(b"x")
    assert found(pictures, "a.jpg") == "a.jpg"
    with pytest.raises(BadImage, match="missing"):
        found(pictures, "b.jpg")


def test_composed_and_decomposed_files_are_two(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "\u00e9t\u00e9.jpg") for form in ("NFC", "NFD")]
    pictures = folder(tmp_path, names[0])
    assert {found(pictures, name) for name in names} == {names[0]}
