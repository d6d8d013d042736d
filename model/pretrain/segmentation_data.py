"""What can be asked about pictures of gallery scenes: points, boxes and sets of kinds, and their masks.

B pictures, S their side in pixels (`pictures.SIDE`); masks have S / `CELL`, as SAM's logits do.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.pretrain.pictures import MOST_TARGETS, Pictures
from model.pretrain.scenes import CLASSES, FIRST_SCENERY
from pipeline.backbones.sam import SamConfig

KINDS = FIRST_SCENERY
"""Number of kinds that a semantic prompt can name."""
CELL = SamConfig.patch_size // 4
"""Pixels of the input to one pixel of the mask logits, of which a cell of the grid has 4 x 4."""
SLOTS = 8
"""Semantic mask tokens decoded together."""


def draw_sets(present: Tensor, count: int, empty: float = 0.1) -> Tensor:
    """Random sets of one to eight kinds for semantic prompts.

    Args:
        present: bool (B, KINDS): kinds in each picture.
        count: sets per picture.
        empty: share of sets that name no kind of the picture; the others name one to three.

    Returns:
        bool (B, count, KINDS).
    """
    shape = (len(present), count, KINDS)
    device = present.device
    here = present[:, None].expand(shape)
    order = torch.rand(shape, device=device)
    rank_here = order.masked_fill(~here, 2.0).argsort(-1).argsort(-1)
    rank_absent = order.masked_fill(here, 2.0).argsort(-1).argsort(-1)
    num_here = torch.randint(1, 4, (*shape[:2], 1), device=device)
    num_here = num_here.masked_fill(torch.rand(num_here.shape, device=device) < empty, 0)
    plain = (torch.rand(num_here.shape, device=device) < 0.5) & (num_here > 0)  # one kind and nothing else
    num_here = num_here.masked_fill(plain, 1)
    num_absent = torch.randint(0, 6, num_here.shape, device=device).masked_fill(plain, 0)
    num_absent = num_absent.maximum(1 - num_here)
    return ((rank_here < num_here) & here) | ((rank_absent < num_absent) & ~here)


def set_masks(sets: Tensor, classes: Tensor) -> Tensor:
    """Pixels of the kinds in sets (B, P, KINDS), on class maps (B, S, S); float (B, P, H, W) of S / CELL."""
    padded = F.pad(sets.float(), (0, len(CLASSES) - KINDS))
    index = classes.flatten(1)[:, None].expand(-1, sets.shape[1], -1)
    return F.avg_pool2d(padded.gather(2, index).view(*sets.shape[:2], *classes.shape[1:]), CELL)


def present_kinds(classes: Tensor) -> Tensor:
    """bool (B, KINDS): the kinds that own pixels of class maps (B, S, S)."""
    counts = torch.zeros(len(classes), len(CLASSES), device=classes.device)
    counts.scatter_add_(1, classes.flatten(1), torch.ones_like(classes.flatten(1), dtype=torch.float))
    return counts[:, :KINDS] > 0


def draw_points(targets: Tensor) -> Tensor:
    """A random pixel (x, y) of each mask (N, H, W), in the frame of `CELL` times the size; float (N, 2)."""
    flat = targets.flatten(1) + 1e-6
    pixel = torch.multinomial(flat, 1)[:, 0]
    width = targets.shape[-1]
    return torch.stack([pixel % width, pixel // width], 1) * CELL + CELL / 2


def tight_boxes(targets: Tensor) -> Tensor:
    """xyxy of each mask (N, H, W) above one half, in the frame of `CELL` times the size; float (N, 4)."""
    found = targets > 0.5
    columns, rows = found.any(1).float(), found.any(2).float()
    width, height = columns.shape[1], rows.shape[1]
    low = torch.stack([columns.argmax(1), rows.argmax(1)], 1)
    high = torch.stack([width - columns.flip(1).argmax(1), height - rows.flip(1).argmax(1)], 1)
    return torch.cat([low, high], 1) * float(CELL)


def visual_targets(pictures: Pictures, chosen: Tensor, owners: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Masks of random owners, float (B, count, S / CELL, S / CELL), and these owners, int64 (B, count)."""
    pick = torch.randint(MOST_TARGETS, (len(chosen), count), device=owners.device)
    wanted = pictures.targets[chosen].gather(1, pick)
    return F.avg_pool2d((owners[:, None] == wanted[:, :, None, None]).float(), CELL), wanted
