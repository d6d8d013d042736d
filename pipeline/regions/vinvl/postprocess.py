"""From class probabilities to an image's detections: the original's three filters (NMS_FILTER).

Each filter answers with (proposal, class) pairs; score, box and feature follow from them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

from pipeline.regions.vinvl.boxes import per_class_nms
from pipeline.regions.vinvl.config import VinvlConfig

ONE_LABEL_NMS = 0.3
"""IoU of mode 1's suppression; a constant in the original, whatever NMS is set to."""
RETRIES = 10
"""How often mode 0 halves its threshold while there are too few detections."""

Pairs = tuple[Tensor, Tensor]


def select(probabilities: Tensor, boxes: Tensor, config: VinvlConfig) -> Pairs:
    """Detections of one image as proposal rows (n) and classes (n), both int64.

    probabilities: (N, classes) with column 0 the background. boxes: (N, classes, 4), clipped.
    """
    if len(probabilities) == 0:
        empty = torch.zeros(0, dtype=torch.int64, device=probabilities.device)
        return empty, empty
    if config.nms_mode == 0:
        return per_class(probabilities, boxes, config)
    if config.nms_mode == 1:
        return one_label(probabilities, boxes, config)
    return class_agnostic(probabilities, boxes, config)


def per_class(probabilities: Tensor, boxes: Tensor, config: VinvlConfig) -> Pairs:
    """Mode 0: threshold and suppress within each class. Ordered by class, then score.

    A proposal may come back under several classes; ties at the last place may exceed the maximum.
    """
    scores = probabilities[:, 1:]
    survives = per_class_nms(boxes[:, 1:], scores, config.nms)
    threshold = config.score_threshold
    keep = survives & (scores > threshold)
    for _ in range(RETRIES):
        if int(keep.sum()) >= config.min_detections:
            break
        threshold /= 2
        keep = survives & (scores > threshold)
    labels, rows = keep.T.nonzero(as_tuple=True)
    found = scores[rows, labels]
    by_score = found.argsort(descending=True, stable=True)
    order = by_score[labels[by_score].argsort(stable=True)]
    if len(order) > config.max_detections:
        last = found.topk(config.max_detections).values[-1]
        order = order[found[order] >= last]
    return rows[order], labels[order] + 1


def one_label(probabilities: Tensor, boxes: Tensor, config: VinvlConfig) -> Pairs:
    """Mode 1: each proposal keeps the best class in which it survived suppression. Ordered by score."""
    scores = probabilities[:, 1:]
    scores = scores * per_class_nms(boxes[:, 1:], scores, ONE_LABEL_NMS)
    best, labels = scores.max(dim=1)
    rows = best.nonzero().squeeze(1)
    order = best[rows].argsort(descending=True, stable=True)
    rows = rows[order][: _count(best, config)]
    return rows, labels[rows] + 1


def class_agnostic(probabilities: Tensor, boxes: Tensor, config: VinvlConfig) -> Pairs:
    """Mode 2: one suppression for all classes on each proposal's best one. Ordered by score.

    With box regression the original indexes the wrong rows here; we take the best class's own box.
    """
    scores, labels = probabilities[:, 1:].max(dim=1)
    labels = labels + 1
    chosen = boxes[torch.arange(len(boxes), device=boxes.device), labels]
    size = chosen[:, 2:] - chosen[:, :2]
    keep = ((size >= 0).all(dim=1) & (scores > config.score_threshold * 0.01)).nonzero().squeeze(1)
    rows = keep[nms(chosen[keep], scores[keep], config.nms)]
    rows = rows[: _count(scores[rows], config)]
    return rows, labels[rows]


def _count(scores: Tensor, config: VinvlConfig) -> int:
    """How many detections to keep: those at the threshold, within the two limits."""
    above = int((scores >= config.score_threshold).sum())
    return min(max(above, config.min_detections), config.max_detections)
