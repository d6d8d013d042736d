"""The regions step on a small world: its table, its counts, its rejects, and that it repeats itself."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask

from pipeline.backbones.params import BackbonesParams, VinvlParams
from pipeline.common.errors import UserError
from pipeline.common.files import write_parquet
from pipeline.common.params import Paths, parse_section
from pipeline.common.schema import ARTWORKS, REGIONS, artwork_key
from pipeline.parallel.map_shards import ParallelParams
from pipeline.regions.params import RegionsParams
from pipeline.regions.region_row import WHOLE, BoxCounts, Found, clip_boxes, region_row, strongest
from pipeline.regions.step import build_regions
from pipeline.regions.vinvl.config import VinvlConfig
from pipeline.regions.vinvl.detector import AttrRCNN, load_vinvl
from pipeline.releases.wikiart import read_image
from tests.worlds.indexed_shards import paths_in

SMALL = VinvlConfig(
    stem_channels=8,
    groups=2,
    width_per_group=4,
    stage_channels=16,
    blocks=(1, 1, 1, 1),
    roi_resolution=4,
    num_classes=4,
    num_attributes=3,
    class_embedding=3,
    attribute_hidden=5,
    short_side=64,
    long_side=128,
    rpn_pre_nms=100,
    rpn_post_nms=20,
)
PARAMS = RegionsParams(min_detections=3, max_detections=8)
SIZES = [(90, 120), (120, 90), (64, 64), (100, 150), (80, 81)]


@pytest.fixture
def world(tmp_path: Path) -> Paths:
    """Five pictures in two shards; the third file is cut short, the fifth is gone."""
    paths = paths_in(tmp_path)
    rng = np.random.default_rng(0)
    rows = []
    for i, (height, width) in enumerate(SIZES):
        painting = f"artist_title.{i}"
        path = paths.wikiart / "Drawn" / f"{painting}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.NEAREST).save(path, quality=90)
        rows.append(
            {
                "key": artwork_key("Drawn", painting),
                "art_style": "Drawn",
                "painting": painting,
                "path": f"Drawn/{painting}.jpg",
                "width": width,
                "height": height,
                "split": "train",
                "shard": i % 2,
            }
        )
    cut = paths.wikiart / rows[2]["path"]
    cut.write_bytes(cut.read_bytes()[:-300])
    (paths.wikiart / rows[4]["path"]).unlink()
    table = pa.Table.from_pylist(rows, schema=ARTWORKS)
    write_parquet(paths.step("utterances") / "artworks.parquet", table)
    return paths


@pytest.fixture
def backbones(tmp_path: Path) -> BackbonesParams:
    """A random detector that knows three things and two colours."""
    torch.manual_seed(0)
    model = AttrRCNN(SMALL, ["__background__", "house", "boat", "skull"], ["__no_attribute__", "red", "blue"])
    model.save(tmp_path / "weights" / "vinvl")
    checkpoint = tmp_path / "weights" / "vinvl.safetensors"
    return BackbonesParams(vinvl=VinvlParams(checkpoint=checkpoint), device="cpu")


def key(number: int) -> str:
    return artwork_key("Drawn", f"artist_title.{number}")


def read(paths: Paths) -> dict[str, dict[str, object]]:
    rows: dict[str, dict[str, object]] = {}
    for path in sorted(paths.step("regions").glob("*.parquet")):
        table = pq.read_table(path)
        assert table.schema.remove_metadata() == REGIONS
        found = table.to_pylist()
        assert [row["key"] for row in found] == sorted(row["key"] for row in found)
        rows |= {row["key"]: row for row in found}
    return rows


def write_boxes(paths: Paths, number: int, boxes: list[list[float]]) -> None:
    folder = paths.apolo / "arts_features_vinvl_bbox_col"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"artist_title.{number}.npy", np.array(boxes, np.float32).reshape(-1, 4))


def test_detector_regions_and_rejects_reconcile(world: Paths, backbones: BackbonesParams) -> None:
    counts = build_regions(world, PARAMS, backbones, ParallelParams())
    rows = read(world)
    assert set(rows) == {key(0), key(1), key(3)}
    assert (counts["kept"], counts["rejected"], counts["shards"]) == (3, 2, 2)
    assert counts["reasons"] == {"missing": 1, "truncated": 1}
    assert counts["regions"] == sum(len(row["scores"]) for row in rows.values())
    for number in (0, 1, 3):
        row, (height, width) = rows[key(number)], SIZES[number]
        boxes = np.array(row["boxes"])
        assert 3 <= len(boxes) <= 8 and row["source"] == "vinvl" and row["masks"] is None
        assert len(row["labels"]) == len(row["attributes"]) == len(row["scores"]) == len(boxes)
        assert set(row["labels"]) <= {"house", "boat", "skull"}
        assert {name for names in row["attributes"] for name in names} <= {"red", "blue"}
        assert (boxes >= 0).all() and (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes[:, [0, 2]] <= width).all() and (boxes[:, [1, 3]] <= height).all()


def test_rows_are_what_the_detector_says(world: Paths, backbones: BackbonesParams) -> None:
    """Also with several pictures a call, whose results are spread over the rows again."""
    config = dataclasses.replace(SMALL, min_detections=3, max_detections=8, ignore_box_regression=False)
    model = load_vinvl(backbones.vinvl.checkpoint, config=config)
    build_regions(world, dataclasses.replace(PARAMS, batch=3), backbones, ParallelParams())
    rows = read(world)
    for number in (0, 1, 3):
        image = read_image(world.wikiart / f"Drawn/artist_title.{number}.jpg")
        expected = model.propose([image])[0]
        _, keep = clip_boxes(expected.boxes, *image.shape[:2])
        found = rows[key(number)]
        np.testing.assert_allclose(found["boxes"], expected.boxes[keep], atol=1e-2)
        np.testing.assert_allclose(found["scores"], expected.scores[keep], atol=1e-4)


def test_runs_are_byte_identical_and_resume(world: Paths, backbones: BackbonesParams) -> None:
    build_regions(world, PARAMS, backbones, ParallelParams())
    files = sorted(world.step("regions").iterdir())
    first = {path.name: path.read_bytes() for path in files}
    again = build_regions(world, PARAMS, backbones, ParallelParams())
    assert (again["done"], again["skipped"]) == (0, 2)
    for path in files:
        path.unlink()
    build_regions(world, PARAMS, backbones, ParallelParams())
    assert {path.name: path.read_bytes() for path in sorted(world.step("regions").iterdir())} == first
    fewer = dataclasses.replace(PARAMS, max_detections=5)
    assert build_regions(world, fewer, backbones, ParallelParams())["done"] == 2


def test_released_boxes(world: Paths, backbones: BackbonesParams) -> None:
    write_boxes(world, 0, [[0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.001, 0.5]])  # the second holds no pixel
    write_boxes(world, 1, [])
    write_boxes(world, 3, [[0.0, 0.0, 1.0, 1.0]])
    counts = build_regions(world, RegionsParams(source="apolo"), backbones, ParallelParams())
    rows = read(world)
    assert rows[key(0)]["boxes"] == [[30.0, 45.0, 90.0, 90.0]]  # of a picture 120 wide and 90 high
    assert rows[key(0)]["source"] == rows[key(3)]["source"] == "apolo"
    assert rows[key(1)]["boxes"] == [[0.0, 0.0, 90.0, 120.0]]
    assert (rows[key(1)]["source"], rows[key(1)]["labels"]) == ("apolo:whole", [WHOLE])
    assert rows[key(0)]["attributes"] is None
    assert (counts["whole_artworks"], counts["dropped_boxes"], counts["cut_boxes"]) == (1, 1, 0)
    assert counts["source"] == "apolo"
    assert counts["reasons"] == {"no-boxes-file": 2}


def test_a_broken_boxes_file_is_a_reject(world: Paths, backbones: BackbonesParams) -> None:
    write_boxes(world, 0, [[10, 20, 300, 400]])
    counts = build_regions(world, RegionsParams(source="apolo"), backbones, ParallelParams())
    assert counts["reasons"] == {"boxes-wrong-values": 1, "no-boxes-file": 4}


def test_what_only_the_user_can_mend(world: Paths, backbones: BackbonesParams, tmp_path: Path) -> None:
    absent = BackbonesParams(vinvl=VinvlParams(checkpoint=tmp_path / "none.pth"))
    with pytest.raises(UserError, match=r"none\.pth"):
        build_regions(world, PARAMS, absent, ParallelParams())
    with pytest.raises(UserError, match="utterances step first"):
        build_regions(paths_in(tmp_path / "empty"), PARAMS, backbones, ParallelParams())
    with pytest.raises(UserError, match="min_detections 50"):
        parse_section({"min_detections": 50}, "regions", RegionsParams, "params.yaml")
    with pytest.raises(UserError, match="nms_mode"):
        parse_section({"nms_mode": 3}, "regions", RegionsParams, "params.yaml")


ANY_BOXES = hnp.arrays(np.float32, (6, 4), elements=st.floats(-20, 70, width=32) | st.just(float("nan")))


@given(ANY_BOXES)
@settings(max_examples=50)
def test_kept_boxes_hold_a_pixel_and_stay_inside(boxes: np.ndarray) -> None:
    clipped, keep = clip_boxes(boxes, 30, 50)
    ys, xs = np.mgrid[:30, :50] + 0.5
    for box, (x1, y1, x2, y2), kept in zip(boxes, clipped, keep, strict=True):
        with np.errstate(invalid="ignore"):
            holds = ((xs >= box[0]) & (xs < box[2]) & (ys >= box[1]) & (ys < box[3])).any()
        assert kept == (holds and bool(np.isfinite(box).all()))
        if kept:
            assert 0 <= x1 < x2 <= 50 and 0 <= y1 < y2 <= 30


def test_region_row_counts_what_it_drops() -> None:
    artwork = {"key": "k", "height": 10, "width": 20}
    boxes = np.array([[-5, -5, 8, 8], [30, 0, 40, 5], [3, 3, 3, 9]], np.float32)
    row, counts = region_row(artwork, Found(boxes, np.array([0.9, 0.8, 0.7]), list("abc"), None), "vinvl")
    assert (row["boxes"], row["labels"]) == ([[0, 0, 8, 8]], ["a"])
    assert counts == BoxCounts(kept=1, dropped=2, cut=1)
    row, counts = region_row(
        artwork, Found(boxes[1:], np.array([0.8, 0.7]), list("bc"), [["x"], []], dropped=1), "vinvl"
    )
    assert (row["boxes"], row["source"], row["attributes"]) == ([[0, 0, 20, 10]], "vinvl:whole", [[]])
    assert counts == BoxCounts(dropped=3, whole=1)


def test_masks_go_with_their_boxes() -> None:
    artwork = {"key": "k", "height": 6, "width": 4}
    pixels = np.zeros((6, 4, 2), np.uint8, order="F")
    pixels[1:3, 2:4, 0] = 1
    masks = [
        json.dumps({"size": rle["size"], "counts": rle["counts"].decode()}) for rle in mask.encode(pixels)
    ]
    boxes = np.array([[2, 1, 4, 3], [0, 0, 0, 0]], np.float32)
    row, _ = region_row(artwork, Found(boxes, np.ones(2), ["", ""], None, masks), "sam")
    assert row["masks"] == masks[:1]
    row, counts = region_row(artwork, Found(boxes[1:], np.ones(1), [""], None, masks[1:]), "sam")
    assert counts == BoxCounts(dropped=1, whole=1)
    (whole,) = (json.loads(text) for text in row["masks"])
    np.testing.assert_array_equal(mask.decode(whole), np.ones((6, 4)))


COORDINATES = st.one_of(
    st.floats(-30, 90, width=32),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 0.0, 30.0, 50.0]),
)


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 8), st.just(4)), elements=COORDINATES),
    st.integers(1, 60),
    st.integers(1, 60),
)
def test_any_boxes_become_a_sound_row(boxes: np.ndarray, height: int, width: int) -> None:
    artwork = {"key": "k", "height": height, "width": width}
    found = Found(boxes, np.ones(len(boxes)), [str(i) for i in range(len(boxes))], None)
    row, counts = region_row(artwork, found, "x")
    assert counts.kept + counts.dropped == len(boxes)
    assert counts.whole == (counts.kept == 0)
    assert len(row["boxes"]) == len(row["scores"]) == len(row["labels"]) == max(counts.kept, 1)
    for x1, y1, x2, y2 in row["boxes"]:
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
    stored = pa.Table.from_pylist([row | {"attributes": None}], schema=REGIONS).to_pylist()[0]
    assert stored["boxes"] == row["boxes"]


@given(
    hnp.arrays(np.float64, st.integers(0, 30), elements=st.floats(0, 1)),
    st.floats(0, 1),
    st.integers(1, 10),
    st.integers(0, 15),
)
def test_the_strongest(scores: np.ndarray, threshold: float, fewest: int, more: int) -> None:
    most = fewest + more
    kept = strongest(scores, threshold, fewest, most)
    left = np.delete(scores, kept)
    assert (np.diff(scores[kept]) <= 0).all()
    assert not len(left) or not len(kept) or left.max() <= scores[kept].min()
    above = int((scores >= threshold).sum())
    assert len(kept) == min(len(scores), most, max(above, fewest))
