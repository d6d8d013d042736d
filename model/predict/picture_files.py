"""Which picture files a person means, and what the files that come of them are called."""

import glob
import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.common.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
LONGEST = 160
"""Bytes of a name that leave room for what is added to it; file systems take 255."""


def find_pictures(targets: Sequence[Path], out: Path) -> list[Path]:
    """Pictures, pictures in folders and the folders below, and what wildcards match, each once, sorted.

    In folders and by wildcards a picture is known by its suffix; a file that is named is taken as it is. What
    lies in `out`, and what is hidden, is not looked at. Raises `UserError` for a target without any.
    """
    found: dict[Path, None] = {}
    for target in targets:
        if target.is_dir():
            pictures = sorted(_walk(target, out.resolve()))
            where = f"in folder {target}, nor below it"
        elif target.exists() or not glob.has_magic(str(target)):
            if not target.exists():
                raise UserError(f"{target} does not exist; name pictures, folders of them, or a pattern")
            pictures, where = [target], ""
        else:
            matches = (Path(name) for name in glob.glob(str(target), recursive=True))  # noqa: PTH207 - may be absolute
            pictures, where = sorted(m for m in matches if _is_picture(m)), f"matches {target}"
        if not pictures:
            raise UserError(f"no picture ({', '.join(SUFFIXES)}) {where}")
        found.update(dict.fromkeys(pictures))
    return list(found)


def _walk(folder: Path, out: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        here = Path(root)
        folders[:] = [f for f in folders if not f.startswith(".") and (here / f).resolve() != out]
        yield from (here / file for file in files if not file.startswith(".") and _is_picture(here / file))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def output_names(pictures: Sequence[Path]) -> list[str]:
    """A name for each picture's outputs, all different also where case does not count.

    The stem; for pictures that share it, the name with its suffix; for those that share that too, with their
    folders' names before it; and a number where even that is taken.
    """
    names: dict[int, str] = {}
    taken: set[str] = set()
    choices = [_choices(picture) for picture in pictures]
    for choice in range(3):
        left = [number for number in range(len(pictures)) if number not in names]
        counts = Counter(_folded(choices[number][choice]) for number in left)
        for number in left:
            name = choices[number][choice]
            if counts[_folded(name)] == 1 and _folded(name) not in taken:
                names[number] = name
        taken |= {_folded(name) for name in names.values()}
    for number in range(len(pictures)):
        if number not in names:
            tries = (f"{choices[number][2]}-{n}" for n in range(2, len(pictures) + 3))
            names[number] = next(name for name in tries if _folded(name) not in taken)
            taken.add(_folded(names[number]))
    return [names[number] for number in range(len(pictures))]


def _choices(picture: Path) -> tuple[str, str, str]:
    with_folders = "_".join(part for part in picture.parts if part not in ("/", ".", ".."))
    return _short(picture.stem), _short(picture.name), _short(with_folders)


def _short(name: str) -> str:
    """The name, or as much of it as a file may be called, with a digest of the whole."""
    coded = os.fsencode(name)
    if len(coded) <= LONGEST:
        return name
    digest = hashlib.sha256(coded).hexdigest()[:12]
    return f"{coded[:LONGEST].decode(errors='ignore')}-{digest}"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
