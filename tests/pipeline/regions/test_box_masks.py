"""Maps of regions that are masks: run lengths against pycocotools, maps against pixel loops, and the step."""

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from pipeline.common import rle, schema
from pipeline.common.errors import UserError
from pipeline.common.files import write_parquet
from pipeline.common.params import Paths
from pipeline.common.schema import shard_stem
from pipeline.common.tables import read_artworks, read_regions
from pipeline.masks.raster import Aggregate, box_runs, levels, rasterise, rasterise_runs
from pipeline.masks.recipe import MasksParams, pseudo_masks, region_runs
from pipeline.masks.step import build_masks
from pipeline.parallel.map_shards import ParallelParams
from tests.pipeline.masks.test_step import samples, write_similarity
from tests.worlds.backbones import write_world

sizes = st.tuples(st.integers(1, 13), st.integers(1, 13))
aggregates = st.sampled_from(["sum", "mean", "max"])


@st.composite
def regions(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """Masks bool (N, h, w) and scores (E, N)."""
    height, width = draw(sizes)
    count = draw(st.integers(0, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    stack = rng.random((count, height, width)) < density
    return stack, rng.normal(0, 1, (draw(st.integers(1, 3)), count)).astype(np.float32)


def runs_of(stack: np.ndarray) -> list[np.ndarray]:
    return [rle.decode(text, *stack.shape[1:]) for text in rle.encode(stack)]


def brute_force(stack: np.ndarray, scores: np.ndarray, aggregate: Aggregate) -> np.ndarray:
    """Pixel by pixel, summed exactly."""
    _, height, width = stack.shape
    out = np.zeros((height, width), np.float32)
    for row in range(height):
        for column in range(width):
            covering = [float(s) for s, mask in zip(scores, stack, strict=True) if mask[row, column]]
            if covering:
                total = math.fsum(covering)
                out[row, column] = {"sum": total, "mean": total / len(covering), "max": max(covering)}[
                    aggregate
                ]
    return out


# ---- run lengths ---------------------------------------------------------------------------------


@settings(max_examples=100)
@given(regions())
def test_runs_are_the_pixels_of_the_mask(found: Any) -> None:
    stack, _ = found
    height, width = stack.shape[1:]
    texts = rle.encode(stack)
    assert len(texts) == len(stack)
    for text, mask, runs in zip(texts, stack, runs_of(stack), strict=True):
        flat = np.zeros(height * width, bool)
        for first, behind in runs.tolist():
            assert first < behind and not flat[first:behind].any()
            flat[first:behind] = True
        np.testing.assert_array_equal(flat.reshape(width, height).T, mask)
        written = json.loads(text)
        by_coco = coco.decode({"size": written["size"], "counts": written["counts"].encode()})
        np.testing.assert_array_equal(by_coco, mask)


@pytest.mark.parametrize("height", [1, 40, 70_000])
def test_long_runs(height: int) -> None:
    """Counts of several characters, as pycocotools writes them."""
    counts = [3, 20, height * 50 - 2123, 1000, 1, 1099] if height > 50 else [0, height, 49 * height]
    encoded = coco.frPyObjects({"size": [height, 50], "counts": counts}, height, 50)
    text = json.dumps({"size": [height, 50], "counts": encoded["counts"].decode()})
    edges = np.cumsum(counts)
    np.testing.assert_array_equal(rle.decode(text, height, 50), edges[: len(edges) // 2 * 2].reshape(-1, 2))


@settings(max_examples=200)
@given(st.text(max_size=20), sizes)
def test_any_text_is_a_mask_or_refused(counts: str, size: tuple[int, int]) -> None:
    for text in (counts, json.dumps({"size": list(size), "counts": counts})):
        try:
            runs = rle.decode(text, *size)
        except rle.BadMask:
            continue
        assert runs.shape[1] == 2 and (runs >= 0).all() and (runs <= size[0] * size[1]).all()
        assert (np.diff(runs.ravel()) >= 0).all()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1, 2]", "must be"),
        ('{"size": [5, 4], "counts": [20]}', "must be"),
        ('{"size": [4, 5], "counts": "d0"}', "of size"),
        ('{"counts": "d0"}', "of size"),
        ('{"size": [5, 4], "counts": ""}', "cut off"),
        ('{"size": [5, 4], "counts": "d"}', "cut off"),
        ('{"size": [5, 4], "counts": "d 0"}', "cannot be there"),
        ('{"size": [5, 4], "counts": "é0"}', "cannot be there"),
        ('{"size": [5, 4], "counts": "c0"}', "add up"),
        ('{"size": [5, 4], "counts": "e0"}', "add up"),
        ('{"size": [5, 4], "counts": "OT1"}', "add up"),
        ('{"size": [5, 4], "counts": "PPPPPPPPPPPP0"}', "13 characters"),
    ],
)
def test_broken_masks_are_refused(text: str, why: str) -> None:
    assert len(rle.decode('{"size": [5, 4], "counts": "d0"}', 5, 4)) == 0  # 20 zeros, and the text is sound
    with pytest.raises(rle.BadMask, match=why):
        rle.decode(text, 5, 4)


# ---- maps ----------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(regions(), aggregates)
def test_maps_of_masks_equal_brute_force(found: Any, aggregate: Aggregate) -> None:
    stack, scores = found
    maps = rasterise_runs(runs_of(stack), scores, *stack.shape[1:], aggregate).full()
    assert maps.dtype == np.float32
    for score, ours in zip(scores, maps, strict=True):
        np.testing.assert_array_equal(ours, brute_force(stack, score, aggregate))


@settings(max_examples=100)
@given(regions(), aggregates, st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_resized_maps_average_the_pixels_they_lie_on(
    found: Any, aggregate: Aggregate, size: tuple[int, int]
) -> None:
    """Against repeating every pixel until the new ones divide them evenly, smaller or larger."""
    stack, scores = found
    height, width = stack.shape[1:]
    maps = rasterise_runs(runs_of(stack), scores, height, width, aggregate)
    fine = maps.full().astype(np.float64).repeat(size[0], 1).repeat(size[1], 2)
    expected = fine.reshape(len(scores), size[0], height, size[1], width).mean((2, 4))
    np.testing.assert_allclose(maps.resized(*size), expected, atol=1e-6)


@settings(max_examples=100)
@given(
    st.integers(0, 2**32 - 1),
    sizes,
    st.integers(0, 6),
    aggregates,
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
)
def test_rectangular_masks_are_boxes(
    seed: int, picture: tuple[int, int], count: int, aggregate: Aggregate, size: tuple[int, int]
) -> None:
    """The two ways of rasterising agree: to the bit at full size, within one level of 255 when stored."""
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(-3, 16, (count, 4)).astype(np.float32)
    scores = rng.normal(0, 1, (2, count)).astype(np.float32)
    by_box = rasterise(boxes, scores, *picture, aggregate)
    by_run = rasterise_runs(box_runs(boxes, *picture), scores, *picture, aggregate)
    np.testing.assert_array_equal(by_run.full(), by_box.full())
    np.testing.assert_allclose(by_run.resized(*size), by_box.resized(*size), atol=1e-12)
    difference = levels(by_run, *size).astype(int) - levels(by_box, *size)
    assert np.abs(difference).max() <= 1  # a level that ends in exactly one half may round either way


def test_stored_masks_of_masks_are_the_full_size_recipe_made_small() -> None:
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[:480, :640]
    stack = np.array(
        [
            ((rows - y) / b) ** 2 + ((columns - x) / a) ** 2 < 1
            for x, y, a, b in rng.uniform([50, 50, 20, 20], [590, 430, 200, 150], (12, 4))
        ]
    )
    scores = rng.normal(0.1, 0.3, (2, 12))
    found = pseudo_masks(np.empty((12, 4)), scores, 480, 640, MasksParams(), runs_of(stack))
    assert found.shape == (2, 192, 256) and found.dtype == np.uint8
    for score, ours in zip(scores, found, strict=True):
        full = np.tensordot(np.maximum(score, 0), stack, 1)
        full = (full - full.min()) / (full.max() - full.min())
        reference = cv2.resize(full, (256, 192), interpolation=cv2.INTER_AREA) * 255
        assert np.abs(ours - reference).max() <= 0.51  # one rounding


def test_bad_runs_are_refused() -> None:
    good = [np.array([[0, 3]])]
    with pytest.raises(ValueError, match="must be"):
        rasterise_runs(good, np.ones((1, 2)), 2, 2, "sum")
    with pytest.raises(ValueError, match="finite"):
        rasterise_runs(good, np.array([[np.inf]]), 2, 2, "sum")
    with pytest.raises(ValueError, match="within"):
        rasterise_runs([np.array([[2, 5]])], np.ones((1, 1)), 2, 2, "sum")
    with pytest.raises(ValueError, match="no map"):
        rasterise_runs(good, np.ones((1, 1)), 0, 4, "sum")


# ---- the step ------------------------------------------------------------------------------------


BROKEN = [
    json.dumps({"size": [1, 1], "counts": "10"}),
    "no JSON",
    json.dumps({"size": [70, 33], "counts": "zz"}),
]


def test_regions_without_a_usable_mask_keep_their_box() -> None:
    boxes = np.array([[0, 0, 9, 9], [5, 5, 20, 30], [1, 1, 4, 4], [0, 0, 33, 70], [2, 2, 8, 8], [3, 3, 9, 9]])
    shape = np.zeros((2, 70, 33), bool)
    shape[0, 10:20, 3:7] = True
    good, empty = rle.encode(shape)
    runs, counts = region_runs(boxes, [good, None, empty, *BROKEN], 70, 33)
    assert counts == {"on_masks": 1, "on_boxes": 5, "broken_masks": 3, "empty_masks": 1}
    expected = box_runs(boxes, 70, 33)
    np.testing.assert_array_equal(runs[0], rle.decode(good, 70, 33))
    for ours, theirs in zip(runs[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    _, counts = region_runs(boxes, None, 70, 33)
    assert (counts["on_masks"], counts["on_boxes"], counts["broken_masks"]) == (0, 6, 0)
    _, counts = region_runs(boxes, [good], 70, 33)  # whose is it?
    assert (counts["on_boxes"], counts["broken_masks"]) == (6, 6)


def write_supports(paths: Paths, spoil: bool = False) -> None:
    """The left half of every box as its mask; with `spoil`, one artwork's are broken and another's null."""
    for shard in (0, 1):
        file = paths.step("regions") / f"{shard_stem(shard)}.parquet"
        rows = pq.read_table(file).to_pylist()
        works = {work["key"]: work for work in read_artworks(paths, shard)}
        for row in rows:
            work = works[row["key"]]
            height, width = work["height"], work["width"]
            stack = np.zeros((len(row["boxes"]), height, width), bool)
            for mask, (x1, y1, x2, y2) in zip(stack, row["boxes"], strict=True):
                mask[int(y1) : int(y2) + 1, int(x1) : int((x1 + x2) / 2) + 1] = True
            row["masks"] = rle.encode(stack)
            if spoil and work["painting"] == "ada_title-1":
                row["masks"] = ["broken"] * len(stack)
            if spoil and work["painting"] == "ada_title-2":
                row["masks"] = None
        write_parquet(file, pa.Table.from_pylist(rows, schema.REGIONS))


@pytest.fixture
def world(tmp_path: Path) -> Paths:
    paths = write_world(tmp_path)
    write_similarity(paths)
    return paths


def test_the_step_puts_scores_on_masks(world: Paths) -> None:
    write_supports(world)
    by_box = build_masks(world, MasksParams(), ParallelParams())
    assert by_box["counts"] == {}
    boxed = samples(world)
    counts = build_masks(world, MasksParams(support="sam"), ParallelParams())
    assert (counts["done"], counts["kept"]) == (2, 5)
    total = sum(len(boxes) for shard in (0, 1) for boxes, _ in read_regions(world, shard).values())
    assert counts["counts"] == {"on_masks": total, "on_boxes": 0, "broken_masks": 0, "empty_masks": 0}
    found = samples(world)
    assert {key: list(members) for key, members in found.items()} == {k: list(m) for k, m in boxed.items()}
    key = schema.artwork_key("Drawn", "ada_title-1")
    assert found[key]["awe.png"] != boxed[key]["awe.png"]
    assert json.loads(found[key]["json"])["lineage"]["masks"]["support"] == "sam"
    row = next(
        r for r in pq.read_table(world.step("regions") / "000001.parquet").to_pylist() if r["key"] == key
    )
    table = pq.read_table(world.step("similarity") / "000001.parquet").to_pylist()
    scores = next(r["scores"] for r in table if (r["key"], r["emotion"]) == (key, "awe"))
    expected = np.zeros((70, 33))
    for text, score in zip(row["masks"], scores, strict=True):
        written = json.loads(text)
        expected += score * coco.decode({"size": written["size"], "counts": written["counts"].encode()})
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    tall = expected.repeat(256, 0).repeat(121, 1).reshape(256, 70, 121, 33).mean((1, 3))
    png = cv2.imdecode(np.frombuffer(found[key]["awe.png"], np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.abs(png - tall * 255).max() <= 0.51


def test_spoiled_masks_are_counted_and_never_fatal(world: Paths) -> None:
    build_masks(world, MasksParams(), ParallelParams())
    boxed = samples(world)
    write_supports(world, spoil=True)
    counts = build_masks(world, MasksParams(support="sam"), ParallelParams())
    assert (counts["kept"], counts["rejected"]) == (5, 0)
    assert counts["counts"] == {"on_masks": 4 + 7 + 8, "on_boxes": 5 + 6, "broken_masks": 5, "empty_masks": 0}
    found = samples(world)
    for number, same in ((0, False), (1, True), (2, True), (3, False)):
        key = schema.artwork_key("Drawn", f"ada_title-{number}")
        ours, theirs = (
            cv2.imdecode(np.frombuffer(sample[key]["fear.png"], np.uint8), cv2.IMREAD_UNCHANGED).astype(int)
            for sample in (found, boxed)
        )
        assert (np.abs(ours - theirs).max() <= 1) == same


def test_masks_that_nobody_stored_are_a_users_mistake(world: Paths) -> None:
    with pytest.raises(UserError, match=r"set regions\.sam_support: true"):
        build_masks(world, MasksParams(support="sam"), ParallelParams())
    assert not list(world.step("masks").glob("*.tar"))
