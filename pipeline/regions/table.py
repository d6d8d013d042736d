"""The regions of one artwork as a row of `schema.REGIONS`, whatever their source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

WHOLE = "whole artwork"
"""Label of the region that stands in for an artwork in which nothing was found."""


@dataclass(frozen=True)
class Found:
    """What a source says about one artwork: n regions, perhaps none."""

    boxes: np.ndarray
    """(n, 4) x1 y1 x2 y2 in pixels of the upright picture."""
    scores: np.ndarray
    """(n,)."""
    labels: list[str]
    attributes: list[list[str]] | None
    """Per region; None where the source has none."""


@dataclass(frozen=True)
class Rejected:
    """Why an artwork has no row."""

    reason: str


def clip_boxes(boxes: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes cut to the picture, and which of them still hold a pixel.

    A pixel belongs to a box when its centre does, as for the crops that CLIP sees. Returns float32 (n, 4)
    and bool (n,); boxes that are not finite hold nothing.
    """
    finite = np.isfinite(boxes).all(axis=1)
    limits = np.array([width, height, width, height], np.float32)
    clipped = np.clip(np.where(finite[:, None], boxes, 0), 0, limits).astype(np.float32)
    pixels = np.ceil(clipped - np.float32(0.5))
    return clipped, finite & (pixels[:, 2:] > pixels[:, :2]).all(axis=1)


def region_row(artwork: dict[str, Any], found: Found, source: str) -> tuple[dict[str, Any], int]:
    """A row of `schema.REGIONS` and the number of boxes dropped as empty.

    An artwork without any box is one region, all of it, and its source gets the suffix ":whole".
    """
    height, width = artwork["height"], artwork["width"]
    boxes, keep = clip_boxes(found.boxes.reshape(-1, 4), height, width)
    dropped = int((~keep).sum())
    row: dict[str, Any] = {"key": artwork["key"], "masks": None}
    if not keep.any():
        whole = {"boxes": [[0.0, 0.0, width, height]], "scores": [1.0], "labels": [WHOLE]}
        unknown: list[list[str]] | None = None if found.attributes is None else [[]]
        return row | whole | {"attributes": unknown, "source": f"{source}:whole"}, dropped
    index = np.flatnonzero(keep)
    row |= {
        "boxes": boxes[index].tolist(),
        "scores": np.asarray(found.scores, np.float32)[index].tolist(),
        "labels": [found.labels[i] for i in index],
        "attributes": None if found.attributes is None else [found.attributes[i] for i in index],
        "source": source,
    }
    return row, dropped
