"""Scores over several training seeds: a mean, and an interval that counts both paintings and seeds.

A score of one training is uncertain for two reasons: other paintings would have given another, and so would
another seed. With two variances that add,

    variance of a mean over seeds = (its bootstrap variance over paintings) + (variance between seeds) / seeds

the interval is the mean ± t standard errors, with Welch and Satterthwaite's degrees of freedom, few where
the seeds decide and many where the paintings do. A difference of two methods takes both on the same
paintings, whose bootstrap is then that of the difference, and adds both methods' seeds. What seeds and
paintings do together is in both terms, so that the interval is a little too wide rather than too narrow.
Resampling the seeds themselves would be too narrow: three draws of three have two thirds of their variance,
and no tail (Owen 2007, "The pigeonhole bootstrap"; `tests/model/score/statistics/test_seeds.py` has the
coverage of both). A method of one training, or of none, has `bootstrap`'s own percentiles.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model.metrics.text import TextScores
from model.score.explanations import Draw
from model.score.params import StatisticsParams
from model.score.statistics.bootstrap import bootstrap_p, interval, resample, unanimous, units
from model.score.statistics.cells import MEANS, ScoreCell, ScoreCells, mask_cells, text_cells
from pipeline.common.errors import UserError
from pipeline.common.sums import check_sum

Name = tuple[str, str]
"""(method, column)."""


@dataclass(frozen=True, eq=False)
class SeedMean:
    """One number of one method: its mean over training seeds."""

    by_seed: tuple[float, ...]
    """One value for each training; one for a method that is not trained, or once."""
    resampled: np.ndarray
    """float64 (R,): the mean over seeds in every resample of the paintings, the same for all numbers."""
    unanimous: bool | None
    """Of a share of items: True or False where all items of all seeds are right or wrong, else None."""

    @property
    def value(self) -> float:
        """The mean."""
        return float(np.mean(self.by_seed))

    @property
    def seed_part(self) -> float:
        """Variance of the mean that comes from seeds; 0 for one."""
        count = len(self.by_seed)
        return float(np.var(self.by_seed, ddof=1)) / count if count > 1 else 0.0


@dataclass(frozen=True)
class SeedScores:
    """Every number of every method over seeds, on one set of items."""

    items: int
    units: int
    """What was drawn: paintings, or items."""
    params: StatisticsParams
    means: Mapping[Name, SeedMean]

    def estimate(self, name: Name) -> dict[str, Any]:
        """A number as JSON: value, low, high, and the value of each seed."""
        mean = self.means[name]
        low, high = self._interval(mean)
        low, high = max(low, 0.0), high if name[1] == "clipscore" else min(high, 100.0)
        rounded = {"value": mean.value, "low": round(low, 4), "high": round(high, 4)}
        return rounded | {"by_seed": list(mean.by_seed)}

    def _interval(self, mean: SeedMean) -> tuple[float, float]:
        level = self.params.level
        if mean.unanimous is not None:
            return unanimous(mean.unanimous, self.units, level)
        if len(mean.by_seed) == 1:
            return interval(mean.resampled, level) or (math.nan, math.nan)
        error, freedom = self._error(mean.resampled, [mean])
        reach = reach_of_t(level, freedom) * error
        return mean.value - reach, mean.value + reach

    def difference(self, ahead: Name, behind: Name) -> dict[str, Any]:
        """`ahead` minus `behind` as JSON: difference, low, high, p (two-sided)."""
        a, b = self.means[ahead], self.means[behind]
        difference, resampled = a.value - b.value, a.resampled - b.resampled
        error, freedom = self._error(resampled, [a, b])
        if len(a.by_seed) == len(b.by_seed) == 1 or error == 0:
            low, high = interval(resampled, self.params.level) or (math.nan, math.nan)
            p = bootstrap_p(resampled)
        else:
            reach = reach_of_t(self.params.level, freedom) * error
            low, high = difference - reach, difference + reach
            p = two_sided(difference / error, freedom)
        return {"difference": difference, "low": round(low, 4), "high": round(high, 4), "p": p}

    def _error(self, resampled: np.ndarray, means: Sequence[SeedMean]) -> tuple[float, float]:
        """(standard error, degrees of freedom by Welch and Satterthwaite)."""
        parts = [(float(np.nanvar(resampled, ddof=1)), max(1, self.units - 1))]
        parts += [(mean.seed_part, len(mean.by_seed) - 1) for mean in means if len(mean.by_seed) > 1]
        variance = sum(part for part, _ in parts)
        below = sum(part**2 / freedom for part, freedom in parts)
        return math.sqrt(variance), variance**2 / below if below else math.inf


def over_seeds(tables: Sequence[ScoreCells], params: StatisticsParams) -> SeedScores:
    """Means over the seeds' tables; a method may be absent from some of them.

    Raises `UserError` where the tables are of different items.
    """
    first = tables[0]
    for other in tables[1:]:
        if (other.keys, other.emotions) != (first.keys, first.emotions):
            raise UserError(
                f"the scores are not of the same items: {len(first)} and {len(other)}, or in another order; "
                "score both on one gallery or release"
            )
    found: dict[Name, list[tuple[ScoreCell, np.ndarray]]] = {}
    for table in tables:
        for cell, values in zip(table.cells, resample(table, params), strict=True):
            found.setdefault((cell.method, cell.column), []).append((cell, values))
    fixed = {method for method in {name for name, _ in found} if _never_changes(method, found)}
    means = {}
    for name, several in found.items():
        kept = several[:1] if name[0] in fixed else several
        values = tuple(float(cell.value(cell.counts.sum(axis=0))) for cell, _ in kept)
        if not np.isnan(values).any():
            resampled = np.mean([values for _, values in kept], axis=0)
            means[name] = SeedMean(values, resampled, _unanimous([cell for cell, _ in kept]))
    return SeedScores(len(first), int(units(first, params.unit).max()) + 1, params, means)


def _never_changes(method: str, found: Mapping[Name, Sequence[tuple[ScoreCell, np.ndarray]]]) -> bool:
    """Whether every seed has the same counts: it was not trained with these seeds, as the pseudo-masks."""
    return all(
        np.array_equal(several[0][0].counts, cell.counts, equal_nan=True)
        for (name, _), several in found.items()
        if name == method
        for cell, _ in several
    )


def _unanimous(cells: Sequence[ScoreCell]) -> bool | None:
    shares = [cell.shares for cell in cells if cell.shares is not None]
    if len(shares) < len(cells):
        return None
    together = np.concatenate(shares)
    return bool(together[0]) if together.all() == together.any() else None


def two_sided(t: float, freedom: float) -> float:
    """P(|T| > |t|) of Student's t with so many degrees of freedom, any number above 0 or infinity."""
    from scipy import stats  # only several seeds need it

    return float(2 * stats.t.sf(abs(t), freedom))


