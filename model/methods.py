"""What is scored: a method is a map or a foreground per APOLO item and, for some, explanations.

Also step `predict`'s folders as methods, and maps in the bytes of a ``.npy`` or ``.png`` file.
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

from model.metrics.segmentation import Scaling, scaled
from pipeline.apolo import ApoloItem
from pipeline.params import UserError
from pipeline.schema import PREDICTIONS, map_name

ItemId = tuple[str, str]
"""(key, emotion) of an APOLO item."""

Answer = Callable[[ApoloItem, int, int], np.ndarray | None]
"""(item, height, width of its label) -> array (height, width), or None where the method has no prediction.

float64 in [0, 1], of which the protocol takes what is above a threshold; or a finished foreground, bool.
Raises `ValueError` for a prediction that cannot be used. Must bear calls from several threads.
"""


@dataclass(frozen=True)
class Method:
    """One row of the score table."""

    name: str
    answer: Answer
    finished: bool = False
    """Whether the answers are finished foregrounds, without a threshold."""
    explanations: Mapping[ItemId, Sequence[str]] = field(default_factory=dict)
    """Drawn texts per item, in the order of their seeds; empty for a method that only segments."""


def item_id(item: ApoloItem) -> ItemId:
    """What identifies an item within APOLO."""
    return item.key, item.emotion


def scaled_maps(read: Callable[[ApoloItem], np.ndarray | None], scaling: Scaling) -> Answer:
    """A reader of maps, (h, w) of any size and range, as a method's answer by the protocol."""

    def answer(item: ApoloItem, height: int, width: int) -> np.ndarray | None:
        map_ = read(item)
        return None if map_ is None else scaled(map_, height, width, scaling)

    return answer


def decode_png(data: bytes) -> np.ndarray:
    """A grey picture, uint8 or uint16 (h, w). Raises `ValueError` for colours and for anything else.

    Colours that are grey count as grey, and an alpha channel that is opaque is dropped.
    """
    pixels = np.frombuffer(data, dtype=np.uint8)
    try:
        image = cv2.imdecode(pixels, cv2.IMREAD_UNCHANGED) if len(pixels) else None
    except cv2.error as error:
        raise ValueError(f"the file is no picture that OpenCV can decode ({error.err})") from None
    if image is None:
        raise ValueError("the file is no picture that OpenCV can decode")
    if image.ndim == 2:
        return image
    opaque = 2 ** (8 * image.itemsize) - 1
    if image.shape[2] == 4 and (image[..., 3] != opaque).any():
        raise ValueError("the picture is partly transparent; save the map as grey values")
    if (image[..., :3] != image[..., :1]).any():
        raise ValueError("the picture has colours, whose order is no map's; save the map as grey values")
    return np.ascontiguousarray(image[..., 0])


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


def read_predictions(folder: Path, scaling: Scaling) -> list[Method]:
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
    return [_predicted(name, tar, drawn[name], scaling) for name in sorted(drawn)]


def _predicted(
    name: str, tar: TarMaps, drawn: Mapping[ItemId, Mapping[int, str]], scaling: Scaling
) -> Method:
    def read(item: ApoloItem) -> np.ndarray | None:
        data = tar.read(f"{item.key}.{map_name(name, item.emotion)}")
        return None if data is None else decode_npy(data)

    texts = {item: [draws[seed] for seed in sorted(draws)] for item, draws in drawn.items()}
    silent = not any(text for draws in texts.values() for text in draws)
    return Method(name, scaled_maps(read, scaling), explanations={} if silent else texts)
