"""The pseudo-mask rule (Sec. 4.1): from region similarities to a map."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
from pydantic import Field

from pipeline.common import rle
from pipeline.common.geometry import frame_size
from pipeline.common.params import STRICT
from pipeline.masks import raster
from pipeline.masks.raster import Aggregate
from pipeline.reviews.edits import ReviewsParams

OPTIONAL = frozenset({"relative", "level"})
"""Of `MasksParams`, what the paper's recipe does not have."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class MasksParams:
    """From region similarities to a pseudo-mask."""

    support: Literal["box", "sam"] = "box"
    """Where a region's similarity falls: on its whole rectangle, the paper's way, or on SAM's own mask of it
    (`regions.sam_support: true`, or `regions.source: sam`). A region without a usable mask keeps its
    rectangle, and is counted."""
    aggregate: Aggregate = "sum"
    """What a pixel gets from the regions that cover it; 0 where there are none. By APOLO, the paper's is
    sum."""
    negatives: Literal["clip", "keep"] = "clip"
    """A region less similar than 0 counts as 0, or lowers the map. The paper does not say."""
    center: bool = False
    """Subtract the mean over the artwork's regions first, so that only regions that fit better than most
    count (with negatives: clip). Off in the paper."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Above 0, similarities s become exp(s / temperature) relative to the artwork's best region: sharper maps
    for encoders whose cosines lie close together. 0, the paper's: the cosines themselves."""
    relative: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How much of a region's mean similarity to the artwork's other emotions is subtracted first: what fits
    everything that was said counts for little. With one emotion alone nothing is. 0, the paper's: none."""
    level: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The value of the map, relative to its extremes, that becomes the protocol's threshold of 0.35: maps are
    bent by straight lines from 0 to here and from here to 1. The label card names the right one. null, the
    paper's: maps stay as they are."""
    long_side: Annotated[int, Field(gt=0)] = 256
    """Long side of the stored mask, pixels."""
    reviews: ReviewsParams = ReviewsParams()
    """What is done with masks that people judged (`paths.reviews`)."""

    def recipe(self) -> dict[str, Any]:
        """All that decides how masks are painted, which is all but what people made of some afterwards.

        Those of `OPTIONAL` are left out where they are off: cards repeat a recipe, and keep their bytes.
        """
        fields = dataclasses.fields(self)
        off = {field.name for field in fields if getattr(self, field.name) == field.default} & OPTIONAL
        return {
            field.name: getattr(self, field.name) for field in fields if field.name not in {"reviews", *off}
        }


def weigh(scores: np.ndarray, params: MasksParams) -> np.ndarray:
    """Cosines (E, N) to what the boxes of each emotion's map weigh, float64 (E, N).

    With `relative`, an emotion's weights depend on the artwork's other rows: all of them are needed.
    """
    weights = np.asarray(scores, np.float64)
    if weights.shape[1] == 0:
        return weights
    if params.relative > 0 and len(weights) > 1:
        others = (weights.sum(0) - weights) / (len(weights) - 1)
        weights = weights - params.relative * others
    if params.center:
        weights = weights - weights.mean(1, keepdims=True)
    if params.temperature > 0:
        return np.exp((weights - weights.max(1, keepdims=True)) / params.temperature)
    return np.maximum(weights, 0.0) if params.negatives == "clip" else weights


def pseudo_masks(
    boxes: np.ndarray,
    scores: np.ndarray,
    height: int,
    width: int,
    params: MasksParams,
    runs: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """The stored masks of one artwork's emotions.

    Args:
        boxes: (N, 4) xyxy, pixels of the upright picture.
        scores: (E, N) cosines, one row per emotion.
        height, width: of the picture, pixels.
        params: the recipe.
        runs: per region the pixels that it covers, see `raster.rasterise_runs`; None: those of its box.

    Returns:
        uint8 (E, h, w), 0 to 255 for [0, 1]: the picture's aspect with `params.long_side`.
    """
    return paint(boxes, weigh(scores, params), height, width, params, runs)


def paint(
    boxes: np.ndarray,
    weights: np.ndarray,
    height: int,
    width: int,
    params: MasksParams,
    runs: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """As `pseudo_masks`, of what the boxes weigh, (E, N), see `weigh`."""
    maps = (
        raster.rasterise(boxes, weights, height, width, params.aggregate)
        if runs is None
        else raster.rasterise_runs(runs, weights, height, width, params.aggregate)
    )
    return raster.levels(maps, *frame_size(height, width, params.long_side), params.level)


def region_runs(
    boxes: np.ndarray, texts: Sequence[str | None] | None, height: int, width: int
) -> tuple[list[np.ndarray], Counter[str]]:
    """The pixels that each region covers by its mask, or by its box where it has no usable one.

    Args:
        boxes: (N, 4) xyxy, pixels of the upright picture.
        texts: the regions' masks (`rle`), None for a region, or for all, without.
        height, width: of the picture, pixels.

    Returns:
        Runs as `raster.rasterise_runs` takes them, and counts: regions `on_masks` and `on_boxes`, and of the
        latter those whose mask was `broken_masks` (no mask of this picture) or `empty_masks` (no pixel).
    """
    counts: Counter[str] = Counter(on_masks=0, on_boxes=0, broken_masks=0, empty_masks=0)
    runs = raster.box_runs(boxes, height, width)
    if texts is not None and len(texts) != len(runs):
        counts["broken_masks"] += len(runs)
        texts = None
    for index, text in enumerate(texts or ()):
        if text is None:
            continue
        try:
            own = rle.decode(text, height, width)
        except rle.BadMask:
            counts["broken_masks"] += 1
            continue
        if len(own):
            counts["on_masks"] += 1
            runs[index] = own
        else:
            counts["empty_masks"] += 1
    counts["on_boxes"] = len(runs) - counts["on_masks"]
    return runs, counts
