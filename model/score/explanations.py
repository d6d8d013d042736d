"""How good explanations are: EA, BLEU, METEOR, ROUGE-L and CLIPScore of several methods on the same items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from model.alignment.networks import EmotionClassifier
from model.metrics import text
from model.score.clipscore_images import PictureJudge
from pipeline.common.emotions import ALL_EMOTIONS


@dataclass(frozen=True)
class ReferenceItems:
    """The items that explanations are held against, one entry each, in one order."""

    keys: Sequence[str]
    """Of the artworks."""
    emotions: Sequence[str]
    """Of the masks: what EA must find."""
    references: Sequence[tuple[str, ...]]
    """What people wrote."""


TEXTS = pa.schema(
    [
        ("method", pa.string()),
        ("key", pa.string()),
        ("emotion", pa.string()),
        ("draw", pa.int32()),
        ("explanation", pa.string()),  # empty where the method said nothing
        ("ea", pa.string()),  # the emotion that the classifier reads in it; null where nothing was said
        ("clipscore", pa.float64()),  # null where the picture cannot be read
        ("rouge_l", pa.float64()),  # percent; null, as are the counts, where these metrics could not be run
        ("bleu", pa.list_(pa.float64())),  # counts, see `text_counts.bleu`
        ("meteor", pa.list_(pa.float64())),  # counts, see `text_counts.meteor`
    ]
)
"""One row per method, item that counts, and draw."""


@dataclass(frozen=True)
class Draw:
    """One draw of one method, and how it was judged."""

    texts: Sequence[str]
    """Per item; empty where the method said nothing."""
    emotions: list[str | None]
    """Per item, the emotion that the classifier reads."""
    clipscores: np.ndarray
    """float64 (N,); NaN where the picture cannot be read."""
    scores: text.TextScores | None
    """BLEU, METEOR, ROUGE-L; None where they could not be run."""


@dataclass(frozen=True)
class MethodExplanations:
    """One method's explanations, and how they were judged."""

    draws: list[Draw]
    """In the order of their seeds; at least one."""
    row: dict[str, float]
    """Columns of the score table: ea, bleu1..4, meteor, rouge_l, clipscore."""

    @property
    def texts(self) -> Sequence[str]:
        """Those of the first draw."""
        return self.draws[0].texts

    @property
    def emotions(self) -> list[str | None]:
        """Those read in the first draw."""
        return self.draws[0].emotions

    @property
    def clipscores(self) -> np.ndarray:
        """Those of the first draw."""
        return self.draws[0].clipscores


def score_explanations(
    items: ReferenceItems,
    draws: Mapping[str, Sequence[Sequence[str]]],
    judge: EmotionClassifier,
    pictures: PictureJudge,
) -> tuple[dict[str, MethodExplanations], list[str]]:
    """Judge every method's explanations; also a line for every metric that could not be run.

    `draws`: method -> draw -> text per item; nucleus sampling makes one draw noisy. With several, a column
    is the mean over draws and `COLUMN_sd` its sample deviation. An empty text is wrong in every metric.
    Pictures that cannot be read are left out of CLIPScore.
    """
    corpora = {
        f"{name} {d}": [text.Pair(answer, refs) for answer, refs in zip(draw, items.references, strict=True)]
        for name, several in draws.items()
        for d, draw in enumerate(several)
    }
    scores, problems = text.score_texts(corpora)
    explanations = {}
    for name, several in draws.items():
        judged = [
            _judge(items, draw, judge, pictures, scores.get(f"{name} {d}")) for d, draw in enumerate(several)
        ]
        explanations[name] = MethodExplanations(judged, over_draws([_row(items, draw) for draw in judged]))
    return explanations, problems


def _judge(
    items: ReferenceItems,
    draw: Sequence[str],
    judge: EmotionClassifier,
    pictures: PictureJudge,
    scores: text.TextScores | None,
) -> Draw:
    spoken = [bool(answer.strip()) for answer in draw]
    read = [ALL_EMOTIONS[i] if says else None for i, says in zip(judge.classify(draw), spoken, strict=True)]
    seen = pictures.score(items.keys, draw)
    return Draw(draw, read, np.where(np.array(spoken) | np.isnan(seen), seen, 0.0), scores)


def _row(items: ReferenceItems, draw: Draw) -> dict[str, float]:
    """Columns of one draw."""
    right = [read == emotion for read, emotion in zip(draw.emotions, items.emotions, strict=True)]
    row = {"ea": 100.0 * float(np.mean(right))}
    if draw.scores is not None:
        row |= draw.scores.row
    if not np.isnan(draw.clipscores).all():
        row["clipscore"] = float(np.nanmean(draw.clipscores))
    return row


def over_draws(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean and, as `COLUMN_sd`, sample deviation of each column over draws; one draw is its own mean."""
    if len(rows) == 1:
        return dict(rows[0])
    merged: dict[str, float] = {"draws": len(rows)}
    for column in rows[0]:
        values = [row[column] for row in rows]
        merged[column] = float(np.mean(values))
        merged[f"{column}_sd"] = float(np.std(values, ddof=1))
    return merged


def text_table(items: ReferenceItems, explanations: Mapping[str, MethodExplanations]) -> pa.Table:
    """`TEXTS`, in the order of methods, draws and items."""
    rows = [
        {
            "method": method,
            "key": items.keys[i],
            "emotion": items.emotions[i],
            "draw": d,
            "explanation": draw.texts[i],
            "ea": draw.emotions[i],
            "clipscore": None if np.isnan(draw.clipscores[i]) else float(draw.clipscores[i]),
            "rouge_l": None if draw.scores is None else float(draw.scores.rouge_l[i]),
            "bleu": None if draw.scores is None else draw.scores.bleu[i].tolist(),
            "meteor": None
            if draw.scores is None or draw.scores.meteor is None
            else draw.scores.meteor[i].tolist(),
        }
        for method, answer in explanations.items()
        for d, draw in enumerate(answer.draws)
        for i in range(len(items.keys))
    ]
    return pa.Table.from_pylist(rows, schema=TEXTS)
