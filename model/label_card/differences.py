"""By how much one recipe is ahead of another on the same items, with paired intervals."""

from collections.abc import Sequence

import numpy as np

from model.score.params import StatisticsParams
from model.score.score_masks import MapTable
from model.score.statistics.bootstrap import interval
from pipeline.releases.apolo import ApoloItem

DRAWN = 1 << 21
"""Paintings drawn at a time at most."""


def differences(
    table: MapTable, one: int, other: int, items: Sequence[ApoloItem], params: StatisticsParams
) -> dict[str, dict[str, float]]:
    """Mean IoU by pixels, Seg Pr@25 and Pr@50 of method `one` less `other`, percent, at their thresholds.

    Paintings are drawn with all their items, whatever `params.unit`: a recipe is right or wrong about an
    artwork's emotions together.

    Returns:
        ``mean_iou``, ``seg_pr25``, ``seg_pr50`` -> ``difference``, ``low``, ``high``.
    """
    ious = table.iou_seg_val[[one, other]][:, table.counted]
    paintings = [item.painting for item, counted in zip(items, table.counted, strict=True) if counted]
    columns = {"mean_iou": ious, "seg_pr25": ious >= 0.25, "seg_pr50": ious >= 0.5}
    values = np.stack([100.0 * (pair[0].astype(float) - pair[1]) for pair in columns.values()], axis=1)
    resampled = _resampled_means(values, np.array(paintings, object).astype(str), params)
    found = {}
    for name, mean, drawn in zip(columns, values.mean(0).tolist(), resampled.T, strict=True):
        low, high = interval(drawn, params.level) or (mean, mean)
        found[name] = {"difference": mean, "low": low, "high": high}
    return found


def _resampled_means(values: np.ndarray, groups: np.ndarray, params: StatisticsParams) -> np.ndarray:
    """Means of values (N, K) in resamples of the groups (N,) that items belong to: float64 (resamples, K)."""
    _, places = np.unique(groups, return_inverse=True)
    count = int(places.max()) + 1
    sums = np.zeros((count, values.shape[1] + 1))
    np.add.at(sums, places, np.column_stack([values, np.ones(len(values))]))
    rng = np.random.default_rng(params.seed)
    step = max(1, DRAWN // count)
    parts = []
    for start in range(0, params.resamples, step):
        block = min(step, params.resamples - start)
        totals = np.stack([sums[drawn].sum(0) for drawn in rng.integers(0, count, (block, count))])
        parts.append(totals[:, :-1] / totals[:, -1:])
    return np.concatenate(parts)
