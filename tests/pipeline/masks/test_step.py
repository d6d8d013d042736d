"""Similarity maps against adding up boxes pixel by pixel, and the files of the masks step."""

import json
import math
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.common import schema
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.files import write_parquet
from pipeline.common.params import Paths
from pipeline.common.schema import shard_stem
from pipeline.common.tars import read_tar
from pipeline.masks.raster import box_runs, rasterise, similarity_map
from pipeline.masks.recipe import MasksParams, pseudo_masks, weigh
from pipeline.masks.step import build_masks, paint_shard
from pipeline.parallel.map_shards import ParallelParams
from tests.worlds.backbones import write_world


def brute_force(boxes: Any, scores: Any, height: int, width: int, aggregate: str) -> np.ndarray:
    """What the docstring says, pixel by pixel, summed exactly."""
    out = np.zeros((height, width), np.float32)
    for row in range(height):
        for column in range(width):
            covering = [
                float(score)
                for (x1, y1, x2, y2), score in zip(boxes, scores, strict=True)
                if x1 <= column + 0.5 < x2 and y1 <= row + 0.5 < y2
            ]
            if covering:
                total = math.fsum(covering)
                whole = {"sum": total, "mean": total / len(covering), "max": max(covering)}
                out[row, column] = whole[aggregate]
    return out


coordinate = st.one_of(
    st.floats(-5, 25, width=32), st.integers(-3, 20).map(float), st.integers(-3, 20).map(lambda i: i + 0.5)
)
box = st.tuples(coordinate, coordinate, coordinate, coordinate)
score = st.floats(-1, 1, width=32).filter(lambda s: s == 0 or abs(s) > 1e-9)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(box, score), max_size=9),
    st.integers(1, 14),
    st.integers(1, 17),
    st.sampled_from(["sum", "mean", "max"]),
)
def test_similarity_map_equals_brute_force(pairs: Any, height: int, width: int, aggregate: Any) -> None:
    boxes = np.array([b for b, _ in pairs], np.float32).reshape(-1, 4)
    scores = np.array([s for _, s in pairs], np.float32)
    found = similarity_map(boxes, scores, height, width, aggregate)
    assert found.dtype == np.float32 and found.shape == (height, width)
    np.testing.assert_array_equal(found, brute_force(boxes, scores, height, width, aggregate))


@settings(max_examples=50)
@given(st.lists(st.tuples(box, st.floats(-1e6, 1e6)), min_size=1, max_size=8), st.randoms())
def test_the_order_of_boxes_does_not_matter(pairs: Any, random: Any) -> None:
    shuffled = random.sample(pairs, len(pairs))
    first, second = (
        similarity_map(np.array([b for b, _ in p]), np.array([s for _, s in p]), 9, 11)
        for p in (pairs, shuffled)
    )
    np.testing.assert_array_equal(first, second)


def test_a_hand_computed_map() -> None:
    boxes = np.array([[0, 0, 3, 2], [1, 1, 4, 3], [0.5, 0.5, 1.5, 1.5], [2, 2, 2, 2]])
    scores = np.array([1.0, 0.25, 4.0, 8.0])
    expected = [[5.0, 1.0, 1.0, 0.0], [1.0, 1.25, 1.25, 0.25], [0.0, 0.25, 0.25, 0.25]]
    np.testing.assert_array_equal(similarity_map(boxes, scores, 3, 4), np.array(expected, np.float32))


def test_bad_maps_are_refused() -> None:
    box = np.array([[0, 0, 2, 2]])
    with pytest.raises(ValueError, match="must be"):
        similarity_map(box, np.array([1.0, 2.0]), 4, 4)
    with pytest.raises(ValueError, match="finite"):
        similarity_map(box, np.array([np.nan]), 4, 4)
    with pytest.raises(ValueError, match="finite"):
        similarity_map(np.array([[0, 0, np.inf, 2]]), np.array([1.0]), 4, 4)
    with pytest.raises(ValueError, match="no map"):
        similarity_map(box, np.array([1.0]), 0, 4)


