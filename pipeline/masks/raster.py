"""From regions and their scores to maps: every pixel gets something from the regions that cover it.

A map is constant over few pieces of the picture, and is computed once on those. Where regions are rectangles
the pieces are the cells between their edges (at most 73 x 73 for 36 boxes), filled by a two-dimensional
difference array. Where they are masks the pieces are stretches of pixels, numbered down the columns as in run
lengths, between the ends of all masks' runs. Either way it is one pass over the regions for all emotions, and
the picture is never filled in. From the pieces follow the map at full size, by repetition, and at any other,
whose pixels are exact area averages of the full-size map: what cv2's INTER_AREA makes of it, without it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from pipeline.common.geometry import pixel_ranges
from pipeline.common.protocol import THRESHOLD
from pipeline.masks import area

Aggregate = Literal["sum", "mean", "max"]
CellRanges = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""int64 (N,) each: x1, y1, x2, y2 in numbers of cells, x2 and y2 exclusive."""

FIXED_POINT_BITS = 61
"""Of 63: one for the sign of partial sums to spare."""
NEAR = 1e-9
"""Averages of numbers below 256 are right to a hundredth of this."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """Maps that are constant between box edges."""

    values: np.ndarray
    """float64 (E, R, C): one map per emotion."""
    rows: np.ndarray
    """int64 (R + 1): edges from 0 to the height, pixels."""
    columns: np.ndarray
    """int64 (C + 1): edges from 0 to the width, pixels."""

    def full(self) -> np.ndarray:
        """The maps at the picture's size, float32 (E, H, W)."""
        tall = np.repeat(self.values.astype(np.float32), np.diff(self.rows), axis=1)
        return np.repeat(tall, np.diff(self.columns), axis=2)

    def resized(self, height: int, width: int) -> np.ndarray:
        """The maps at another size by exact area averaging, float64 (E, height, width)."""
        down, across = area.overlaps(self.rows, height), area.overlaps(self.columns, width)
        return (down @ self.values) @ across.T

    def whole_part(self, height: int, width: int) -> np.ndarray:
        """`resized`, of maps in [0, 256), as uint8: whole numbers without their fractions.

        Each of a picture's distinct rows and columns is averaged once. Rounding in the last digit could tell
        where an average is a whole number: such maps, one in thousands, are averaged pixel by pixel.
        """
        down, across = area.distinct(self.rows, height), area.distinct(self.columns, width)
        averages = area.averages(self.values, down, across)
        averages -= NEAR
        below = averages.astype(np.uint8)
        averages += 2 * NEAR
        above = averages.astype(np.uint8)
        if not below.size or not np.array_equal(below, above):
            return self.resized(height, width).astype(np.uint8)
        return area.spread(below, down, across)


