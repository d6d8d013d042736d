"""Calibration on labels whose counts can be said beforehand, and as a command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from model.score.params import ScoreParams
from model.score.protocol_check import PRINTED, Published, check_protocol, protocol_text
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from tests.worlds.released import write_release


def mask(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """10 x 10 with these boxes (y, x, height, width) filled."""
    filled = np.zeros((10, 10), np.uint8)
    for y, x, height, width in boxes:
        filled[y : y + height, x : x + width] = 1
    return filled


RING = mask((0, 0, 6, 10)) - mask((1, 1, 4, 8))
"""28 pixels in a box of 60."""
LABELS = {
    # by pixels, by boxes of components, by a single box
    ("a", "awe", "test"): mask((0, 0, 5, 10)),  # 50, 50, 50: right everywhere, and inclusively so
    ("a", "fear", "test"): RING,  # 28, 60, 60
    ("b", "awe", "test"): mask((0, 0, 2, 5), (8, 5, 2, 5)),  # 20, 20, 100
    ("b", "fear", "test"): mask((3, 3, 2, 2)),  # 4, 4, 4
    ("c", "anger", "test"): mask((0, 0, 5, 5)),  # 25, 25, 25
    ("c", "fear", "test"): mask(),  # empty: does not count
    ("c", "awe", "val"): mask((0, 0, 10, 10)),  # of another split
}
COMPONENTS = (3, 1, 3, 2)
SINGLE = (3, 1, 4, 3)
RELEASED = (3, 1, 3, 1)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    return write_release(tmp_path_factory.mktemp("release"), LABELS)


def found_of(paths: Paths, published: Published, **params: Any) -> dict[str, Any]:
    return check_protocol(paths.apolo, "test", paths, ScoreParams(**params), published)


def test_counts_by_hand(paths: Paths) -> None:
    found = found_of(paths, Published(5, COMPONENTS))
    assert found["items"] == 5
    assert [tuple(variant["counts"].values()) for variant in found["variants"]] == [
        COMPONENTS,
        SINGLE,
        RELEASED,
    ]
    assert tuple(found["counts"].values()) == COMPONENTS
    assert found["problems"] == ["c_fear: label: empty: no pixel is foreground"]


@pytest.mark.parametrize(
    ("counts", "switch"),
    [
        (COMPONENTS, "box_truth: true, boxes: components"),
        (SINGLE, "box_truth: true, boxes: single"),
        (RELEASED, "box_truth: false"),
    ],
)
def test_the_switch_that_meets_the_published_counts_is_named(
    paths: Paths, counts: tuple[int, int, int, int], switch: str
) -> None:
    found = found_of(paths, Published(5, counts))
    assert found["switches"] == [switch]
    assert found["matches"] is (counts == COMPONENTS)
    says = "The protocol is the published one" if found["matches"] else "is NOT the published one; this is"
    assert says in found["verdict"]
    assert switch in found["verdict"]


@pytest.mark.parametrize(
    ("params", "counts"),
    [
        ({"boxes": "single"}, SINGLE),
        ({"box_truth": False}, RELEASED),
        ({"box_truth": False, "boxes": "single"}, RELEASED),
    ],
)
def test_the_params_own_switch_counts(
    paths: Paths, params: dict[str, Any], counts: tuple[int, int, int, int]
) -> None:
    """Following the verdict's advice makes the next run say yes."""
    found = found_of(paths, Published(5, counts), **params)
    assert tuple(found["counts"].values()) == counts
    assert found["matches"] is True


def test_counts_that_no_switch_meets(paths: Paths) -> None:
    by_pixels = found_of(paths, Published(5, (4, 1, 3, 2)))
    assert (by_pixels["matches"], by_pixels["switches"]) == (False, [])
    assert "by pixels differ, which no switch changes" in by_pixels["verdict"]
    assert "those by boxes by no switch" in found_of(paths, Published(5, (3, 1, 5, 5)))["verdict"]


def test_other_items_are_not_compared(paths: Paths) -> None:
    for found in (
        found_of(paths, PRINTED),
        check_protocol(paths.apolo, "val", paths, ScoreParams(), Published(1, (1, 1, 1, 1))),
    ):
        assert (found["matches"], found["switches"]) == (None, [])
        assert found["verdict"].startswith("Not comparable")
    assert "5441 test items with a label, these are 5 test items" in found_of(paths, PRINTED)["verdict"]


def test_the_printed_counts_are_the_printed_percentages() -> None:
    """68.61, 37.70 by pixels, 82.37, 63.81 by boxes."""
    assert [round(100 * k / PRINTED.items, 2) for k in PRINTED.counts] == [68.61, 37.70, 82.37, 63.81]


def test_labels_that_cannot_be_used_are_lines(tmp_path: Path) -> None:
    labels = {("a", "awe", "test"): mask((0, 0, 5, 10)), ("a", "fear", "test"): np.full((4, 4), np.nan)}
    paths = write_release(tmp_path, labels)
    folder = paths.apolo / "apolo_pixel_map"
    (folder / "a_fear.npy").rename(folder / "a_anger.npy")
    assert found_of(paths, PRINTED)["problems"] == [f"missing-map: record 1: no a_fear.npy in {folder}"]
    (folder / "a_anger.npy").rename(folder / "a_fear.npy")
    (problem,) = found_of(paths, PRINTED)["problems"]
    assert problem.startswith("a_fear: label: wrong-values: ")
    (folder / "a_awe.npy").write_bytes(b"")
    with pytest.raises(UserError, match="none of the 2 test items has a usable label: a_awe: label: not-npy"):
        found_of(paths, PRINTED)


def test_the_release_alone_serves(tmp_path: Path) -> None:
    """Without ArtEmis and without any step: the emotions are those of the maps' names."""
    whole = np.ones((8, 8), np.uint8)
    labels = {("a", "awe", "test"): whole, ("a", "fear", "test"): np.eye(8), ("b", "awe", "val"): whole}
    paths = write_release(tmp_path, labels)
    with_csv = found_of(paths, PRINTED)
    paths.artemis.unlink()
    assert found_of(paths, PRINTED) == with_csv


def test_the_command(paths: Paths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import cli

    file = tmp_path / "params.yaml"
    file.write_text(f"paths: {{artemis: {paths.artemis}}}\nscore: {{boxes: single}}\n")
    asked = ["score", "--entire-artwork", "--apolo", str(paths.apolo), "--params", str(file)]
    cli.app(asked, standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[-4:] == ["3733", "2051", "4482", "3472"]
    assert lines[3].split()[-4:] == [str(k) for k in SINGLE]
    assert lines[4].split()[-4:] == [str(k) for k in COMPONENTS]
    cli.app([*asked, "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert protocol_text(found).splitlines() == lines
    with pytest.raises(typer.BadParameter, match="cannot be given with --maps"):
        cli.app([*asked, "--maps", "x"], standalone_mode=False)
    with pytest.raises(typer.BadParameter, match="is about --maps"):
        cli.app([*asked, "--allow-missing"], standalone_mode=False)
