"""SAM's automatic masks as a source of regions (CLIP+SAM): mask regions, each with its tight box."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline import artworks, geometry, rle, storage
from pipeline.backbones import BackbonesParams, pictures, sam
from pipeline.params import Paths, fingerprint
from pipeline.regions import detecting, sam_params, sam_prompts, sources, table
from pipeline.regions.sources import Answers, Artwork, Source
from pipeline.regions.table import Found

if TYPE_CHECKING:
    import numpy as np

    from pipeline.regions import RegionsParams


def regions(
    works: Sequence[Artwork], paths: Paths, params: RegionsParams, backbones: BackbonesParams
) -> Answers:
    """Yield every artwork with SAM's masks of it, at most max_detections; see `sources.Source`.

    Their scores are SAM's predicted IoU. min_detections and score_threshold have no say: `params.sam` has.
    """
    model = sam_prompts.load(backbones.sam, backbones.torch_device())

    def propose(images: list[np.ndarray]) -> list[Found]:
        found = []
        for grid, image in zip(model.encode(images), images, strict=True):
            height, width = image.shape[:2]
            answer = model.point_masks(grid, height, width, params.sam, params.max_detections)
            names = [""] * len(answer.masks)
            found.append(
                Found(answer.boxes, answer.scores, names, None, masks=[*answer.masks], weak=answer.weak)
            )
        return found

    yield from detecting.detect(paths.wikiart, works, params.batch, propose)


def identity(_paths: Paths, params: RegionsParams, backbones: BackbonesParams) -> str:
    """Settings, weights, code."""
    code = storage.code_version(
        *(artworks, detecting, geometry, pictures, rle, sam, sam_params, sam_prompts, sources, table),
        sys.modules[__name__],
    )
    settings = (params.sam, params.max_detections, params.batch)
    return fingerprint("sam", *settings, sam_prompts.weights_digest(backbones.sam), code)


SOURCE = Source(regions, identity)