@dataclasses.dataclass(frozen=True)
class Stretches:
    """Maps that are constant along stretches of pixels, numbered down the columns: x * height + y."""

    values: np.ndarray
    """float64 (E, S): one map per emotion."""
    starts: np.ndarray
    """int64 (S + 1): first pixel of each stretch, no stretch passing a column; then the number of pixels."""
    height: int
    width: int

    def full(self) -> np.ndarray:
        """The maps at the picture's size, float32 (E, H, W)."""
        flat = np.repeat(self.values.astype(np.float32), np.diff(self.starts), axis=1)
        return flat.reshape(len(self.values), self.width, self.height).transpose(0, 2, 1)

    def resized(self, height: int, width: int) -> np.ndarray:
        """The maps at another size by exact area averaging, float64 (E, height, width).

        Going down a column, the average over a row of cells changes where the map does: in part in the cell
        in which the change lies, in full from the next one on. So each change is written to two cells, for
        each of the few columns of cells that its column overlaps, and a running sum fills in the rest.
        """
        column, top = np.divmod(self.starts[:-1], self.height)
        before = np.where(top > 0, np.roll(self.values, 1, axis=1), 0.0)
        changed = np.flatnonzero((self.values != before).any(0))
        column, top, steps = column[changed], top[changed], (self.values - before)[:, changed]
        row, beyond = np.divmod(top * height, self.height)
        in_next = beyond / self.height
        sums = np.zeros((len(self.values), width * (height + 1)))
        for slot in range(width // self.width + 2):
            cell = column * width // self.width + slot
            low = np.maximum(column * width, cell * self.width)
            high = np.minimum((column + 1) * width, (cell + 1) * self.width)
            there = np.flatnonzero(high > low)
            share = (high - low)[there] / self.width
            index = cell[there] * (height + 1) + row[there]
            weights = steps[:, there] * share
            for emotion, weight in enumerate(weights):
                sums[emotion] += np.bincount(index, weight * (1 - in_next[there]), sums.shape[1])
                sums[emotion] += np.bincount(index + 1, weight * in_next[there], sums.shape[1])
        columns = sums.reshape(-1, width, height + 1).cumsum(2)[:, :, :height]
        return np.ascontiguousarray(columns.transpose(0, 2, 1))

    def whole_part(self, height: int, width: int) -> np.ndarray:
        """`resized`, of maps in [0, 256), as uint8: whole numbers without their fractions."""
        return self.resized(height, width).astype(np.uint8)


def similarity_map(
    boxes: np.ndarray, scores: np.ndarray, height: int, width: int, aggregate: Aggregate = "sum"
) -> np.ndarray:
    """What every pixel of a picture gets from the boxes that cover it.

    Sums are exact (fixed point), so they depend neither on the order of the boxes nor on the method: the
    result equals adding up the covering boxes pixel by pixel, rounded once. (Exact for float32 scores; of one
    smaller than 2e-11 of the sum of all, the digits beyond 2e-18 of that sum are lost.)

    Args:
        boxes: (N, 4) xyxy, pixels of the picture; `geometry.pixel_ranges` says which pixels a box covers.
        scores: (N,) one per box.
        height, width: of the picture, pixels.
        aggregate: sum, mean or max over the covering boxes; 0 where there are none.

    Returns:
        float32 (height, width), not rescaled.

    Raises:
        ValueError: sizes that do not match, or values that are not finite.
    """
    return rasterise(boxes, np.asarray(scores)[None], height, width, aggregate).full()[0]


def rasterise(boxes: np.ndarray, scores: np.ndarray, height: int, width: int, aggregate: Aggregate) -> Grid:
    """As `similarity_map`, for several sets of scores (E, N) of the same boxes, on the grid of box edges."""
    boxes = np.asarray(boxes, np.float64)
    scores = np.asarray(scores, np.float64)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape[1:] != (len(boxes),):
        raise ValueError(f"boxes {boxes.shape} and scores {scores.shape} must be (N, 4) and (..., N)")
    if height < 1 or width < 1:
        raise ValueError(f"a picture of {height}x{width} pixels has no map")
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError("boxes and scores must be finite")
    ranges = pixel_ranges(boxes, height, width)
    columns, x1, x2 = area.between(ranges[:, 0], ranges[:, 2], width)
    rows, y1, y2 = area.between(ranges[:, 1], ranges[:, 3], height)
    cells = ((x1, y1, x2, y2), len(rows) - 1, len(columns) - 1)
    if aggregate == "max":
        values = _largest(*cells, scores)
    else:
        values = _summed(*cells, scores)
        if aggregate == "mean":
            values = values / np.maximum(_summed(*cells, np.ones_like(scores[:1])), 1.0)
    return Grid(values, rows, columns)


def rasterise_runs(
    runs: Sequence[np.ndarray], scores: np.ndarray, height: int, width: int, aggregate: Aggregate
) -> Stretches:
    """As `rasterise`, for regions that are masks.

    Args:
        runs: per region int64 (R, 2), first pixel of a run and the one behind its last, in the numbers of
            `Stretches`; see `rle.decode` and `box_runs`.
        scores: (E, N).
        height, width: of the picture, pixels.
        aggregate: sum, mean or max over the covering regions; 0 where there are none.

    Raises:
        ValueError: sizes that do not match, runs outside the picture, or scores that are not finite.
    """
    scores = np.asarray(scores, np.float64)
    if scores.shape[1:] != (len(runs),) or not np.isfinite(scores).all():
        raise ValueError(f"scores {scores.shape} must be (E, {len(runs)}) and finite")
    if height < 1 or width < 1:
        raise ValueError(f"a picture of {height}x{width} pixels has no map")
    ends = np.concatenate([np.empty((0, 2), np.int64), *runs])
    if len(ends) and (ends.min() < 0 or ends.max() > height * width):
        raise ValueError(f"runs must lie within the picture's {height * width} pixels")
    owner = np.repeat(np.arange(len(runs)), [len(run) for run in runs])
    tops = np.arange(width) * height
    if aggregate == "max":
        starts = np.unique(np.concatenate([tops, ends.ravel()]))
        starts = starts[starts < height * width]
        values = _largest_run(np.searchsorted(starts, ends), owner, len(starts), scores)
    else:
        starts, values = _summed_runs(tops, ends, owner, scores, height * width)
        if aggregate == "mean":
            ones = np.ones((1, len(runs)))
            values = values / np.maximum(_summed_runs(tops, ends, owner, ones, height * width)[1], 1.0)
    return Stretches(values, np.append(starts, height * width), height, width)


def box_runs(boxes: np.ndarray, height: int, width: int) -> list[np.ndarray]:
    """Boxes (N, 4) as runs, covering the pixels of `geometry.pixel_ranges`: a run per column."""
    return [
        (np.arange(x1, x2)[:, None] * height + [y1, y2]) if y2 > y1 else np.empty((0, 2), np.int64)
        for x1, y1, x2, y2 in pixel_ranges(boxes, height, width).tolist()
    ]


def levels(maps: Grid | Stretches, height: int, width: int, level: float | None = None) -> np.ndarray:
    """Each map scaled to [0, 1] by its extremes, at another size, as uint8 (E, height, width) of 0 to 255.

    A constant map, in which nothing stands out, becomes 0. `level`: of a scaled map the value that becomes
    `THRESHOLD`, before averaging; 0 and 1 stay, and values between are on straight lines.
    """
    axes = tuple(range(1, maps.values.ndim))
    low = maps.values.min(axes, keepdims=True)
    span = maps.values.max(axes, keepdims=True) - low
    values = maps.values - low
    values /= np.where(span > 0, span, 1.0)
    if level is not None:
        values = np.interp(values, (0.0, level, 1.0), (0.0, THRESHOLD, 1.0))
    values *= 255.0
    values += 0.5  # rounds, because averaging keeps the offset
    return dataclasses.replace(maps, values=values).whole_part(height, width)


def _fixed(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (E, N) in fixed point, int64 (N, E), and the exponents (E,): the sum of all fits."""
    exponents = FIXED_POINT_BITS - np.frexp(np.abs(scores).sum(1))[1]
    return np.rint(np.ldexp(scores, exponents[:, None])).astype(np.int64).T, exponents


def _summed(cells: CellRanges, height: int, width: int, scores: np.ndarray) -> np.ndarray:
    """float64 (E, height, width): sums of scores (E, N) over the ranges that hold a cell.

    Each box writes its four corners into a difference array; two running sums fill it in. In fixed point,
    because floating-point differences would leave dust where boxes end.
    """
    fixed, exponents = _fixed(scores)
    x1, y1, x2, y2 = cells
    changes = np.zeros((len(scores), width + 1, height + 1), np.int64)
    left, right = x1 * (height + 1), x2 * (height + 1)
    places = np.concatenate([left + y1, right + y2, right + y1, left + y2])
    for flat, given in zip(changes.reshape(len(scores), (width + 1) * (height + 1)), fixed.T, strict=True):
        np.add.at(flat, places, np.concatenate([given, given, -given, -given]))
    down = changes.cumsum(2)[:, :-1, :-1].transpose(0, 2, 1)
    return _unfixed(np.ascontiguousarray(down).cumsum(2), exponents)


def _unfixed(sums: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Sums in fixed point, int64 (E, ...), as float64: `np.ldexp` where it takes more than a factor."""
    exponents = -exponents.reshape(-1, *[1] * (sums.ndim - 1))
    if exponents.min(initial=0) < -1000:
        return np.asarray(np.ldexp(sums.astype(np.float64), exponents))
    return np.asarray(sums * np.ldexp(1.0, exponents))


def _summed_runs(
    tops: np.ndarray, ends: np.ndarray, owner: np.ndarray, scores: np.ndarray, pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Starts (S,) of the stretches between `tops` and the ends of runs, and sums (E, S) of scores (E, N).

    A run adds its owner's score where it starts and takes it away where it ends, in fixed point.
    """
    fixed, exponents = _fixed(scores)
    places = np.concatenate([tops, ends[:, 0], ends[:, 1]])
    given = fixed[owner]
    changes = np.concatenate([np.zeros((len(tops), len(scores)), np.int64), given, -given])
    order = np.argsort(places, kind="stable")
    places = places[order]
    last = np.flatnonzero(np.append(places[1:] > places[:-1], True) & (places < pixels))
    return places[last], _unfixed(changes[order].cumsum(0)[last].T, exponents)


def _largest(cells: CellRanges, height: int, width: int, scores: np.ndarray) -> np.ndarray:
    """float64 (E, height, width): the largest score (E, N) over each cell, 0 where no range holds it."""
    values = np.full((len(scores), height, width), -np.inf)
    for x1, y1, x2, y2, score in zip(*(side.tolist() for side in cells), scores.T, strict=True):
        covered = values[:, y1:y2, x1:x2]
        np.maximum(covered, score[:, None, None], out=covered)
    return np.where(np.isneginf(values), 0.0, values)


def _largest_run(ends: np.ndarray, owner: np.ndarray, count: int, scores: np.ndarray) -> np.ndarray:
    """float64 (E, count): the largest score (E, N) over each stretch, for runs (R, 2) of stretches."""
    values = np.full((len(scores), count), -np.inf)
    for region, score in enumerate(scores.T):
        own = ends[owner == region]
        change = np.bincount(own[:, 0], minlength=count + 1) - np.bincount(own[:, 1], minlength=count + 1)
        covered = change.cumsum()[:count] > 0
        np.maximum(values, score[:, None], out=values, where=covered)
    return np.where(np.isneginf(values), 0.0, values)
