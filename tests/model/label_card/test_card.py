"""The label card: its sweep against plain arithmetic, its choice in worlds whose best is known."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cli import app
from model.label_card.card import make_card
from model.label_card.page import card_text
from model.label_card.sweep import LabelCardParams, level_ious, recipes
from model.metrics.segmentation import scaled, score_maps
from model.metrics.thresholds import grid, sweep_ious
from model.score.params import ScoreParams
from pipeline.common import rle, schema
from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes, write_json, write_parquet
from pipeline.common.params import Paths
from pipeline.common.tars import npy_bytes
from pipeline.masks.recipe import MasksParams, pseudo_masks, weigh
from tests.worlds.indexed_shards import EMOTIONS_OF, SIZE, artworks, paths_in, truth_of, write_sources

COUNT = 8
FRAME = 48
"""Long side of the pictures: masks and labels then have one size, and the sweep is the protocol itself."""
MASKS = MasksParams(long_side=FRAME)
SCORE = ScoreParams(sweep=20)
FEW = LabelCardParams(temperatures=(0.0, 0.05), relatives=(0.0,), finalists=2)


def box_of(truth: np.ndarray) -> list[float]:
    ys, xs = np.nonzero(truth)
    return [float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)]


def write_world(
    paths: Paths, kind: str = "random", folder: Path | None = None, rle_masks: bool = False
) -> None:
    """Utterances, APOLO (every other artwork is val), regions and similarities of eight artworks.

    kind: random cosines; or "pile": the true box has the highest cosine, but a pile of weaker boxes lies
    elsewhere, so that a sum finds the pile and a maximum the truth.
    """
    data = Paths(data=folder) if folder else paths
    rng = np.random.default_rng(3 if folder is None else 4)
    if folder is None:
        write_sources(paths, COUNT)
        records = json.loads((paths.apolo / "apolo.json").read_text())
        for number, record in enumerate(records):
            record["split"] = "val" if number // 2 % 2 == 0 else "test"
        write_json(paths.apolo / "apolo.json", records)
    works, regions, similar = [], [], []
    for number, (key, painting) in enumerate(artworks(COUNT)):
        emotions = EMOTIONS_OF[number % len(EMOTIONS_OF)]
        truths = [truth_of(number, emotion) for emotion in emotions]
        boxes = [box_of(truth) for truth in truths] + [[2.0, 25.0, 46.0, 31.0]] * 6
        masks = None
        if rle_masks:  # the boxes are too large, their masks are right
            masks = [*rle.encode(np.stack(truths)), *[None] * 6]
            boxes = [[x1 - 3, y1 - 3, x2 + 3, y2 + 3] for x1, y1, x2, y2 in boxes]
        about = {"key": key, "art_style": "Drawn", "painting": painting, "path": "p", "split": "test"}
        works.append(about | {"height": SIZE[0], "width": SIZE[1], "shard": number % 2})
        regions.append(
            {"key": key, "boxes": boxes, "masks": masks, "source": "drawn"} | {"shard": number % 2}
        )
        for place, emotion in enumerate(emotions):
            if kind == "random":
                scores = rng.normal(0.1, 0.1, len(boxes))
            else:
                scores = np.array([0.1, 0.1, *[0.25] * 6])
                scores[place] = 0.3
            row = {"key": key, "emotion": emotion, "artemis_ids": [1], "scores": scores, "shard": number % 2}
            similar.append(row)
    table = pa.Table.from_pylist(works, schema=schema.ARTWORKS)
    write_parquet(data.step("utterances") / "artworks.parquet", table)
    lineage = {"lineage": json.dumps({"clip": {"name": "made <up>"}, "utterances": "average"})}
    for shard in range(2):
        for step, rows, columns in (
            ("regions", regions, schema.REGIONS),
            ("similarity", similar, schema.SIMILARITY.with_metadata(lineage)),
        ):
            here = [row for row in rows if row["shard"] == shard]
            path = data.step(step) / f"{schema.shard_stem(shard)}.parquet"
            write_parquet(path, pa.Table.from_pylist(here, schema=columns))


def items_of(split: str) -> list[tuple[int, str]]:
    """(number of the artwork, emotion)"""
    wanted = 0 if split == "val" else 1
    return [(n, e) for n in range(COUNT) for e in EMOTIONS_OF[n % len(EMOTIONS_OF)] if n % 2 == wanted]


def rows_of(paths: Paths, step: str) -> list[dict[str, Any]]:
    return [
        row
        for path in sorted(paths.step(step).glob("*.parquet"))
        for row in pa.parquet.read_table(path).to_pylist()
    ]


def plain_maps(paths: Paths, split: str, recipe: MasksParams) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(pseudo-masks, labels) of a split, one item at a time."""
    boxes = {row["key"]: np.array(row["boxes"], np.float32) for row in rows_of(paths, "regions")}
    cosines = {(row["key"], row["emotion"]): row["scores"] for row in rows_of(paths, "similarity")}
    names = artworks(COUNT)
    maps = [
        pseudo_masks(boxes[names[n][0]], np.array([cosines[names[n][0], e]]), *SIZE, recipe)[0]
        for n, e in items_of(split)
    ]
    return maps, [truth_of(n, e) for n, e in items_of(split)]


