"""The arithmetic of a new label: a label and a student's map on one scale, averaged where they agree.

Both are bent so that the threshold of each becomes the protocol's: the foreground of every new label lies
above 0.35, whatever it was made of, and labels that stay are bent too. One `train.binarise` suits them all.

Agreement is asked of the mask, not of each pixel. Averaged only where both say the same of a pixel, no pixel
would change sides, and a student that is trained on hard masks would get the labels that it had. The IoU says
whether both speak of the same thing: if so, the average moves its edges; if not, one of them is wrong, nobody
knows which, and the label stays.
"""

from typing import NamedTuple

import cv2
import numpy as np

from model.relabel.params import RelabelParams
from pipeline.common.protocol import THRESHOLD

LOWEST = int(THRESHOLD * 255) + 1
"""The lowest stored level above the threshold."""
ROUNDING = 1e-9
"""Far above an average's rounding, far below a stored level: a value this near the threshold is on it."""


class Blended(NamedTuple):
    """A new label."""

    levels: np.ndarray
    """uint8 (h, w), 0 to 255 for [0, 1]; foreground lies above the protocol's threshold."""
    iou: float
    """Of the two foregrounds; 0 when both are empty."""
    agreed: bool
    """Whether the student's map is in it."""


def blend(label: np.ndarray, student: np.ndarray, params: RelabelParams) -> Blended:
    """The new label of one (artwork, emotion).

    Args:
        label: uint8 (h, w), the stored label.
        student: float (any h, w) of the same picture, at least 0: a student's map, or the mean of several.
        params: thresholds, weight and least agreement.
    """
    old = bent(label / 255.0, params.label_threshold)
    new = bent(in_frame(student, *label.shape), params.student_threshold)
    iou = _iou(_above(old), _above(new))
    if iou < params.agree:
        return Blended(_levels(old), iou, False)
    return Blended(_levels(params.weight * new + (1 - params.weight) * old), iou, True)


def kept(label: np.ndarray, params: RelabelParams) -> np.ndarray:
    """A label that stays, on the scale of the others: uint8 (h, w)."""
    return _levels(bent(label / 255.0, params.label_threshold))


def bent(values: np.ndarray, threshold: float) -> np.ndarray:
    """Values in [0, 1] on two straight lines: 0 and 1 stay, `threshold` becomes the protocol's; float64.

    The bend of `masks.level` (`pipeline.masks.raster.levels`).
    """
    return np.interp(values, (0.0, threshold, 1.0), (0.0, THRESHOLD, 1.0))


def in_frame(student: np.ndarray, height: int, width: int) -> np.ndarray:
    """A student's map scaled by its extremes, as the protocol does, at a label's size; float64 in [0, 1].

    A constant map, in which nothing stands out, becomes 0.
    """
    values = student.astype(np.float64)
    values -= values.min()
    if (top := values.max()) > 0:
        values /= top
    if values.shape != (height, width):
        how = cv2.INTER_AREA if height * width < values.size else cv2.INTER_LINEAR
        values = np.asarray(cv2.resize(values, (width, height), interpolation=how), np.float64)
    return np.clip(values, 0.0, 1.0)


def _above(values: np.ndarray) -> np.ndarray:
    above: np.ndarray = values > THRESHOLD + ROUNDING
    return above


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    union = int(np.count_nonzero(one | other))
    return int(np.count_nonzero(one & other)) / union if union else 0.0


def _levels(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as the nearest stored levels of the same side of the threshold."""
    levels = np.rint(values * 255).astype(np.int64)
    above = _above(values)
    sided = np.where(above, np.maximum(levels, LOWEST), np.minimum(levels, LOWEST - 1))
    return np.clip(sided, 0, 255).astype(np.uint8)
