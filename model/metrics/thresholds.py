"""A threshold per method, chosen on APOLO's val items and reported beside the fixed one.

The protocol's 0.35 was found for one method's maps; another's may be soft or steep. A sweep counts every
pixel once: how many thresholds lie below its value. IoU at all thresholds follows from cumulative sums.
"""

from dataclasses import dataclass

import numpy as np

MAX_STEPS = 127
"""Thresholds of a sweep at most: a pixel's count of them and its label share one byte."""
STRIP = 1 << 15
"""Pixels counted at a time: what is made of them stays in the processor's cache."""
ROUNDING = 1e-9
"""Far above the rounding of value * steps, far below a step: values this near a threshold are looked up."""


def grid(steps: int) -> np.ndarray:
    """The thresholds k / `steps`, k = 0 ... `steps` - 1: float64 (T,)."""
    if not 0 < steps <= MAX_STEPS:
        raise ValueError(f"a sweep has 1 to {MAX_STEPS} thresholds, not {steps}")
    thresholds: np.ndarray = np.arange(steps) / steps
    return thresholds


def count_below(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many `thresholds` (those of `grid`) lie below each value in [0, 1]: uint8, flat.

    Exact, also where a value equals a threshold (which is then not below it).
    """
    flat = values.ravel()
    steps = len(thresholds)
    scaled = flat * steps
    above = np.ceil(scaled)
    np.clip(above, 0, steps, out=above)  # resizing may leave [0, 1] by a rounding
    counts = above.astype(np.uint8)
    scaled -= above  # in (-1, 0], but beside a threshold rounding may have decided
    beside = ((scaled > -ROUNDING) & (counts < steps)) | (scaled < ROUNDING - 1)
    near = np.flatnonzero(beside & (counts > 0))
    if near.size:
        counts[near] = np.searchsorted(thresholds, flat[near])
    return counts


def sweep_ious(values: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Foreground IoU of ``values > t`` with a label at every threshold: float64 (T,).

    `values` is float64 (H, W) as of `segmentation.scaled`, `truth` bool (H, W), `thresholds` those of `grid`.
    Equals `segmentation.foreground_iou` at each of them.
    """
    steps = len(thresholds)
    flat, label = values.ravel(), truth.ravel().view(np.uint8)
    pixels = np.zeros(2 * (steps + 1), dtype=np.int64)
    for start in range(0, flat.size, STRIP):
        codes = count_below(flat[start : start + STRIP], thresholds)
        codes += (steps + 1) * label[start : start + STRIP]
        pixels += np.bincount(codes, minlength=len(pixels))
    outside, inside = pixels.reshape(2, steps + 1)
    intersection = inside[::-1].cumsum()[::-1][1:]  # pixels with more than k thresholds below them
    false = outside[::-1].cumsum()[::-1][1:]
    union = inside.sum() + false
    ious: np.ndarray = np.divide(intersection, union, out=np.zeros(steps), where=union > 0)
    return ious


@dataclass(frozen=True)
class Sweep:
    """One method's IoU by pixels on the val items, at every threshold."""

    thresholds: np.ndarray
    """float64 (T,), see `grid`."""
    ious: np.ndarray
    """float64 (N, T), one row per val item with a label; N > 0."""

    @property
    def mean_iou(self) -> np.ndarray:
        """Mean IoU over the items at every threshold, percent: float64 (T,)."""
        means: np.ndarray = 100 * self.ious.mean(axis=0)
        return means

    def precision(self, percent: int) -> np.ndarray:
        """Share of items with an IoU of at least `percent`, at every threshold, percent: float64 (T,)."""
        shares: np.ndarray = 100 * (self.ious >= percent / 100).mean(axis=0)
        return shares

    def best(self, fixed: float) -> float:
        """The threshold of the highest mean IoU; of several, the one nearest to `fixed`, then the lowest.

        The mean IoU moves smoothly with the threshold; Pr@ jumps item by item, and its best threshold on few
        items is luck.
        """
        order = np.lexsort((self.thresholds, np.abs(self.thresholds - fixed), -self.mean_iou))
        return float(self.thresholds[order[0]])