@pytest.mark.parametrize("size", [(192, 256), (41, 23), (300, 400), (7, 9)])
def test_resized_maps_are_area_averages_of_the_full_ones(size: tuple[int, int]) -> None:
    """Against cv2's INTER_AREA where it shrinks, and against repetition where both sides grow evenly."""
    rng = np.random.default_rng(2)
    corners = np.sort(rng.uniform(0, 1, (20, 2, 2)), 1).reshape(-1, 4) * [400, 300, 400, 300]
    grid = rasterise(corners, rng.normal(0.2, 0.2, (3, 20)), 300, 400, "sum")
    small = grid.resized(*size)
    for full, found in zip(grid.full(), small, strict=True):
        reference = cv2.resize(full, size[::-1], interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(found, reference, atol=2e-5)
    doubled = grid.resized(600, 800)[0]
    np.testing.assert_allclose(doubled, grid.full()[0].repeat(2, 0).repeat(2, 1), atol=1e-6)


def test_pseudo_masks_are_the_full_size_recipe_made_small() -> None:
    rng = np.random.default_rng(3)
    boxes = np.sort(rng.uniform(0, 1, (15, 2, 2)), 1).reshape(-1, 4) * [640, 480, 640, 480]
    scores = rng.normal(0.1, 0.3, (2, 15))
    found = pseudo_masks(boxes, scores, 480, 640, MasksParams())
    assert found.shape == (2, 192, 256) and found.dtype == np.uint8
    for score, ours in zip(scores, found, strict=True):
        full = similarity_map(boxes, np.maximum(score, 0), 480, 640)
        full = (full - full.min()) / (full.max() - full.min())
        reference = cv2.resize(full, (256, 192), interpolation=cv2.INTER_AREA) * 255
        assert np.abs(ours - reference).max() <= 0.51  # one rounding
        assert ours.min() == 0


def test_constant_maps_are_empty_and_nothing_divides_by_zero() -> None:
    whole = np.array([[0, 0, 30, 20]])
    assert pseudo_masks(whole, np.array([[0.7], [-0.2], [0.0]]), 20, 30, MasksParams()).max() == 0
    assert pseudo_masks(np.empty((0, 4)), np.empty((2, 0)), 20, 30, MasksParams(temperature=0.1)).max() == 0
    assert pseudo_masks(np.empty((0, 4)), np.empty((0, 0)), 20, 30, MasksParams(center=True)).shape[0] == 0
    assert pseudo_masks(np.array([[0, 0, 0.6, 1]]), np.array([[1.0]]), 1, 1, MasksParams()).shape == (
        1,
        256,
        256,
    )


def test_weights_of_the_params() -> None:
    scores = np.array([[0.5, -0.1, 0.2]])
    np.testing.assert_allclose(weigh(scores, MasksParams()), [[0.5, 0.0, 0.2]])
    np.testing.assert_allclose(weigh(scores, MasksParams(negatives="keep")), scores)
    np.testing.assert_allclose(weigh(scores, MasksParams(center=True)), [[0.3, 0.0, 0.0]])
    sharp = weigh(scores, MasksParams(temperature=0.1))
    np.testing.assert_allclose(sharp, np.exp([[0.0, -6.0, -3.0]]))


@pytest.mark.parametrize("support", ["box", "sam"])
def test_a_level_becomes_the_protocols_threshold(support: str) -> None:
    """Every map is bent by two straight lines, so that 0.35 finds what `level` found."""
    rng = np.random.default_rng(5)
    boxes = np.sort(rng.integers(0, 41, (12, 2, 2)), 1).reshape(-1, 4).astype(np.float32)
    scores = rng.random((3, 12))
    runs = box_runs(boxes, 40, 40) if support == "sam" else None
    plain, bent = (
        pseudo_masks(boxes, scores, 40, 40, MasksParams(level=level, long_side=40), runs) / 255
        for level in (None, 0.6)
    )
    low, high = plain * 0.35 / 0.6, 0.35 + (plain - 0.6) * 0.65 / 0.4
    np.testing.assert_allclose(bent, np.where(plain <= 0.6, low, high), atol=2 / 255)
    far = np.abs(plain - 0.6) > 1 / 255
    np.testing.assert_array_equal((bent > 0.35)[far], (plain > 0.6)[far])
    assert (plain > 0.6).any() and (bent.min((1, 2)) == 0).all() and (bent.max((1, 2)) == 1).all()
    same = pseudo_masks(boxes, scores, 40, 40, MasksParams(level=0.35, long_side=40), runs) / 255
    np.testing.assert_array_equal(same, plain)


def test_what_the_papers_recipe_lacks_is_in_no_card_of_it() -> None:
    paper = {"support", "aggregate", "negatives", "center", "temperature", "long_side"}
    assert MasksParams().recipe().keys() == paper
    assert MasksParams(**MasksParams(level=0.6).recipe()) == MasksParams(level=0.6)


def test_relative_weights_leave_what_fits_every_emotion_behind() -> None:
    scores = np.array([[0.5, 0.6, 0.1], [0.1, 0.6, 0.1], [0.3, 0.6, 0.5]])
    keep = MasksParams(relative=0.5, negatives="keep")
    others = np.array([[0.2, 0.6, 0.3], [0.4, 0.6, 0.3], [0.3, 0.6, 0.1]])
    np.testing.assert_allclose(weigh(scores, keep), scores - others / 2)
    clipped = weigh(scores, MasksParams(relative=1.0))
    np.testing.assert_allclose(clipped, np.maximum(scores - others, 0), atol=1e-12)
    np.testing.assert_array_equal(weigh(scores[:1], keep), scores[:1])  # nothing to be relative to
    np.testing.assert_array_equal(weigh(np.empty((2, 0)), keep), np.empty((2, 0)))


@pytest.fixture
def world(tmp_path: Path) -> Paths:
    """The small world, and similarities by hand: 0.1 per region, 0.9 for the emotion's own."""
    paths = write_world(tmp_path)
    write_similarity(paths)
    return paths


def write_similarity(paths: Paths, skip: str = "") -> None:
    from pipeline.common.tables import read_groups, read_regions

    for shard in (0, 1):
        regions = read_regions(paths, shard)
        rows = []
        for (key, emotion), group in read_groups(paths, shard).items():
            scores = np.full(len(regions[key][0]), 0.1, np.float32)
            scores[EMOTIONS.index(emotion) % len(scores)] = 0.9
            if key != skip:
                rows.append(
                    {"key": key, "emotion": emotion, "artemis_ids": group["artemis_id"], "scores": scores}
                )
        table = pa.Table.from_pylist(rows, schema.SIMILARITY.with_metadata({"lineage": '{"clip": "hand"}'}))
        write_parquet(paths.step("similarity") / f"{shard_stem(shard)}.parquet", table)


def samples(paths: Paths) -> dict[str, dict[str, bytes]]:
    tars = sorted(paths.step("masks").glob("*.tar"))
    return {key: members for tar in tars for key, members in read_tar(tar)}


def test_the_step_writes_masks_and_cards(world: Paths) -> None:
    counts = build_masks(world, MasksParams(), ParallelParams())
    assert (counts["shards"], counts["kept"], counts["rejected"]) == (2, 5, 0)
    from pipeline.common.tables import read_artworks, read_regions

    for shard in (0, 1):
        keys = [key for key, _ in read_tar(world.step("masks") / f"{shard_stem(shard)}.tar")]
        assert keys == sorted(keys) == [work["key"] for work in read_artworks(world, shard)]
    found = samples(world)
    silent = [key for key, members in found.items() if list(members) == ["json"]]
    assert silent == [schema.artwork_key("Drawn", "ada_title-4")]  # only "something else"
    key = schema.artwork_key("Drawn", "ada_title-1")
    assert list(found[key]) == ["awe.png", "fear.png", "json"]
    card = json.loads(found[key]["json"])
    assert (card["width"], card["height"], card["split"], card["painting"]) == (
        33,
        70,
        "train",
        "ada_title-1",
    )
    assert len(card["emotions"]["fear"]["utterances"]) == len(card["emotions"]["fear"]["artemis_ids"]) == 2
    assert card["lineage"]["detector"] == "hand"
    assert card["lineage"]["similarity"] == {"clip": "hand"}
    boxes, _ = read_regions(world, 1)[key]
    scores = np.full(len(boxes), 0.1, np.float32)
    scores[EMOTIONS.index("awe") % len(boxes)] = 0.9
    png = cv2.imdecode(np.frombuffer(found[key]["awe.png"], np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(png, pseudo_masks(boxes, scores[None], 70, 33, MasksParams())[0])
    assert png.shape == (256, 121)
    assert card["emotions"]["awe"]["area"] == pytest.approx((png > 0.35 * 255).mean(), abs=1e-6)


def test_reruns_are_byte_identical_and_cost_nothing(world: Paths, tmp_path: Path) -> None:
    build_masks(world, MasksParams(), ParallelParams())
    before = {p.name: p.read_bytes() for p in world.step("masks").iterdir()}
    assert build_masks(world, MasksParams(), ParallelParams())["skipped"] == 2
    for file in world.step("masks").iterdir():
        file.unlink()
    assert build_masks(world, MasksParams(), ParallelParams())["done"] == 2
    assert {p.name: p.read_bytes() for p in world.step("masks").iterdir()} == before
    assert build_masks(world, MasksParams(aggregate="mean"), ParallelParams())["done"] == 2


def test_only_shards_with_changed_inputs_are_redone(world: Paths) -> None:
    build_masks(world, MasksParams(), ParallelParams())
    table = world.step("utterances") / "utterances.parquet"
    rows = pq.read_table(table).to_pylist()
    changed = schema.artwork_key("Drawn", "ada_title-1")
    for row in rows:
        if row["key"] == changed:
            row["utterance"] += " again"
    write_parquet(table, pa.Table.from_pylist(rows, schema.UTTERANCES))
    counts = build_masks(world, MasksParams(), ParallelParams())
    assert (counts["done"], counts["skipped"]) == (1, 1)


def change_regions(paths: Paths, shard: int, **changed: Any) -> None:
    """Other values in columns of the first row of a shard's regions."""
    file = paths.step("regions") / f"{shard_stem(shard)}.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[0] |= changed
    write_parquet(file, pa.Table.from_pylist(rows, schema.REGIONS))


def test_what_masks_do_not_read_redoes_nothing(world: Paths) -> None:
    box, sam = MasksParams(), MasksParams(support="sam")
    count = len(pq.read_table(world.step("regions") / "000001.parquet")["boxes"][0])
    build_masks(world, box, ParallelParams())
    before = {p.name: p.read_bytes() for p in world.step("masks").iterdir()}
    change_regions(world, 1, masks=["one"] * count, labels=["cat"] * count, scores=[0.1] * count)
    assert build_masks(world, box, ParallelParams())["skipped"] == 2
    for file in world.step("masks").glob("*.json"):
        file.unlink()
    assert build_masks(world, box, ParallelParams())["done"] == 2
    assert {p.name: p.read_bytes() for p in world.step("masks").iterdir()} == before
    assert build_masks(world, sam, ParallelParams())["done"] == 2
    change_regions(world, 1, masks=["other"] * count)
    assert build_masks(world, sam, ParallelParams())["done"] == 1
    change_regions(world, 1, source="another detector")  # which KEY.json names
    assert build_masks(world, sam, ParallelParams())["done"] == 1


def test_artworks_without_similarity_are_rejected_with_a_reason(world: Paths) -> None:
    missing = schema.artwork_key("Drawn", "ada_title-2")
    write_similarity(world, skip=missing)
    counts = build_masks(world, MasksParams(), ParallelParams())
    assert counts["reasons"] == {"no-similarity": 1} and counts["kept"] == 4
    assert missing not in samples(world)


def test_steps_in_the_wrong_order_are_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the utterances step first"):
        build_masks(Paths(data=tmp_path), MasksParams(), ParallelParams())
    paths = write_world(tmp_path)
    with pytest.raises(UserError, match="run the similarity step first"):
        build_masks(paths, MasksParams(), ParallelParams())


def test_the_shard_function_travels() -> None:
    """Dask pickles it."""
    assert pickle.loads(pickle.dumps(paint_shard)) is paint_shard  # noqa: S301
