"""Regions from the predictions.tsv of VinVL's own code: what is kept, dropped, cut or rejected."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.common.params import Paths
from pipeline.common.schema import REGIONS
from pipeline.regions.params import RegionsParams
from pipeline.regions.region_row import WHOLE, region_row
from pipeline.regions.sources import predictions_tsv
from tests.worlds.region_tsv import WORKS, build, params_of, predictions, thing, write_artworks


@pytest.fixture
def world(tmp_path: Path) -> Paths:
    return write_artworks(tmp_path)


def test_predictions_become_rows(world: Paths, tmp_path: Path) -> None:
    weak = [thing([0, 0, 20 + i, 20], "weak", 0.1) for i in range(3)]
    objects = [
        *weak,
        thing([10.5, 20.25, 60, 80], "house", 0.9, attributes=["red", "old", "x"], attr_scores=[0.7, 0.1, 0]),
        thing([0, 0, 250, 100.5], "sky", 0.8, attributes=[], attr_scores=[]),
        thing([5, 5, 5, 50], "line", 0.95),
    ]
    file = predictions(
        tmp_path / "predictions.tsv", [("anna_mill", objects), ("zed_last", []), ("other", [])]
    )
    counts, rows = build(world, params_of(file, min_detections=1))
    row = rows["Realism", "anna_mill"]
    assert row["boxes"] == [[10.5, 20.25, 60, 80], [0, 0, 200, 100]]
    assert row["labels"] == ["house", "sky"]
    assert row["scores"] == pytest.approx([0.9, 0.8])
    assert row["attributes"] == [["red", "old"], []]
    assert (row["source"], row["masks"]) == ("predictions_tsv", None)
    assert rows["Realism", "zed_last"]["labels"] == [WHOLE]
    assert rows["Realism", "zed_last"]["source"] == "predictions_tsv:whole"
    assert (counts["kept"], counts["rejected"], counts["reasons"]) == (2, 3, {"not-in-source": 3})
    assert (counts["weak_boxes"], counts["dropped_boxes"], counts["cut_boxes"]) == (3, 1, 1)
    assert (counts["regions"], counts["whole_artworks"]) == (3, 1)
    assert (counts["tsv_rows"], counts["tsv_unused"], counts["tsv_malformed"]) == (3, 1, 0)


def test_weak_objects_fill_up_to_the_fewest_and_stop_at_the_most(world: Paths, tmp_path: Path) -> None:
    objects = [thing([0, 0, 10 + i, 10], str(i), conf) for i, conf in enumerate((0.1, 0.05, 0.3, 0.15))]
    file = predictions(tmp_path / "p.tsv", [("anna_mill", objects)])
    for fewest, most, expected in ((1, 9, ["2"]), (3, 9, ["2", "3", "0"]), (9, 9, ["2", "3", "0", "1"])):
        _, rows = build(world, params_of(file, min_detections=fewest, max_detections=most))
        assert rows["Realism", "anna_mill"]["labels"] == expected
    _, rows = build(world, params_of(file, min_detections=1, max_detections=2, score_threshold=0.0))
    assert rows["Realism", "anna_mill"]["labels"] == ["2", "3"]


BROKEN = {
    "no-json": "anna_mill\t{'objects': []}",
    "cut": 'anna_mill\t{"objects": [{"rect": [1, 2',
    "number": "anna_mill\t3",
    "objects-no-list": 'anna_mill\t{"objects": {"rect": 3}}',
    "deep": "anna_mill\t" + "[" * 100_000,
    "empty": "anna_mill\t",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_row_is_a_reject(world: Paths, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "p.tsv"
    file.write_text(BROKEN[kind] + "\n\nno tab here\n\tno name\nzed_last\t[]", encoding="utf-8")
    counts, rows = build(world, params_of(file))
    assert list(rows) == [("Realism", "zed_last")]
    assert counts["reasons"] == {"malformed-row": 1, "not-in-source": 3}
    assert (counts["tsv_rows"], counts["tsv_malformed"]) == (4, 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
NUMBER = st.floats() | st.floats(-50, 300) | st.integers(-50, 10**400) | st.sampled_from(["7", "x", None])
OBJECT = st.fixed_dictionaries(
    {},
    optional={
        "rect": st.lists(NUMBER, min_size=3, max_size=5) | JSON,
        "class": JSON,
        "conf": NUMBER | JSON,
        "attributes": st.lists(JSON, max_size=3) | JSON,
        "attr_scores": st.lists(NUMBER, max_size=3) | JSON,
    },
)


@given(st.lists(OBJECT | JSON, max_size=6), st.floats(1e-3, 1e3))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_objects_every_stored_box_is_sound(objects: list[Any], scale: float) -> None:
    """in = kept + weak + dropped, and what is stored lies in the picture."""
    read = predictions_tsv.read_objects([json.dumps(objects)])
    params = RegionsParams(min_detections=1, max_detections=2)
    found = predictions_tsv.select(predictions_tsv.from_objects(read, True), np.full(4, scale), params)
    row, counts = region_row({"key": "k", "width": 200, "height": 100}, found, "x")
    assert counts.kept + counts.weak + counts.dropped == len(objects)
    assert counts.kept <= 2 and counts.whole == (counts.kept == 0)
    for x1, y1, x2, y2 in row["boxes"]:
        assert 0 <= x1 < x2 <= 200 and 0 <= y1 < y2 <= 100
    assert np.isfinite(row["scores"]).all()
    pa.Table.from_pylist([row], schema=REGIONS)


@pytest.mark.parametrize("text", ['[{"height": 50, "width": 400}]', '{"height": 50, "width": 400}', "50 400"])
def test_boxes_of_a_picture_in_another_size(world: Paths, tmp_path: Path, text: str) -> None:
    file = predictions(tmp_path / "p.tsv", [(name, [thing([100, 10, 400, 50])]) for _, name in WORKS])
    sizes = tmp_path / "hw.tsv"
    sizes.write_text(f"anna_mill\t{text}\nzed_last\t[0, 7]\n", encoding="utf-8")
    counts, rows = build(world, params_of(file, tsv_sizes=sizes))
    assert rows["Realism", "anna_mill"]["boxes"] == [[50, 20, 200, 100]]  # half as wide, twice as high
    assert counts["reasons"] == {"no-size": 4}
    assert counts["cut_boxes"] == 0
    counts, _ = build(world, params_of(file))
    assert counts["cut_boxes"] == 5
