"""Anyone's maps by the name of their item: ``PAINTING_EMOTION.npy|png`` in a folder, or WESD's file."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model.maps.map_files import decode_npy, decode_png
from model.score.items import item_name
from model.score.wesd_results import as_logits, emotion_map, read_results
from pipeline.common.arrays import read_file
from pipeline.common.errors import UserError
from pipeline.releases.apolo import ApoloItem
from pipeline.releases.names import plain_name

SUFFIXES = {".npy": decode_npy, ".png": decode_png}


@dataclass
class NamedMaps:
    """Maps by the name of their item, found under any spelling of it."""

    title: str
    """Of the method: the folder's or file's name."""
    readers: dict[str, tuple[str, Callable[[str], np.ndarray]]] = field(default_factory=dict)
    """Plain name of an item -> (name of its map, reader of the map for an emotion)."""
    duplicates: list[str] = field(default_factory=list)
    """Maps whose item has another map before them; not scored."""
    others: list[str] = field(default_factory=list)
    """Files that are no maps by their suffix, and hidden ones; not read."""

    def add(self, name: str, shown: str, read: Callable[[str], np.ndarray]) -> None:
        """Take in the map of ``PAINTING_EMOTION``; `shown` is what its file or record is called."""
        first = self.readers.setdefault(plain_name(name), (shown, read))
        if first[1] is not read:
            self.duplicates.append(shown)

    def of_no_item(self, items: Iterable[ApoloItem]) -> dict[str, str]:
        """Maps that belong to none of the items: plain name -> name."""
        wanted = {plain_name(item_name(item)) for item in items}
        return {name: shown for name, (shown, _) in self.readers.items() if name not in wanted}

    def file_of(self, item: ApoloItem) -> str | None:
        """What the map of an item is called, or None where there is none."""
        found = self.readers.get(plain_name(item_name(item)))
        return None if found is None else found[0]

    def has(self, item: ApoloItem) -> bool:
        """Whether there is a map of the item."""
        return plain_name(item_name(item)) in self.readers

    def read(self, item: ApoloItem) -> np.ndarray | None:
        """An item's map, or None where there is none. Raises `ValueError` for one that cannot be used."""
        found = self.readers.get(plain_name(item_name(item)))
        return None if found is None else found[1](item.emotion)


def open_maps(path: Path) -> NamedMaps:
    """A folder of maps, its sub-folders included, or WESD's results in a ``.json`` file.

    Of several maps of one item the first by path counts. Raises `UserError` when it is neither.
    """
    if path.suffix.lower() == ".json" and not path.is_dir():
        return _open_results(path)
    if not path.is_dir():
        raise UserError(
            f"{path} is no folder of maps PAINTING_EMOTION.npy or .png, nor WESD's test_result.json"
        )
    maps = NamedMaps(path.resolve().name)
    for file in _files_below(path):
        shown = file.relative_to(path).as_posix()
        decode = SUFFIXES.get(file.suffix.lower())
        if decode is None or file.name.startswith("."):  # macOS leaves ._NAME beside each NAME
            maps.others.append(shown)
        else:
            maps.add(file.stem, shown, _file_reader(file, decode))
    if not maps.readers:
        raise UserError(f"{path} holds no map: expected files PAINTING_EMOTION.npy or .png")
    return maps


def _files_below(folder: Path) -> Iterator[Path]:
    """What is named like a map, and every other file, folder by folder and by name; links are followed once.

    A folder that is named like a map is listed, as one that cannot be read, and not entered, and a hidden
    folder neither. Raises `UserError` for a folder that cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"the folder {error.filename} cannot be listed ({error.strerror})") from None

    entered: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in entered:  # a link to a folder around it
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        odd = [name for name in folders if Path(name).suffix.lower() in SUFFIXES]
        folders[:] = sorted(name for name in folders if name not in odd and not name.startswith("."))
        yield from (Path(place, name) for name in sorted([*files, *odd]))


def _file_reader(file: Path, decode: Callable[[bytes], np.ndarray]) -> Callable[[str], np.ndarray]:
    def read(_emotion: str) -> np.ndarray:
        return decode(read_file(file))

    return read


def _open_results(path: Path) -> NamedMaps:
    maps = NamedMaps(path.stem)
    for name, matrix in read_results(path):
        maps.add(name, name, _result_reader(matrix))
    if not maps.readers:
        raise UserError(f"{path} holds no record; expected WESD's test_result.json")
    return maps


def _result_reader(matrix: Any) -> Callable[[str], np.ndarray]:
    """Holds the record as an array, a tenth of its size as lists, or what is wrong with it."""
    try:
        logits = as_logits(matrix)
    except ValueError as error:
        return _refusal(str(error))
    return lambda emotion: emotion_map(logits, emotion)


def _refusal(why: str) -> Callable[[str], np.ndarray]:
    def read(_emotion: str) -> np.ndarray:
        raise ValueError(why)

    return read
