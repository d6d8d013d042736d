"""The regions of one artwork as a row of `schema.REGIONS`, whatever their source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.common import rle

WHOLE = "whole artwork"
"""Label of the region that stands in for an artwork in which nothing was found."""
SLACK = 1.0
"""Pixels by which a box may pass the picture's edge before it counts as cut: detectors round."""


@dataclass(frozen=True)
class Found:
    """What a source says about one artwork: n regions, perhaps none."""

    boxes: np.ndarray
    """(n, 4) x1 y1 x2 y2 in pixels of the upright picture. May be broken: `region_row` sorts them out."""
    scores: np.ndarray
    """(n,)."""
    labels: list[str]
    attributes: list[list[str]] | None
    """Per region; None where the source has none."""
    masks: list[str | None] | None = None
    """Per region, None for one without: the JSON ``{"size": [h, w], "counts": "..."}`` of COCO's
    compressed RLE (`pycocotools.mask.encode`), h and w being the upright original's. The box of a mask is
    given too. None where regions are boxes."""
    dropped: int = 0
    """Regions that the source had but could not bring into this form, e.g. a box of three numbers."""
    weak: int = 0
    """Regions that the source left out by score_threshold and max_detections."""


@dataclass(frozen=True)
class Rejected:
    """Why an artwork has no row."""

    reason: str
    """Short, without spaces; counted over all artworks."""
    detail: str = ""
    """For people: what was wrong, and the way out. The first of each reason is shown."""


@dataclass(frozen=True)
class BoxCounts:
    """What became of the boxes of one artwork, or of several: given = kept + dropped + weak."""

    kept: int = 0
    dropped: int = 0
    """Empty once cut to the picture, or no boxes at all (NaN, reversed corners)."""
    weak: int = 0
    """Left out by score_threshold and max_detections."""
    cut: int = 0
    """Of those kept, reaching more than `SLACK` pixels outside the picture before they were cut to it."""
    whole: int = 0
    """Artworks that became one region because nothing was kept."""

    def named(self) -> dict[str, int]:
        """As they stand in metrics/regions.json."""
        return {
            "regions": self.kept + self.whole,
            "whole_artworks": self.whole,
            "dropped_boxes": self.dropped,
            "weak_boxes": self.weak,
            "cut_boxes": self.cut,
        }

    def __add__(self, other: BoxCounts) -> BoxCounts:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return BoxCounts(*(a + b for a, b in pairs))


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


def strongest(scores: np.ndarray, threshold: float, fewest: int, most: int) -> np.ndarray:
    """Indices of the regions to keep, best first: those at or above the threshold, but at least `fewest`
    and at most `most`, as far as there are any. VinVL's rule (NMS_FILTER 1), for every source with scores.

    Ties keep their order; scores that are not finite come last.
    """
    ranked = np.argsort(-np.nan_to_num(scores, nan=-np.inf, posinf=np.inf, neginf=-np.inf), kind="stable")
    count = min(max(int((scores >= threshold).sum()), fewest), most)
    return ranked[:count]


def region_row(artwork: dict[str, Any], found: Found, source: str) -> tuple[dict[str, Any], BoxCounts]:
    """A row of `schema.REGIONS`, and what became of the boxes.

    An artwork without any box is one region, all of it, and its source gets the suffix ":whole".
    """
    height, width = artwork["height"], artwork["width"]
    given = found.boxes.reshape(-1, 4)
    boxes, keep = clip_boxes(given, height, width)
    index = np.flatnonzero(keep)
    dropped = found.dropped + len(given) - len(index)
    if not len(index):
        row = _whole_row(artwork, found, f"{source}:whole")
        return row, BoxCounts(dropped=dropped, weak=found.weak, whole=1)
    cut = np.abs(given[index] - boxes[index]).max(axis=1) > SLACK
    row = {
        "key": artwork["key"],
        "boxes": boxes[index].tolist(),
        "scores": np.asarray(found.scores, np.float32)[index].tolist(),
        "labels": [found.labels[i] for i in index],
        "attributes": None if found.attributes is None else [found.attributes[i] for i in index],
        "masks": None if found.masks is None else [found.masks[i] for i in index],
        "source": source,
    }
    return row, BoxCounts(kept=len(index), dropped=dropped, weak=found.weak, cut=int(cut.sum()))


def _whole_row(artwork: dict[str, Any], found: Found, source: str) -> dict[str, Any]:
    """The row of an artwork that is one region."""
    height, width = artwork["height"], artwork["width"]
    return {
        "key": artwork["key"],
        "boxes": [[0.0, 0.0, width, height]],
        "scores": [1.0],
        "labels": [WHOLE],
        "attributes": None if found.attributes is None else [[]],
        "masks": None if found.masks is None else rle.encode(np.ones((1, height, width), bool)),
        "source": source,
    }
