"""Step `baselines`, the rows that it hands to `score`, and the baselines that `score` answers itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.baselines import clip_vinvl, detected_objects, entire_artwork, other_recipes
from model.baselines.params import BaselinesParams, ObjectsParams, WesdParams
from model.baselines.rows import read_rows, write_rows
from model.baselines.step import build_baselines
from model.maps.method import Method, scaled_maps
from model.metrics.segmentation import Truth
from model.score.inputs import find_methods
from model.score.params import ScoreParams
from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes, write_parquet
from pipeline.common.fingerprint import sha256_file
from pipeline.common.params import Paths, parse_section
from pipeline.common.schema import REGIONS
from pipeline.common.tars import write_tar
from pipeline.releases.apolo import ApoloItem
from pipeline.shards.step import ShardsParams, build_shards
from tests.worlds.indexed_shards import (
    EMOTIONS_OF,
    SIZE,
    artworks,
    keys,
    paths_in,
    png,
    write_predictions,
    write_shards,
    write_sources,
)

FEW_EPOCHS = WesdParams(epochs=2)


def item(key: str, emotion: str, split: str = "test") -> ApoloItem:
    return ApoloItem("artist_title", key, emotion, split, (0,), ("text",), Path("absent.npy"))


def test_the_entire_artwork_is_scored_as_foreground_and_not_as_a_constant_map() -> None:
    """IoU by pixels is the label's share of the picture; by boxes, the share of its boxes."""
    label = np.zeros((10, 20), bool)
    label[0, :10] = label[:5, 0] = True  # an L of 14 pixels in a box of 5 x 10
    pred = entire_artwork.foreground(item("k", "awe"), 10, 20)
    assert pred.dtype == np.bool_
    assert Truth.of(label).ious(pred) == (14 / 200, 50 / 200)
    assert Truth.of(label, box_truth=False).ious(pred) == (14 / 200, 14 / 200)


