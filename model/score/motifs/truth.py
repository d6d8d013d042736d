"""What is in the gallery's artworks, as its APOLO release notes it (`pipeline.gallery.motif_table`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipeline.common.errors import UserError
from pipeline.common.sums import check_sum
from pipeline.gallery.motif_table import FOLDER, MOTIFS, NAME
from pipeline.gallery.world import Look
from pipeline.releases.apolo import ApoloItem
from pipeline.releases.gallery_mark import read_mark
from pipeline.releases.names import plain_name


@dataclass(frozen=True)
class DrawnMotif:
    """A motif that is in an artwork."""

    kind: str
    emotions: tuple[str, ...]
    """What it evokes: its pixels are in the label of each."""
    look: Look
    spans: np.ndarray
    """Its visible pixels, int32 (S, 2): first and one behind the last of each run, row by row."""


@dataclass(frozen=True)
class ArtworkMotifs:
    """All that is in an artwork."""

    height: int
    width: int
    """Pixels of the picture, as of its labels."""
    motifs: tuple[DrawnMotif, ...]

    def find(self, kind: str) -> list[DrawnMotif]:
        """The motifs of a kind."""
        return [motif for motif in self.motifs if motif.kind == kind]

    def mark(self, foreground: np.ndarray) -> str | None:
        """The kind of the motif with the highest IoU with a foreground, bool (H, W); None if it hits none."""
        sums = np.concatenate([[0], np.cumsum(foreground, dtype=np.int64).ravel()])
        ious = []
        for motif in self.motifs:
            first, behind = motif.spans.T
            shared = int((sums[behind] - sums[first]).sum())
            ious.append(shared / max(int((behind - first).sum()) + int(sums[-1]) - shared, 1))
        best = int(np.argmax(ious)) if ious else 0
        return self.motifs[best].kind if ious and ious[best] > 0 else None


def read_motifs(apolo: Path, items: Sequence[ApoloItem]) -> dict[str, ArtworkMotifs] | None:
    """What is in the items' artworks, by key; None where the release is not drawn.

    Raises `UserError` where it is, and does not say so of every artwork: the words are then not judged.
    """
    if read_mark(apolo) is None:
        return None
    file, advice = apolo / FOLDER / NAME, "draw the gallery again (python cli.py gallery)"
    if not file.is_file():
        raise UserError(f"{file} does not exist, so older code drew this gallery; {advice}")
    check_sum(file, advice)
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(file, schema=MOTIFS).to_pylist():
        rows.setdefault(plain_name(row["painting"]), []).append(row)
    first = {item.key: plain_name(item.painting) for item in reversed(items)}
    if absent := [painting for painting in first.values() if painting not in rows]:
        raise UserError(f"{file} says nothing of {absent[0]}; {advice}")
    return {key: _artwork(rows[painting]) for key, painting in first.items()}


def _artwork(rows: Sequence[dict[str, Any]]) -> ArtworkMotifs:
    motifs = (
        DrawnMotif(
            row["kind"],
            tuple(row["emotions"]),
            Look(row["colour"], row["state"], row["size"]),
            np.array(row["spans"], np.int32).reshape(-1, 2),
        )
        for row in rows
    )
    return ArtworkMotifs(rows[0]["height"], rows[0]["width"], tuple(motifs))
