"""Scores over training seeds against closed forms, SciPy, plain loops and simulated truth."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.score.params import StatisticsParams
from model.score.result_tables import item_table, text_table
from model.score.statistics.bootstrap import cell_intervals, compare
from model.score.statistics.cells import ScoreCells, mask_cells, score_cells
from model.score.statistics.seeds import SeedScores, over_seeds, reach_of_t, read_cells, two_sided
from pipeline.common.errors import UserError
from pipeline.common.files import write_parquet
from pipeline.common.sums import write_sums
from tests.model.score.statistics.test_bootstrap import item_rows, scores_of, text_rows

BY_PAINTING = StatisticsParams(resamples=400, unit="painting")


# ---- Student's t -----------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 2.5, 4.303, 12.7, 60.0])
def test_one_and_two_degrees_of_freedom_have_closed_forms(t: float) -> None:
    assert two_sided(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), abs=1e-9)
    assert two_sided(-t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-9)


@pytest.mark.parametrize(("freedom", "t"), [(1, 12.706), (4, 2.776), (30, 2.042), (math.inf, 1.960)])
def test_it_is_the_printed_table(freedom: float, t: float) -> None:
    assert reach_of_t(0.95, freedom) == pytest.approx(t, abs=5e-4)
    assert two_sided(t, freedom) == pytest.approx(0.05, abs=5e-5)


# ---- made-up scores --------------------------------------------------------------------------------


def cells(methods: dict[str, np.ndarray], paintings: np.ndarray) -> ScoreCells:
    """Cells of IoUs (N,) by method, at the fixed threshold and, the same, at the chosen one."""
    found = []
    for method, ious in methods.items():
        columns = dict.fromkeys(("iou_box", "iou_seg", "iou_box_val", "iou_seg_val"), ious)
        found += mask_cells(method, columns)
    names = [f"p{number}" for number in paintings.tolist()]
    keys = [f"{name}-{place}" for place, name in enumerate(names)]
    return ScoreCells(keys, names, ["awe"] * len(names), found)


def world(rng: np.random.Generator, seeds: int, spread: float) -> list[ScoreCells]:
    """Method "a" is 0.05 better than "b" in truth; paintings of two items, seeds of deviation `spread`."""
    paintings = np.repeat(np.arange(30), 2)
    common = rng.normal(0, 0.1, 30)[paintings] + rng.normal(0, 0.05, 60)
    tables = []
    for _ in range(seeds):
        drawn = {
            name: mean + common + rng.normal(0, 0.05, 60) + rng.normal(0, spread)
            for name, mean in (("a", 0.55), ("b", 0.5))
        }
        tables.append(cells(drawn, paintings))
    return tables


def test_one_seed_is_the_bootstrap() -> None:
    table = world(np.random.default_rng(0), 1, 0.0)[0]
    scores = over_seeds([table], BY_PAINTING)
    found = list(cell_intervals(table, BY_PAINTING))
    assert len(found) == len(table.cells) == len(scores.means)
    for cell, told, _ in found:
        own = scores.estimate((cell.method, cell.column))
        assert (own["value"], own["low"], own["high"]) == (told["value"], told["low"], told["high"])
    for row in compare(found, BY_PAINTING):
        own = scores.difference((row["first"], row["column"]), (row["second"], row["column"]))
        assert own == {name: row[name] for name in ("difference", "low", "high", "p")}


def test_a_mean_over_seeds_by_hand() -> None:
    """One item a painting, so that the bootstrap's variance of a mean is the items' variance over N."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    a, b = (rng.uniform(0.1, 0.5, (3, 200)) + np.array([[0.0], [0.06], [0.1]]) for _ in range(2))
    tables = [cells({"a": a[s], "b": b[s]}, np.arange(200)) for s in range(3)]
    scores = over_seeds(tables, StatisticsParams(resamples=20_000, unit="painting"))
    mean = scores.means["a", "seg_iou"]
    assert mean.by_seed == pytest.approx(tuple(100 * a.mean(axis=1)))
    items = (100 * a).mean(axis=0).var() / 200
    seeds = (100 * a).mean(axis=1).var(ddof=1) / 3
    freedom = (items + seeds) ** 2 / (items**2 / 199 + seeds**2 / 2)
    reach = stats.t.ppf(0.975, freedom) * math.sqrt(items + seeds)
    told = scores.estimate(("a", "seg_iou"))
    assert told["value"] == pytest.approx(100 * a.mean())
    assert told["high"] - told["value"] == pytest.approx(reach, rel=0.03)

    items = (100 * (a - b)).mean(axis=0).var() / 200
    by_method = [(100 * x).mean(axis=1).var(ddof=1) / 3 for x in (a, b)]
    variance = items + sum(by_method)
    freedom = variance**2 / (items**2 / 199 + sum(part**2 / 2 for part in by_method))
    told = scores.difference(("a", "seg_iou"), ("b", "seg_iou"))
    assert told["difference"] == pytest.approx(100 * (a.mean() - b.mean()))
    wanted = 2 * stats.t.sf(abs(told["difference"]) / math.sqrt(variance), freedom)
    assert told["p"] == pytest.approx(wanted, rel=0.03)
    assert told["high"] - told["low"] == pytest.approx(
        2 * stats.t.ppf(0.975, freedom) * math.sqrt(variance), rel=0.03
    )


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.1])
def test_intervals_hold_the_truth_as_often_as_they_say(spread: float) -> None:
    """Whether paintings decide, seeds do, or both: of 200 worlds about 95 % (190 ± 3)."""
    rng = np.random.default_rng(2)
    few = StatisticsParams(resamples=100, unit="painting")
    inside, rejected = 0, 0
    for _ in range(200):
        scores = over_seeds(world(rng, 3, spread), few)
        told = scores.difference(("a", "seg_iou"), ("b", "seg_iou"))
        inside += told["low"] <= 5.0 <= told["high"]
        rejected += (told["p"] < 0.05) != (told["low"] > 0 or told["high"] < 0)
    assert inside >= 0.91 * 200
    assert rejected == 0  # an interval without 0 and p < 0.05 are the same statement


