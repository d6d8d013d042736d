"""APOLO's released VinVL boxes as a source of regions: boxes only, without scores, labels or pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.backbones.params import BackbonesParams
from pipeline.common.code import code_fingerprint
from pipeline.common.fingerprint import fingerprint
from pipeline.common.params import Paths
from pipeline.regions.region_row import Found, Rejected
from pipeline.regions.sources.source import Answers, Artwork, RegionSource
from pipeline.releases import apolo_arrays

if TYPE_CHECKING:
    from pipeline.regions.params import RegionsParams

SCORE = 1.0
"""Score of every box: the release has none."""


def regions(
    works: Sequence[Artwork], paths: Paths, _params: RegionsParams, _backbones: BackbonesParams
) -> Answers:
    """Yield every artwork with its released boxes.

    Box files are named by painting, without the art style. An artwork without a file is a reject
    ("no-boxes-file") and never falls back to a detector; an empty file is an artwork without boxes.
    """
    for row in works:
        path = apolo_arrays.boxes_path(paths.apolo, row["painting"])
        if path is None:
            where = paths.apolo / apolo_arrays.BOXES
            yield row, Rejected("no-boxes-file", f"{where} has no file for {row['painting']}")
            continue
        try:
            normalised = apolo_arrays.load_boxes(path)
        except apolo_arrays.BadArray as error:
            yield row, Rejected(f"boxes-{error.reason}", error.detail)
            continue
        scale = np.array([row["width"], row["height"]] * 2, np.float32)
        count = len(normalised)
        yield row, Found(normalised * scale, np.full(count, SCORE, np.float32), [""] * count, None)


def identity(_paths: Paths, _params: RegionsParams, _backbones: BackbonesParams) -> str:
    """Code alone: there are no settings, and the files count by artwork."""
    return fingerprint("apolo", code_fingerprint(__name__))


def file_of(paths: Paths, artwork: Artwork) -> Path | None:
    """The released file of an artwork, or None."""
    return apolo_arrays.boxes_path(paths.apolo, artwork["painting"])


SOURCE = RegionSource(regions, identity, file_of)
