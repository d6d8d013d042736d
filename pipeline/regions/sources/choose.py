"""Which source of regions the params ask for."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

from pipeline.common.params import Paths
from pipeline.regions.sources.source import RegionSource
from pipeline.releases import apolo_arrays

if TYPE_CHECKING:
    from pipeline.regions.params import RegionsParams


def load_source(name: str) -> RegionSource:
    """The source of this name. Imports only what it needs: the file readers run without torch."""
    if name == "apolo":
        from pipeline.regions.sources import apolo_boxes

        return apolo_boxes.SOURCE
    if name == "faster_rcnn":
        from pipeline.regions.sources import faster_rcnn

        return faster_rcnn.SOURCE
    if name == "features_tsv":
        from pipeline.regions.sources import features_tsv

        return features_tsv.SOURCE
    if name == "predictions_tsv":
        from pipeline.regions.sources import predictions_tsv

        return predictions_tsv.SOURCE
    if name == "sam":
        from pipeline.regions.sources import sam_automatic

        return sam_automatic.SOURCE
    if name == "vinvl":
        from pipeline.regions.sources import vinvl

        return vinvl.SOURCE
    raise ValueError(f"no source of regions is called {name!r}")


def resolve_source(params: RegionsParams, paths: Paths) -> RegionsParams:
    """Params with "auto" replaced by apolo where its boxes are, else by vinvl; the choice is printed."""
    if params.source != "auto":
        return params
    folder = paths.apolo / apolo_arrays.BOXES
    there = folder.is_dir() and any(folder.glob("*.npy"))
    print(
        f"regions: source {'apolo' if there else 'vinvl'}, because {folder} "
        f"{'holds released boxes' if there else 'holds no boxes'}",
        file=sys.stderr,
    )
    return dataclasses.replace(params, source="apolo" if there else "vinvl")
