"""CLIP's weights, from the files their authors publish to a state dict that open_clip loads strictly.

- OpenAI's own ``ViT-B-16.pt``: a TorchScript archive, which is a program, and is never run.
- open_clip's ``.pt``, ``.bin`` (a state dict, or a training checkpoint that holds one) and ``.safetensors``;
  ``open_clip_model.safetensors`` with its ``open_clip_config.json`` as model hubs lay them out.
- transformers' `CLIPModel`: its folder, or a file of it with config.json beside.

OpenAI trained with another GELU (quick_gelu). The same names and shapes fit both, and the wrong one gives
features that are quietly bad, so files that say which one they need are held to it.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.pretrained import get_pretrained_url
from torch import nn

from pipeline.backbones.clip_of_transformers import CONFIG, described, is_of_transformers, open_clip_names
from pipeline.backbones.tensors import check_finite, read_tensors, weight_files
from pipeline.backbones.weights_file import sniff
from pipeline.common.errors import UserError

HUB_CONFIG = "open_clip_config.json"


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a file holds, and what it says about itself."""

    tensors: dict[str, torch.Tensor]
    quick_gelu: bool | None
    """Whether they were trained with quick_gelu; None where nothing tells."""
    source: str = ""
    """What the hash was read from, for messages."""
    preprocess: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """``mean`` and ``std`` of the input, where the file's config gives them."""


def read_weights(checkpoint: Path, sha256: str) -> Weights:
    """A CLIP file's weights, by open_clip's names.

    Args:
        checkpoint: see the module.
        sha256: hex hash of the file.

    Raises:
        UserError: not readable, or a TorchScript archive under the name of one of OpenAI's files with another
            hash than theirs.
    """
    file = weight_files(checkpoint)[0]
    published = openai_hashes()
    if sniff(file)[0] == "torchscript" and published.get(file.name, sha256) != sha256:
        raise UserError(
            f"{checkpoint} has SHA-256 {sha256}, but OpenAI published {published[file.name]} under this "
            "name: it is damaged or was altered; fetch it again, or rename it if it is your own"
        )
    tensors = read_tensors(checkpoint)
    check_finite(tensors, checkpoint)
    if is_of_transformers(tensors):
        quick_gelu, preprocess = described(file)
        return Weights(open_clip_names(tensors), quick_gelu, f"described by {CONFIG}", preprocess)
    if sniff(file)[0] == "torchscript":
        return Weights(tensors, True, "a TorchScript archive, as OpenAI's are")
    official = {digest: name for name, digest in published.items()}
    if sha256 in official:
        return Weights(tensors, True, f"OpenAI's {official[sha256]}")
    config = file.with_name(HUB_CONFIG)
    if file.name.startswith("open_clip_") and config.is_file():
        return _with_hub_config(tensors, config)
    return Weights(tensors, None)


def fitted(tensors: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """The same weights under the names and shapes that `model` gives them, where open_clip has several."""
    if not hasattr(model, "positional_embedding"):  # the text tower is a module of its own
        tensors = convert_to_custom_text_state_dict(tensors)
    own = model.state_dict()
    return {
        name: value.reshape(own[name].shape)
        if name in own and value.numel() == own[name].numel() == 1
        else value
        for name, value in tensors.items()
    }


def check_activation(weights: Weights, config: Mapping[str, Any], name: str, checkpoint: Path) -> None:
    """Raise `UserError` when the weights were trained with another GELU than `config` of model `name` has."""
    has = bool(config.get("quick_gelu", False))
    if weights.quick_gelu in (None, has):
        return
    base = name.removesuffix("-quickgelu")
    wanted = f"{base}-quickgelu" if weights.quick_gelu else base
    trained, computes = ("with" if quick else "without" for quick in (weights.quick_gelu, has))
    raise UserError(
        f"{checkpoint} is {weights.source}: trained {trained} quick_gelu, and {name} computes {computes} it; "
        f"set backbones.clip.name: {wanted}"
    )


@functools.lru_cache(maxsize=1)
def openai_hashes() -> dict[str, str]:
    """File name -> SHA-256 of OpenAI's own files: part of the addresses they were published at."""
    urls = [
        get_pretrained_url(name, "openai") for name, tag in open_clip.list_pretrained() if tag == "openai"
    ]
    return {url.rsplit("/", 1)[1]: url.rsplit("/", 2)[1] for url in urls if url}


def _with_hub_config(tensors: dict[str, torch.Tensor], path: Path) -> Weights:
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
        quick_gelu = bool(config["model_cfg"].get("quick_gelu", False))
        preprocess = {key: tuple(config["preprocess_cfg"][key]) for key in ("mean", "std")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is no open_clip config: {error!r}") from None
    return Weights(tensors, quick_gelu, f"described by {path.name}", preprocess)
