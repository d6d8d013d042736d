"""Statistics against scipy, closed forms and plain loops."""

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.metrics.text import TextScores
from model.metrics.text_counts import bleu, bleu_counts, meteor
from model.score.explanations import Draw, MethodExplanations
from model.score.params import StatisticsParams
from model.score.score_masks import MapTable
from model.score.scores import Scores
from model.score.statistics import page
from model.score.statistics.bootstrap import (
    bootstrap_p,
    cell_intervals,
    histograms,
    holm,
    interval,
    mcnemar,
    resample,
    summarise,
    units,
)
from model.score.statistics.cells import score_cells
from pipeline.releases.apolo import ApoloItem


@pytest.fixture
def scipy_stats() -> Any:
    return pytest.importorskip("scipy.stats")


EMOTIONS = ("awe", "fear", "sadness")
FEW = StatisticsParams(resamples=400)


def item_rows(method: str, seg: Sequence[float | None], chosen: bool = True) -> list[dict[str, Any]]:
    """IoUs of one method, two items a painting; boxes lie a bit above pixels; None: no usable label."""
    return [
        {
            "method": method,
            "key": f"{i // 2:016x}",
            "painting": f"p{i // 2}",
            "emotion": EMOTIONS[i % 3],
            "split": "test",
            "iou_seg": iou,
            "iou_box": None if iou is None else min(1.0, iou + 0.1),
            "iou_seg_val": iou if chosen else None,
            "iou_box_val": iou if chosen else None,
        }
        for i, iou in enumerate(seg)
    ]


def text_rows(method: str, count: int, draws: int, seed: int, whole: bool = True) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    rows = []
    for i, d in itertools.product(range(count), range(draws)):
        said = " ".join(rng.choice(list("abcdef"), rng.integers(1, 8)))
        stats = np.zeros(23)
        for place, value in zip((0, 1, 4, 5, 20, 21, 22), (5, 6, 3, 3, i % 2 + 1, 3, 3), strict=True):
            stats[place] = value
        rows.append(
            {
                "method": method,
                "key": f"{i // 2:016x}",
                "emotion": EMOTIONS[i % 3],
                "draw": d,
                "explanation": said,
                "ea": str(rng.choice(EMOTIONS)) if rng.random() < 0.9 else None,
                "clipscore": None if i == 1 else float(rng.uniform(40, 70)),
                "rouge_l": float(rng.uniform(0, 100)) if whole else None,
                "bleu": bleu_counts(said, ("a b c d e f", "f e d")) if whole else None,
                "meteor": stats.tolist() if whole else None,
            }
        )
    return rows


