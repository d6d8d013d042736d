"""The APOLO protocol against the arithmetic of the released script: a confusion matrix for each mask.

The script (WESD's `eval_map_iou.py`) takes twice the mean IoU of the two classes over the union region, which
is the foreground's IoU. It crashes as released, because thresholding and boxes stand in a branch that is off;
here is its arithmetic with that branch taken, and its label map left unboxed.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from model.bench.peers.pair import Job, Pair, close
from model.bench.peers.pictures import TINY
from model.bench.score import SIZES, blobs
from model.metrics.segmentation import score_maps

THRESHOLD = 0.35
Matrix = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Confusion matrix (truth, prediction) of the classes that occur, as scikit-learn's."""


def prepare(job: Job) -> Pair:
    """One map of 7 x 7 for a label of each size, scored by pixels and by boxes. On one thread each."""
    from sklearn.metrics import confusion_matrix

    rng = np.random.default_rng(0)
    sizes = TINY if job.tiny else SIZES
    labels = [blobs(rng, *size) > 0.6 for size in sizes]
    maps = [rng.random((7, 7)) for _ in sizes]

    def ours() -> np.ndarray:
        scores = score_maps(maps, labels, threshold=THRESHOLD, box_truth=False, workers=1)
        return np.stack([scores.iou_seg, scores.iou_box])

    def theirs() -> np.ndarray:
        return np.array([released(maps, labels, boxed, confusion_matrix) for boxed in (False, True)])

    return Pair(
        f"{len(sizes)} maps of 7 x 7 against labels of paintings' sizes, by pixels and by boxes",
        "items",
        len(sizes),
        ours,
        theirs,
        lambda: close(ours(), theirs(), 1e-9, "IoUs"),
    )


def released(
    maps: Sequence[np.ndarray], labels: Sequence[np.ndarray], boxed: bool, matrix: Matrix
) -> list[float]:
    """The script's score of every item, its bug of scoring a perfect match 2 mended as it does later."""
    scores = []
    for map_, label in zip(maps, labels, strict=True):
        height, width = label.shape
        unit = (map_ - np.min(map_)) / (np.max(map_) - np.min(map_))
        large = cv2.resize(unit, (width, height), interpolation=cv2.INTER_LINEAR)
        prediction = np.where(large > THRESHOLD, 0, -1)
        if boxed and np.sum(prediction) != 0:
            prediction = _boxes(prediction)
        truth = label.astype(np.int64) - 1
        mask = ((truth >= 0) + (prediction >= 0)) & (truth < 1) & (prediction < 1)
        scores.append(min(1.0, 2 * _mean_iou(truth[mask], prediction[mask], matrix)))
    return scores


def _boxes(prediction: np.ndarray) -> np.ndarray:
    """`graph2heatmap`: every component's tight box, 0 inside and -1 outside."""
    _, binary = cv2.threshold((prediction + 1).astype(np.uint8), 0.5, 255, cv2.THRESH_BINARY)
    _, components = cv2.connectedComponents(binary.astype(np.uint8))
    filled = np.zeros(prediction.shape) - 1
    for number in range(1, int(components.max()) + 1):
        one = np.where(components == number, 1, 0)
        columns, rows = np.where(np.any(one, axis=0))[0], np.where(np.any(one, axis=1))[0]
        filled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 0
    return filled


def _mean_iou(truth: np.ndarray, prediction: np.ndarray, matrix: Matrix) -> float:
    """`mIoU_`: over the classes that occur."""
    if np.sum(prediction + 1) == 0:
        return 0.0
    counts = matrix(truth.ravel(), prediction.ravel())
    intersection = np.diag(counts)
    union = np.sum(counts, axis=0) + np.sum(counts, axis=1) - intersection
    return float(np.mean(intersection / union))
