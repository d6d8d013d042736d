"""Names that lead elsewhere, and places that are no files: found, forgiven, or refused with a reason."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.releases import wikiart
from pipeline.releases.wikiart import BadImage
from pipeline.utterances.step import UtterancesParams, build_utterances
from tests.worlds.hostile import HEIGHT, JPEG, NOISE, WIDTH, encoded, fates, read, world


def test_things_that_are_no_files(tmp_path: Path) -> None:
    names = ["folder", "loop", "dangling", "fifo", "link", "self/../self"]
    paths = world(tmp_path, names)
    folder = paths.wikiart / "Style"
    (folder / "folder.jpg").mkdir()
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / "fifo.jpg")  # opening one waits for a writer for ever
    (tmp_path / "good.jpg").write_bytes(JPEG)
    (folder / "link.jpg").symlink_to(tmp_path / "good.jpg")  # people do link their pictures
    build_utterances(paths, UtterancesParams())
    missing = dict.fromkeys(["folder", "loop", "dangling", "fifo"], "picture-missing")
    assert fates(paths) == missing | {"link": (WIDTH, HEIGHT)}
    assert [row["reason"] for row in read(paths, "rejects") if row["row"] == 5] == ["unsafe-name"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights for a while")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_permission_denied(what: str, request: pytest.FixtureRequest) -> None:
    folder = Path(tempfile.mkdtemp())  # not `tmp_path`, whose parents only root may enter
    request.addfinalizer(lambda: shutil.rmtree(folder))
    folder.chmod(0o755)
    paths = world(folder, ["good", "locked"])
    (paths.wikiart / "Style" / "good.jpg").write_bytes(JPEG)
    path = paths.wikiart / "Style" / "locked.jpg"
    path.write_bytes(JPEG)
    (path if what == "file" else path.parent).chmod(0)
    nobody = 65_534
    os.seteuid(nobody)
    try:
        if what == "file":
            with pytest.raises(BadImage, match="unreadable"):
                wikiart.probe_picture(path)
        with pytest.raises(BadImage) as caught:
            wikiart.probe_picture(wikiart.find(paths.wikiart, "Style", "locked"))
        assert caught.value.reason == ("unreadable" if what == "file" else "missing")
    finally:
        os.seteuid(0)
        path.parent.chmod(0o755)


def test_an_unreadable_file_is_a_reject_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = world(tmp_path, ["good", "locked", "broken-disk"])
    for name in ("good", "locked", "broken-disk"):
        (paths.wikiart / "Style" / f"{name}.jpg").write_bytes(JPEG)
    original = Image.open
    errors = {"locked": PermissionError(13, "Permission denied"), "broken-disk": OSError(5, "I/O error")}

    def refuse(file: IO[bytes], **options: Any) -> Image.Image:
        if (error := errors.get(Path(file.name).stem)) is not None:
            raise error
        return original(file, **options)

    monkeypatch.setattr(Image, "open", refuse)
    build_utterances(paths, UtterancesParams())
    assert fates(paths) == {
        "good": (WIDTH, HEIGHT),
        "locked": "picture-unreadable",
        "broken-disk": "picture-unreadable",
    }


HARMLESS = [
    "-rf",
    "--help",
    "$(reboot)",
    "a b",
    "a;b",
    "*",
    "~",
    "%s",
    "con",
    "'x\"",
    "№5",
    "eugã¨ne_x",
    "風景",
]
UNSAFE = [
    "..",
    ".",
    "...",
    ".hidden",
    "../up",
    "/etc/passwd",
    "a/../../b",
    "a\\b",
    "a\nb",
    "a\rb",
    "a\x7f",
    "\u0085",
]


def test_names_never_leave_the_folder(tmp_path: Path) -> None:
    names = [*HARMLESS, *UNSAFE, "x" * 400, "é" * 120]
    paths = world(tmp_path, names)
    (tmp_path / "up.jpg").write_bytes(JPEG)
    (tmp_path / "wikiart" / "up.jpg").write_bytes(JPEG)
    for name in [*HARMLESS, "é" * 120]:  # the last: too long a name once decomposed
        (paths.wikiart / "Style" / f"{name}.jpg").write_bytes(JPEG)
    build_utterances(paths, UtterancesParams())
    rows = read(paths, "artworks")
    assert {row["painting"] for row in rows} == {*HARMLESS, "é" * 120}
    root = paths.wikiart.resolve()
    for row in rows:
        path = (paths.wikiart / row["path"]).resolve()
        assert path.is_relative_to(root) and path.read_bytes() == JPEG
        assert len(row["key"]) == 16 and set(row["key"]) <= set("0123456789abcdef")
    reasons = {row["reason"] for row in read(paths, "rejects")}
    assert reasons == {"unsafe-name", "control-character"}
    assert len(read(paths, "rejects")) == len(UNSAFE) + 1


@given(style=st.text(max_size=12), painting=st.text(max_size=12))
@settings(max_examples=200)
def test_any_name_stays_below_wikiart_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, style: str, painting: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "names"
    (root / "wikiart").mkdir(parents=True, exist_ok=True)
    (root / ".jpg").write_bytes(JPEG)
    try:
        path = wikiart.find(root / "wikiart", style, painting)
    except BadImage as error:
        assert error.reason in ("unsafe-name", "missing")
        return
    assert path.resolve().is_relative_to((root / "wikiart").resolve())


def test_case_accents_and_mojibake_are_forgiven_when_only_one_file_can_be_meant(tmp_path: Path) -> None:
    names = ["Vincent_Iris", "edouard_olympia", "eugã¨ne_sea", "twin_a", "exact", "nobody_here"]
    paths = world(tmp_path, names)
    folder = paths.wikiart / "Style"
    on_disk = [
        *("vincent_iris.JPG", "édouard_olympia.jpeg", "Eugene_Sea.png"),
        *("Twin_A.jpg", "twin_A.jpg", "exact.jpg", "Exact.jpg", "notes.txt", "nobody_here.txt"),
    ]
    for name in on_disk:
        (folder / name).write_bytes(JPEG)
    build_utterances(paths, UtterancesParams())
    assert {row["painting"]: row["path"] for row in read(paths, "artworks")} == {
        "Vincent_Iris": "Style/vincent_iris.JPG",
        "edouard_olympia": "Style/édouard_olympia.jpeg",
        "eugã¨ne_sea": "Style/Eugene_Sea.png",
        "exact": "Style/exact.jpg",
    }
    rejected = {row["source"]: row["reason"] for row in read(paths, "rejects") if row["row"] == -1}
    assert rejected == {
        "Style/twin_a": "picture-ambiguous-name",
        "Style/nobody_here": "picture-missing",
    }
    (paths.wikiart / "Style").rename(paths.wikiart / "STYLE")
    build_utterances(paths, UtterancesParams())
    assert {row["path"].split("/")[0] for row in read(paths, "artworks")} == {"STYLE"}


def test_file_names_that_are_no_text_are_left_alone(tmp_path: Path) -> None:
    paths = world(tmp_path, ["café", "good"])
    (paths.wikiart / "Style" / "good.jpg").write_bytes(JPEG)
    with open(os.fsencode(paths.wikiart / "Style") + b"/caf\xe9.jpg", "wb") as file:  # noqa: PTH123
        file.write(JPEG)
    build_utterances(paths, UtterancesParams())
    assert fates(paths) == {"café": "picture-missing", "good": (WIDTH, HEIGHT)}


def test_the_two_corrupt_files_of_the_official_zip(tmp_path: Path) -> None:
    """Their CRC is wrong in the archive: unpackers leave them out, cut, or with garbage inside."""
    names = ["vincent-van-gogh_madame-ginoux-1890", "rembrandt_woman-standing-with-raised-hands", "anna_mill"]
    paths = world(tmp_path, names)
    whole = encoded("JPEG", Image.fromarray(np.kron(NOISE, np.ones((8, 8, 1), np.uint8))))
    (paths.wikiart / "Style" / f"{names[0]}.jpg").write_bytes(whole[: len(whole) // 3])
    (paths.wikiart / "Style" / f"{names[2]}.jpg").write_bytes(whole)
    metrics = build_utterances(paths, UtterancesParams())
    assert fates(paths) == {
        names[0]: "picture-truncated",
        names[1]: "picture-missing",
        names[2]: (8 * WIDTH, 8 * HEIGHT),
    }
    assert (metrics["artworks_in"], metrics["artworks_kept"], metrics["artworks_rejected"]) == (3, 1, 2)
