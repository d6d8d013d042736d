"""What the frozen encoders saw in an artwork, as the shards hold it."""

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.common.arrays import NoArray, parse_npy
from pipeline.common.errors import UserError
from pipeline.reader.index import Index

MIXED = "the features hold int8 and float16 grids; run the features and shards steps again"


class Features(NamedTuple):
    """What the frozen encoders saw in one artwork."""

    sam: np.ndarray
    """float (C, grid, grid), or int8 with `sam_scale`."""
    clip: np.ndarray
    """float (K, C), patch tokens only."""
    input_height: int
    """Of the picture inside SAM's padded input, pixels."""
    input_width: int
    sam_scale: np.ndarray | None = None
    """float32 (C,) with int8: the grid is ``sam * sam_scale``."""


def read_features(index: Index, key: str) -> Features:
    """Features of an artwork, in the dtypes they are stored in: read-only arrays on the memory map.

    Raises `KeyError` when it has none, `UserError` when its shard is damaged or lacks one of the two grids.
    """
    size = read_input_size(index, key)
    try:
        sam, clip = (parse_npy(index.view(key, member)) for member in ("sam.npy", "clip.npy"))
        scale = parse_npy(index.view(key, "sam_scale.npy")) if sam.dtype == np.int8 else None
    except KeyError as error:
        raise UserError(
            f"{error.args[0]}: a model needs both grids. Set features.sam_dtype and clip_dtype to something "
            "else than none, then run the features and shards steps"
        ) from None
    except NoArray as error:
        raise UserError(
            f"{key}: its features are damaged: {error}; run the features and shards steps"
        ) from None
    if math.isqrt(len(clip)) ** 2 != len(clip):  # the class token stands before a square of patches
        clip = clip[1:]
    return Features(sam, clip, *size, scale)


def read_input_size(index: Index, key: str) -> tuple[int, int]:
    """(height, width) of an artwork's picture inside SAM's padded input, pixels."""
    height, width = json.loads(index.read(key, "features/json"))["sam"]["input_size"]
    return height, width


def stack_sam(features: Sequence[Features]) -> tuple[Tensor, Tensor | None]:
    """SAM's grids as stored, (B, C, grid, grid), and with int8 their scales, float32 (B, C).

    Raises `UserError` when some are int8 and others are not.
    """
    quantised = [f.sam_scale is not None for f in features]
    if any(quantised) != all(quantised):
        raise UserError(MIXED)
    sam = torch.from_numpy(np.stack([f.sam for f in features]))
    scales = [f.sam_scale for f in features if f.sam_scale is not None]
    return sam, torch.from_numpy(np.stack(scales).astype(np.float32)) if scales else None


def dequantise(sam: Tensor, scale: Tensor | None) -> Tensor:
    """What `stack_sam` gives as float32 (B, C, grid, grid), on its device: int8 crosses the bus as int8."""
    return sam.float() if scale is None else sam * scale[:, :, None, None]


def read_cached_features(index: Index, keys: Sequence[str]) -> tuple[Tensor, Tensor | None, Tensor]:
    """`Batch`'s ``sam``, ``sam_scale`` and ``clip`` of artworks, as stored; empty of none."""
    if not keys:
        return torch.empty(0), None, torch.empty(0)
    features = [read_features(index, key) for key in keys]
    return *stack_sam(features), torch.from_numpy(np.stack([f.clip for f in features]))
