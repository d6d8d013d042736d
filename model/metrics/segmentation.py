"""Pr@25 and Pr@50 by the protocol of the APOLO benchmark (WESD, its `eval_map_iou.py`).

A map of any size and range becomes a foreground: min-max to [0, 1], bilinear resize to the label, > 0.35.
A constant map has no range, hence no foreground. The score of an item is the foreground IoU with the label;
Pr@25 is the share of items with IoU >= 0.25. Labels without foreground are left out of the share.
In the *box* scenario every 8-connected component is first replaced by its filled tight box.

Settings that depart from, or return to, the released script. It boxes the prediction only, but the published
"entire artwork" row (68.61 by pixels, 82.37 by boxes, from one and the same all-ones map) is possible only
if the label is boxed too: that is the default, `box_truth=False` is the script; whether the published label
got a box per component, as the prediction does, or a single one, `score.protocol_check` finds out from the
release. The script scales a map before resizing it: that is the default too, and scaling after resizing
differs where the resized map lacks the extremes: for maps smaller than the label, and for noisy larger ones.
"""

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from pipeline.common.protocol import THRESHOLD
from pipeline.common.threads import cores

Scaling = Literal["before-resize", "after-resize"]
Boxes = Literal["components", "single"]
SPECKLED = 1 / 50
"""Above this many horizontal runs per pixel, labelling every pixel is faster than following contours."""
BATCH = 256
"""Items held in memory at once when maps and labels are streamed."""