def test_the_teacher_is_the_stored_pseudo_mask_of_the_items_emotion(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_shards(paths, count=6, shards=2)
    teacher = clip_vinvl.PseudoMasks(paths, keys(6))
    for number, key in enumerate(keys(6)):
        emotions = EMOTIONS_OF[number % len(EMOTIONS_OF)]
        for place, emotion in enumerate(emotions):
            map_ = teacher(item(key, emotion))
            assert map_ is not None
            inside = np.zeros((16, 24), bool)
            inside[2:10, 3 + 6 * place : 10 + 6 * place] = True
            assert np.array_equal(map_ > 0, inside)
            values = scaled_maps(teacher, "before-resize")(item(key, emotion), 32, 48)
            assert values is not None
            assert values.shape == (32, 48)
            assert (values > 0.35).sum() == pytest.approx(4 * inside.sum(), rel=0.1)
    assert teacher(item(keys(6)[0], EMOTIONS_OF[1][0])) is None
    assert teacher(item("0" * 16, "awe")) is None


def test_only_shards_of_the_asked_artworks_are_opened(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_shards(paths, count=4, shards=2)
    (paths.step("masks") / "000001.tar").unlink()
    teacher = clip_vinvl.PseudoMasks(paths, keys(4)[::2])  # those of shard 0
    assert teacher(item(keys(4)[0], EMOTIONS_OF[0][0])) is not None
    with pytest.raises(UserError, match=r"000001.tar does not exist"):
        clip_vinvl.PseudoMasks(paths, keys(4))


def test_a_damaged_mask_is_refused_by_value_error() -> None:
    from model.maps.map_files import decode_png

    assert decode_png(png(np.arange(12, dtype=np.uint8).reshape(3, 4))).tolist()[2] == [8, 9, 10, 11]
    assert decode_png(png(np.full((2, 2), 60_000, np.uint16))).max() == 60_000
    for data in (b"", b"no picture", png(np.ones((4, 4), np.uint8))[:30]):
        with pytest.raises(ValueError, match="no picture"):
            decode_png(data)


# ---- objects -----------------------------------------------------------------------------------------


def write_regions(
    folder: Path, rows: dict[str, list[tuple[list[float], float]]], source: str = "vinvl", files: int = 1
) -> None:
    """A regions folder: key -> (box, score) pairs, spread over several files."""
    table: list[dict[str, Any]] = [
        {
            "key": key,
            "boxes": [box for box, _ in pairs],
            "scores": [score for _, score in pairs],
            "labels": ["thing"] * len(pairs),
            "attributes": None,
            "masks": None,
            "source": source if pairs[0][1] >= 0 else f"{source}:whole",
        }
        for key, pairs in rows.items()
    ]
    for number in range(files):
        part = pa.Table.from_pylist(table[number::files], schema=REGIONS)
        write_parquet(folder / f"{number:06d}.parquet", part)


WHOLE = [([0.0, 0.0, 48.0, 32.0], -1.0)]
"""An artwork in which nothing was found; the score only marks it for `write_regions`."""


@given(
    boxes=st.lists(
        st.tuples(st.floats(-5, 30), st.floats(-5, 30), st.floats(0, 20), st.floats(0, 20)), max_size=5
    ),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
)
def test_the_union_holds_the_pixels_whose_centre_is_in_a_box(
    boxes: list[tuple[float, float, float, float]], height: int, width: int
) -> None:
    corners = [(x, y, x + w, y + h) for x, y, w, h in boxes]
    found = detected_objects.union(np.array(corners).reshape(-1, 4), height, width)
    assert found.shape == (height, width)
    for row in range(height):
        for column in range(width):
            inside = any(x1 <= column + 0.5 < x2 and y1 <= row + 0.5 < y2 for x1, y1, x2, y2 in corners)
            assert found[row, column] == inside


def answers(method: Method, key: str, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    found = [method.answer(item(key, emotion), *size) for emotion in ("awe", "fear")]
    assert all(answer is not None and answer.dtype == np.bool_ for answer in found)
    return [answer for answer in found if answer is not None]


def test_confident_objects_answer_every_emotion_at_the_labels_size(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_shards(paths, count=4)
    one, two, three, four = keys(4)
    write_regions(
        paths.step("regions"),
        {
            one: [([0, 0, 12, 8], 0.9), ([24, 16, 48, 32], 0.5), ([0, 0, 48, 32], 0.49)],
            two: [([0, 0, 48, 32], 0.2)],
            three: WHOLE,
            "f" * 16: [([0, 0, 4, 4], 0.9)],
        },
        files=2,
    )
    counts = detected_objects.write_objects(tmp_path / "out", "vinvl", ObjectsParams(), paths, keys(4))
    assert counts == {"artworks": 3, "objects": 2, "without_objects": 2}
    method = detected_objects.read_objects("vinvl", tmp_path / "out" / detected_objects.FILE)
    assert (method.name, method.finished) == ("vinvl", True)
    wanted = np.zeros(SIZE, bool)
    wanted[:8, :12] = wanted[16:, 24:] = True
    for answer in answers(method, one):
        assert np.array_equal(answer, wanted)
    for answer in answers(method, one, (64, 96)):
        assert np.array_equal(answer, wanted.repeat(2, axis=0).repeat(2, axis=1))
    assert not any(answer.any() for key in (two, three) for answer in answers(method, key))
    assert method.answer(item(four, "awe"), *SIZE) is None


def test_an_artwork_that_is_all_object_is_all_foreground(tmp_path: Path) -> None:
    """As a map it would be constant, and have none."""
    paths = paths_in(tmp_path)
    write_shards(paths, count=1)
    write_regions(paths.step("regions"), {keys(1)[0]: [([0, 0, 48, 32], 1.0)]}, source="apolo")
    detected_objects.write_objects(tmp_path, "vinvl", ObjectsParams(confidence=1.0), paths, keys(1))
    assert all(
        a.all()
        for a in answers(detected_objects.read_objects("vinvl", tmp_path / detected_objects.FILE), keys(1)[0])
    )


def test_a_row_is_of_its_own_detector(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_shards(paths, count=2)
    pairs = {key: [([0.0, 0.0, 9.0, 9.0], 0.9)] for key in keys(2)}
    write_regions(paths.step("regions"), pairs)
    write_regions(tmp_path / "frcnn", pairs, source="faster_rcnn")
    asked = (paths, keys(2))
    assert detected_objects.write_objects(tmp_path / "out", "faster-rcnn", ObjectsParams(), *asked) is None
    assert not (tmp_path / "out").exists()
    elsewhere = ObjectsParams(regions=tmp_path / "frcnn")
    assert detected_objects.write_objects(tmp_path / "out", "faster-rcnn", elsewhere, *asked) is not None
    with pytest.raises(UserError, match=r"frcnn are of faster_rcnn, not of vinvl"):
        detected_objects.write_objects(tmp_path / "out", "vinvl", elsewhere, *asked)
    with pytest.raises(UserError, match=r"nowhere holds no regions"):
        detected_objects.write_objects(
            tmp_path / "out", "vinvl", ObjectsParams(regions=tmp_path / "nowhere"), *asked
        )
    (tmp_path / "frcnn" / "000000.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match=r"000000.parquet cannot be read"):
        detected_objects.write_objects(tmp_path / "out", "faster-rcnn", elsewhere, *asked)


# ---- pseudo-masks of another recipe ------------------------------------------------------------------


def test_maps_of_another_run_are_found_whatever_its_shards(tmp_path: Path) -> None:
    here, there = paths_in(tmp_path / "here"), paths_in(tmp_path / "there")
    write_shards(here, count=6, shards=2)
    write_shards(there, count=6, shards=3)
    items = [item(key, emotion) for n, key in enumerate(keys(6)) for emotion in EMOTIONS_OF[n % 4]]
    items += [item("f" * 16, "awe"), item(keys(6)[0], EMOTIONS_OF[1][0])]
    folder = here.step("baselines") / "clip+sam"
    counts = other_recipes.copy_maps(folder, "clip+sam", there.step("masks"), items)
    assert counts == {"items": 12, "missing": 2, "unreadable": 0}
    write_rows(here.step("baselines"), ["clip+sam"])
    (method,) = read_rows(here, "before-resize")
    original = scaled_maps(clip_vinvl.PseudoMasks(there, keys(6)), "before-resize")
    for asked in items:
        found, wanted = method.answer(asked, *SIZE), original(asked, *SIZE)
        assert (found is None) == (wanted is None)
        assert found is None or np.array_equal(found, wanted)


def test_maps_that_are_not_there_are_an_error_and_broken_ones_are_counted(tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    known = item("0" * 16, "awe")
    with pytest.raises(UserError, match=r"masks of clip\+sam holds no masks"):
        other_recipes.copy_maps(tmp_path / "out", "clip+sam", masks, [known])
    good = {"awe.png": png(np.arange(12, dtype=np.uint8).reshape(3, 4))}
    write_tar(masks / "000000.tar", [("0" * 16, good), ("1" * 16, {"awe.png": b"torn"})])
    with pytest.raises(UserError, match=r"none of the 1 APOLO items"):
        other_recipes.copy_maps(tmp_path / "out", "clip+sam", masks, [item("2" * 16, "awe")])
    items = [known, item("1" * 16, "awe"), item("0" * 16, "fear")]
    counts = other_recipes.copy_maps(tmp_path / "out", "clip+sam", masks, items)
    assert counts == {"items": 1, "missing": 1, "unreadable": 1}


# ---- the step ----------------------------------------------------------------------------------------


def world(root: Path, source: str = "vinvl") -> Paths:
    """All that the step and `find_methods` read."""
    paths = paths_in(root)
    write_shards(paths, count=8)
    write_sources(paths, count=8)
    build_shards(paths, ShardsParams())
    write_predictions(paths, count=8)
    write_regions(paths.step("regions"), {key: [([4.0, 8.0, 20.0, 24.0], 0.9)] for key in keys(8)}, source)
    return paths


def rows_of(paths: Paths) -> list[str]:
    items = [item(key, "awe") for key, _ in artworks(8)]
    return [method.name for method in find_methods(paths, items, ScoreParams())]


def test_rows_come_in_the_papers_order_and_go_when_they_are_no_longer_asked_for(tmp_path: Path) -> None:
    paths = world(tmp_path)
    without = rows_of(paths)
    assert without[:2] == ["entire-artwork", "clip+vinvl"]
    write_regions(tmp_path / "frcnn", {keys(8)[0]: [([0.0, 0.0, 9.0, 9.0], 0.9)]}, "faster_rcnn")
    full = BaselinesParams(
        faster_rcnn=ObjectsParams(regions=tmp_path / "frcnn"),
        maps={"clip+sam": paths.step("masks")},
        wesd=FEW_EPOCHS,
    )
    metrics = build_baselines(paths, full)
    assert metrics["items"] == 16
    assert metrics["left_out"] == []
    assert {name: row.get("items") for name, row in metrics["rows"].items()} == {
        "faster-rcnn": None,
        "vinvl": None,
        "clip+sam": 16,
        "wesd": 16,
    }
    baselines = ["entire-artwork", "faster-rcnn", "vinvl", "clip+vinvl", "clip+sam", "wesd"]
    assert rows_of(paths) == [*baselines, *without[2:]]
    first = {file: sha256_file(file) for file in paths.step("baselines").rglob("*") if file.is_file()}
    build_baselines(paths, full)
    assert first == {file: sha256_file(file) for file in first}
    build_baselines(paths, BaselinesParams(vinvl=None, wesd=None))
    assert rows_of(paths) == without


def test_a_detector_that_did_not_run_is_said_and_left_out(tmp_path: Path) -> None:
    paths = world(tmp_path)
    metrics = build_baselines(paths, BaselinesParams(wesd=None))
    assert list(metrics["rows"]) == ["vinvl"]
    assert len(metrics["left_out"]) == 1
    assert "faster-rcnn" in metrics["left_out"][0]
    assert "are not faster_rcnn" in metrics["left_out"][0]
    write_regions(paths.step("regions"), {keys(8)[0]: WHOLE}, "sam")
    assert build_baselines(paths, BaselinesParams(wesd=None))["rows"] == {}


def test_a_failed_step_leaves_no_rows_of_an_earlier_one(tmp_path: Path) -> None:
    paths = world(tmp_path)
    build_baselines(paths, BaselinesParams(wesd=FEW_EPOCHS))
    with pytest.raises(UserError, match="holds no masks"):
        build_baselines(paths, BaselinesParams(maps={"clip+sam": tmp_path / "nowhere"}))
    assert read_rows(paths, "before-resize") == []
    with pytest.raises(UserError, match="run the utterances step"):
        build_baselines(paths_in(tmp_path / "empty"), BaselinesParams())


def test_rows_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_rows(paths.step("baselines"), ["wesd"])
    with pytest.raises(UserError, match=r"wesd.predictions.parquet cannot be read"):
        read_rows(paths, "before-resize")
    write_bytes(paths.step("baselines") / "rows.json", b"[")
    with pytest.raises(UserError, match=r"rows.json is not the file that was written"):
        read_rows(paths, "before-resize")


@pytest.mark.parametrize("name", ["wesd", "emosem-single", "CLIP+SAM", "a/b", "..", "clip:sam", ""])
def test_names_of_maps_are_plain_and_their_own(name: str) -> None:
    with pytest.raises(UserError, match="maps cannot be called"):
        parse_section({"maps": {name: "data_sam/masks"}}, "baselines", BaselinesParams, "params")


def test_a_row_is_one_line_of_params() -> None:
    values = {
        "vinvl": None,
        "faster_rcnn": {"regions": "data_frcnn/regions"},
        "maps": {"clip+sam": "data_sam/masks"},
        "wesd": {"double_sigmoid": False},
    }
    params = parse_section(values, "baselines", BaselinesParams, "params")
    assert params.vinvl is None
    assert params.faster_rcnn == ObjectsParams(regions=Path("data_frcnn/regions"))
    assert params.maps == {"clip+sam": Path("data_sam/masks")}
    assert params.wesd == WesdParams(double_sigmoid=False)
