"""Pr@25 and Pr@50 by the protocol of the APOLO benchmark (WESD, its `eval_map_iou.py`).

A map of any size and range becomes a foreground: min-max to [0, 1], bilinear resize to the label, > 0.35.
A constant map has no range, hence no foreground. The score of an item is the foreground IoU with the label;
Pr@25 is the share of items with IoU >= 0.25. Labels without foreground are left out of the share.
In the *box* scenario every 8-connected component is first replaced by its filled tight box.

Two settings depart from, or return to, the released script. It boxes the prediction only, but the published
"entire artwork" row (68.61 by pixels, 82.37 by boxes, from one and the same all-ones map) is possible only
if the label is boxed too: that is the default, `box_truth=False` is the script. It scales a map before
resizing it: that is the default too, and scaling after resizing differs only for maps smaller than the label.
"""

import itertools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

Scaling = Literal["before-resize", "after-resize"]
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
    union = np.count_nonzero(pred_HW | truth_HW)
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
    if values.dtype.kind == "f" and (bad := values.size - np.count_nonzero(np.isfinite(values))):
        raise ValueError(f"{name} holds {bad} of {values.size} values that are NaN or infinite")


def _min_max(values: np.ndarray) -> np.ndarray | None:
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else None


def foreground(
    map_: np.ndarray,
    height: int,
    width: int,
    threshold: float = 0.35,
    scaling: Scaling = "before-resize",
) -> np.ndarray:
    """The pixels that a map calls foreground: bool (height, width), in the label's frame.

    `map_` is (h, w) of any size, range and real dtype; computed in float64, as the released script does.
    A constant map gives an empty foreground. Raises `ValueError` for NaN, infinity, no pixels, other axes.
    """
    map_ = np.asarray(map_)
    if map_.ndim != 2 or map_.size == 0:
        raise ValueError(f"map must have two axes (height, width) and some pixels, not shape {map_.shape}")
    check_finite(map_, "map")
    values = map_.astype(np.float64)
    scaled: np.ndarray | None = _min_max(values) if scaling == "before-resize" else values
    if scaled is not None and scaled.shape != (height, width):
        scaled = cv2.resize(scaled, (width, height), interpolation=cv2.INTER_LINEAR)
    if scaled is not None and scaling == "after-resize":
        scaled = _min_max(scaled)
    if scaled is None:
        return np.zeros((height, width), dtype=np.bool_)
    inside: np.ndarray = scaled > threshold
    return inside


def fill_boxes(mask: np.ndarray) -> np.ndarray:
    """Every 8-connected component of a bool (H, W) mask replaced by its filled tight box.

    Outer contours are the 8-connected components but for those in another's hole, whose box lies in the
    other's box; finding them takes a fraction of the time of labelling every pixel.
    """
    pixels = np.ascontiguousarray(mask, dtype=np.uint8)
    filled = np.zeros(mask.shape, dtype=np.bool_)
    contours, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    for contour in contours:
        x, y, width, height = cv2.boundingRect(contour)
        filled[y : y + height, x : x + width] = True
    return filled


@dataclass(frozen=True)
class Truth:
    """A label, its boxes already filled, so that many methods are scored against it at the cost of one."""

    mask: np.ndarray
    """bool (H, W)."""
    boxes: np.ndarray
    """bool (H, W): the mask's components as filled boxes, or the mask itself when the label is not boxed."""

    @classmethod
    def of(cls, label: np.ndarray, box_truth: bool = True) -> "Truth":
        """From a (H, W) label, non-zero being foreground. Raises `ValueError` for NaN or other axes."""
        mask = as_mask(label, "truth")
        return cls(mask, fill_boxes(mask) if box_truth else mask)

    @property
    def empty(self) -> bool:
        """Whether the label has no foreground; such an item is left out."""
        return not self.mask.any()

    def ious(self, pred: np.ndarray) -> tuple[float, float]:
        """(IoU by pixels, IoU by boxes) of a bool (H, W) foreground."""
        return foreground_iou(pred, self.mask), foreground_iou(fill_boxes(pred), self.boxes)


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
    threshold: float = 0.35,
    box_truth: bool = True,
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
            truth = Truth.of(label, box_truth)
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
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:  # OpenCV and NumPy let go of the GIL
        while batch := list(itertools.islice(jobs, BATCH)):
            ious.extend(pool.map(item, batch))
    table = np.asarray(ious, dtype=np.float64).reshape(-1, 2)
    return MapScores(table[:, 0].copy(), table[:, 1].copy())
