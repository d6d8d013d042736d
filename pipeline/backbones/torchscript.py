"""TorchScript archives, which are programs: their tensors are read, and none of their code is run.

OpenAI publishes CLIP in this format. The tensors come from the zip by an unpickler that knows tensors and
plain records and nothing else.
"""

import collections
import functools
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from pipeline.common.errors import UserError

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
