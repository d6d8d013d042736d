"""How sure a score is: intervals, paired tests, breakdowns and histograms over the items of step `score`.

A pure function of `Scores`. All methods stand on the same items, so every resample takes the same items for
all of them: the difference of two cells then has its own, narrower interval. Columns that are shares or means
are sums over items divided by sums; corpus BLEU and METEOR are not, but follow from summed counts, which are
resampled instead (Koehn 2004, "Statistical significance tests for machine translation evaluation").

Intervals are percentiles of the bootstrap; of a share on which all items agree, about which resamples have
nothing to say, Clopper and Pearson's. A paired p-value is twice the smaller share of resamples on either
side of no difference, with one added to both counts, so that it is never 0; of Pr@ it is McNemar's exact
test. With many pairs some p-values are small by luck: `p_holm` is Holm's correction within a column.
"""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np

from model.score.params import StatisticsParams
from model.score.scores import Scores
from model.score.statistics.cells import ScoreCell, ScoreCells, score_cells
from pipeline.common.fingerprint import as_json

DRAWN = 1 << 21
"""Units drawn at a time at most: some 16 MiB an array."""
BLOCK = 1024
"""Resamples at a time at most: their sums stay in the processor's cache."""
HISTOGRAM_BINS = 20


# ---- bootstrap -------------------------------------------------------------------------------------


def units(table: ScoreCells, unit: str) -> np.ndarray:
    """Which unit of resampling each item belongs to: int64 (N,), 0 to the number of units."""
    if unit == "item":
        return np.arange(len(table))
    _, places = np.unique(np.array(table.paintings, dtype=object).astype(str), return_inverse=True)
    return np.asarray(places, dtype=np.int64)


