"""The VinVL detector as a source of regions: the paper's (Sec. 4.1)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.backbones.params import BackbonesParams
from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common.code import code_fingerprint
from pipeline.common.errors import UserError
from pipeline.common.fingerprint import fingerprint
from pipeline.common.params import Paths
from pipeline.regions.region_row import Found
from pipeline.regions.sources import detect
from pipeline.regions.sources.source import Answers, Artwork, RegionSource
from pipeline.regions.vinvl import detector, sgb_config
from pipeline.regions.vinvl.checkpoint import config_of, labelmap_of
from pipeline.regions.vinvl.config import VinvlConfig

if TYPE_CHECKING:
    import numpy as np

    from pipeline.regions.params import RegionsParams

DECIDED_BY_SGB = {
    "nms_mode": "MODEL.ROI_HEADS.NMS_FILTER",
    "score_threshold": "MODEL.ROI_HEADS.SCORE_THRESH",
    "min_detections": "MODEL.ROI_HEADS.MIN_DETECTIONS_PER_IMG",
    "max_detections": "MODEL.ROI_HEADS.DETECTIONS_PER_IMG",
    "ignore_box_regression": "TEST.IGNORE_BOX_REGRESSION",
}
"""Params that a config file of scene_graph_benchmark decides instead, and its key for each."""


def regions(
    works: Sequence[Artwork], paths: Paths, params: RegionsParams, backbones: BackbonesParams
) -> Answers:
    """Yield every artwork with the detector's regions; see `source.RegionSource`."""
    device = backbones.torch_device()
    model = _load_detector(backbones.vinvl.checkpoint, params, device)

    def propose(images: list[np.ndarray]) -> list[Found]:
        found = []
        for answer in model.propose(images, attributes=params.attributes):
            names = answer.attributes
            attributes = None if names is None else [[name for name, _ in row] for row in names]
            found.append(Found(answer.boxes, answer.scores, answer.labels, attributes))
        return found

    yield from detect.detect(paths.wikiart, works, params.batch, propose)


def identity(_paths: Paths, params: RegionsParams, backbones: BackbonesParams) -> str:
    """Sizes and settings, weights, label map, code."""
    checkpoint = backbones.vinvl.checkpoint
    labelmap = labelmap_of(checkpoint)
    hashes = [verify_weights(checkpoint), verify_weights(labelmap) if labelmap else ""]
    settings = detector_config(checkpoint, params).to_json()
    return fingerprint("vinvl", settings, params.attributes, params.batch, hashes, code_fingerprint(__name__))


def detector_config(checkpoint: Path, params: RegionsParams) -> VinvlConfig:
    """Sizes and settings of the detector.

    Sizes are those beside the weights, else VinVL's, and `params` decides what regions are; unless it names a
    config file of scene_graph_benchmark: then that file, with its options, decides all of it.
    Raises UserError where params and that file would both decide.
    """
    if params.sgb_config is None:
        decided = {name: getattr(params, name) for name in DECIDED_BY_SGB}
        return dataclasses.replace(config_of(checkpoint), **decided)
    defaults = {field.name: field.default for field in dataclasses.fields(params)}
    both = [name for name in DECIDED_BY_SGB if getattr(params, name) != defaults[name]]
    if both:
        options = ", ".join(f"{DECIDED_BY_SGB[name]} {getattr(params, name)}" for name in both)
        raise UserError(
            f"params set {', '.join(f'regions.{name}' for name in both)}, which {params.sgb_config} decides; "
            f"take them out, or say it in regions.sgb_options: {options}"
        )
    return sgb_config.from_sgb(params.sgb_config, params.sgb_options)


@functools.lru_cache(maxsize=1)
def _load_detector(checkpoint: Path, params: RegionsParams, device: str) -> detector.AttrRCNN:
    """The detector with this step's settings; kept, so that a worker loads it once."""
    return detector.load_vinvl(checkpoint, config=detector_config(checkpoint, params), device=device)


SOURCE = RegionSource(regions, identity, detects=True)
