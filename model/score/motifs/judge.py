"""How far explanations name what is in the artwork."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from model.maps.method import ItemId, Method, item_id
from model.score.motifs.truth import ArtworkMotifs, read_motifs
from model.score.motifs.words import NamedMotif, named_motifs
from model.score.params import ScoreParams
from model.score.score_masks import in_threads
from pipeline.common.errors import UserError
from pipeline.gallery.world import COLOURS
from pipeline.releases.apolo import ApoloItem


@dataclass(frozen=True)
class MotifScores:
    """One draw of one method: float64 (N,) each, 1 for right, 0 for wrong, NaN where nothing is said."""

    motif_named: np.ndarray
    """Names a motif at all."""
    motif: np.ndarray
    """Of those that do: every one named is in the artwork."""
    motif_blind: np.ndarray
    """The same against the other artworks asked for the same emotion, their mean: what words that know the
    emotion and not the picture reach."""
    motif_label: np.ndarray
    """Of those that name one: one named lies under the label, that is, evokes the emotion in this artwork."""
    motif_mask: np.ndarray
    """Of those that name one: one named is the motif that the method's own mask overlaps most, by IoU."""
    motif_look: np.ndarray
    """Of those that say how a motif in the artwork looks: every size, state and colour said is right."""
    kinds: tuple[tuple[str, ...], ...] = ()
    """Per explanation the kinds that it names."""

    def row(self) -> dict[str, float]:
        """Columns of the score table, percent; without those that say nothing."""
        columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "kinds"}
        return {
            name: 100.0 * float(np.nanmean(values))
            for name, values in columns.items()
            if not np.isnan(values).all()
        }


COLUMNS = tuple(f.name for f in fields(MotifScores) if f.name != "kinds")


class MotifJudge:
    """Judges explanations by what is in the artworks."""

    def __init__(
        self,
        artworks: Mapping[str, ArtworkMotifs],
        marked: Mapping[str, Mapping[ItemId, str | None]] | None = None,
    ) -> None:
        """What is in the artworks, by key, and per method and item the kind that its mask marks."""
        self._artworks = artworks
        self._marked = marked or {}
        self._kinds = {key: {motif.kind for motif in a.motifs} for key, a in artworks.items()}

    def score(
        self, method: str, keys: Sequence[str], emotions: Sequence[str], texts: Sequence[str]
    ) -> MotifScores:
        """One draw of a method's explanations, one of each (artwork, emotion)."""
        same = {
            emotion: dict.fromkeys(key for key, own in zip(keys, emotions, strict=True) if own == emotion)
            for emotion in set(emotions)
        }
        marked = self._marked.get(method, {})
        several = [named_motifs(text) for text in texts]
        rows = []
        for key, emotion, named in zip(keys, emotions, several, strict=True):
            kinds = {motif.kind for motif in named}
            present = under = blind = mask = np.nan
            if named:
                present = float(kinds <= self._kinds[key])
                under = float(any(emotion in m.emotions for k in kinds for m in self._artworks[key].find(k)))
                others = [float(kinds <= self._kinds[other]) for other in same[emotion] if other != key]
                blind = float(np.mean(others)) if others else np.nan
                if (key, emotion) in marked:
                    mask = float(marked[key, emotion] in kinds)
            rows.append([float(bool(named)), present, blind, under, mask, self._look(named, key)])
        values = np.array(rows, dtype=np.float64).reshape(-1, len(COLUMNS))
        kinds_of = (tuple(dict.fromkeys(motif.kind for motif in named)) for named in several)
        return MotifScores(**dict(zip(COLUMNS, values.T, strict=True)), kinds=tuple(kinds_of))

    def _look(self, named: Sequence[NamedMotif], key: str) -> float:
        """`motif_look` of one explanation."""
        right = []
        for motif in named:
            drawn = self._artworks[key].find(motif.kind)
            if drawn and motif.look:
                right.append(any(_looks(motif.look, m.look.colour, m.look.state, m.look.size) for m in drawn))
        return float(all(right)) if right else np.nan


def _looks(said: Sequence[str], colour: str, state: str, size: str) -> bool:
    """Whether all that is said of a look is right."""
    return all(word == colour if word in COLOURS else word in (state, size) for word in said)


def open_motif_judge(
    apolo: Path, items: Sequence[ApoloItem], methods: Sequence[Method], params: ScoreParams
) -> tuple[MotifJudge | None, list[str]]:
    """A judge of explanations of these items, and a line where a drawn release cannot be judged so.

    There is none for other releases than drawn ones, and where no method explains.
    """
    if not any(method.explanations for method in methods):
        return None, []
    try:
        artworks = read_motifs(apolo, items)
    except UserError as error:
        return None, [f"what explanations name is not judged: {error}"]
    if artworks is None:
        return None, []
    return MotifJudge(artworks, marked_motifs(items, methods, artworks, params)), []


def marked_motifs(
    items: Sequence[ApoloItem],
    methods: Sequence[Method],
    artworks: Mapping[str, ArtworkMotifs],
    params: ScoreParams,
) -> dict[str, dict[ItemId, str | None]]:
    """Per method that explains, and item that it segments: the motif that its mask overlaps most, or None."""
    explaining = [method for method in methods if method.explanations]

    def mark(item: ApoloItem) -> list[dict[ItemId, str | None]]:
        artwork = artworks[item.key]
        masks = [_mask_of(method, item, artwork, params.threshold) for method in explaining]
        return [{} if mask is None else {item_id(item): artwork.mark(mask)} for mask in masks]

    marked: dict[str, dict[ItemId, str | None]] = {method.name: {} for method in explaining}
    for row in in_threads(mark, items, "score: what masks mark"):
        for method, found in zip(explaining, row, strict=True):
            marked[method.name] |= found
    return marked


def _mask_of(method: Method, item: ApoloItem, artwork: ArtworkMotifs, threshold: float) -> np.ndarray | None:
    """A method's foreground, bool (H, W); None where it has none that can be used."""
    try:
        values = method.answer(item, artwork.height, artwork.width)
    except ValueError:  # named where masks are scored
        return None
    return values if values is None or method.finished else values > threshold
