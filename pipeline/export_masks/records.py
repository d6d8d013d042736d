"""The pseudo-masks of a shards folder one by one, with what every format says about them."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pyarrow.parquet as pq

from pipeline.common.digests import check_file
from pipeline.common.errors import UserError
from pipeline.common.protocol import THRESHOLD
from pipeline.reader.index import Index, IndexRow

Size = Literal["stored", "picture"]


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, and how."""

    size: Size = "stored"
    """Masks as they are stored (long side 256), or resized to the picture, bilinearly."""
    threshold: float = THRESHOLD
    """Foreground is what lies above this; formats that know soft masks keep them."""
    splits: Collection[str] = ()
    """Only these; none: all."""
    emotions: Collection[str] = ()
    """Only these; none: all."""
    prefix: str = ""
    """What the other tool puts before a picture's path, such as ``/data/local-files/?d=wikiart/``."""


@dataclass(frozen=True)
class Artwork:
    """An artwork with its chosen masks."""

    key: str
    path: str
    """Of its picture, relative to paths.wikiart; STYLE/NAME.jpg where the tables are absent."""
    width: int
    height: int
    """Of the upright picture, pixels."""
    card: dict[str, Any]
    """KEY.json of the masks tar."""
    masks: dict[str, np.ndarray]
    """Emotion -> uint8 (h, w) of 0 to 255."""


def read_records(folder: Path, options: ExportOptions) -> Iterator[Artwork]:
    """Yield the artworks of ``data/shards`` that have a chosen mask, in the index's order.

    Raises `UserError` when the folder is no whole shards folder.
    """
    index = Index.load(folder)
    paths = _picture_paths(folder.parent / "utterances" / "artworks.parquet")
    for row in index.rows():
        emotions = chosen(row, options)
        if emotions:
            yield _artwork(index, row.key, emotions, paths, options)


def chosen(row: IndexRow, options: ExportOptions) -> list[str]:
    """Emotions of an artwork that are asked for."""
    if options.splits and row.split not in options.splits:
        return []
    return [emotion for emotion in row.emotions if not options.emotions or emotion in options.emotions]


def _artwork(
    index: Index, key: str, emotions: list[str], paths: dict[str, str], options: ExportOptions
) -> Artwork:
    index.check(key)
    card = json.loads(index.read(key, "masks/json"))
    height, width = int(card["height"]), int(card["width"])
    masks = {}
    for emotion in emotions:
        data = np.frombuffer(index.view(key, f"{emotion}.png"), np.uint8)
        mask = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise UserError(f"artwork {key}: its mask of {emotion} is no PNG; run the masks step again")
        if options.size == "picture":
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
        masks[emotion] = mask
    path = paths.get(key, f"{card['art_style']}/{card['painting']}.jpg")
    return Artwork(key, path, width, height, card, masks)


def _picture_paths(table: Path) -> dict[str, str]:
    """Key -> path of the picture; none where the table is absent, as in a folder from elsewhere."""
    if not table.is_file():
        return {}
    rows = pq.read_table(check_file(table), columns=["key", "path"])
    return dict(zip(rows["key"].to_pylist(), rows["path"].to_pylist(), strict=True))


def foreground(mask: np.ndarray, options: ExportOptions) -> np.ndarray:
    """Bool (h, w): the pixels above the threshold, as the masks step counts them."""
    return mask > int(options.threshold * 255)
