"""SAM's weights by the names of `segment_anything`: of its own files, and of transformers' `SamModel`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.backbones.tensors import (
    Shapes,
    check_finite,
    read_tensors,
    shapes_of,
    sizes_beside,
    weight_files,
)
from pipeline.common.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

OFFICIAL_HEADS = 8
"""Attention heads of the mask decoder of every official SAM."""
_MLP = r"^(mask_decoder\.(?:iou_prediction_head|output_hypernetworks_mlps\.\d+))"
RENAMED = tuple(
    (re.compile(theirs), ours)
    for theirs, ours in (
        (r"^vision_encoder\.", "image_encoder."),
        (r"^image_encoder\.layers\.", "image_encoder.blocks."),
        (r"^image_encoder\.patch_embed\.projection\.", "image_encoder.patch_embed.proj."),
        (r"\.neck\.conv1\.", ".neck.0."),
        (r"\.neck\.layer_norm1\.", ".neck.1."),
        (r"\.neck\.conv2\.", ".neck.2."),
        (r"\.neck\.layer_norm2\.", ".neck.3."),
        (
            r"^(?:prompt_encoder\.shared_embedding|shared_image_embedding)\.positional_embedding$",
            "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        ),
        (r"\.point_embed\.", ".point_embeddings."),
        (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
        (r"\.mask_embed\.layer_norm1\.", ".mask_downscaling.1."),
        (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
        (r"\.mask_embed\.layer_norm2\.", ".mask_downscaling.4."),
        (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
        (r"\.upscale_conv1\.", ".output_upscaling.0."),
        (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
        (r"\.upscale_conv2\.", ".output_upscaling.3."),
        (_MLP + r"\.layers\.0\.", r"\1.layers.1."),
        (_MLP + r"\.proj_in\.", r"\1.layers.0."),
        (_MLP + r"\.proj_out\.", r"\1.layers.2."),
        (r"\.layer_norm(\d|_final_attn)\.", r".norm\1."),
    )
)
"""What transformers calls a part of SAM, and what `segment_anything` does, one after another."""


def read_sam(checkpoint: Path, only: tuple[str, ...] = ("",)) -> tuple[dict[str, Tensor], Shapes]:
    """A SAM checkpoint's weights, and the shapes of all its weights, by `segment_anything`'s names.

    Args:
        checkpoint: an official ``sam_vit_*.pth``, its like in any format of `tensors.read_tensors`, or a file
            or folder of transformers' `SamModel`.
        only: beginnings of the names that are wanted; the numbers of others are not read.

    Raises `UserError`, see `read_tensors`; also for wanted weights that are not finite.
    """
    tensors = official_names(read_tensors(checkpoint))
    wanted = {name: tensor for name, tensor in tensors.items() if name.startswith(only)}
    check_finite(wanted, checkpoint)
    return wanted, shapes_of(tensors)


def decoder_heads(checkpoint: Path) -> int:
    """Attention heads of the mask decoder, which no weight's shape tells.

    From ``decoder_num_heads`` of a json of the checkpoint's stem, else from transformers' config.json beside
    it, else those of every official SAM. Raises `UserError` when that file is no such file.
    """
    own, theirs = sizes_beside(checkpoint), weight_files(checkpoint)[0].with_name("config.json")
    try:
        if own.is_file():
            return int(json.loads(own.read_text(encoding="utf-8")).get("decoder_num_heads", OFFICIAL_HEADS))
        if theirs.is_file():
            sizes = json.loads(theirs.read_text(encoding="utf-8")).get("mask_decoder_config") or {}
            return int(sizes.get("num_attention_heads", OFFICIAL_HEADS))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{own if own.is_file() else theirs} does not describe a SAM: {error!r}") from None
    return OFFICIAL_HEADS


def official_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as `segment_anything` names them; others stay, for whoever matches them to tell."""
    if not any(name.startswith("vision_encoder.") for name in tensors):
        return tensors
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        renamed = name
        for pattern, ours in RENAMED:
            renamed = pattern.sub(ours, renamed)
        if renamed in found and not (tensor.is_meta or tensor.equal(found[renamed])):
            raise UserError(f"{name} is stored twice with different numbers, and SAM has one of it")
        found[renamed] = tensor
    return found