def test_more_spread_between_seeds_is_a_wider_interval_and_one_seed_knows_nothing_of_it() -> None:
    calm, wild = (world(np.random.default_rng(3), 3, spread) for spread in (0.0, 0.1))

    def width(tables: list[ScoreCells]) -> float:
        told = over_seeds(tables, BY_PAINTING).difference(("a", "seg_iou"), ("b", "seg_iou"))
        return told["high"] - told["low"]

    assert width(wild) > 3 * width(calm)
    assert width(wild[:1]) < width(wild)


def test_what_is_the_same_with_every_seed_was_not_trained() -> None:
    """The teacher's row in every seed's scores: no seeds' part, and no three votes for one prediction."""
    tables = world(np.random.default_rng(4), 3, 0.05)
    teacher = cells({"t": np.linspace(0, 1, 60)}, np.repeat(np.arange(30), 2))
    tables = [ScoreCells(t.keys, t.paintings, t.emotions, [*t.cells, *teacher.cells]) for t in tables]
    scores = over_seeds(tables, BY_PAINTING)
    alone = over_seeds([teacher], BY_PAINTING)
    assert len(scores.means["t", "seg_iou"].by_seed) == 1 and len(scores.means["a", "seg_iou"].by_seed) == 3
    assert scores.estimate(("t", "seg_iou")) == alone.estimate(("t", "seg_iou"))


def test_a_method_may_be_there_for_some_seeds_only() -> None:
    tables = world(np.random.default_rng(5), 3, 0.05)
    rest = [cell for cell in tables[2].cells if cell.method == "a"]
    tables[2] = ScoreCells(tables[2].keys, tables[2].paintings, tables[2].emotions, rest)
    scores = over_seeds(tables, BY_PAINTING)
    assert [len(scores.means[m, "seg_iou"].by_seed) for m in ("a", "b")] == [3, 2]
    assert np.isfinite(scores.difference(("a", "seg_iou"), ("b", "seg_iou"))["p"])


def test_shares_on_which_all_agree_and_methods_without_a_difference() -> None:
    paintings = np.arange(40)
    tables = [cells({"a": np.full(40, 0.3 + s / 100), "b": np.full(40, 0.3)}, paintings) for s in range(3)]
    scores = over_seeds(tables, BY_PAINTING)
    told = scores.estimate(("a", "seg_pr25"))
    assert (told["value"], told["high"]) == (100.0, 100.0) and told["low"] == pytest.approx(91.19, abs=0.01)
    assert scores.difference(("a", "seg_pr50"), ("b", "seg_pr50"))["p"] == 1.0


def test_other_items_are_refused() -> None:
    tables = world(np.random.default_rng(6), 2, 0.1)
    rows = np.arange(59)
    with pytest.raises(UserError, match="60 and 59"):
        over_seeds([tables[0], tables[1].part(rows)], BY_PAINTING)


# ---- files -----------------------------------------------------------------------------------------


def written(folder: Path, scores: Any) -> Path:
    tables = {"items.parquet": item_table(scores), "texts.parquet": text_table(scores)}
    for name, table in tables.items():
        write_parquet(folder / name, table)
    write_sums(folder, tables)
    return folder


@pytest.mark.parametrize("whole", [True, False])
def test_cells_read_from_the_steps_files_are_those_in_memory(whole: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    rows = []
    for method in ("a", "b", "mute"):
        seg: list[float | None] = [*rng.random(30).round(3).tolist()]
        seg[4] = None  # no usable label
        rows += item_rows(method, seg, method != "mute")
    texts = text_rows("a", 30, 1, 1, whole) + text_rows("b", 30, 2, 2, whole)
    gone = (f"{2:016x}", "fear")
    scores = scores_of(rows, [row for row in texts if (row["key"], row["emotion"]) != gone])
    wanted, found = score_cells(scores), read_cells(written(tmp_path, scores))
    assert (found.keys, found.paintings, found.emotions) == (wanted.keys, wanted.paintings, wanted.emotions)
    assert [(c.method, c.column) for c in found.cells] == [(c.method, c.column) for c in wanted.cells]
    for one, other in zip(found.cells, wanted.cells, strict=True):
        assert np.array_equal(one.counts, other.counts)
        assert one.value(one.counts.sum(axis=0)) == other.value(other.counts.sum(axis=0))


def test_absent_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"items\.parquet does not exist; run the score step"):
        read_cells(tmp_path)
    folder = written(tmp_path / "score", scores_of(item_rows("a", [0.1, 0.9]), []))
    data = (folder / "texts.parquet").read_bytes()
    (folder / "texts.parquet").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UserError, match=r"texts\.parquet.*Run the score step again"):
        read_cells(folder)


def test_means_are_one_value_a_training() -> None:
    scores: SeedScores = over_seeds(world(np.random.default_rng(8), 2, 0.1), BY_PAINTING)
    for mean in scores.means.values():
        assert mean.value == pytest.approx(sum(mean.by_seed) / 2)
