"""Drawn or real: by the mark, not by a path; and the mark goes along to whatever is made of a release."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.releases.gallery_mark import (
    MARK,
    NOTED,
    drawn_evaluation,
    drawn_sources,
    drawn_text,
    noted_sources,
    read_mark,
)
from pipeline.utterances.params import UtterancesParams
from pipeline.utterances.step import build_utterances

GALLERY = {"version": 1, "seed": 7, "artworks": 12}  # of the fixture tiny_gallery


def paths_to(releases: Path, data: Path) -> Paths:
    return Paths(
        artemis=releases / "artemis" / "artemis_dataset_release_v0.csv",
        wikiart=releases / "wikiart",
        apolo=releases / "apolo",
        data=data,
    )


def test_a_gallery_is_known_wherever_it_lies(tiny_gallery: Path, tmp_path: Path) -> None:
    moved = tmp_path / "my own pictures"
    for name in ("artemis", "wikiart", "apolo"):
        shutil.copytree(tiny_gallery / name, moved / name)
        assert dataclasses.asdict(read_mark(moved / name)) == GALLERY  # type: ignore[arg-type]
    paths = paths_to(moved, tmp_path / "data")
    assert drawn_sources(paths) == dict.fromkeys(("artemis", "wikiart", "apolo"), GALLERY)


def test_real_releases_in_a_folder_called_gallery_are_real(tiny_gallery: Path, tmp_path: Path) -> None:
    """The layouts are the released ones: without the mark nothing tells them from real releases."""
    real = tmp_path / "data" / "gallery"
    for name in ("artemis", "wikiart", "apolo"):
        shutil.copytree(tiny_gallery / name, real / name, ignore=shutil.ignore_patterns(MARK))
    (real / MARK).write_bytes((tiny_gallery / MARK).read_bytes())  # beside them, of a gallery that was there
    paths = paths_to(real, tmp_path / "data")
    assert drawn_sources(paths) == {}
    build_utterances(paths, UtterancesParams())
    assert noted_sources(paths.step("utterances")) == drawn_evaluation(paths) == {}


def test_what_the_step_noted_stays_when_the_sources_move(tiny_gallery: Path, tmp_path: Path) -> None:
    releases = tmp_path / "releases"
    shutil.copytree(tiny_gallery, releases)
    (releases / "apolo" / MARK).unlink()  # real labels of drawn pictures
    paths = paths_to(releases, tmp_path / "data")
    build_utterances(paths, UtterancesParams())
    releases.rename(tmp_path / "elsewhere")
    noted = noted_sources(paths.step("utterances"))
    assert noted == dict.fromkeys(("artemis", "wikiart"), GALLERY)
    assert drawn_evaluation(paths_to(tmp_path, tmp_path / "data")) == noted
    again = drawn_evaluation(paths_to(tiny_gallery, tmp_path / "data"))
    assert again == noted | {"apolo": GALLERY}


def test_somebody_elses_file_of_that_name_is_no_mark(tmp_path: Path) -> None:
    for content in ('{"artworks": 600, "seed": 7}', "[1, 2]", '"emosem gallery"', "null"):
        (tmp_path / MARK).write_text(content)
        assert read_mark(tmp_path) is None
    assert read_mark(tmp_path / "absent") is None
    assert read_mark(tmp_path / MARK / "below a file") is None


@pytest.mark.parametrize("content", [b"{", b"\xff", b'{"drawn_by": "emosem gallery"}'])
def test_a_damaged_mark_is_not_taken_for_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MARK).write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read .* draw the gallery again"):
        read_mark(tmp_path)


def test_a_changed_note_is_damage(tiny_gallery: Path, tmp_path: Path) -> None:
    paths = paths_to(tiny_gallery, tmp_path)
    build_utterances(paths, UtterancesParams())
    note = paths.step("utterances") / NOTED
    assert json.loads(note.read_text()).keys() == {"artemis", "wikiart", "apolo"}
    note.write_text("{}")
    with pytest.raises(UserError, match="run the utterances step"):
        noted_sources(paths.step("utterances"))


def test_the_sentence_names_what_is_drawn() -> None:
    assert drawn_text({}) == ""
    both = drawn_text({"apolo": GALLERY, "wikiart": GALLERY})
    assert both.startswith("The pictures and labels are drawn by emosem's built-in gallery")
    assert "seed 7, 12 artworks" in both
    assert drawn_text({"wikiart": GALLERY}).startswith("The pictures are drawn")
    assert "The utterances, pictures and labels are" in drawn_text(
        dict.fromkeys(("apolo", "artemis", "wikiart"), GALLERY)
    )