# ---- the sweep -------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 5, 256]), st.sampled_from([1, 3, 20, 100]))
def test_histograms_of_levels_say_what_pixels_say(seed: int, levels: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    map_ = rng.integers(0, 256, levels).astype(np.uint8)[rng.integers(0, levels, (7, 9))]
    truth = rng.random((7, 9)) < rng.choice([0.0, 0.3, 1.0])
    expected = sweep_ious(scaled(map_, 7, 9), truth, grid(steps))
    np.testing.assert_array_equal(level_ious(map_, truth, grid(steps)), expected)


def test_every_recipe_is_tried_once_and_differs() -> None:
    rng = np.random.default_rng(0)
    cosines = rng.normal(0.0, 0.2, (3, 9))
    tried = recipes(MASKS, LabelCardParams(), with_masks=False)
    assert MASKS in tried and {recipe.support for recipe in tried} == {"box"}
    weights = {(recipe.aggregate, *np.round(weigh(cosines, recipe)[0], 12)) for recipe in tried}
    assert len(weights) == len(tried) == 3 * (4 + 6) * 2
    assert len(recipes(MASKS, LabelCardParams(), with_masks=True)) == 2 * len(tried)
    odd = MasksParams(temperature=0.033, long_side=64)
    assert recipes(odd, LabelCardParams(), with_masks=False)[-1] == odd
    only_masks = MasksParams(support="sam")
    assert only_masks not in recipes(only_masks, LabelCardParams(), with_masks=False)


def test_the_sweep_equals_the_protocol_recipe_by_recipe(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_world(paths)
    card = make_card(paths, MASKS, SCORE, FEW)
    assert card["swept"]["recipes"] == len(card["sweep"]) == 3 * 5 and card["items"] == {"val": 8, "test": 8}
    means = []
    for row in card["sweep"]:
        recipe = MasksParams(
            **{name: row[name] for name in ("support", "aggregate", "negatives", "center", "temperature")},
            long_side=FRAME,
        )
        maps, labels = plain_maps(paths, "val", recipe)
        found = {t: score_maps(maps, labels, threshold=t) for t in grid(SCORE.sweep).tolist()}
        mean = {t: 100 * scores.iou_seg.mean() for t, scores in found.items()}
        assert row["mean_iou"] == pytest.approx(max(mean.values()))
        assert row["mean_iou_fixed"] == pytest.approx(mean[0.35])
        assert row["seg_pr25"] == pytest.approx(found[row["threshold"]].rates()["seg_pr25"])
        assert row["seg_pr50"] == pytest.approx(found[row["threshold"]].rates()["seg_pr50"])
        means.append(row["mean_iou"])
    assert means == sorted(means, reverse=True)


def test_finalists_and_the_current_params_are_scored_by_the_protocol(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_world(paths)
    odd = MasksParams(aggregate="mean", temperature=0.9, long_side=24)  # half the labels' size
    card = make_card(paths, odd, SCORE, FEW)
    assert [row["place"] for row in card["final"]] == [*sorted({1, 2, *card["current"]}), None]
    row = next(row for row in card["final"] if row["place"] == card["current"][0])
    assert row["temperature"] == 0.9
    for split in ("val", "test"):
        maps, labels = plain_maps(paths, split, odd)
        fixed = score_maps(maps, labels, threshold=SCORE.threshold)
        assert {c: row[split][c] for c in fixed.rates()} == pytest.approx(fixed.rates())
        chosen = score_maps(maps, labels, threshold=row["val"]["threshold_val"])
        assert row[split]["mean_iou"] == pytest.approx(100 * chosen.iou_seg.mean())
        assert row[split]["box_pr50_val"] == pytest.approx(chosen.rates()["box_pr50"])
    whole = card["final"][-1]
    share = 100 * np.mean([truth_of(n, e).mean() for n, e in items_of("test")])
    assert whole["recipe"] == "entire-artwork" and whole["test"]["mean_iou"] == pytest.approx(share)


# ---- the choice ------------------------------------------------------------------------------------


def test_it_finds_the_recipe_that_finds_the_truth(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_world(paths, "pile")
    card = make_card(paths, MASKS, ScoreParams(), LabelCardParams())
    best = card["best"]
    assert best["aggregate"] != "sum" or best["temperature"] > 0 or best["relative"] > 0
    assert best["val"]["mean_iou"] == best["test"]["mean_iou"] == 100.0 == best["test"]["seg_pr50_val"]
    mine = next(row for row in card["final"] if row["place"] in card["current"])
    assert mine["place"] > 1 and mine["test"]["mean_iou"] < 50
    page = (paths.metrics / "label_card.md").read_text()
    assert page == card_text(card) and "chosen on val alone" in page and "made &lt;up&gt;" in page
    assert f"aggregate: {best['aggregate']}" in page
    assert f"at place {card['current'][0]} of {len(card['sweep'])}" in page


def test_test_labels_have_no_say_in_the_choice(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_world(paths)
    before = make_card(paths, MASKS, SCORE, FEW)
    names = artworks(COUNT)
    for number, emotion in items_of("test"):
        label = np.zeros(SIZE, np.uint8)
        label[:3, :3] = 1
        path = paths.apolo / "apolo_pixel_map" / f"{names[number][1]}_{emotion}.npy"
        write_bytes(path, npy_bytes(label))
    after = make_card(paths, MASKS, SCORE, FEW)
    assert after["sweep"] == before["sweep"]
    assert [row["val"] for row in after["final"]] == [row["val"] for row in before["final"]]
    assert after["best"]["place"] == before["best"]["place"]
    assert after["best"]["test"]["mean_iou"] != before["best"]["test"]["mean_iou"]


def test_masks_of_regions_are_tried_where_there_are_some(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_world(paths, "pile", rle_masks=True)
    card = make_card(paths, MasksParams(support="sam", long_side=FRAME), SCORE, FEW)
    assert card["sources"][0]["region_masks"] and card["swept"]["recipes"] == 2 * 3 * 5
    assert card["best"]["support"] == "sam" and card["best"]["test"]["mean_iou"] == 100.0
    assert 40 < max(row["mean_iou"] for row in card["sweep"] if row["support"] == "box") < 80
    mine = next(row for row in card["final"] if row["place"] in card["current"])
    assert (mine["support"], mine["aggregate"]) == ("sam", "sum") and mine["test"]["mean_iou"] < 50


def test_a_level_makes_the_fixed_threshold_the_best_one(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_world(paths)
    before = make_card(paths, MASKS, SCORE, FEW)
    mine = next(row for row in before["sweep"] if row["place"] == before["current"][0])
    bent = dataclasses.replace(MASKS, level=mine["threshold"])
    after = make_card(paths, bent, SCORE, FEW)
    assert len(after["sweep"]) == len(before["sweep"]) + 1
    row = next(row for row in after["sweep"] if row["place"] == after["current"][0])
    assert row["level"] == mine["threshold"] != 0.35
    assert row["mean_iou_fixed"] == pytest.approx(mine["mean_iou"], abs=0.5)
    assert row["mean_iou_fixed"] > mine["mean_iou_fixed"]
    page = card_text(after)
    assert f", level {row['level']:g} (current params)" in page


def test_how_far_a_recipe_is_ahead_of_the_current_params(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_world(paths, "pile")
    card = make_card(paths, MASKS, ScoreParams(), LabelCardParams())
    mine = next(row for row in card["final"] if row["place"] in card["current"])
    for split in ("val", "test"):
        ahead = card["best"]["ahead_of_current"][split]["mean_iou"]
        assert ahead["difference"] == pytest.approx(100 - mine[split]["mean_iou"])
        assert 0 < ahead["low"] <= ahead["difference"] <= ahead["high"]
        assert mine["ahead_of_current"][split]["seg_pr50"] == {"difference": 0, "low": 0, "high": 0}
    assert "Ahead of the current params by" in card_text(card)


# ---- several folders, and what goes wrong ----------------------------------------------------------


def test_folders_are_compared_on_the_same_items(tmp_path: Path) -> None:
    paths = paths_in(tmp_path / "one")
    write_world(paths, "pile")
    other = tmp_path / "two" / "data"
    write_world(paths, "random", folder=other)
    card = make_card(paths, MASKS, SCORE, FEW, [other, paths.data])
    assert [source["data"] for source in card["sources"]] == ["two/data", "one/data"]
    assert str(tmp_path) not in (paths.metrics / "label_card.md").read_text()
    assert card["sources"][0]["detector"] == ["drawn"]
    assert len(card["sweep"]) == 2 * 3 * 5 and card["best"]["source"] == 1
    assert len(card["current"]) == 2  # the params' recipe has a place in each
    alone = make_card(paths, MASKS, SCORE, FEW, [other])
    assert [{**row, "place": 0} for row in alone["sweep"]] == [
        {**row, "place": 0} for row in card["sweep"] if row["source"] == 0
    ]


def test_an_item_without_similarities_counts_as_nothing_found_and_is_named(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_world(paths, "pile")
    whole = make_card(paths, MASKS, SCORE, FEW)
    key, _ = artworks(COUNT)[0]  # a val artwork with two items, of eight
    path = paths.step("similarity") / "000000.parquet"
    table = pa.parquet.read_table(path)
    write_parquet(path, table.filter(pa.compute.not_equal(table["key"], key)))
    card = make_card(paths, MASKS, SCORE, FEW)
    assert card["sources"][0]["items_without"] == 2
    assert card["sources"][0]["without"] == [f"{key}_{emotion}" for emotion in sorted(EMOTIONS_OF[0])]
    assert card["items"] == {"val": 8, "test": 8}
    assert card["best"]["val"]["mean_iou"] == pytest.approx(whole["best"]["val"]["mean_iou"] * 6 / 8)
    assert "2 items have nothing here, IoU 0" in card_text(card)


def test_without_val_items_nothing_can_be_chosen(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_world(paths)
    records = json.loads((paths.apolo / "apolo.json").read_text())
    write_json(paths.apolo / "apolo.json", [r | {"split": "test"} for r in records])
    with pytest.raises(UserError, match="no val item"):
        make_card(paths, MASKS, SCORE, FEW)


def test_a_folder_of_other_artworks_is_named(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_world(paths)
    val = pa.array([artworks(COUNT)[n][0] for n, _ in items_of("val")])
    for path in paths.step("similarity").glob("*.parquet"):
        table = pa.parquet.read_table(path)
        others = pa.compute.invert(pa.compute.is_in(table["key"], value_set=val))
        write_parquet(path, table.filter(others))
    with pytest.raises(UserError, match="of none of the 8 val items"):
        make_card(paths, MASKS, SCORE, FEW)


def test_a_folder_without_similarities_is_named(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_world(paths)
    (paths.step("similarity") / "000001.parquet").unlink()
    with pytest.raises(UserError, match="similarity step"):
        make_card(paths, MASKS, SCORE, FEW)
    with pytest.raises(UserError, match="--data"):
        make_card(paths, MASKS, SCORE, FEW, [tmp_path / "nowhere"])


def test_the_command_prints_only_json_and_writes_the_same_bytes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = paths_in(tmp_path)
    write_world(paths)
    monkeypatch.chdir(tmp_path)
    folders = {"apolo": "apolo", "wikiart": "wikiart", "artemis": "artemis.csv"}
    sections = {"paths": folders, "masks": {"long_side": FRAME}, "label_card": {"aggregates": ["sum"]}}
    Path("params.yaml").write_text(json.dumps(sections))
    first = CliRunner().invoke(app, ["label-card", "--json"], catch_exceptions=False)
    card = json.loads(first.stdout)
    assert card == json.loads((paths.metrics / "label_card.json").read_text())
    assert {row["aggregate"] for row in card["sweep"]} == {"sum"}
    written = {path.name: path.read_bytes() for path in paths.metrics.iterdir()}
    again = CliRunner().invoke(app, ["label-card", "--data", "data"], catch_exceptions=False)
    assert again.stdout.strip() == card_text(card).strip()
    assert {path.name: path.read_bytes() for path in paths.metrics.iterdir()} == written
