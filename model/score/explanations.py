"""How good explanations are: EA, BLEU, METEOR, ROUGE-L and CLIPScore of several methods on the same items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from model.metrics import text
from pipeline.common.emotions import ALL_EMOTIONS
from pipeline.common.progress import Meter, waiting
from pipeline.releases.apolo import ApoloItem

if TYPE_CHECKING:  # both need torch, and whoever scores without them has none
    from model.alignment.networks import EmotionClassifier
    from model.score.clipscore_images import PictureJudge
    from model.score.motifs.judge import MotifJudge, MotifScores


@dataclass(frozen=True)
class ReferenceItems:
    """The items that explanations are held against, one entry each, in one order."""

    keys: Sequence[str]
    """Of the artworks."""
    emotions: Sequence[str]
    """Of the masks: what EA must find."""
    references: Sequence[tuple[str, ...]]
    """What people wrote."""

    @classmethod
    def of(cls, items: Sequence[ApoloItem]) -> "ReferenceItems":
        """The emotions and utterances of APOLO's items."""
        return cls(
            keys=[item.key for item in items],
            emotions=[item.emotion for item in items],
            references=[item.utterances for item in items],
        )


@dataclass(frozen=True)
class Draw:
    """One draw of one method, and how it was judged."""

    texts: Sequence[str]
    """Per item; empty where the method has none."""
    emotions: list[str | None] | None
    """Per item, the emotion that the classifier reads; None without a classifier."""
    clipscores: np.ndarray
    """float64 (N,); NaN where the picture cannot be read, and without a CLIP."""
    scores: text.TextScores | None = None
    """BLEU, METEOR, ROUGE-L; None where they could not be run."""
    own: np.ndarray | None = None
    """float64 (N,), `PictureJudge.prefer_own` of artworks asked for one emotion; None without a CLIP."""
    motifs: "MotifScores | None" = None
    """What they name of what is in the picture; None but for the built-in gallery."""


@dataclass(frozen=True)
class MethodExplanations:
    """One method's explanations, and how they were judged."""

    draws: list[Draw]
    """In the order of their seeds; at least one."""
    row: dict[str, float]
    """Columns of the score table: ea, bleu1..4, meteor, rouge_l, clipscore, clip_own, motif, motif_..."""

    @property
    def texts(self) -> Sequence[str]:
        """Those of the first draw."""
        return self.draws[0].texts

    @property
    def emotions(self) -> list[str | None] | None:
        """Those read in the first draw; None without a classifier."""
        return self.draws[0].emotions

    @property
    def clipscores(self) -> np.ndarray:
        """Those of the first draw."""
        return self.draws[0].clipscores


def begin_texts(items: ReferenceItems, draws: Mapping[str, Sequence[Sequence[str]]]) -> text.TextJudge:
    """Start what BLEU, METEOR and ROUGE-L need, which takes Java long, on all of these draws.

    The arguments are those of `score_explanations`, whose items may then be a part of these.
    """
    pairs = (pair for several in draws.values() for draw in several for pair in _pairs(items, draw))
    return text.TextJudge(pair for pair in pairs if pair.references)


def _pairs(items: ReferenceItems, draw: Sequence[str]) -> list[text.Pair]:
    return [text.Pair(answer, refs) for answer, refs in zip(draw, items.references, strict=True)]


def score_explanations(
    items: ReferenceItems,
    draws: Mapping[str, Sequence[Sequence[str]]],
    texts: text.TextJudge,
    classifier: "EmotionClassifier | None",
    pictures: "PictureJudge | None",
    motifs: "MotifJudge | None" = None,
) -> tuple[dict[str, MethodExplanations], list[str]]:
    """Judge every method's explanations; also a line for every metric that could not be run.

    `draws`: method -> draw -> text per item; nucleus sampling makes one draw noisy. With several, a column
    is the mean over draws and `COLUMN_sd` its sample deviation. An empty text is wrong in every metric.
    Pictures that cannot be read are left out of CLIPScore. Without a classifier there is no EA, without
    pictures no CLIPScore, without motifs nothing on these, and where an item has no reference nothing that
    needs one. `texts` is of `begin_texts`, and waited for last.
    """
    bare = sum(not references for references in items.references)
    judged: dict[str, list[Draw]] = {}
    meter = Meter("score: EA and CLIPScore", sum(map(len, draws.values())), unit="draw")
    for name, several in draws.items():
        judged[name] = []
        for draw in several:
            judged[name].append(_judge(items, draw, classifier, pictures))
            if motifs is not None:
                found = motifs.score(name, items.keys, items.emotions, draw)
                judged[name][-1] = replace(judged[name][-1], motifs=found)
            meter.add()
    corpora = {
        f"{name} {d}": _pairs(items, draw)
        for name, several in draws.items()
        for d, draw in enumerate(several)
        if not bare
    }
    with waiting("score", f"BLEU, METEOR and ROUGE-L of {len(corpora)} draws of {len(items.keys)} texts"):
        scores, problems = texts.scores(corpora)
    if bare and draws:
        problems.append(
            f"BLEU, METEOR and ROUGE-L are absent: of {len(items.references)} items {bare} have no utterance "
            "to compare with"
        )
    explanations = {}
    for name, draws_ in judged.items():
        whole = [replace(draw, scores=scores.get(f"{name} {d}")) for d, draw in enumerate(draws_)]
        explanations[name] = MethodExplanations(whole, over_draws([_row(items, draw) for draw in whole]))
    return explanations, problems


def _judge(
    items: ReferenceItems,
    draw: Sequence[str],
    classifier: "EmotionClassifier | None",
    pictures: "PictureJudge | None",
) -> Draw:
    """A draw by the judges that need no reference."""
    filled = [bool(answer.strip()) for answer in draw]
    read: list[str | None] | None = None
    if classifier is not None:
        labels = classifier.classify(draw)
        read = [ALL_EMOTIONS[i] if any_text else None for i, any_text in zip(labels, filled, strict=True)]
    if pictures is None:
        return Draw(draw, read, np.full(len(draw), np.nan))
    seen = pictures.score(items.keys, draw)
    own = pictures.prefer_own(items.keys, items.emotions, draw)
    seen, own = (np.where(np.array(filled) | np.isnan(found), found, 0.0) for found in (seen, own))
    return Draw(draw, read, seen, own=own)


def _row(items: ReferenceItems, draw: Draw) -> dict[str, float]:
    """Columns of one draw."""
    row: dict[str, float] = {}
    if draw.emotions is not None:
        right = [read == emotion for read, emotion in zip(draw.emotions, items.emotions, strict=True)]
        row["ea"] = 100.0 * float(np.mean(right))
    if draw.scores is not None:
        row |= draw.scores.row
    if not np.isnan(draw.clipscores).all():
        row["clipscore"] = float(np.nanmean(draw.clipscores))
    if draw.own is not None and not np.isnan(draw.own).all():
        row["clip_own"] = 100.0 * float(np.nanmean(draw.own))
    return row if draw.motifs is None else row | draw.motifs.row()


def over_draws(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean and, as `COLUMN_sd`, sample deviation of each column over draws; one draw is its own mean.

    A column that one of the draws lacks is left out.
    """
    if len(rows) == 1:
        return dict(rows[0])
    merged: dict[str, float] = {"draws": len(rows)}
    for column in (name for name in rows[0] if all(name in row for row in rows)):
        values = [row[column] for row in rows]
        merged[column] = float(np.mean(values))
        merged[f"{column}_sd"] = float(np.std(values, ddof=1))
    return merged
