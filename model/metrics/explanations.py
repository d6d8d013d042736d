"""How good explanations are: EA, BLEU, METEOR, ROUGE-L and CLIPScore of several methods on the same items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.alignment import EmotionClassifier
from model.metrics import text
from model.metrics.clipscore import PictureJudge
from pipeline.emotions import ALL_EMOTIONS, emotion_index


@dataclass(frozen=True)
class Asked:
    """The items that explanations are held against, one entry each, in one order."""

    keys: Sequence[str]
    """Of the artworks."""
    emotions: Sequence[str]
    """Of the masks: what EA must find."""
    references: Sequence[tuple[str, ...]]
    """What people wrote."""


@dataclass(frozen=True)
class Told:
    """One method's explanations, and how they were judged."""

    texts: list[str]
    """First draw, per item; empty where the method said nothing."""
    emotions: list[str | None]
    """Per item, the emotion that the classifier reads in the first draw."""
    clipscores: np.ndarray
    """float64 (N,), of the first draw; NaN where the picture cannot be read."""
    row: dict[str, float]
    """Columns of the score table: ea, bleu1..4, meteor, rouge_l, clipscore."""


def score_explanations(
    asked: Asked,
    draws: Mapping[str, Sequence[Sequence[str]]],
    judge: EmotionClassifier,
    pictures: PictureJudge,
) -> dict[str, Told]:
    """Judge every method's explanations.

    `draws`: method -> draw -> text per item; nucleus sampling makes one draw noisy. With several, a column
    is the mean over draws and `COLUMN_sd` its sample deviation. An empty text is wrong in every metric.
    Pictures that cannot be read are left out of CLIPScore. Raises `UserError` when there is no Java.
    """
    corpora = {
        f"{name} {d}": [text.Pair(said, refs) for said, refs in zip(draw, asked.references, strict=True)]
        for name, several in draws.items()
        for d, draw in enumerate(several)
    }
    scores = text.score_texts(corpora)
    truth = np.array([emotion_index(emotion) for emotion in asked.emotions])
    told = {}
    for name, several in draws.items():
        judged = [_judge(asked, draw, judge, pictures) for draw in several]
        rows = []
        for d, (found, seen) in enumerate(judged):
            row = {"ea": 100.0 * float((found == truth).mean())} | scores[f"{name} {d}"]
            if not np.isnan(seen).all():
                row["clipscore"] = float(np.nanmean(seen))
            rows.append(row)
        found, seen = judged[0]
        emotions = [ALL_EMOTIONS[i] if i >= 0 else None for i in found.tolist()]
        told[name] = Told(list(several[0]), emotions, seen, over_draws(rows))
    return told


def _judge(
    asked: Asked, draw: Sequence[str], judge: EmotionClassifier, pictures: PictureJudge
) -> tuple[np.ndarray, np.ndarray]:
    """(position of the emotion read, or -1; CLIPScore) per item of one draw."""
    spoken = np.array([bool(said.strip()) for said in draw])
    seen = pictures.score(asked.keys, draw)
    return np.where(spoken, judge.classify(draw), -1), np.where(spoken | np.isnan(seen), seen, 0.0)


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
