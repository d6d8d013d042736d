"""The tensors of a network's weights, whatever wrote them; nothing in a file is run.

- safetensors, torch's zip, torch's format before 1.6, TorchScript archives, of which only tensors are read;
- one file, several with an index (``*.index.json``), or a folder as transformers and open_clip lay it out;
- a mapping of names to tensors, or a training checkpoint that holds one under a name in `WRAPPERS`;
- names with something before all of them (``module.``, ``model.``) or within (``_orig_mod.``).

What the names mean is for `sam_weights`, `clip_weights`, `language_model` and VinVL's `checkpoint` to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.backbones.weights_file import LOADABLE, WAY_OUT, Kind, read_header, sniff
from pipeline.common.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
LARGEST_INDEX = 50_000_000
"""Bytes; an index of shards lists names, and the largest known have some megabytes."""
IN_FOLDER = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names of weights in a folder; the first that is there is read."""
WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
"""Keys under which training codes put a network's weights."""
PREFIXES = ("module", "model", "net", "network")
"""What wrappers put before all names of a network."""
COMPILED = "_orig_mod."
"""What `torch.compile` puts into the names of what it compiled."""


def weight_files(path: Path) -> list[Path]:
    """The files that hold the tensors of `path`: itself, those its index lists, or those of a folder.

    An index stands first in the list. Raises `UserError` for a folder without weights and a broken index.
    """
    if path.is_dir():
        found = next((path / name for name in IN_FOLDER if (path / name).is_file()), None)
        if found is None:
            raise UserError(f"{path} is a folder without weights: it has none of {', '.join(IN_FOLDER)}")
        path = found
    return [path, *sorted(set(_shards(path).values()))] if path.name.endswith(".index.json") else [path]


def sizes_beside(path: Path) -> Path:
    """The json of the weights' stem beside them, with the sizes of our small networks; it may be absent."""
    file = weight_files(path)[0]
    return file.with_name(file.name.removesuffix(".index.json")).with_suffix(".json")


def _shards(index: Path) -> dict[str, Path]:
    """Tensor name -> file beside the index. Raises `UserError`."""
    try:
        if index.stat().st_size > LARGEST_INDEX:
            raise ValueError("it is too large")
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {str(name): str(file) for name, file in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{index} is no index of weights (weight_map: tensor -> file): {error!r}") from None
    elsewhere = sorted({file for file in files.values() if Path(file).name != file or not file.strip(".")})
    if elsewhere or not files:
        raise UserError(f"{index} lists {elsewhere[0] if elsewhere else 'nothing'!r}, no file beside it")
    return {name: index.with_name(file) for name, file in files.items()}


def read_tensors(path: Path, *, device: Literal["cpu", "meta"] = "cpu") -> dict[str, Tensor]:
    """A network's tensors by their plain names; see the module for what is taken.

    On the CPU they may be mapped from the file: copy what shall outlive it. Shapes and dtypes come as stored.
    Not looked at is whether the numbers are finite: see `check_finite`.

    Raises:
        UserError: a file that is missing, no weights, damaged, or asks for anything but tensors.
    """
    files = weight_files(path)
    index = files.pop(0) if len(files) > 1 else None
    found: dict[str, Any] = {}
    for file in files:
        kind, detail = sniff(file)
        if kind not in LOADABLE:
            way_out = WAY_OUT[kind].format(key="what the params' `backbones` section names")
            raise UserError(f"weights {file}: {detail or kind}; {way_out}")
        try:
            found |= _named(_load(file, kind, device))
        except Exception as error:  # unpicklers answer a damaged file with almost anything
            raise UserError(f"weights {file} cannot be read: {_said(error)}") from None
    if index is not None and (lost := sorted(_shards(index).keys() - found.keys())):
        raise UserError(f"{index} lists {lost[0]} and {len(lost) - 1} more that its files do not hold")
    return _plain(found)


def check_finite(tensors: Mapping[str, Tensor], source: Path) -> None:
    """Raise `UserError` when a weight is NaN or infinite: it would spoil every answer without a word."""
    import torch

    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel() or tensor.is_meta:
            continue
        if not torch.stack(torch.aminmax(tensor)).isfinite().all():  # a NaN is both least and largest
            raise UserError(f"{source}: {name} has values that are NaN or infinite; take another file")


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Name -> shape."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def misfits(own: Shapes, given: Shapes) -> str:
    """What keeps tensors of shapes `given` from being loaded into a network of `own`, by kind; or ""."""
    shapes = [
        f"{name} {given[name]} instead of {own[name]}"
        for name in sorted(own.keys() & given.keys())
        if own[name] != given[name]
    ]
    missing, extra = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    return "\n".join(
        f"  {title}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for title, names in (("missing", missing), ("not expected", extra), ("misshapen", shapes))
        if names
    )


def _load(path: Path, kind: Kind, device: str) -> Any:
    """What the file holds, by readers that know tensors and plain containers alone."""
    import torch

    if kind == "torchscript":
        from pipeline.backbones.torchscript import read_torchscript

        return read_torchscript(path)
    if kind != "safetensors":
        if kind == "torch" and path.suffix != ".safetensors":
            return torch.load(path, map_location=device, weights_only=True, mmap=True)
        with path.open("rb") as file:  # of a path torch would believe the ending
            return torch.load(file, map_location=device, weights_only=True)
    if device == "meta":
        header, _ = read_header(path)
        return {name: torch.empty(entry["shape"], device="meta") for name, entry in header.items()}
    from safetensors.torch import load_file

    return load_file(path)


def _named(content: Any) -> dict[str, Any]:
    """The mapping of names to tensors in what a file holds. Raises `ValueError` where there is none."""
    import torch

    for _ in range(3):  # a checkpoint of a checkpoint was seen; deeper ones were not
        key = next((k for k in WRAPPERS if isinstance(content, Mapping) and _is_mapping(content, k)), None)
        if key is None:
            break
        content = content[key]
    named = isinstance(content, Mapping) and all(isinstance(name, str) for name in content)
    if not named or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise ValueError(
            "it holds no state dict: names with tensors, alone or under any of " + ", ".join(WRAPPERS)
        )
    odd = [name for name, tensor in content.items() if tensor.layout != torch.strided or tensor.is_quantized]
    if odd:
        raise ValueError(f"{odd[0]} is a sparse or quantised tensor, and plain ones are needed")
    return {name: tensor.detach() for name, tensor in content.items()}


def _is_mapping(content: Mapping[Any, Any], key: str) -> bool:
    return isinstance(content.get(key), Mapping)


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """Names without what wrappers put before all of them, or `torch.compile` into them."""
    plain = {name.replace(COMPILED, ""): tensor for name, tensor in found.items()}
    while (
        (first := {name.partition(".")[0] for name in plain}) and len(first) == 1 and first <= set(PREFIXES)
    ):
        plain = {name.partition(".")[2]: tensor for name, tensor in plain.items()}
    return plain


def _said(error: Exception) -> str:
    """The first line of an error, or what the file asked for that weights never need."""
    foreign = re.search(r"GLOBAL (\S+)", str(error))
    if foreign:
        return (
            f"it holds a {foreign[1]}, which is no tensor, and nothing in it was run. If it is only "
            "training's bookkeeping and you trust the file, save its weights alone, once: "
            "torch.save({'model': torch.load(PATH, weights_only=False)['model']}, NEW_PATH)"
        )
    return next(iter(str(error).splitlines()), "") or type(error).__name__
