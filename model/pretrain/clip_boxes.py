"""Which boxes the small CLIP sees crops of: things framed well, and the same things framed badly.

A detector's boxes are often a part of a thing, the thing with much around it, or two things at once. Who is
only shown well-framed things finds any of these as good as the right one.

G pictures, M motifs of each, K boxes of each; boxes are xyxy in pixels.
"""

import torch
from torch import Tensor
from torchvision.ops import roi_align

SHIFT, SHRINK, GROW = 0.12, 0.2, 0.3
"""Of well-framed crops: the centre moves by up to this share of the sides, whose logarithm falls or grows by
up to so much. The IoU with the true box stays above 0.5, and is 0.7 on average, as a detector's."""
BAD_SHIFT, BAD_SHRINK, BAD_GROW = 0.45, 0.7, 0.8
PAIRS, ANYWHERE = 0.2, 0.15
"""Shares of badly framed boxes that begin as the box around two motifs, and as any box of the picture."""
LEAST_IOU = 0.5
"""A crop that meets a motif's box this well shows the motif; one that does not is no picture of it."""
LEAST_SIDE = 8
"""Pixels of the canvas."""


def jitter(
    boxes: Tensor, sizes: Tensor, shift: float = SHIFT, shrink: float = SHRINK, grow: float = GROW
) -> Tensor:
    """Boxes (G, K, 4) moved and resized at random, kept inside pictures of (height, width) `sizes` (G, 2)."""
    extent = boxes[..., 2:] - boxes[..., :2]
    center = (boxes[..., :2] + boxes[..., 2:]) / 2 + (torch.rand_like(extent) - 0.5) * 2 * shift * extent
    half = extent / 2 * torch.exp(torch.rand_like(extent) * (shrink + grow) - shrink)
    limit = sizes.flip(-1)[:, None].float()
    low = (center - half).clamp(min=0).minimum(limit - LEAST_SIDE)
    high = torch.maximum((center + half).minimum(limit), low + LEAST_SIDE)
    return torch.cat([low, high], -1)


def bad_framings(motifs: Tensor, sizes: Tensor, count: int) -> Tensor:
    """Random boxes (G, count, 4) around, in and between the motifs' boxes (G, M, 4), and some anywhere.

    Some meet a motif well by chance.
    """
    device, shape = motifs.device, (len(motifs), count)
    one, other = (
        motifs.gather(1, torch.randint(motifs.shape[1], (*shape, 1), device=device).expand(-1, -1, 4))
        for _ in range(2)
    )
    both = torch.cat([torch.minimum(one, other)[..., :2], torch.maximum(one, other)[..., 2:]], -1)
    limit = sizes.flip(-1)[:, None].float()
    extent = limit * torch.exp(torch.rand(*shape, 2, device=device) * 2.3 - 2.6)
    low = torch.rand(*shape, 2, device=device) * (limit - extent)
    kind = torch.rand(*shape, 1, device=device)
    base = torch.where(kind < PAIRS, both, one)
    base = torch.where(kind > 1 - ANYWHERE, torch.cat([low, low + extent], -1), base)
    return jitter(base, sizes, BAD_SHIFT, BAD_SHRINK, BAD_GROW)


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """IoU (G, K, M) of boxes (G, K, 4) and (G, M, 4)."""
    low = torch.maximum(a[:, :, None, :2], b[:, None, :, :2])
    high = torch.minimum(a[:, :, None, 2:], b[:, None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (a, b)]
    return shared / (areas[0][:, :, None] + areas[1][:, None] - shared)


def framing(iou: Tensor) -> Tensor:
    """How well a crop shows what its box meets with this IoU: 0 below `LEAST_IOU`, then 0.25 rising to 1."""
    return torch.where(iou >= LEAST_IOU, 1.5 * iou - 0.5, 0.0)


def cut(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Boxes (G, K, 4) of uint8 pictures (G, 3, H, W) squashed to float (G * K, 3, size, size) in [0, 1]."""
    crops: Tensor = roi_align(images.float(), list(boxes), size, sampling_ratio=2, aligned=True)
    return crops / 255.0


def recolour(crops: Tensor) -> Tensor:
    """Random brightness, contrast and mirror image of each crop; colours keep their names."""
    shape = (len(crops), 1, 1, 1)
    gain = 1 + (torch.rand(shape, device=crops.device) - 0.5) * 0.4
    shift = (torch.rand(shape, device=crops.device) - 0.5) * 0.2
    flip = torch.rand(shape, device=crops.device) < 0.5
    return torch.where(flip, crops.flip(-1), crops).mul(gain).add(shift).clamp(0, 1)
