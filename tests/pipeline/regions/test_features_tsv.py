"""Regions from the features.tsv of VinVL's own code, in every layout it was written in."""

import base64
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.regions.sources import features_tsv, tsv_file
from tests.worlds.region_tsv import build, params_of, write_artworks

BOXES = np.array([[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.75, 1.0]])


@pytest.fixture
def world(tmp_path: Path) -> Paths:
    return write_artworks(tmp_path)


def features(boxes: np.ndarray = BOXES, order: tuple[int, ...] = (0, 1, 2, 3, 4, 5)) -> np.ndarray:
    """VinVL's features, random, with the six numbers of the box behind them."""
    rng = np.random.default_rng(0)
    six = np.concatenate([boxes, boxes[:, 2:] - boxes[:, :2]], axis=1)[:, order]
    return np.concatenate([rng.normal(size=(len(boxes), 2048)), six], axis=1).astype("<f4")


def coded(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


LAYOUTS = {
    "positional": lambda a: f"{len(a)}\t{coded(a)}",
    "positional-bytes": lambda a: f"{len(a)}\tb'{coded(a)}'",
    "no-count": coded,
    "float16": lambda a: f"{len(a)}\t{coded(a.astype('<f2'))}",
    "json": lambda a: json.dumps({"num_boxes": len(a), "features": coded(a)}),
    "json-text-count": lambda a: json.dumps({"num_boxes": str(len(a)), "features": coded(a)}),
    "json-bytes-inside": lambda a: json.dumps({"num_boxes": len(a), "features": f"b'{coded(a)}'"}),
    "json-bytes-outside": lambda a: repr(json.dumps({"num_boxes": len(a), "features": coded(a)}).encode()),
    "list": lambda a: json.dumps([{"feature": coded(row)} for row in a]),
    "objects": lambda a: json.dumps({"objects": [{"feature": coded(row)} for row in a]}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_in_every_layout(world: Paths, tmp_path: Path, layout: str) -> None:
    file = tmp_path / "features.tsv"
    none = np.zeros((0, 2054), "<f4")
    file.write_text(f"anna_mill\t{LAYOUTS[layout](features())}\nzed_last\t{LAYOUTS[layout](none)}\n")
    counts, rows = build(world, params_of(file, "features_tsv"))
    np.testing.assert_allclose(
        rows["Realism", "anna_mill"]["boxes"],
        [[20, 20, 100, 60], [0, 0, 200, 100], [50, 50, 150, 100]],
        atol=0.1 if layout == "float16" else 1e-4,
    )
    assert rows["Realism", "anna_mill"]["source"] == "features_tsv"
    assert rows["Realism", "anna_mill"]["attributes"] is None
    assert counts["reasons"]["not-in-source"] == 3
    assert counts["kept"] == 2 and counts["whole_artworks"] == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (f"3\t{coded(features()[:, :2048].copy())}", "wrong-width"),
        (f"3\t{coded(features()[:, :2053].copy())}", "wrong-width"),
        (f"3\t{coded(features(order=(0, 2, 1, 3, 4, 5)))}", "wrong-order"),
        (f"3\t{coded(features(order=(0, 1, 4, 5, 2, 3)))}", "wrong-order"),
        (f"3\t{coded(features(order=(2, 3, 0, 1, 4, 5)))}", "wrong-order"),
        (f"3\t{coded(features(BOXES * 100))}", "wrong-values"),
        (f"4\t{coded(features())}", "wrong-width"),
        (f"5\t{coded(features())}", "malformed-row"),
        (f"0\t{coded(features())}", "malformed-row"),
        (f"-3\t{coded(features())}", "malformed-row"),
        (f"three\t{coded(features())}", "malformed-row"),
        (f"3\t{coded(features())[:-3]}", "malformed-row"),
        ("3\t", "malformed-row"),
        ('{"num_boxes": 3}', "malformed-row"),
        ('{"num_boxes": 3, "features": 3}', "malformed-row"),
        ('[{"rect": [1, 2, 3, 4]}]', "malformed-row"),
        ('[{"feature": "AAAAAA=="}, {"feature": "AAAA', "malformed-row"),
    ],
)
def test_features_that_cannot_be_used(world: Paths, tmp_path: Path, content: str, reason: str) -> None:
    """One such row is a reject; a file of nothing else ends the run before it starts."""
    file = tmp_path / "features.tsv"
    good = f"3\t{coded(features())}"
    file.write_text(f"anna_mill\t{content}\nzed_last\t{good}\n")
    counts, rows = build(world, params_of(file, "features_tsv"))
    assert list(rows) == [("Realism", "zed_last")]
    assert counts["reasons"] == {reason: 1, "not-in-source": 3}
    file.write_text(f"anna_mill\t{content}\n")
    with pytest.raises(UserError, match=f"none of the first 1 rows can be used; {reason}"):
        build(world, params_of(file, "features_tsv"))


def test_single_broken_boxes_are_dropped_and_not_the_row() -> None:
    boxes = np.concatenate([BOXES, [[0.6, 0.1, 0.2, 0.5], [np.nan, 0, 1, 1], [0.3, 0.3, 0.3, 0.9]]])
    found = features_tsv.read_boxes([str(len(boxes)), coded(features(boxes))])
    np.testing.assert_allclose(found, boxes, atol=1e-6)


@given(st.binary(max_size=40) | st.binary(min_size=8, max_size=8).map(lambda b: b * 1027), st.integers(-2, 9))
def test_any_bytes_as_features(data: bytes, count: int) -> None:
    try:
        boxes = features_tsv.read_boxes([str(count), base64.b64encode(data).decode()])
    except tsv_file.BadRow as error:
        assert error.reason in ("malformed-row", "wrong-width", "wrong-order", "wrong-values")
    else:
        assert boxes.shape == (count, 4)


def test_settings_that_a_source_does_not_read_redo_nothing(world: Paths, tmp_path: Path) -> None:
    file = tmp_path / "features.tsv"
    file.write_text(f"anna_mill\t3\t{coded(features())}\n")
    params = params_of(file, "features_tsv")
    assert build(world, params)[0]["done"] == 2
    assert build(world, dataclasses.replace(params, nms_mode=2, max_detections=50))[0]["done"] == 0
