"""Decoded artworks for the encoders: the next picture is read while the device works on this one."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artworks import BadImage, read_image

AHEAD = 4
"""Pictures decoded ahead: hides the disk, and holds at most a few hundred megabytes."""


def read_artwork(wikiart: Path, row: dict[str, Any]) -> np.ndarray:
    """The picture of a row of `schema.ARTWORKS`, uint8 RGB (height, width, 3).

    Raises `BadImage`; a file that no longer has the table's size is `changed-size`, because boxes and masks
    of it would lie elsewhere.
    """
    image = read_image(wikiart / row["path"], max_pixels=max(1, row["width"] * row["height"]))
    if image.shape[:2] != (row["height"], row["width"]):
        now, then = f"{image.shape[1]}x{image.shape[0]}", f"{row['width']}x{row['height']}"
        raise BadImage("changed-size", f"{row['path']} is {now}, the utterances step saw {then}")
    return image


def pictures(
    wikiart: Path, rows: Sequence[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], np.ndarray | BadImage]]:
    """Yield every row of `schema.ARTWORKS`, in order, with its picture or what is wrong with it."""

    def read(row: dict[str, Any]) -> np.ndarray | BadImage:
        try:
            return read_artwork(wikiart, row)
        except BadImage as error:
            return error

    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Any] = deque()
        for row in rows:
            waiting.append((row, pool.submit(read, row)))
            if len(waiting) > AHEAD:
                ready, future = waiting.popleft()
                yield ready, future.result()
        for ready, future in waiting:
            yield ready, future.result()
