"""Masks as COCO's compressed run lengths: written by pycocotools, read here as runs.

A mask of (h, w) pixels is a JSON text ``{"size": [h, w], "counts": "..."}``. Its pixels are numbered down the
columns, x * h + y; `counts` holds the lengths of alternating runs of zeros and ones, zeros first, each from
the fourth on as its difference to the run of the same kind before it, as little-endian groups of five bits
with a sign, one printable character a group (pycocotools, ``maskApi.c``). Reading gives the runs of ones and
not the pixels, as `raster` needs them, and takes nothing on trust.
"""

import json
from typing import Any

import numpy as np

FIRST_CHARACTER = 48
CONTINUES, SIGN, FIVE_BITS = 0b100000, 0b010000, 0b011111
LONGEST = 7
"""Characters of one count: 35 bits, more than any picture has pixels."""


class BadMask(ValueError):  # noqa: N818 - named for what it says, as `artworks.BadImage`
    """A text that is no mask of the picture."""


def encode(masks: np.ndarray) -> list[str]:
    """Masks bool (N, h, w) as texts; the same mask, the same text."""
    from pycocotools import mask

    count, height, width = masks.shape
    if count == 0:
        return []
    columns = np.asfortranarray(masks.transpose(1, 2, 0), np.bool_)  # no copy where they lie so already
    rles = mask.encode(columns.view(np.uint8))
    return [json.dumps({"size": [height, width], "counts": rle["counts"].decode("ascii")}) for rle in rles]


def decode(text: str, height: int, width: int) -> np.ndarray:
    """The runs of ones of a mask.

    Args:
        text: as `encode` writes it.
        height, width: of the picture that it must be a mask of, pixels.

    Returns:
        int64 (R, 2): first pixel of each run and the one behind its last, in column-major numbers, ascending.
        (0, 2) for an empty mask.

    Raises:
        BadMask: no JSON of that form, the mask of another size, or counts that do not add up to it.
    """
    try:
        rle: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadMask(f"the mask is no JSON: {error}") from None
    if not isinstance(rle, dict) or not isinstance(rle.get("counts"), str):
        raise BadMask('the mask must be {"size": [h, w], "counts": "..."}')
    if rle.get("size") != [height, width]:
        raise BadMask(f"the mask is of size {rle.get('size')}, the picture {[height, width]}")
    edges = np.cumsum(_counts(rle["counts"]))
    total = height * width
    if (np.diff(edges, prepend=0) < 0).any() or edges[-1] != total:
        raise BadMask(f"the mask's counts do not add up to its {total} pixels")
    runs = edges[: len(edges) // 2 * 2].reshape(-1, 2)
    return runs[runs[:, 1] > runs[:, 0]]


def _counts(text: str) -> np.ndarray:
    """The run lengths in a text, int64. Raises `BadMask` for characters that are none of the code's."""
    codes = np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64) - FIRST_CHARACTER
    if not len(codes) or codes.min() < 0 or codes.max() >= 2 * CONTINUES or codes[-1] & CONTINUES:
        raise BadMask("the mask's counts are empty, cut off, or hold characters that cannot be there")
    last = np.flatnonzero(codes & CONTINUES == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > LONGEST:
        raise BadMask(f"the mask's counts hold a number of {lengths.max()} characters")
    places = np.arange(len(codes)) - np.repeat(first, lengths)
    counts: np.ndarray = np.add.reduceat((codes & FIVE_BITS) << (5 * places), first)
    counts -= np.where(codes[last] & SIGN, np.int64(1) << (5 * lengths), 0)
    counts[1::2] = counts[1::2].cumsum()
    counts[2::2] = counts[2::2].cumsum()
    return counts