def resample(table: ScoreCells, params: StatisticsParams) -> np.ndarray:
    """Every cell's value in every resample, float64 (cells, resamples): the same resamples for all cells."""
    places = units(table, params.unit)
    count = int(places.max()) + 1
    order = np.argsort(places, kind="stable")
    starts = np.searchsorted(places[order], np.arange(count))
    counts = np.concatenate([sums.counts for sums in table.sums], axis=1)
    by_unit = np.add.reduceat(counts[order], starts)
    rng = np.random.default_rng(params.seed)
    values = np.empty((len(table.cells), params.resamples))
    step = max(1, min(BLOCK, DRAWN // count))
    for start in range(0, params.resamples, step):
        block = min(step, params.resamples - start)
        drawn = rng.integers(0, count, size=(block, count), dtype=np.int64)
        drawn += count * np.arange(block)[:, None]
        times = np.bincount(drawn.ravel(), minlength=block * count).reshape(block, count)
        values[:, start : start + block] = _values(table, times.astype(np.float64) @ by_unit)
    return values


def _values(table: ScoreCells, totals: np.ndarray) -> np.ndarray:
    """Every cell's value (cells, R) of summed counts (R, K), those of all `table.sums` side by side."""
    found, edge = {}, 0
    for sums in table.sums:
        width = sums.counts.shape[1]
        found[sums] = sums.values(totals[:, edge : edge + width])
        edge += width
    return np.stack([found[cell.sums][:, cell.place] for cell in table.cells])


def interval(values: np.ndarray, level: float) -> tuple[float, float] | None:
    """Percentile interval of resampled values, (R,); None where no resample has a value."""
    found = values[~np.isnan(values)]
    if not found.size:
        return None
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def unanimous(right: bool, count: int, level: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share, percent, where all `count` agree, on right or on wrong."""
    reach = 100 * ((1 - level) / 2) ** (1 / count)
    return (reach, 100.0) if right else (0.0, 100 - reach)


def cell_intervals(
    table: ScoreCells, params: StatisticsParams
) -> Iterator[tuple[ScoreCell, dict[str, Any], np.ndarray]]:
    """(cell, its value and interval, its resampled values) of every cell that has a value."""
    for cell, values in zip(table.cells, resample(table, params), strict=True):
        value = float(cell.value(cell.counts.sum(axis=0)))
        found = interval(values, params.level)
        if found is not None and not np.isnan(value):
            if cell.shares is not None and cell.shares.all() == cell.shares.any():
                found = unanimous(
                    bool(cell.shares[0]), int(units(table, params.unit).max()) + 1, params.level
                )
            low, high = (round(bound, 4) for bound in found)
            yield cell, {"value": value, "low": low, "high": high}, values


# ---- tests -----------------------------------------------------------------------------------------


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p of McNemar's test, from how many items either method alone gets right."""
    together, fewer = only_first + only_second, min(only_first, only_second)
    ways = tail = 1
    for k in range(fewer):
        ways = ways * (together - k) // (k + 1)  # binomials, exactly
        tail += ways
    return float(min(Fraction(1), Fraction(2 * tail, 2**together)))


def bootstrap_p(differences: np.ndarray) -> float:
    """Two-sided p of resampled differences, (R,): twice the smaller share on either side of zero."""
    found = differences[~np.isnan(differences)]
    smaller = min(int((found <= 0).sum()), int((found >= 0).sum()))
    return min(1.0, 2 * (smaller + 1) / (len(found) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction of the p-values of one family, in their order."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    highest = 0.0
    for rank, place in enumerate(order.tolist()):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return [float(value) for value in corrected]


def compare(
    found: Sequence[tuple[ScoreCell, dict[str, Any], np.ndarray]], params: StatisticsParams
) -> list[dict[str, Any]]:
    """Every pair of methods that share a column: the difference, its interval and its p-values."""
    columns = list(dict.fromkeys(cell.column for cell, _, _ in found))
    rows: list[dict[str, Any]] = []
    for column in columns:
        mine = [entry for entry in found if entry[0].column == column]
        family = [_pair(first, second, params) for first, second in combinations(mine, 2)]
        for row, corrected in zip(family, holm([row["p"] for row in family]), strict=True):
            rows.append(row | {"p_holm": corrected})
    return rows


def _pair(
    first: tuple[ScoreCell, dict[str, Any], np.ndarray],
    second: tuple[ScoreCell, dict[str, Any], np.ndarray],
    params: StatisticsParams,
) -> dict[str, Any]:
    (a, told_a, values_a), (b, told_b, values_b) = first, second
    differences = values_a - values_b
    low, high = interval(differences, params.level) or (float("nan"), float("nan"))
    row: dict[str, Any] = {
        "column": a.column,
        "first": a.method,
        "second": b.method,
        "difference": told_a["value"] - told_b["value"],
        "low": round(low, 4),
        "high": round(high, 4),
    }
    if a.shares is not None and b.shares is not None and params.unit == "item":
        ahead, behind = int((a.shares & ~b.shares).sum()), int((~a.shares & b.shares).sum())
        return row | {
            "test": "mcnemar",
            "only_first": ahead,
            "only_second": behind,
            "p": mcnemar(ahead, behind),
        }
    return row | {"test": "bootstrap", "p": bootstrap_p(differences)}


# ---- breakdowns ------------------------------------------------------------------------------------


def break_down(
    table: ScoreCells, groups: Sequence[str], params: StatisticsParams
) -> dict[str, dict[str, Any]]:
    """Every cell over the items of each group alone: {group: {"items": n, method: {column: ...}}}."""
    named = np.array(groups, dtype=object)
    parts: dict[str, dict[str, Any]] = {}
    for group in sorted(set(groups)):
        rows = np.flatnonzero(named == group)
        cells: dict[str, Any] = {}
        for cell, estimate, _ in cell_intervals(table.part(rows), params):
            cells.setdefault(cell.method, {})[cell.column] = estimate
        parts[group] = {"items": len(rows), "methods": cells}
    return parts


def histograms(scores: Scores) -> dict[str, Any]:
    """Items per IoU bin of every method; the last bin includes 1."""
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    masks = scores.masks
    counts = {
        method: {
            mode: np.histogram(ious[m][masks.counted], edges)[0].tolist()
            for mode, ious in (("seg", masks.iou_seg), ("box", masks.iou_box))
        }
        for m, method in enumerate(scores.methods)
    }
    return {"edges": [round(float(edge), 6) for edge in edges], "methods": counts}


# ---- all of it -------------------------------------------------------------------------------------


def summarise(scores: Scores, styles: Mapping[str, str], params: StatisticsParams) -> dict[str, Any]:
    """The content of metrics/statistics.json; `styles` is the art style of each key.

    Raises `ValueError` when no item counts.
    """
    table = score_cells(scores)
    if not len(table):
        raise ValueError("no item counts, so there is nothing to be sure of")
    found = list(cell_intervals(table, params))
    cells: dict[str, dict[str, Any]] = {}
    for cell, estimate, _ in found:
        cells.setdefault(cell.method, {})[cell.column] = estimate
    by_style = [styles.get(key, "unknown") for key in table.keys]
    return {
        "params": as_json(params),
        "items": len(table),
        "methods": cells,
        "pairs": compare(found, params),
        "by_emotion": break_down(table, table.emotions, params),
        "by_style": break_down(table, by_style, params),
        "histograms": histograms(scores),
    }