def foreground_iou(pred: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of the non-zero pixels of two masks of one (H, W) shape.

    0.0 when both are empty: an empty prediction has found nothing. Raises `ValueError` for different
    shapes, other than two axes, or NaN.
    """
    pred_HW, truth_HW = as_mask(pred, "pred"), as_mask(truth, "truth")
    if pred_HW.shape != truth_HW.shape:
        raise ValueError(
            f"pred is {pred_HW.shape} and truth is {truth_HW.shape}; resize pred to the label first "
            "(foreground() does)"
        )
    intersection = np.count_nonzero(pred_HW & truth_HW)
    union = np.count_nonzero(pred_HW) + np.count_nonzero(truth_HW) - intersection
    return intersection / union if union else 0.0


def as_mask(mask: np.ndarray, name: str = "mask") -> np.ndarray:
    """A two-dimensional mask as bool, non-zero being foreground. `ValueError` for NaN or other axes."""
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"{name} must have two axes (height, width), not shape {mask.shape}")
    if mask.dtype == np.bool_:
        return mask
    check_finite(mask, name)
    inside: np.ndarray = mask != 0
    return inside


def check_finite(values: np.ndarray, name: str) -> None:
    """Raise `ValueError` naming how many values are not finite, or that the array holds no real numbers."""
    if values.dtype.kind not in "buif":
        raise ValueError(f"{name} must hold real numbers, not {values.dtype}")
    if values.dtype.kind != "f" or not values.size:
        return
    if not (np.isfinite(values.min()) and np.isfinite(values.max())):
        bad = values.size - np.count_nonzero(np.isfinite(values))
        raise ValueError(f"{name} holds {bad} of {values.size} values that are NaN or infinite")


def _min_max(values: np.ndarray) -> np.ndarray:
    """float64 values brought to [0, 1], in place; a constant becomes 0."""
    low, high = float(values.min()), float(values.max())
    if high - low == np.inf:  # float64's whole range
        values /= 2
        low, high = low / 2, high / 2
    values -= low
    if high > low:
        values /= high - low
    return values


def scaled(map_: np.ndarray, height: int, width: int, scaling: Scaling = "before-resize") -> np.ndarray:
    """A map in [0, 1] and in the label's frame: float64 (height, width).

    `map_` is (h, w) of any size, range and real dtype; computed in float64, as the released script does.
    A constant map is 0 everywhere. Raises `ValueError` for NaN, infinity, no pixels, other axes.
    """
    map_ = np.asarray(map_)
    if map_.ndim != 2 or map_.size == 0:
        raise ValueError(f"map must have two axes (height, width) and some pixels, not shape {map_.shape}")
    check_finite(map_, "map")
    values: np.ndarray = map_.astype(np.float64)  # a copy, which min-max may change
    if scaling == "before-resize":
        values = _min_max(values)
    if values.shape != (height, width):
        try:
            values = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
        except cv2.error as error:
            raise ValueError(f"map of shape {map_.shape} cannot be resized: {error.err}") from None
    return _min_max(values) if scaling == "after-resize" else values


def foreground(
    map_: np.ndarray,
    height: int,
    width: int,
    threshold: float = THRESHOLD,
    scaling: Scaling = "before-resize",
) -> np.ndarray:
    """The pixels that a map calls foreground: bool (height, width), in the label's frame.

    A constant map gives an empty foreground. Takes and raises what `scaled` does.
    """
    inside: np.ndarray = scaled(map_, height, width, scaling) > threshold
    return inside


def fill_boxes(mask: np.ndarray, boxes: Boxes = "components") -> np.ndarray:
    """Every 8-connected component of a bool (H, W) mask replaced by its filled tight box, or all by one box.

    Outer contours are the 8-connected components but for those in another's hole, whose box lies in the
    other's box; finding them takes a fraction of the time of labelling every pixel, if they are not many.
    """
    pixels = np.ascontiguousarray(mask, dtype=np.uint8)
    filled = np.zeros(mask.shape, dtype=np.bool_)
    if boxes == "single":
        x, y, width, height = cv2.boundingRect(pixels)
        filled[y : y + height, x : x + width] = True
        return filled
    if np.count_nonzero(pixels[:, 1:] > pixels[:, :-1]) > SPECKLED * pixels.size:
        return _fill_many(cv2.connectedComponentsWithStats(pixels, connectivity=8)[2][1:, :4], mask.shape)
    contours, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    for contour in contours:
        x, y, width, height = cv2.boundingRect(contour)
        filled[y : y + height, x : x + width] = True
    return filled


def _fill_many(boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Boxes int (N, 4), x y width height, filled in a (H, W) mask by a summed difference at their corners."""
    height, width = shape
    x, y, w, h = boxes.T.astype(np.int64)
    stride = width + 1
    size = (height + 1) * stride
    rises = np.concatenate([y * stride + x, (y + h) * stride + x + w])
    falls = np.concatenate([y * stride + x + w, (y + h) * stride + x])
    steps = np.bincount(rises, minlength=size) - np.bincount(falls, minlength=size)
    depth = steps.reshape(height + 1, stride).cumsum(axis=0).cumsum(axis=1)
    filled: np.ndarray = depth[:-1, :-1] > 0
    return filled


@dataclass(frozen=True)
class Truth:
    """A label, its boxes already filled, so that many methods are scored against it at the cost of one."""

    mask: np.ndarray
    """bool (H, W)."""
    boxes: np.ndarray
    """bool (H, W): the mask's components as filled boxes, or the mask itself when the label is not boxed."""
    how: Boxes = "components"
    """What is boxed, here and in predictions."""

    @classmethod
    def of(cls, label: np.ndarray, box_truth: bool = True, boxes: Boxes = "components") -> "Truth":
        """From a (H, W) label, non-zero being foreground. Raises `ValueError` for NaN or other axes."""
        mask = as_mask(label, "truth")
        return cls(mask, fill_boxes(mask, boxes) if box_truth else mask, boxes)

    @property
    def empty(self) -> bool:
        """Whether the label has no foreground; such an item is left out."""
        return not self.mask.any()

    def ious(self, pred: np.ndarray) -> tuple[float, float]:
        """(IoU by pixels, IoU by boxes) of a bool (H, W) foreground."""
        return foreground_iou(pred, self.mask), foreground_iou(fill_boxes(pred, self.how), self.boxes)


@dataclass(frozen=True)
class MapScores:
    """IoU per item, float64 (N,), NaN where the label is empty."""

    iou_seg: np.ndarray
    iou_box: np.ndarray

    def rates(self) -> dict[str, float]:
        """Items that count, and percentages: items, seg_pr25, seg_pr50, box_pr25, box_pr50.

        Without an item that counts there are no percentages.
        """
        counted = ~np.isnan(self.iou_seg)
        items = int(np.count_nonzero(counted))
        rates: dict[str, float] = {"items": items}
        if items:
            for name, ious in (("seg", self.iou_seg[counted]), ("box", self.iou_box[counted])):
                for percent in (25, 50):  # inclusive
                    rates[f"{name}_pr{percent}"] = 100.0 * int((ious >= percent / 100).sum()) / items
        return rates


def _pairs(
    maps: Iterable[np.ndarray | None], truths: Iterable[np.ndarray]
) -> Iterator[tuple[np.ndarray | None, np.ndarray]]:
    """The two side by side; `ValueError` when one ends before the other."""
    end: Any = object()
    for number, (map_, truth) in enumerate(itertools.zip_longest(maps, truths, fillvalue=end)):
        if map_ is end or truth is end:
            more = "labels than maps" if map_ is end else "maps than labels"
            raise ValueError(f"there are more {more}: only one of them has item {number}")
        yield map_, truth


def score_maps(
    maps: Iterable[np.ndarray | None],
    truths: Iterable[np.ndarray],
    *,
    threshold: float = THRESHOLD,
    box_truth: bool = True,
    boxes: Boxes = "components",
    scaling: Scaling = "before-resize",
    workers: int | None = None,
) -> MapScores:
    """Score maps against labels of the same order. `None` for a map is a missing prediction: IoU 0.

    Maps are (h, w) of any size, range and real dtype; labels are (H, W), non-zero being foreground.
    Both may be generators. Raises `ValueError`, with the item's position, for a map or label that holds
    NaN or has other axes, and when there are more of the one than of the other.
    """

    def item(job: tuple[int, tuple[np.ndarray | None, np.ndarray]]) -> tuple[float, float]:
        position, (map_, label) = job
        try:
            truth = Truth.of(label, box_truth, boxes)
            if truth.empty:
                return float("nan"), float("nan")
            if map_ is None:
                return 0.0, 0.0
            height, width = truth.mask.shape
            return truth.ious(foreground(map_, height, width, threshold, scaling))
        except ValueError as error:
            raise ValueError(f"item {position}: {error}") from None

    ious: list[tuple[float, float]] = []
    jobs = enumerate(_pairs(maps, truths))
    with ThreadPoolExecutor(workers or cores()) as pool:  # OpenCV and NumPy let go of the GIL
        while batch := list(itertools.islice(jobs, BATCH)):
            ious.extend(pool.map(item, batch))
    table = np.asarray(ious, dtype=np.float64).reshape(-1, 2)
    return MapScores(table[:, 0].copy(), table[:, 1].copy())
