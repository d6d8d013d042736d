"""What is in the gallery's artworks: their scenes, drawn once more from the seed in the release's mark.

Nothing of a drawn release says which motifs an artwork has, only which pixels evoke what. A scene is a pure
function of the params in the release's mark and the number at the end of the painting's name.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.score.score_masks import in_threads
from pipeline.common.errors import UserError
from pipeline.common.params import parse_section
from pipeline.gallery.world import GalleryParams, Look
from pipeline.releases.apolo import ApoloItem
from pipeline.releases.gallery_mark import MARK, VERSION, read_mark
from pipeline.releases.names import plain_name

_NUMBER = re.compile(r"\d+$")
"""Of the artwork in its gallery, at the end of its title."""


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


def read_gallery_params(apolo: Path) -> GalleryParams | None:
    """What a drawn release was drawn with; None for one that is not drawn.

    Raises `UserError` for a mark that cannot be read, or of another version of the drawing.
    """
    mark = read_mark(apolo)
    if mark is None:
        return None
    if mark.version != VERSION:
        raise UserError(
            f"{apolo / MARK} is of version {mark.version} of the gallery, this code draws {VERSION}"
        )
    values = json.loads((apolo / MARK).read_text(encoding="utf-8"))
    own = {name: value for name, value in values.items() if name not in ("drawn_by", "version")}
    return parse_section(own, "gallery", GalleryParams, str(apolo / MARK))


def draw_motifs(apolo: Path, items: Sequence[ApoloItem]) -> dict[str, ArtworkMotifs] | None:
    """What is in the items' artworks, by key; None where the release is not drawn.

    Raises `UserError` where it is, and an artwork cannot be drawn again: the words are then not judged.
    """
    params = read_gallery_params(apolo)
    if params is None:
        return None
    first = {item.key: item for item in reversed(items)}
    drawn = in_threads(
        lambda item: _draw(item.painting, params), list(first.values()), "score: what is in the artworks"
    )
    return dict(zip(first, drawn, strict=True))


def _draw(painting: str, params: GalleryParams) -> ArtworkMotifs:
    from pipeline.gallery.scenes.scene import scene  # it draws, which nobody needs who has other data

    number = _NUMBER.search(painting)
    if number is None or int(number[0]) >= params.artworks:
        raise UserError(f"{painting} is no artwork of a gallery of {params.artworks}")
    drawn = scene(params.seed, int(number[0]), params)
    name = f"{drawn.artist}_{drawn.title}"
    if plain_name(name) != plain_name(painting):
        raise UserError(f"artwork {number[0]} of the gallery of seed {params.seed} is {name}, not {painting}")
    height, width = drawn.image.shape[:2]
    motifs = (DrawnMotif(m.kind, m.emotions, m.look, _spans(m.mask)) for m in drawn.motifs)
    return ArtworkMotifs(height, width, tuple(motifs))


def _spans(mask: np.ndarray) -> np.ndarray:
    """A mask's runs, see `DrawnMotif.spans`."""
    edges = np.flatnonzero(np.diff(mask.ravel().astype(np.int8), prepend=0, append=0))
    return edges.reshape(-1, 2).astype(np.int32)
