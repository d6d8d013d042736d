"""What the frozen encoders saw in an artwork, as the shards hold it."""

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.data.batch_memory import BatchMemory
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

    When an artwork is first read, its bytes are compared with the index, and its grids must be finite. Raises
    `KeyError` when it has none, `UserError` when they are not, or its shard lacks one of the two grids.
    """
    first = index.check(key)
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
    if clip.ndim and math.isqrt(len(clip)) ** 2 != len(clip):  # a class token stands before the patches
        clip = clip[1:]
    features = Features(sam, clip, *size, scale)
    if first:
        _check_grids(index, key, features)
    return features


def _check_grids(index: Index, key: str, features: Features) -> None:
    """Raises `UserError` for grids of another form than the encoders give, or with a NaN or an infinity."""
    sam, scale = features.sam, features.sam_scale
    if sam.ndim != 3 or features.clip.ndim != 2 or (scale is not None and scale.shape != sam.shape[:1]):
        shapes = [grid.shape for grid in (sam, features.clip, scale) if grid is not None]
        problem = f"has features of the shapes {shapes}"
    elif not all(is_finite(grid) for grid in (sam, features.clip, scale) if grid is not None):
        problem = "has features with a NaN or an infinity"
    else:
        return
    tar = index.place(key, "sam.npy")[0]
    raise UserError(f"artwork {key} in {tar} {problem}; delete that file, run the features and shards steps")


def is_finite(array: np.ndarray) -> bool:
    """Whether no value of a numeric array is a NaN or an infinity.

    float16 by its bits: those with an exponent of all ones are the largest numbers of either sign, as signed
    integers and as unsigned. `np.isfinite` takes a hundred times as long.
    """
    if array.dtype == np.float16 and array.size:
        return bool(array.view(np.int16).max() < 0x7C00 and array.view(np.uint16).max() < 0xFC00)
    return bool(np.isfinite(array).all())


def read_input_size(index: Index, key: str) -> tuple[int, int]:
    """(height, width) of an artwork's picture inside SAM's padded input, pixels."""
    height, width = json.loads(index.read(key, "features/json"))["sam"]["input_size"]
    return height, width


def stack_sam(
    features: Sequence[Features], memory: BatchMemory | None = None
) -> tuple[Tensor, Tensor | None]:
    """SAM's grids as stored, (B, C, grid, grid), and with int8 their scales, float32 (B, C).

    `memory`: where they go; None: new memory. Raises `UserError` when some are int8 and others are not.
    """
    quantised = [f.sam_scale is not None for f in features]
    if any(quantised) != all(quantised):
        raise UserError(MIXED)
    sam = (memory or BatchMemory()).stack("sam", [f.sam for f in features])
    scales = [f.sam_scale for f in features if f.sam_scale is not None]
    return sam, torch.from_numpy(np.stack(scales).astype(np.float32)) if scales else None


def dequantise(sam: Tensor, scale: Tensor | None) -> Tensor:
    """What `stack_sam` gives as float32 (B, C, grid, grid), on its device: int8 crosses the bus as int8."""
    return sam.float() if scale is None else sam * scale[:, :, None, None]


def read_cached_features(
    index: Index, keys: Sequence[str], memory: BatchMemory | None = None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """`Batch`'s ``sam``, ``sam_scale`` and ``clip`` of artworks, as stored; empty of none.

    From the page cache straight into `memory`; None: new memory.
    """
    if not keys:
        return torch.empty(0), None, torch.empty(0)
    features = [read_features(index, key) for key in keys]
    for key, found in zip(keys, features, strict=True):
        if (found.sam.shape, found.clip.shape) != (features[0].sam.shape, features[0].clip.shape):
            raise UserError(
                f"artworks {keys[0]} and {key} have features of different shapes: {features[0].sam.shape} "
                f"and {found.sam.shape} of SAM, {features[0].clip.shape} and {found.clip.shape} of CLIP. Run "
                "the features and shards steps again"
            )
    memory = memory or BatchMemory()
    return *stack_sam(features, memory), memory.stack("clip", [f.clip for f in features])