def reach_of_t(level: float, freedom: float) -> float:
    """The t that |T| stays below with probability `level`."""
    from scipy import stats

    return float(stats.t.ppf((1 + level) / 2, freedom))


# ---- files -----------------------------------------------------------------------------------------


def read_cells(folder: Path) -> ScoreCells:
    """The cells of what step `score` wrote to a folder. Raises `UserError` for absent or damaged files."""
    for name in ("items.parquet", "texts.parquet"):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} does not exist; run the score step")
        check_sum(folder / name, "run the score step again")
    items = pq.read_table(folder / "items.parquet")
    items = items.filter(pc.is_valid(items["iou_seg"]))
    texts = pq.read_table(folder / "texts.parquet")
    methods = items["method"].unique().to_pylist()
    one = items.filter(pc.equal(items["method"], methods[0]))
    emotions = one["emotion"].to_pylist()
    cells: list[ScoreCell] = []
    for method in methods:
        own = items.filter(pc.equal(items["method"], method))
        ious = {column: own[column].to_numpy().astype(np.float64) for column in MEANS.values()}
        cells += mask_cells(method, ious)
        said = texts.filter(pc.equal(texts["method"], method))
        if said.num_rows:
            cells += text_cells(method, [*_draws(said)], emotions)
    return ScoreCells(one["key"].to_pylist(), one["painting"].to_pylist(), emotions, cells)


def _draws(said: Any) -> Sequence[Draw]:
    draws = []
    for number in sorted(said["draw"].unique().to_pylist()):
        own = said.filter(pc.equal(said["draw"], number))
        emotions = own["ea"].to_pylist()
        draws.append(
            Draw(
                own["explanation"].to_pylist(),
                None if all(read is None for read in emotions) else emotions,
                own["clipscore"].to_numpy().astype(np.float64),
                _text_scores(own),
            )
        )
    return draws


def _text_scores(own: Any) -> TextScores | None:
    """BLEU, METEOR and ROUGE-L as counts; None where they could not be run."""
    if own["bleu"].null_count:
        return None
    meteor = None if own["meteor"].null_count else np.array(own["meteor"].to_pylist())
    rouge = own["rouge_l"].to_numpy().astype(np.float64)
    return TextScores({}, np.array(own["bleu"].to_pylist()), meteor, rouge)
