"""All training features in the device's memory: a batch gathers them there, and a loader reads masks alone.

int8 grids of ArtEmis' 68,000 training artworks and float16 patch tokens are 92 GB (`pipeline.features`).
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from model.data.batch import Batch
from model.data.cached_features import MIXED, read_cached_features
from model.data.samples import Samples
from pipeline.common.errors import UserError
from pipeline.common.machine import available_memory, shown_bytes

ROOM = 0.85
"""Share of the free memory that features may take; the rest is for the model and its activations."""
CHUNK = 64
"""Artworks read at a time."""


@dataclass(frozen=True)
class ResidentFeatures:
    """Features of all artworks of `Samples`, in its order, as stored."""

    sam: Tensor
    """(A, C, grid, grid) float16 or int8."""
    sam_scale: Tensor | None
    """(A, C) float32 with int8."""
    clip: Tensor
    """(A, K, C) float16."""

    @classmethod
    def load(cls, samples: Samples, device: torch.device) -> "ResidentFeatures":
        """Read every artwork's features once. Raises `UserError` when they do not fit."""
        index, keys = samples.index, samples.keys
        sam, scale, clip = read_cached_features(index, keys[:1])
        check_room(len(keys), sam.nbytes + clip.nbytes + (0 if scale is None else scale.nbytes), device)

        def room(first: Tensor) -> Tensor:
            return first.new_empty((len(keys), *first.shape[1:]), device=device)

        resident = cls(room(sam), None if scale is None else room(scale), room(clip))
        for start in range(0, len(keys), CHUNK):
            resident._put(start, *read_cached_features(index, keys[start : start + CHUNK]))
        return resident

    def _put(self, start: int, sam: Tensor, scale: Tensor | None, clip: Tensor) -> None:
        if (scale is None) != (self.sam_scale is None):
            raise UserError(MIXED)
        rows = slice(start, start + len(sam))
        self.sam[rows], self.clip[rows] = sam, clip
        if scale is not None and self.sam_scale is not None:
            self.sam_scale[rows] = scale

    def gather(self, batch: Batch) -> Batch:
        """A batch on the device with its artworks' features, as the loader would have read them."""
        scale = self.sam_scale
        return dataclasses.replace(
            batch,
            sam=self.sam.index_select(0, batch.artworks),
            sam_scale=None if scale is None else scale.index_select(0, batch.artworks),
            clip=self.clip.index_select(0, batch.artworks),
        )


def check_room(artworks: int, bytes_each: int, device: torch.device) -> None:
    """Raise `UserError` unless so many artworks' features fit on a device."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    needed = artworks * bytes_each
    if free is not None and needed > ROOM * free:
        raise UserError(
            f"train.resident needs {shown_bytes(needed)} for {artworks:,} artworks, more than {ROOM:.0%} of "
            f"the {shown_bytes(free)} free on {device}; store smaller features (features.sam_dtype: int8) "
            "or set train.resident: false"
        )
