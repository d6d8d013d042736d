"""What is scored: a method is a foreground per APOLO item and, for some, explanations.

Read from step `predict`'s folders, or from a folder of anyone's maps ``PAINTING_EMOTION.npy|png``.
"""

import io
import mmap
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.metrics.segmentation import Scaling, foreground
from pipeline.apolo import ApoloItem, plain_name
from pipeline.params import UserError
from pipeline.schema import PREDICTIONS, map_name

ItemId = tuple[str, str]
"""(key, emotion) of an APOLO item."""

Foreground = Callable[[ApoloItem, int, int], np.ndarray | None]
"""(item, height, width of its label) -> bool (height, width), or None where the method has no prediction.

Raises `ValueError` for a prediction that cannot be used. Must bear calls from several threads.
"""


@dataclass(frozen=True)
class Method:
    """One row of the score table."""

    name: str
    foreground: Foreground
    explanations: Mapping[ItemId, Sequence[str]] = field(default_factory=dict)
    """Drawn texts per item, in the order of their seeds; empty for a method that only segments."""


def item_id(item: ApoloItem) -> ItemId:
    """What identifies an item within APOLO."""
    return item.key, item.emotion


def thresholded(
    read: Callable[[ApoloItem], np.ndarray | None], threshold: float, scaling: Scaling
) -> Foreground:
    """A reader of maps, (h, w) of any size and range, as a foreground by the protocol."""

    def from_map(item: ApoloItem, height: int, width: int) -> np.ndarray | None:
        map_ = read(item)
        return None if map_ is None else foreground(map_, height, width, threshold, scaling)

    return from_map


def decode_png(data: bytes) -> np.ndarray:
    """A grey picture, uint8 or uint16 (h, w); colours become grey. Raises `ValueError` for anything else."""
    pixels = np.frombuffer(data, dtype=np.uint8)
    image = cv2.imdecode(pixels, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH) if len(pixels) else None
    if image is None:
        raise ValueError("the file is no picture that OpenCV can decode")
    return np.asarray(image)


def decode_npy(data: bytes) -> np.ndarray:
    """A map in the bytes of a ``.npy`` file; axes of length one are dropped from three-dimensional arrays.

    Raises `ValueError` for pickled objects, with advice, and for what is no such file.
    """
    try:
        array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        advice = "; save it as a plain array of numbers" if "pickle" in str(error) else ""
        raise ValueError(f"the file is no plain .npy array ({error}){advice}") from None
    return array.squeeze() if array.ndim > 2 else array


class TarMaps:
    """Bytes of tar members ``KEY.EXT`` by name, read at random. May be shared between threads."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._places: dict[str, tuple[mmap.mmap, int, int]] = {}
        for path in paths:
            try:
                with tarfile.open(path, mode="r:") as tar:
                    found = [(info.name, info.offset_data, info.size) for info in tar]
                with path.open("rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except FileNotFoundError:
                raise UserError(f"{path} does not exist; run the step that writes it") from None
            except (tarfile.TarError, OSError, ValueError) as error:
                raise UserError(
                    f"{path} cannot be read ({error}); delete it and run its step again"
                ) from None
            for name, offset, size in found:
                self._places[name] = (mapped, offset, size)

    def read(self, name: str) -> bytes | None:
        """The member's bytes, or None when no tar has it."""
        place = self._places.get(name)
        if place is None:
            return None
        mapped, offset, size = place
        return mapped[offset : offset + size]


# ---- step `predict` --------------------------------------------------------------------------------


def read_predictions(folder: Path, threshold: float, scaling: Scaling) -> list[Method]:
    """The methods of one ``data/predict/VARIANT``. Raises `UserError` when its files are unusable."""
    path = folder / "predictions.parquet"
    try:
        table = pq.read_table(path, columns=PREDICTIONS.names)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); run the predict step for {folder.name}") from None
    tar = TarMaps([folder / "maps.tar"])
    drawn: dict[str, dict[ItemId, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    for row in table.to_pylist():
        draws = drawn[row["method"]][row["key"], row["item_emotion"]]
        if row["seed"] in draws:
            raise UserError(
                f"{path} predicts {row['method']} for {row['painting']}, {row['item_emotion']}, "
                f"seed {row['seed']} more than once; run the predict step for {folder.name} again"
            )
        draws[row["seed"]] = row["explanation"] or ""
    return [_predicted(name, tar, drawn[name], threshold, scaling) for name in sorted(drawn)]


def _predicted(
    name: str, tar: TarMaps, drawn: Mapping[ItemId, Mapping[int, str]], threshold: float, scaling: Scaling
) -> Method:
    def read(item: ApoloItem) -> np.ndarray | None:
        data = tar.read(f"{item.key}.{map_name(name, item.emotion)}")
        return None if data is None else decode_npy(data)

    texts = {item: [draws[seed] for seed in sorted(draws)] for item, draws in drawn.items()}
    silent = not any(text for draws in texts.values() for text in draws)
    return Method(name, thresholded(read, threshold, scaling), {} if silent else texts)


# ---- anyone's maps ---------------------------------------------------------------------------------


class FolderMaps:
    """A folder of ``PAINTING_EMOTION.npy`` or ``.png`` maps, found under any spelling of a name."""

    SUFFIXES = (".npy", ".png")

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder of maps PAINTING_EMOTION.npy or .png")
        self.folder = folder
        self._files: dict[str, Path] = {}
        self.duplicates: list[str] = []
        """Files whose item another file before them has already answered; not read."""
        for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in self.SUFFIXES):
            name = plain_name(path.stem)
            if name in self._files:
                self.duplicates.append(path.name)
            else:
                self._files[name] = path
        if not self._files:
            raise UserError(f"{folder} holds no map: expected files PAINTING_EMOTION.npy or .png")

    @staticmethod
    def _name(item: ApoloItem) -> str:
        return plain_name(f"{item.painting}_{item.emotion}")

    def unasked(self, items: Iterable[ApoloItem]) -> list[str]:
        """Files that belong to none of the items."""
        wanted = {self._name(item) for item in items}
        return [path.name for name, path in self._files.items() if name not in wanted]

    def __call__(self, item: ApoloItem) -> np.ndarray | None:
        """An item's map, or None when the folder has none. Raises `ValueError` for a file that is no map."""
        path = self._files.get(self._name(item))
        if path is None:
            return None
        data = path.read_bytes()
        return decode_npy(data) if path.suffix.lower() == ".npy" else decode_png(data)
