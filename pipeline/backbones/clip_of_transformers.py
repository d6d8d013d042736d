"""CLIP as transformers' `CLIPModel` stores it, by open_clip's names, and what its folder says about it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.common.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_TOWERS = (("vision_model.", "visual.transformer."), ("text_model.", "transformer."))
_PLAIN = {
    "logit_scale": "logit_scale",
    "logit_bias": "logit_bias",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
}
_NORMS = {
    "text_model.final_layer_norm.": "ln_final.",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",  # the misspelling is theirs
    "vision_model.post_layernorm.": "visual.ln_post.",
}
_TURNED = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}
_IN_LAYER = {
    "self_attn.out_proj.": "attn.out_proj.",
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
}
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)")
_QKV = re.compile(r"self_attn\.([qkv])_proj\.(weight|bias)")


def is_of_transformers(names: Any) -> bool:
    """Whether tensors of these names are a `CLIPModel`'s."""
    return any(name.startswith(("vision_model.", "text_model.")) for name in names)


def open_clip_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as open_clip names and lays them out; unknown names stay, to be told as unexpected."""
    import torch

    if not is_of_transformers(tensors):
        return tensors
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.endswith(".position_ids"):  # 0, 1, 2, ...
            continue
        if name in _TURNED:
            found[_TURNED[name]] = tensor.T.contiguous()
            continue
        renamed, qkv = _renamed(name)
        if qkv:
            parts.setdefault(renamed, {})[qkv] = tensor
        else:
            found[renamed] = tensor
    for name, three in parts.items():
        if three.keys() == set("qkv"):
            found[name] = torch.cat([three[part] for part in "qkv"])
        else:
            found |= {f"{name} ({part})": tensor for part, tensor in three.items()}
    return found


def _renamed(name: str) -> tuple[str, str]:
    """open_clip's name, and which third of it the tensor is: "q", "k", "v", or "" for all of it."""
    if name in _PLAIN:
        return _PLAIN[name], ""
    for theirs, ours in _NORMS.items():
        if name.startswith(theirs):
            return name.replace(theirs, ours, 1), ""
    for tower, ours in _TOWERS:
        layer = _LAYER.fullmatch(name.removeprefix(tower)) if name.startswith(tower) else None
        if layer is None:
            continue
        block = f"{ours}resblocks.{layer[1]}."
        if qkv := _QKV.fullmatch(layer[2]):
            return f"{block}attn.in_proj_{qkv[2]}", qkv[1]
        for part, its in _IN_LAYER.items():
            if layer[2].startswith(part):
                return f"{block}{layer[2].replace(part, its, 1)}", ""
    return name, ""


def described(file: Path) -> tuple[bool, dict[str, Any]]:
    """Whether the weights were trained with quick_gelu, and ``mean`` and ``std`` of the input where told.

    Raises `UserError` without a config.json beside the weights: no tensor tells the former.
    """
    config = _json(file.with_name(CONFIG))
    acts = {
        (config.get(part) or {}).get("hidden_act", "quick_gelu") for part in ("text_config", "vision_config")
    }
    if config.get("model_type") != "clip" or not acts <= {"quick_gelu"} | {"gelu"} or len(acts) > 1:
        raise UserError(
            f"{file.with_name(CONFIG)} describes a {config.get('model_type')!r} with the activation "
            f"{' and '.join(map(str, acts))}; a clip with quick_gelu or gelu is needed"
        )
    preprocess: dict[str, Any] = {}
    for name in PROCESSORS:
        if file.with_name(name).is_file():
            values = _json(file.with_name(name))
            values = values.get("image_processor") or values
            preprocess = {k: tuple(values[f"image_{k}"]) for k in ("mean", "std") if f"image_{k}" in values}
            break
    return acts == {"quick_gelu"}, preprocess


def _json(path: Path) -> dict[str, Any]:
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist, and weights by transformers' names need it: it tells CLIP's activation"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no JSON object")
    return values
