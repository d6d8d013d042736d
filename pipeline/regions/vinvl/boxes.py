"""Box arithmetic with the conventions of the original detector.

A box is (x1, y1, x2, y2) in pixels of the resized image, and its corners are pixels that belong to
it: width = x2 - x1 + 1. Only suppression measures without the +1, because the original calls
torchvision's operator there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000.0 / 16)
"""Largest dw, dh that is decoded."""

Weights = tuple[float, float, float, float]
RPN_WEIGHTS: Weights = (1.0, 1.0, 1.0, 1.0)
HEAD_WEIGHTS: Weights = (10.0, 10.0, 5.0, 5.0)


def _centers(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Center and size, each (..., 2), of boxes (..., 4)."""
    size = boxes[..., 2:] - boxes[..., :2] + 1
    return boxes[..., :2] + 0.5 * size, size


def decode(deltas: Tensor, boxes: Tensor, weights: Weights) -> Tensor:
    """Boxes (..., 4) from regression outputs (..., 4) relative to `boxes` (..., 4); they broadcast."""
    center, size = _centers(boxes)
    scale = deltas.new_tensor(weights)
    shift, log_scale = torch.split(deltas / scale, 2, dim=-1)
    new_center = shift * size + center
    new_size = log_scale.clamp(max=MAX_LOG_SCALE).exp() * size
    return torch.cat([new_center - 0.5 * new_size, new_center + 0.5 * new_size - 1], dim=-1)


def encode(targets: Tensor, boxes: Tensor, weights: Weights) -> Tensor:
    """The regression outputs that `decode` turns into `targets`; both (..., 4)."""
    center, size = _centers(boxes)
    target_center, target_size = _centers(targets)
    deltas = torch.cat([(target_center - center) / size, (target_size / size).log()], dim=-1)
    return deltas * deltas.new_tensor(weights)


def clip(boxes: Tensor, height: float, width: float) -> Tensor:
    """Boxes (..., 4) moved into [0, width - 1] x [0, height - 1]."""
    limit = boxes.new_tensor([width - 1, height - 1, width - 1, height - 1])
    return torch.minimum(boxes.clamp(min=0), limit)


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union, (..., N, M), of boxes (..., N, 4) and (..., M, 4), with the +1."""
    size = (
        torch.minimum(first[..., :, None, 2:], second[..., None, :, 2:])
        - torch.maximum(first[..., :, None, :2], second[..., None, :, :2])
        + 1
    ).clamp(min=0)
    inter = size.prod(-1)
    area = [(b[..., 2:] - b[..., :2] + 1).prod(-1) for b in (first, second)]
    return inter / (area[0][..., :, None] + area[1][..., None, :] - inter)


def per_class_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Greedy suppression in all classes at once; equals torchvision's `nms` run class by class.

    boxes: (N, C, 4), scores: (N, C). Returns bool (N, C): which survive. One pass over the N ranks
    instead of C calls: 1594 classes would cost 1594 kernel launches and as many waits per image.
    """
    order = scores.argsort(dim=0, descending=True, stable=True)
    ranked = boxes.gather(0, order[..., None].expand(-1, -1, 4))
    area = (ranked[..., 2] - ranked[..., 0]) * (ranked[..., 3] - ranked[..., 1])
    keep = torch.ones_like(scores, dtype=torch.bool)
    for i in range(len(ranked) - 1):
        low = torch.maximum(ranked[i, :, :2], ranked[i + 1 :, :, :2])
        high = torch.minimum(ranked[i, :, 2:], ranked[i + 1 :, :, 2:])
        inter = (high - low).clamp(min=0).prod(-1)
        overlap = inter / (area[i] + area[i + 1 :] - inter)
        keep[i + 1 :] &= ~((overlap > threshold) & keep[i])
    return torch.zeros_like(keep).scatter(0, order, keep)
