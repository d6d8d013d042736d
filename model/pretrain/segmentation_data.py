"""Gallery scenes as tensors for the small SAM's training, and what can be asked about them.

B pictures, S their side in pixels (`OWNERS`); masks have a quarter of it, as SAM's logits do.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.pretrain.scenes import CLASSES, FIRST_SCENERY, OWNERS, SCENERY_OWNER, Canvas

KINDS = FIRST_SCENERY
"""Number of kinds that a semantic prompt can name."""
NOTHING = len(CLASSES) - 1
"""Class of pixels that nobody owns (the number that `view` has in `CLASSES`, which no pixel is)."""
CELL = 4
"""Pixels of the 256 x 256 frame to one pixel of the mask logits."""
MIN_PIXELS = 256
"""Targets of visual prompts that own fewer pixels of the 256 x 256 frame are not asked for."""
MOST_TARGETS = 12


class Pictures:
    """Pictures and owner maps on the device."""

    def __init__(self, canvases: Sequence[Canvas], device: str) -> None:
        side = OWNERS
        small = []
        for start in range(0, len(canvases), 256):
            part = np.stack([canvas.image for canvas in canvases[start : start + 256]])
            pixels = torch.from_numpy(part).permute(0, 3, 1, 2).to(device).float()
            shrunk = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True, align_corners=False)
            small.append(shrunk.round().clamp(0, 255).to(torch.uint8))
        self.images = torch.cat(small)
        self.owners = torch.from_numpy(np.stack([canvas.owner for canvas in canvases])).to(device)
        ratio = side / canvases[0].image.shape[0]
        sizes = [
            [round(height * ratio), round(width * ratio)] for height, width in (c.size for c in canvases)
        ]
        self.sizes = torch.tensor(sizes, device=device)
        self.classes = torch.from_numpy(np.stack([_class_of_owner(canvas) for canvas in canvases])).to(device)
        self.targets = torch.from_numpy(np.stack([_targets(canvas) for canvas in canvases])).to(device)

    def batch(self, chosen: Tensor, mirror: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures uint8 (B, 3, S, S), owners (B, S, S) and sizes (B, 2), mirrored at random if `mirror`."""
        images, owners, sizes = self.images[chosen], self.owners[chosen], self.sizes[chosen]
        if not mirror:
            return images, owners, sizes
        columns = torch.arange(OWNERS, device=images.device).expand(len(chosen), -1)
        mirrored = (sizes[:, 1:] - 1 - columns) % OWNERS  # the padding stays on the right
        flip = torch.rand(len(chosen), 1, device=images.device) < 0.5
        index = torch.where(flip, mirrored, columns)[:, None, :].expand(-1, OWNERS, -1)
        return (
            images.gather(3, index[:, None].expand(-1, 3, -1, -1)),
            owners.gather(2, index),
            sizes,
        )

    def class_map(self, chosen: Tensor, owners: Tensor) -> Tensor:
        """Class of every pixel, int64 (B, S, S)."""
        table = self.classes[chosen]
        return table.gather(1, owners.flatten(1).long()).view(owners.shape)


def _class_of_owner(canvas: Canvas) -> np.ndarray:
    """int64 (256): owner number -> class."""
    table = np.full(256, NOTHING)
    table[SCENERY_OWNER : SCENERY_OWNER + NOTHING - FIRST_SCENERY] = np.arange(FIRST_SCENERY, NOTHING)
    table[1 : 1 + len(canvas.motifs)] = [motif.label for motif in canvas.motifs]
    return table


def _targets(canvas: Canvas) -> np.ndarray:
    """int64 (MOST_TARGETS): owners a visual prompt may ask for, motifs thrice as likely as scenery."""
    counts = np.bincount(canvas.owner.ravel(), minlength=256)
    large = [owner for owner in range(1, 256) if counts[owner] >= MIN_PIXELS]
    motifs = [owner for owner in large if owner < SCENERY_OWNER]
    scenery = [owner for owner in large if owner >= SCENERY_OWNER][: MOST_TARGETS // 4]
    choice = motifs or large
    few = [*scenery, *(choice[i % len(choice)] for i in range(MOST_TARGETS - len(scenery)))]
    return np.array(few)


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
    """Pixels of the kinds in sets (B, P, KINDS), on class maps (B, S, S); float (B, P, S / 4, S / 4)."""
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


def visual_targets(pictures: Pictures, chosen: Tensor, owners: Tensor, count: int) -> Tensor:
    """Masks float (B, count, S / 4, S / 4) of random owners of each picture."""
    pick = torch.randint(MOST_TARGETS, (len(chosen), count), device=owners.device)
    wanted = pictures.targets[chosen].gather(1, pick)
    return F.avg_pool2d((owners[:, None] == wanted[:, :, None, None]).float(), CELL)
