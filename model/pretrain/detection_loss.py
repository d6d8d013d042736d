"""Losses of the detector (Faster R-CNN, Ren et al. 2015) over a batch at once, without loops over images.

Everything is padded to fixed shapes: (B, N) with a weight of zero where there is nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms

from pipeline.regions.vinvl.boxes import HEAD_WEIGHTS, RPN_WEIGHTS, decode, encode, iou
from pipeline.regions.vinvl.detector import AttrRCNN
from pipeline.regions.vinvl.rpn import STRIDE, crop_maps, grid_anchors

RPN_BETA = 1 / 9
"""Where smooth L1 turns linear, for proposals (the original's value)."""


@dataclass(frozen=True)
class DetectionBatch:
    """B pictures, zero-padded to one size, with up to G boxes each."""

    images: Tensor
    """float32 (B, 3, H, W): BGR 0-255 with the mean subtracted, zero in the padding."""
    sizes: Tensor
    """int64 (B, 2): height and width."""
    boxes: Tensor
    """float32 (B, G, 4)."""
    labels: Tensor
    """int64 (B, G); 0 where there is no box."""
    attributes: Tensor
    """int64 (B, G); 0 where none is known."""


@dataclass(frozen=True)
class Sampling:
    """How many anchors and regions per picture enter the loss."""

    anchors: int = 96
    """Half of them positive, as far as there are that many."""
    pre_nms: int = 300
    """Proposals before suppression."""
    proposals: int = 64
    """Proposals after it."""
    regions: int = 32
    """Regions that the box head sees."""
    foreground: float = 0.4
    """Largest share of them that shows something."""


@dataclass(frozen=True)
class Anchored:
    """What the proposal network says of each of K anchors."""

    logits: Tensor
    """(B, K)."""
    deltas: Tensor
    """(B, K, 4)."""
    anchors: Tensor
    """(B, K, 4), the same for every picture."""
    inside: Tensor
    """(B, K) bool: the anchor's cell lies on the picture and not in its padding."""


def losses(model: AttrRCNN, batch: DetectionBatch, sampling: Sampling) -> dict[str, Tensor]:
    """The five losses; their sum is what training lowers."""
    features = model.backbone(batch.images, batch.sizes)
    rpn = ask_rpn(model, features, batch.sizes)
    found = rpn_losses(rpn, batch, sampling)
    with torch.no_grad():
        proposals = propose(rpn, batch.sizes, model.config.rpn_nms, sampling)
        regions = sample_regions(proposals, batch, sampling)
    sizes = [(int(h), int(w)) for h, w in batch.sizes.tolist()]
    return found | head_losses(model, crop_maps(features, sizes), regions)


def ask_rpn(model: AttrRCNN, features: Tensor, sizes: Tensor) -> Anchored:
    """Run the proposal network's head on the maps (B, C, h, w)."""
    logits, deltas = model.rpn.head(features)
    anchors = grid_anchors(model.rpn.anchor_generator.cell, logits.shape[1], logits.shape[2])
    return Anchored(
        logits.flatten(1).float(),  # what follows needs more than autocast's bfloat16
        deltas.flatten(1, 3).float(),
        anchors.expand(len(logits), -1, -1),
        _cells_inside(sizes, logits),
    )


def _cells_inside(sizes: Tensor, logits: Tensor) -> Tensor:
    """(B, K): anchors whose cell lies on the picture and not in its padding."""
    valid = -(-sizes // STRIDE)
    rows = torch.arange(logits.shape[1], device=sizes.device) < valid[:, :1]
    columns = torch.arange(logits.shape[2], device=sizes.device) < valid[:, 1:]
    inside = rows[:, :, None, None] & columns[:, None, :, None]
    return inside.expand(-1, -1, -1, logits.shape[3]).flatten(1)


def _draw(mask: Tensor, count: Tensor) -> Tensor:
    """At random, up to `count` (B,) of each row's True entries of `mask` (B, N)."""
    order = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, 2).argsort(dim=1)
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    return mask & (rank < count[:, None])


def _overlaps(boxes: Tensor, batch: DetectionBatch) -> Tensor:
    """IoU (B, N, G) with the true boxes; -1 where there is none."""
    overlap = iou(boxes, batch.boxes)
    return overlap.masked_fill((batch.labels == 0)[:, None, :], -1)


def _matched(values: Tensor, index: Tensor) -> Tensor:
    """values (B, G, ...) at index (B, N) -> (B, N, ...)."""
    rows = torch.arange(len(values), device=values.device)[:, None]
    return values[rows, index]


def rpn_losses(rpn: Anchored, batch: DetectionBatch, sampling: Sampling) -> dict[str, Tensor]:
    """Objectness and box losses of sampled anchors.

    Positive: IoU >= 0.7 with a true box, or the closest that box has. Negative: IoU < 0.3 with all.
    """
    overlap = _overlaps(rpn.anchors, batch).masked_fill(~rpn.inside[:, :, None], -1)
    best, match = overlap.max(dim=2)
    closest = overlap.amax(dim=1, keepdim=True)
    positive = (best >= 0.7) | ((overlap == closest) & (overlap > 0)).any(dim=2)
    negative = (best < 0.3) & rpn.inside & ~positive
    limit = torch.full((len(best),), sampling.anchors // 2, device=best.device)
    positive = _draw(positive, limit)
    negative = _draw(negative, sampling.anchors - positive.sum(dim=1))
    chosen = positive | negative
    count = chosen.sum().clamp(min=1)
    objectness = F.binary_cross_entropy_with_logits(
        rpn.logits[chosen], positive[chosen].float(), reduction="sum"
    )
    true_boxes = _matched(batch.boxes, match)[positive]
    targets = encode(true_boxes, rpn.anchors[positive], RPN_WEIGHTS)
    box = F.smooth_l1_loss(rpn.deltas[positive], targets, beta=RPN_BETA, reduction="sum")
    return {"rpn_class": objectness / count, "rpn_box": box / count}


def propose(rpn: Anchored, sizes: Tensor, threshold: float, sampling: Sampling) -> Tensor:
    """Proposals (B, P, 4) as at test time, best first; rows beyond an image's last are all zero."""
    logits = rpn.logits.masked_fill(~rpn.inside, -torch.inf)
    scores, index = logits.topk(min(sampling.pre_nms, logits.shape[1]))
    boxes = decode(_matched(rpn.deltas, index), _matched(rpn.anchors, index), RPN_WEIGHTS)
    limit = sizes.flip(1).repeat(1, 2)[:, None, :] - 1
    boxes = torch.minimum(boxes.clamp(min=0), limit.to(boxes.dtype))
    image = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(scores)
    keep = batched_nms(boxes.flatten(0, 1), scores.flatten(), image.flatten(), threshold)
    owner = image.flatten()[keep]
    place = F.one_hot(owner, len(boxes)).cumsum(0).gather(1, owner[:, None]).squeeze(1) - 1
    fits = (place < sampling.proposals) & scores.flatten()[keep].isfinite()
    proposals = boxes.new_zeros(len(boxes), sampling.proposals, 4)
    proposals[owner[fits], place[fits]] = boxes.flatten(0, 1)[keep[fits]]
    return proposals


@dataclass(frozen=True)
class RegionTargets:
    """The R regions of a batch that the box head learns from."""

    boxes: list[Tensor]
    """Per picture (r_i, 4); the rows of the other fields follow the pictures."""
    labels: Tensor
    """(R,): 0 background."""
    attributes: Tensor
    """(R,): 0 unknown."""
    targets: Tensor
    """(R, 4): what `bbox_pred` should say for the label."""


def sample_regions(proposals: Tensor, batch: DetectionBatch, sampling: Sampling) -> RegionTargets:
    """Proposals and true boxes, labelled by IoU >= 0.5, and a random few of each."""
    candidates = torch.cat([proposals, batch.boxes], dim=1)
    real = (candidates[..., 2:] > candidates[..., :2]).all(dim=2)
    best, match = _overlaps(candidates, batch).max(dim=2)
    limit = torch.full((len(best),), int(sampling.regions * sampling.foreground), device=best.device)
    foreground = _draw(real & (best >= 0.5), limit)
    background = _draw(real & (best < 0.5), sampling.regions - foreground.sum(dim=1))
    image, row = (foreground | background).nonzero(as_tuple=True)
    label = _matched(batch.labels, match) * foreground
    attribute = _matched(batch.attributes, match) * foreground
    boxes = candidates[image, row]
    targets = encode(_matched(batch.boxes, match)[image, row], boxes, HEAD_WEIGHTS)
    counts = (foreground | background).sum(dim=1).tolist()
    return RegionTargets(list(torch.split(boxes, counts)), label[image, row], attribute[image, row], targets)


def head_losses(model: AttrRCNN, maps: list[Tensor], regions: RegionTargets) -> dict[str, Tensor]:
    """Class, box and attribute losses of the sampled regions."""
    head = model.roi_heads.box
    pooled = head.feature_extractor([m.float() for m in maps], regions.boxes).float()
    logits, deltas = (output.float() for output in head.predictor(pooled))
    shown = regions.labels > 0
    chosen = deltas[shown, regions.labels[shown]]
    box = F.smooth_l1_loss(chosen, regions.targets[shown], reduction="sum") / max(len(regions.labels), 1)
    found = {"class": F.cross_entropy(logits, regions.labels), "box": box}
    if model.config.num_attributes:
        known = regions.attributes > 0
        attribute_logits = model.attribute.predictor(pooled[known], regions.labels[known]).float()
        total = F.cross_entropy(attribute_logits, regions.attributes[known], reduction="sum")
        found["attribute"] = total / known.sum().clamp(min=1)
    return found