def scores_of(rows: list[dict[str, Any]], texts: list[dict[str, Any]]) -> Scores:
    """The `Scores` that rows of IoUs and rows of judged explanations are."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    first = [row for row in rows if row["method"] == methods[0]]
    items = [
        ApoloItem(row["painting"], row["key"], row["emotion"], row["split"], (), (), Path()) for row in first
    ]

    def ious(name: str) -> np.ndarray:
        values = [[row[name] for row in rows if row["method"] == method] for method in methods]
        return np.array(values, dtype=np.float64)

    masks = MapTable(
        *(ious("iou_seg"), ious("iou_box"), ious("iou_seg_val"), ious("iou_box_val")),
        thresholds=[None] * len(methods),
        problems=[[None] * len(items) for _ in methods],
        labels=["empty" if row["iou_seg"] is None else None for row in first],
    )
    explained = {
        method: explanations_of([row for row in texts if row["method"] == method])
        for method in dict.fromkeys(row["method"] for row in texts)
    }
    return Scores(items, methods, masks, [None] * len(methods), explained, [])


def explanations_of(rows: list[dict[str, Any]]) -> MethodExplanations:
    draws = []
    for d in sorted({row["draw"] for row in rows}):
        mine = [row for row in rows if row["draw"] == d]
        parts = {name: np.array([row[name] for row in mine], dtype=float) for name in COUNTED}
        whole = mine[0]["bleu"] is not None
        draws.append(
            Draw(
                texts=[row["explanation"] for row in mine],
                emotions=[row["ea"] for row in mine],
                clipscores=parts["clipscore"],
                scores=TextScores({}, parts["bleu"], parts["meteor"], parts["rouge_l"]) if whole else None,
            )
        )
    return MethodExplanations(draws, {})


COUNTED = ("clipscore", "bleu", "meteor", "rouge_l")

Made = tuple[list[dict[str, Any]], list[dict[str, Any]]]
"""(rows of IoUs, rows of judged explanations)."""


@pytest.fixture(scope="module")
def made() -> Made:
    """Two methods that explain, one with two draws, and one that only segments; item 4 has no label."""
    rng = np.random.default_rng(0)
    seg: dict[str, list[float | None]] = {m: rng.random(30).round(3).tolist() for m in ("a", "b", "mute")}
    for values in seg.values():
        values[4] = None
    rows = [row for method, values in seg.items() for row in item_rows(method, values, method != "mute")]
    texts = [
        r for r in text_rows("a", 30, 1, 1) + text_rows("b", 30, 2, 2) if (r["key"], r["emotion"]) != GONE
    ]
    return rows, texts


@pytest.fixture(scope="module")
def world(made: Made) -> Scores:
    return scores_of(*made)


GONE = (f"{2:016x}", EMOTIONS[4 % 3])


def by_name(world: Scores, params: StatisticsParams) -> dict[tuple[str, str], Any]:
    return {(c.method, c.column): (c, told, v) for c, told, v in cell_intervals(score_cells(world), params)}


def test_every_cell_equals_its_definition(world: Scores, made: Made) -> None:
    found = {name: told["value"] for name, (_, told, _) in by_name(world, FEW).items()}
    items = [r for r in made[0] if r["iou_seg"] is not None]
    for method in ("a", "b", "mute"):
        seg = [r["iou_seg"] for r in items if r["method"] == method]
        assert found[method, "seg_pr25"] == pytest.approx(100 * np.mean(np.array(seg) >= 0.25))
        assert found[method, "seg_iou"] == pytest.approx(100 * np.mean(seg))
        box = [r["iou_box"] for r in items if r["method"] == method]
        assert found[method, "box_pr50"] == pytest.approx(100 * np.mean(np.array(box) >= 0.5))
    assert ("a", "seg_pr25_val") in found
    assert not {("mute", "seg_pr25_val"), ("mute", "ea"), ("mute", "bleu1")} & found.keys()
    for method, draws in (("a", 1), ("b", 2)):
        mine = [[r for r in made[1] if (r["method"], r["draw"]) == (method, d)] for d in range(draws)]
        wanted = [100 * np.mean([r["ea"] == r["emotion"] for r in draw]) for draw in mine]
        assert found[method, "ea"] == pytest.approx(np.mean(wanted))
        seen = [np.nanmean([np.nan if r["clipscore"] is None else r["clipscore"] for r in d]) for d in mine]
        assert found[method, "clipscore"] == pytest.approx(np.mean(seen))
        scores = [bleu(np.sum([r["bleu"] for r in draw], axis=0)) for draw in mine]
        for n in range(4):
            assert found[method, f"bleu{n + 1}"] == pytest.approx(np.mean(scores, axis=0)[n])
        wanted = [meteor(np.sum([r["meteor"] for r in draw], axis=0)) for draw in mine]
        assert found[method, "meteor"] == pytest.approx(np.mean(wanted))
        wanted = [np.mean([r["rouge_l"] for r in draw]) for draw in mine]
        assert found[method, "rouge_l"] == pytest.approx(np.mean(wanted))


@pytest.mark.parametrize("unit", ["item", "painting"])
def test_resamples_equal_a_plain_loop_over_the_same_draws(world: Scores, unit: Any) -> None:
    table = score_cells(world)
    params = StatisticsParams(resamples=100, unit=unit, seed=3)
    found = resample(table, params)
    groups = units(table, unit).tolist()
    members = [[i for i, g in enumerate(groups) if g == u] for u in range(max(groups) + 1)]
    assert len(members) == (29 if unit == "item" else 15)
    drawn = np.random.default_rng(3).integers(0, len(members), size=(100, len(members)))
    for r in range(0, 100, 9):
        rows = [i for u in drawn[r].tolist() for i in members[u]]
        wanted = [cell.value(cell.counts[rows].sum(axis=0)) for cell in table.cells]
        assert np.allclose(found[:, r], wanted, atol=1e-9)


def test_the_same_seed_gives_the_same_numbers_and_blocks_do_not_matter(
    world: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = score_cells(world)
    whole = resample(table, FEW)
    assert np.array_equal(whole, resample(table, FEW))
    monkeypatch.setattr("model.score.statistics.bootstrap.DRAWN", 29 * 7)
    assert np.allclose(whole, resample(table, FEW), rtol=1e-12)
    assert not np.array_equal(whole, resample(table, StatisticsParams(resamples=400, seed=1)))


def test_the_interval_of_a_share_is_the_binomials(scipy_stats: Any) -> None:
    """Resampling k right of n items draws Binomial(n, k / n): its quantiles are the interval's ends."""
    right = [1.0] * 130 + [0.0] * 270
    table = score_cells(scores_of(item_rows("m", right), []))
    cells = {c.column: told for c, told, _ in cell_intervals(table, StatisticsParams(resamples=20_000))}
    low, high = (100 * scipy_stats.binom(400, 130 / 400).ppf(q) / 400 for q in (0.025, 0.975))
    assert cells["seg_pr50"]["low"] == pytest.approx(low, abs=0.5)
    assert cells["seg_pr50"]["high"] == pytest.approx(high, abs=0.5)
    assert cells["seg_pr50"]["value"] == 32.5


