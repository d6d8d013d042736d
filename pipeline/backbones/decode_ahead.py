"""Decoded artworks for the encoders: the next picture is read while the device works on this one."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pipeline.common.read_ahead import read_ahead
from pipeline.releases.wikiart import BadImage, read_image

T = TypeVar("T")

Picture = np.ndarray | BadImage
"""uint8 RGB (H, W, 3), or what is wrong with the file."""
AHEAD = 4
"""Pictures decoded ahead: hides the disk, and holds at most a few hundred megabytes."""


class Stopwatch:
    """Adds up seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start


WAITED = Stopwatch()
"""How long this process's encoders have waited for pictures so far; `bench` reads it before and after."""


def read_artwork(wikiart: Path, row: dict[str, Any]) -> np.ndarray:
    """The picture of a row of `schema.ARTWORKS`, uint8 RGB (height, width, 3).

    Raises `BadImage`; a file that is no longer the one of the table is `changed-content`, or where the table
    has no SHA-256 `changed-size`: boxes and masks of it would lie elsewhere.
    """
    pixels = max(1, row["width"] * row["height"])
    image = read_image(wikiart / row["path"], pixels, row.get("sha256"))
    if image.shape[:2] != (row["height"], row["width"]):
        now, then = f"{image.shape[1]}x{image.shape[0]}", f"{row['width']}x{row['height']}"
        raise BadImage("changed-size", f"{row['path']} is {now}, the utterances step saw {then}")
    return image


def pictures(wikiart: Path, rows: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Picture]]:
    """Yield every row of `schema.ARTWORKS`, in order, with its picture or what is wrong with it."""
    return prepared(wikiart, rows, lambda image: image)


def prepared(
    wikiart: Path,
    rows: Sequence[dict[str, Any]],
    prepare: Callable[[np.ndarray], T],
    threads: int = 1,
    depth: int = AHEAD,
) -> Iterator[tuple[dict[str, Any], T | BadImage]]:
    """As `pictures`, with what `prepare` makes of each picture on the thread that decoded it.

    The pictures themselves are let go there: no more than `threads` of them are in memory, however large.
    """

    def read(row: dict[str, Any]) -> tuple[dict[str, Any], T | BadImage]:
        try:
            return row, prepare(read_artwork(wikiart, row))
        except BadImage as error:
            return row, error

    results = read_ahead(read, rows, threads, depth)
    while True:
        with WAITED:
            found = next(results, None)
        if found is None:
            return
        yield found
