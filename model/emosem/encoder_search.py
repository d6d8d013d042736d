"""The frozen encoders that a saved model names, found by their SHA-256 wherever weights are kept.

Only names and bytes of files are looked at; nothing is loaded, and nothing is asked for over a network.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from model.emosem.provenance import ClipProvenance, SamProvenance
from pipeline.backbones.weight_hashes import verify_weights, weights_sha256
from pipeline.common.errors import UserError
from pipeline.common.fingerprint import sha256_file
from pipeline.common.machine import shown_bytes

VARIABLE = "EMOSEM_WEIGHTS"
"""Environment variable: folders of weights, separated as in PATH."""
ENCODERS = "encoders"
"""Folder in an exported model's, with one folder for each encoder."""
DEPTH = 3
"""How many folders deep a folder of weights is searched."""
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""Endings of weights files."""
SLOW = 200_000_000
"""Bytes of a file whose hashing is announced."""
SHOWN = 5
"""Other files that a message names."""

Encoder = SamProvenance | ClipProvenance


class Shelf(NamedTuple):
    """A folder in which encoders are looked for."""

    folder: Path
    depth: int = DEPTH


class _Piece(NamedTuple):
    """A file that is looked for; of a model that was not exported only the hash is known."""

    name: str | None
    bytes: int | None
    sha256: str


@dataclass(frozen=True)
class Search:
    """What a search came to."""

    found: Path | None
    """The weights file."""
    others: tuple[str, ...] = ()
    """When there is none: files that may have been meant, each with its hash or what is wrong with it."""


def cache_folder() -> Path:
    """Where fetched encoders are put by default: ``~/.cache/emosem/weights``, or below XDG_CACHE_HOME."""
    base = os.environ.get("XDG_CACHE_HOME")
    home = os.path.expanduser("~")  # noqa: PTH111 - pathlib's raises where there is no home
    return (Path(base) if base else Path(home) / ".cache") / "emosem" / "weights"


def named_folders() -> list[Path]:
    """The folders in EMOSEM_WEIGHTS."""
    return [Path(folder) for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder]


def shelves(model: Path, weights: Sequence[Path] = ()) -> list[Shelf]:
    """Where the encoders of the model in `model` may be: its own folder, and those that hold weights."""
    folders = [*weights, *named_folders(), Path("weights"), cache_folder()]
    return [
        Shelf(model / ENCODERS, 1),
        Shelf(model, 0),
        *(Shelf(folder) for folder in dict.fromkeys(folders)),
    ]


def title(encoder: Encoder) -> str:
    """Its name for people: SAM vit_b, CLIP ViT-B-16."""
    return f"SAM {encoder.arch}" if isinstance(encoder, SamProvenance) else f"CLIP {encoder.name}"


def find(encoder: Encoder, places: Sequence[Shelf], first: Path | None = None) -> Search:
    """The weights of an encoder, with all that is read beside them.

    Args:
        encoder: as a saved model names it.
        places: folders, the nearest first.
        first: a checkpoint (file, index or folder) that is looked at before them.
    """
    others: list[str] = []
    if first is not None:
        try:
            digest = verify_weights(first)
            if digest == encoder.sha256:
                return Search(first)
            others.append(f"{first}: SHA-256 {digest}")
        except UserError as error:
            others.append(str(error))
    files = [wanted for wanted in (encoder.files, encoder.beside) if wanted]
    choices = [[_Piece(file.name, file.bytes, file.sha256) for file in wanted] for wanted in files]
    for place in places:
        listed = list(_walk(place))
        for pieces in choices or [[_Piece(None, None, encoder.sha256)]]:
            for path in _candidates(listed, pieces[0]):
                wrong = _mismatch(path, pieces)
                if wrong is None:
                    return Search(path)
                others.append(wrong)
    return Search(None, tuple(dict.fromkeys(others)))


def _walk(place: Shelf) -> Iterator[Path]:
    """Files in a folder, sorted, down to its depth, which ends circles of links too."""
    for root, folders, names in os.walk(place.folder, followlinks=True):
        here = Path(root)
        deep = len(here.parts) - len(place.folder.parts)
        folders[:] = (
            sorted(name for name in folders if not name.startswith(".")) if deep < place.depth else []
        )
        yield from (here / name for name in sorted(names) if not name.startswith("."))


def _candidates(listed: Sequence[Path], main: _Piece) -> list[Path]:
    """Files that may be `main`: those of its name first, then those of its size."""
    if main.name is None:
        return [path for path in listed if path.suffix in SUFFIXES and path.is_file()]
    named = [path for path in listed if path.name == main.name and path.is_file()]
    sized = (path for path in listed if path.suffix in SUFFIXES and path.name != main.name)
    return [*named, *(path for path in sized if path.is_file() and path.stat().st_size == main.bytes)]


def _mismatch(path: Path, pieces: Sequence[_Piece]) -> str | None:
    """What keeps the file from being the first of `pieces` with the others beside it; None if nothing."""
    for piece in pieces:
        file = path if piece is pieces[0] else path.with_name(str(piece.name))
        if not file.is_file():
            return f"{path} lacks {piece.name} beside it"
        try:
            digest = _digest(file)
        except UserError as error:
            return str(error)
        if digest != piece.sha256:
            return f"{file}: SHA-256 {digest}"
        if len(pieces) > 1 and file == path and path.name != piece.name:
            return f"{path} must be called {piece.name}, for what is read beside it"
    return None


def _digest(file: Path) -> str:
    size = file.stat().st_size
    if size >= SLOW:
        print(f"reading {file} ({shown_bytes(size)}) for its SHA-256", file=sys.stderr, flush=True)
    return weights_sha256(file) if file.suffix in SUFFIXES else sha256_file(file)