def test_a_share_on_which_all_items_agree_has_the_exact_interval(scipy_stats: Any) -> None:
    table = score_cells(scores_of(item_rows("m", [0.3] * 40), []))
    cells = {c.column: told for c, told, _ in cell_intervals(table, FEW)}
    for column, right in (("seg_pr25", 40), ("seg_pr50", 0)):
        wanted = scipy_stats.binomtest(right, 40).proportion_ci(0.95, method="exact")
        assert cells[column]["low"] == pytest.approx(100 * wanted.low, abs=1e-3)
        assert cells[column]["high"] == pytest.approx(100 * wanted.high, abs=1e-3)
    by_painting = StatisticsParams(resamples=400, unit="painting")
    wide = {c.column: told for c, told, _ in cell_intervals(table, by_painting)}["seg_pr50"]
    assert wide["high"] == pytest.approx(100 * scipy_stats.binomtest(0, 20).proportion_ci().high, abs=1e-3)


def test_the_interval_of_a_mean_is_scipys(scipy_stats: Any) -> None:
    values = np.random.default_rng(5).beta(2, 3, 300)
    table = score_cells(scores_of(item_rows("m", values.tolist()), []))
    cells = {c.column: told for c, told, _ in cell_intervals(table, StatisticsParams(resamples=10_000))}
    wanted = scipy_stats.bootstrap(
        (100 * values,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert cells["seg_iou"]["low"] == pytest.approx(wanted.low, abs=0.15)
    assert cells["seg_iou"]["high"] == pytest.approx(wanted.high, abs=0.15)


@pytest.mark.parametrize(
    "split", [(0, 0), (1, 0), (0, 7), (5, 5), (12, 3), (40, 61), (900, 1010), (2500, 2400)]
)
def test_mcnemar_equals_scipys_exact_binomial_test(split: tuple[int, int], scipy_stats: Any) -> None:
    wanted = scipy_stats.binomtest(split[0], sum(split), 0.5).pvalue if sum(split) else 1.0
    assert mcnemar(*split) == mcnemar(*reversed(split)) == pytest.approx(wanted, rel=1e-9)


def test_a_bootstrap_p_by_hand() -> None:
    assert bootstrap_p(np.arange(1.0, 100.0)) == pytest.approx(2 / 100)  # none of 99 at or below zero
    assert bootstrap_p(np.array([-1.0, 1.0, 1.0])) == 1.0
    assert bootstrap_p(np.zeros(50)) == 1.0
    assert bootstrap_p(np.array([1.0, np.nan, 2.0])) == pytest.approx(2 / 3)
    assert interval(np.array([np.nan]), 0.95) is None


def test_the_paired_bootstrap_agrees_with_the_normal_test_of_differences(scipy_stats: Any) -> None:
    rng = np.random.default_rng(8)
    one = rng.uniform(0.2, 0.8, 400)
    two = (one + rng.normal(0.012, 0.1, 400)).clip(0, 1)
    found = summarise(
        scores_of(item_rows("one", one.tolist()) + item_rows("two", two.tolist()), []), {}, StatisticsParams()
    )
    pair = next(row for row in found["pairs"] if row["column"] == "seg_iou")
    assert (pair["first"], pair["second"], pair["test"]) == ("one", "two", "bootstrap")
    assert pair["difference"] == pytest.approx(100 * (one - two).mean())
    assert pair["p"] == pytest.approx(scipy_stats.ttest_rel(one, two).pvalue, abs=0.015)
    half = 1.96 * 100 * (one - two).std(ddof=1) / math.sqrt(400)
    assert pair["high"] - pair["low"] == pytest.approx(2 * half, rel=0.05)
    wider = found["methods"]["one"]["seg_iou"]
    assert wider["high"] - wider["low"] > 1.3 * (pair["high"] - pair["low"])  # pairing is what it is for


def test_pairs_of_shares_count_the_items_that_one_method_alone_gets_right() -> None:
    one, two = [0.9, 0.9, 0.9, 0.1, 0.1, 0.6], [0.9, 0.1, 0.1, 0.1, 0.9, 0.4]
    world = scores_of(item_rows("one", one) + item_rows("two", two), [])
    pairs = {row["column"]: row for row in summarise(world, {}, FEW)["pairs"]}
    row = pairs["seg_pr50"]
    assert (row["only_first"], row["only_second"], row["test"]) == (3, 1, "mcnemar")
    assert row["p"] == row["p_holm"] == pytest.approx(2 * (1 + 4) / 16)
    assert row["difference"] == pytest.approx(100 * (4 - 2) / 6)
    by_painting = StatisticsParams(resamples=400, unit="painting")
    assert {row["test"] for row in summarise(world, {}, by_painting)["pairs"]} == {"bootstrap"}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=60)
def test_holm_by_its_definition(p_values: list[float]) -> None:
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    steps = [min(1.0, (len(order) - rank) * p_values[i]) for rank, i in enumerate(order)]
    wanted = {i: max(steps[: rank + 1]) for rank, i in enumerate(order)}
    assert holm(p_values) == pytest.approx([wanted[i] for i in range(len(p_values))])


def test_breakdowns_stand_on_their_own_items(world: Scores, made: Made) -> None:
    styles = {f"{i:016x}": ("Baroque" if i % 2 else "Cubism") for i in range(14)}  # one key has no style
    found = summarise(world, styles, FEW)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["items"] == 29
    items = [r for r in made[0] if r["iou_seg"] is not None and r["method"] == "a"]
    assert {e: part["items"] for e, part in found["by_emotion"].items()} == {
        "awe": 10,
        "fear": 9,
        "sadness": 10,
    }
    for emotion, part in found["by_emotion"].items():
        mine = [r["iou_seg"] >= 0.5 for r in items if r["emotion"] == emotion]
        cell = part["methods"]["a"]["seg_pr50"]
        assert cell["value"] == pytest.approx(100 * np.mean(mine))
        assert cell["low"] <= cell["value"] <= cell["high"]
    assert {style: part["items"] for style, part in found["by_style"].items()} == {
        "Baroque": 14,
        "Cubism": 13,
        "unknown": 2,
    }
    said = [r for r in made[1] if r["method"] == "b" and r["emotion"] == "fear"]
    wanted = 100 * np.mean([r["ea"] == "fear" for r in said])
    assert found["by_emotion"]["fear"]["methods"]["b"]["ea"]["value"] == pytest.approx(wanted)


def test_histograms_count_every_item_once() -> None:
    found = histograms(scores_of(item_rows("m", [0.0, 0.049, 0.05, 0.5, 0.999, 1.0, None]), []))
    counts = found["methods"]["m"]["seg"]
    assert (len(found["edges"]), sum(counts)) == (21, 6)
    assert {i: n for i, n in enumerate(counts) if n} == {0: 2, 1: 1, 10: 1, 19: 2}


def test_absent_metrics_are_absent_and_no_item_is_refused() -> None:
    items = item_rows("m", [0.3] * 6)
    world = scores_of(items, text_rows("m", 6, 1, 0, whole=False))
    columns = summarise(world, {}, FEW)["methods"]["m"]
    assert not {"bleu1", "meteor", "rouge_l"} & columns.keys()
    assert {"ea", "clipscore"} <= columns.keys()
    with pytest.raises(ValueError, match="no item counts"):
        summarise(scores_of(item_rows("m", [None] * 3), []), {}, FEW)


def test_the_page_says_what_the_statistics_say(world: Scores) -> None:
    found = summarise(world, {f"{i:016x}": "Op|Art" for i in range(15)}, FEW)
    text = page.markdown(found)
    cell = found["methods"]["b"]["ea"]
    assert f"{cell['value']:.1f} [{cell['low']:.1f}, {cell['high']:.1f}]" in text
    assert "95 % intervals over 400 resamples of 29 items, drawn by item" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[:2] for line in rows if line.startswith(("| a - m", "| b - m"))] == [
        ["| a - mute", "Seg Pr@25"],
        ["| b - mute", "Seg Pr@25"],
        ["| a - mute", "Seg Pr@50"],
        ["| b - mute", "Seg Pr@50"],
    ]
    assert "| Op\\|Art | 29 |" in text
    assert summarise(world, {f"{i:016x}": "Op|Art" for i in range(15)}, FEW) == found
