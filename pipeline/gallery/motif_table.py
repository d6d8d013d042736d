"""What is in the artworks that APOLO scores: ``apolo/motifs/motifs.parquet``, which no real release has.

Labels say which pixels evoke what, and not what they show; whether words name what is there needs this.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.common.files import write_parquet
from pipeline.common.sums import write_sums
from pipeline.gallery.world import Scene

FOLDER, NAME = "motifs", "motifs.parquet"
"""In the APOLO release, and in the folder, which has the file's SHA-256 as well."""
MOTIFS = pa.schema(
    {
        "painting": pa.string(),
        "height": pa.int32(),  # of the picture, pixels
        "width": pa.int32(),
        "kind": pa.string(),
        "emotions": pa.list_(pa.string()),
        "colour": pa.string(),
        "state": pa.string(),
        "size": pa.string(),
        "spans": pa.list_(pa.int32()),  # first pixel and one behind the last of each run, row by row
    }
)
"""A row per motif, in the scene's order."""


def motif_rows(painting: str, world: Scene) -> list[dict[str, Any]]:
    """A scene's rows."""
    height, width = world.image.shape[:2]
    return [
        {
            "painting": painting,
            "height": height,
            "width": width,
            "kind": motif.kind,
            "emotions": motif.emotions,
            "colour": motif.look.colour,
            "state": motif.look.state,
            "size": motif.look.size,
            "spans": np.flatnonzero(np.diff(motif.mask.ravel().astype(np.int8), prepend=0, append=0)),
        }
        for motif in world.motifs
    ]


def write_motifs(apolo: Path, rows: list[dict[str, Any]]) -> None:
    """Write the table into an APOLO release."""
    write_parquet(apolo / FOLDER / NAME, pa.Table.from_pylist(rows, schema=MOTIFS))
    write_sums(apolo / FOLDER, [NAME])
