"""Masks of step `score`: every method's IoU with every APOLO label, at a fixed and at a chosen threshold.

An item without a usable label, or whose label is empty, counts for no method. A missing or unusable
prediction is IoU 0.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from model.maps.method import Method
from model.metrics.segmentation import MapScores, Truth
from model.metrics.thresholds import Sweep, grid, sweep_ious
from model.score.params import ScoreParams
from pipeline.common.progress import Meter
from pipeline.common.threads import cores
from pipeline.releases.apolo import ApoloItem
from pipeline.releases.apolo_arrays import BadArray, load_truth

ItemIous = tuple[float, float, float, float, str | None]
"""(IoU by pixels, by boxes, both at the chosen threshold, what was wrong with the prediction)."""
T = TypeVar("T")


@dataclass(frozen=True)
class MapTable:
    """IoU of every (method, item), float64 (M, N): NaN where the item does not count for the method."""

    iou_seg: np.ndarray
    iou_box: np.ndarray
    iou_seg_val: np.ndarray
    """At the threshold chosen on the val items; NaN where none could be chosen."""
    iou_box_val: np.ndarray
    thresholds: list[float | None]
    """Per method the chosen threshold; None where there is none to choose, or nothing to choose it by."""
    problems: list[list[str | None]]
    """What was wrong with a prediction, per method and item."""
    labels: list[str | None]
    """What was wrong with an item's label; such an item counts for no method."""

    @property
    def counted(self) -> np.ndarray:
        """bool (N,): items that count."""
        return np.array([label is None for label in self.labels], dtype=np.bool_)

    def rates(self, method: int) -> dict[str, float]:
        """Counts and percentages of one method; those at the chosen threshold end in ``_val``."""
        rates = MapScores(self.iou_seg[method], self.iou_box[method]).rates()
        chosen = MapScores(self.iou_seg_val[method], self.iou_box_val[method]).rates()
        if chosen["items"] == rates["items"]:
            rates |= {f"{name}_val": value for name, value in chosen.items() if name != "items"}
        threshold = self.thresholds[method]
        return rates if threshold is None else rates | {"threshold_val": threshold}


# ---- masks -----------------------------------------------------------------------------------------


def in_threads(function: Callable[[ApoloItem], T], items: Sequence[ApoloItem], task: str) -> list[T]:
    """`function` of every item, in order; NumPy and OpenCV let go of the GIL. `task`: named with progress."""
    meter, results = Meter(task, len(items), unit="item"), []
    with ThreadPoolExecutor(cores()) as pool:
        for result in pool.map(function, items):
            results.append(result)
            meter.add()
    return results


def read_truth(item: ApoloItem, params: ScoreParams) -> Truth | str:
    """An item's label, or what is wrong with it."""
    try:
        truth = Truth.of(load_truth(item.map_path), params.box_truth, params.boxes)
    except BadArray as error:
        return str(error)
    return "empty: no pixel is foreground" if truth.empty else truth


def sweep_masks(
    items: Sequence[ApoloItem], methods: Sequence[Method], params: ScoreParams
) -> list[Sweep | None]:
    """Per method, IoU by pixels at every threshold on the items that have a label (the val items).

    None for a method without a threshold, and for one that predicts none of the items.
    """
    thresholds = grid(params.sweep)

    def judge(item: ApoloItem) -> list[np.ndarray | None] | None:
        truth = read_truth(item, params)
        return None if isinstance(truth, str) else [swept(method, item, truth) for method in methods]

    def swept(method: Method, item: ApoloItem, truth: Truth) -> np.ndarray | None:
        if method.finished:
            return None
        try:
            values = method.answer(item, *truth.mask.shape)
        except ValueError:  # named when it is scored
            return None
        return None if values is None else sweep_ious(values, truth.mask, thresholds)

    judged = [row for row in in_threads(judge, items, "score: masks at every threshold") if row is not None]
    sweeps: list[Sweep | None] = []
    for curves in zip(*judged, strict=True) if judged else [() for _ in methods]:
        answered = [curve for curve in curves if curve is not None]
        unanswered = [np.zeros(len(thresholds))] * (len(curves) - len(answered))
        sweeps.append(Sweep(thresholds, np.stack(answered + unanswered)) if answered else None)
    return sweeps


def score_masks(
    items: Sequence[ApoloItem],
    methods: Sequence[Method],
    params: ScoreParams,
    chosen: Sequence[float | None] | None = None,
    missing: float = 0.0,
) -> MapTable:
    """Every method's foreground against every item's label; each label is read and boxed once.

    Args:
        items: what is scored.
        methods: one row each.
        params: the protocol.
        chosen: per method a second threshold, or None for none.
        missing: IoU of an item that a method does not answer: 0, or NaN, which leaves it out.
    """
    chosen = chosen or [None] * len(methods)

    def judge(item: ApoloItem) -> tuple[str | None, list[ItemIous]]:
        truth = read_truth(item, params)
        if isinstance(truth, str):
            return truth, [(np.nan, np.nan, np.nan, np.nan, None)] * len(methods)
        cells = [
            _judge_one(method, item, truth, (params.threshold, second), missing)
            for method, second in zip(methods, chosen, strict=True)
        ]
        return None, cells

    judged = in_threads(judge, items, f"score: masks of {len(methods)} method(s)")
    by_method = list(zip(*(cells for _, cells in judged), strict=True))
    ious = np.array([[cell[:4] for cell in cells] for cells in by_method], dtype=np.float64)  # (M, N, 4)
    problems = [[cell[4] for cell in cells] for cells in by_method]
    seg, box, seg_val, box_val = np.moveaxis(ious, -1, 0)
    return MapTable(seg, box, seg_val, box_val, list(chosen), problems, [label for label, _ in judged])


def _judge_one(
    method: Method, item: ApoloItem, truth: Truth, thresholds: tuple[float, float | None], missing: float
) -> ItemIous:
    fixed, second = thresholds
    comparable = method.finished or second is not None

    def both(iou: float) -> tuple[float, float, float, float]:
        return (iou, iou, iou, iou) if comparable else (iou, iou, np.nan, np.nan)

    try:
        values = method.answer(item, *truth.mask.shape)
    except ValueError as error:
        return *both(0.0), f"unusable map: {error}"
    if values is None:
        return *both(missing), "missing"
    pred = values if method.finished else values > fixed
    ious = truth.ious(pred)
    at_second = (np.nan, np.nan)
    if comparable:
        at_second = ious if second in (None, fixed) else truth.ious(values > second)
    return *ious, *at_second, None if pred.any() else "no foreground (a constant map has none)"
