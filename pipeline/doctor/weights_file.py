"""A weights file for `doctor`: what it is, and which tensors it holds, without reading their numbers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.backbones.tensors import read_tensors, shapes_of, weight_files
from pipeline.backbones.weights_file import LOADABLE, Kind, sniff
from pipeline.common.errors import UserError


@dataclass(frozen=True)
class WeightsFile:
    """A file as it was found."""

    kind: Kind
    detail: str = ""
    """For people: what is wrong."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Tensor name -> shape; empty when the file cannot be loaded."""


def look_at(path: Path, names: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> WeightsFile:
    """Sniff a file, or the files of a folder or an index, and list the tensors. Raises nothing but `OSError`.

    names: what renames the tensors as the network's own loader does.
    """
    try:
        files = weight_files(path)
    except UserError as error:
        kind: Kind = "folder" if path.is_dir() else "unknown"
        return WeightsFile(kind, str(error).removeprefix(f"{path} "))
    for file in files[1:] or files:
        kind, detail = sniff(file)
        if kind not in LOADABLE:
            return WeightsFile(kind, detail if file == path else f"({file.name}) {detail}")
    try:
        tensors = names(read_tensors(path, device="meta"))
        return WeightsFile(kind, detail, shapes_of(tensors))
    except UserError as error:
        return WeightsFile("unknown", f"looks like {kind}, but {error}")
