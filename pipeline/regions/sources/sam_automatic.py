"""SAM's automatic masks as a source of regions (CLIP+SAM): mask regions, each with its tight box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.backbones.params import BackbonesParams
from pipeline.common.code import code_fingerprint
from pipeline.common.fingerprint import fingerprint
from pipeline.common.params import Paths
from pipeline.regions import prompted_sam
from pipeline.regions.region_row import Found
from pipeline.regions.sources import detect
from pipeline.regions.sources.source import Answers, Artwork, RegionSource

if TYPE_CHECKING:
    import numpy as np

    from pipeline.regions.params import RegionsParams


def regions(
    works: Sequence[Artwork], paths: Paths, params: RegionsParams, backbones: BackbonesParams
) -> Answers:
    """Yield every artwork with SAM's masks of it, at most max_detections; see `source.RegionSource`.

    Their scores are SAM's predicted IoU. min_detections and score_threshold have no say: `params.sam` has.
    """
    model = prompted_sam.load(backbones.sam, backbones.torch_device())

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

    yield from detect.detect(paths.wikiart, works, params.batch, propose)


def identity(_paths: Paths, params: RegionsParams, backbones: BackbonesParams) -> str:
    """Settings, weights, code."""
    code = code_fingerprint(__name__)
    settings = (params.sam, params.max_detections, params.batch)
    return fingerprint("sam", *settings, prompted_sam.weights_digest(backbones.sam), code)


SOURCE = RegionSource(regions, identity, detects=True)
