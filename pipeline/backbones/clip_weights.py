"""CLIP's weights, from the files their authors publish to a state dict that open_clip loads strictly.

- OpenAI's own ``ViT-B-16.pt``: a TorchScript archive, which is a program. It is never run: its tensors are
  read from the zip by an unpickler that knows tensors and plain records and nothing else.
- open_clip's ``.pt`` and ``.bin`` (a state dict, or a training checkpoint that holds one), by torch's
  weights-only unpickler, and ``.safetensors``; ``open_clip_model.safetensors`` with its
  ``open_clip_config.json`` as model hubs lay them out.

OpenAI trained with another GELU (quick_gelu). The same names and shapes fit both, and the wrong one gives
features that are quietly bad, so files that say which one they need are held to it.
"""

import collections
import dataclasses
import functools
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import open_clip
import torch
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.pretrained import get_pretrained_url
from torch import nn

from pipeline.backbones.sam import read_state_dict
from pipeline.common.errors import UserError

HUB_CONFIG = "open_clip_config.json"
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
"""Last name of tensors in a TorchScript archive that follow from the architecture."""
STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


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
    official = {digest: name for name, digest in openai_hashes().items()}
    if is_torchscript(checkpoint):
        published = openai_hashes().get(checkpoint.name)
        if published is not None and published != sha256:
            raise UserError(
                f"{checkpoint} has SHA-256 {sha256}, but OpenAI published {published} under this name: it is "
                "damaged or was altered; fetch it again, or rename it if it is your own"
            )
        return Weights(_plain(read_torchscript(checkpoint)), True, "a TorchScript archive, as OpenAI's are")
    tensors = _plain(read_state_dict(checkpoint))
    if any(name.startswith("vision_model.") for name in tensors):
        raise UserError(
            f"{checkpoint} names its tensors as the transformers package does; take the same model in "
            "open_clip's layout (open_clip_model.safetensors), or OpenAI's own .pt"
        )
    if sha256 in official:
        return Weights(tensors, True, f"OpenAI's {official[sha256]}")
    config = checkpoint.with_name(HUB_CONFIG)
    if checkpoint.name.startswith("open_clip_") and config.is_file():
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no open_clip config: {error!r}") from None
    return Weights(tensors, quick_gelu, f"described by {path.name}", preprocess)


def _plain(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names without the ``module.`` that distributed training puts before each of them."""
    if tensors and all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive (torch's own mark: it holds constants)."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a TorchScript archive by their dotted names, on the CPU; none of its code is run.

    Raises `UserError` when it is damaged or holds more than tensors in plain modules.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            folder = next(n for n in archive.namelist() if n.endswith("/data.pkl")).removesuffix("data.pkl")
            with archive.open(f"{folder}data.pkl") as file:
                root = _ArchiveUnpickler(file, lambda name: _stored(archive, f"{folder}data/{name}")).load()
            tensors = _named_tensors(root)
    except Exception as error:  # unpicklers answer damaged bytes with almost any exception
        raise UserError(f"weights {path} cannot be read as TorchScript: {error!r}") from None
    return {name: value for name, value in tensors.items() if name.rpartition(".")[2] not in NOT_WEIGHTS}


def _stored(archive: zipfile.ZipFile, name: str) -> bytearray:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:  # torch never compresses; a bomb would
        raise ValueError(f"{name} is compressed")
    return bytearray(archive.read(info))


class _Module:
    """A module of the archive: what it holds is set as attributes."""


def _named_tensors(module: _Module, prefix: str = "") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for name, value in vars(module).items():
        if isinstance(value, torch.Tensor):
            found[prefix + name] = value
        elif isinstance(value, _Module):
            found |= _named_tensors(value, f"{prefix}{name}.")
    return found


class _ArchiveUnpickler(pickle.Unpickler):
    """Reads modules and tensors of a TorchScript archive; every other name in it is refused."""

    def __init__(self, file: IO[bytes], read: Callable[[str], bytearray]) -> None:
        super().__init__(file)
        self._read = functools.lru_cache(maxsize=None)(read)

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return type(name, (_Module,), {})
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda flat, offset, size, stride, *_: flat.as_strided(size, stride, offset)
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list
        if (module, name) == ("torch.jit._pickle", "restore_type_tag"):
            return lambda value, _: value
        raise pickle.UnpicklingError(f"{module}.{name} has no place among weights")

    def persistent_load(self, pid: Any) -> torch.Tensor:
        """A storage ("storage", dtype, file, device, count) as a flat tensor."""
        _, dtype, name, _, count = pid
        data = self._read(name)
        if count == 0:
            return torch.empty(0, dtype=dtype)
        if len(data) != count * dtype.itemsize:
            raise pickle.UnpicklingError(f"storage {name} has {len(data)} bytes, not {count} of {dtype}")
        return torch.frombuffer(data, dtype=dtype)
