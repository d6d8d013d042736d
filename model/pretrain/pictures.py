"""Gallery scenes as tensors for the small SAM's training, kept on disk while it lasts.

N pictures, B of them in a batch, S their side in pixels (`SIDE`).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional as F

from model.pretrain.scenes import CLASSES, FIRST_SCENERY, OWNERS, SCENERY_OWNER, Canvas, load_canvases
from pipeline.backbones.sam import SamConfig
from pipeline.common.code import code_fingerprint
from pipeline.common.files import write_bytes
from pipeline.common.fingerprint import fingerprint
from pipeline.common.progress import Meter

NOTHING = len(CLASSES) - 1
"""Class of pixels that nobody owns (the number that `view` has in `CLASSES`, which no pixel is)."""
SIDE = SamConfig.img_size
"""Side of SAM's input, pixels; owner maps are brought to it."""
MIN_PIXELS = 256
"""Targets of visual prompts that own fewer pixels of a canvas's owner map are not asked for."""
MOST_TARGETS = 12
CHUNK = 100
"""Scenes that are drawn, made small and kept together; what a killed drawing loses at most."""


@dataclass(frozen=True)
class Pictures:
    """N pictures and their owner maps, on one device."""

    images: Tensor
    """uint8 (N, 3, S, S) RGB, black where padded."""
    owners: Tensor
    """uint8 (N, S, S), the numbers of `Canvas.owner`."""
    sizes: Tensor
    """int64 (N, 2): (height, width) of each picture in its square, pixels."""
    classes: Tensor
    """int64 (N, 256): class of each owner number."""
    targets: Tensor
    """int64 (N, MOST_TARGETS): owners that a visual prompt may ask for."""

    @classmethod
    def of(cls, canvases: Sequence[Canvas], device: str) -> "Pictures":
        """Canvases at SAM's size."""
        pixels = torch.from_numpy(np.stack([canvas.image for canvas in canvases])).permute(0, 3, 1, 2)
        images = F.interpolate(pixels.float(), (SIDE, SIDE), mode="bilinear", antialias=True)
        nearest = (torch.arange(SIDE) * 2 + 1) * OWNERS // (2 * SIDE)
        owners = torch.from_numpy(np.stack([canvas.owner for canvas in canvases]))
        ratio = SIDE / canvases[0].image.shape[0]
        sizes = [[round(side * ratio) for side in canvas.size] for canvas in canvases]
        return cls(
            images.round().clamp(0, 255).to(torch.uint8).contiguous().to(device),
            owners[:, nearest][:, :, nearest].contiguous().to(device),
            torch.tensor(sizes, device=device),
            torch.from_numpy(np.stack([_class_of_owner(canvas) for canvas in canvases])).to(device),
            torch.from_numpy(np.stack([_targets(canvas) for canvas in canvases])).to(device),
        )

    def batch(self, chosen: Tensor, mirror: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures uint8 (B, 3, S, S), owners (B, S, S) and sizes (B, 2), mirrored at random if `mirror`."""
        images, owners, sizes = self.images[chosen], self.owners[chosen], self.sizes[chosen]
        if not mirror:
            return images, owners, sizes
        columns = torch.arange(SIDE, device=images.device).expand(len(chosen), -1)
        mirrored = (sizes[:, 1:] - 1 - columns) % SIDE  # the padding stays on the right
        flip = torch.rand(len(chosen), 1, device=images.device) < 0.5
        index = torch.where(flip, mirrored, columns)[:, None, :].expand(-1, SIDE, -1)
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


def load_pictures(seed: int, count: int, workers: int, device: str, kept: Path) -> Pictures:
    """The first scenes of a seed as pictures; drawn ones are kept, so that a killed run does not draw anew.

    Args:
        seed, count, workers: see `load_scenes`.
        device: torch device name.
        kept: folder for files of `CHUNK` pictures each; those of other drawing code are not used.
    """
    drawing = fingerprint(code_fingerprint(__name__, without=("pipeline.backbones",)), SIDE)
    meter = Meter("sam: drawing", count, unit="scene")
    chunks = []
    for start in range(0, count, CHUNK):
        stop = min(start + CHUNK, count)
        path = kept / f"pictures-{fingerprint(drawing, seed, start, stop)[:16]}.safetensors"
        pictures = _read(path)
        if pictures is None:
            pictures = Pictures.of(load_canvases(seed, stop, workers, start), "cpu")
            write_bytes(path, save(vars(pictures)))
        chunks.append(vars(pictures))
        meter.add(stop - start)
    return Pictures(**{name: torch.cat([chunk[name] for chunk in chunks]).to(device) for name in chunks[0]})


def _read(path: Path) -> Pictures | None:
    if not path.is_file():
        return None
    try:
        return Pictures(**load(path.read_bytes()))
    except (SafetensorError, TypeError) as error:
        print(f"{path} cannot be used ({error}): its scenes are drawn anew", file=sys.stderr)
        return None
