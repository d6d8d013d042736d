"""APOLO's released VinVL boxes as a source of regions: boxes only, without scores, labels or pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import apolo
from pipeline.regions.table import Found, Rejected

SCORE = 1.0
"""Score of every box: the release has none."""


def regions(
    folder: Path, artworks: Sequence[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], Found | Rejected]]:
    """Yield every row of `schema.ARTWORKS`, in order, with its boxes or why it has none.

    folder: of the APOLO release. Box files are named by painting, without the art style.
    """
    for row in artworks:
        path = apolo.boxes_path(folder, row["painting"])
        if path is None:
            yield row, Rejected("no-boxes-file")
            continue
        try:
            normalised = apolo.load_boxes(path)
        except apolo.BadArray as error:
            yield row, Rejected(f"boxes-{error.reason}")
            continue
        scale = np.array([row["width"], row["height"]] * 2, np.float32)
        count = len(normalised)
        yield row, Found(normalised * scale, np.full(count, SCORE, np.float32), [""] * count, None)
