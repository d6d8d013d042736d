"""The numbers of the score table as functions of counts summed over items, which is what can be resampled."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.metrics.text_counts import BLEU, bleu, meteor
from model.score.explanations import Draw
from model.score.motifs.judge import COLUMNS as MOTIF_COLUMNS
from model.score.motifs.judge import MotifScores
from model.score.scores import Scores

MASKS = {
    f"{column}{suffix}": (f"iou_{mode}{suffix}", percent / 100)
    for suffix in ("", "_val")
    for column, mode, percent in (
        ("box_pr25", "box", 25),
        ("box_pr50", "box", 50),
        ("seg_pr25", "seg", 25),
        ("seg_pr50", "seg", 50),
    )
}
"""Pr@ columns: the IoU column they are shares of, and the IoU that is enough."""
MEANS = {f"{mode}_iou{suffix}": f"iou_{mode}{suffix}" for suffix in ("", "_val") for mode in ("box", "seg")}
"""Mean IoU columns, percent."""


@dataclass(frozen=True, eq=False)
class Sums:
    """Counts summed over items, and the numbers that follow from the sums: of BLEU four at once."""

    counts: np.ndarray
    """float64 (N, K): the item's part of the sums."""
    values: Callable[[np.ndarray], np.ndarray]
    """Sums, float64 (..., K), to values (..., C); NaN where there is nothing to divide by."""


@dataclass(frozen=True)
class ScoreCell:
    """One number of one method, as a function of counts summed over items."""

    method: str
    column: str
    sums: Sums
    """Which several cells may share."""
    place: int = 0
    """Of this number among their values."""
    shares: np.ndarray | None = None
    """bool (N,) where the value is the plain share of items that are right: what McNemar's test counts."""

    @property
    def counts(self) -> np.ndarray:
        """float64 (N, K): the item's part of the sums."""
        return self.sums.counts

    def value(self, sums: np.ndarray) -> np.ndarray:
        """Sums, float64 (..., K), to values (...)."""
        values: np.ndarray = self.sums.values(sums)[..., self.place]
        return values


def _ratio(sums: np.ndarray) -> np.ndarray:
    """100 x the first sum over the second, (..., 1)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share: np.ndarray = 100.0 * sums[..., :1] / sums[..., 1:]
    return share


def _mean(method: str, column: str, values: np.ndarray, scale: float = 1.0) -> ScoreCell | None:
    """A cell that is the mean of values (N, draws); NaN is left out. None when there are none."""
    valid = ~np.isnan(values)
    if not valid.any():
        return None
    counts = np.stack([np.where(valid, values, 0.0).sum(axis=1) * scale, valid.sum(axis=1)], axis=1)
    return ScoreCell(method, column, Sums(counts, _ratio))


def _share(method: str, column: str, right: np.ndarray) -> ScoreCell:
    counts = np.stack([right, np.ones(len(right))], axis=1).astype(np.float64)
    return ScoreCell(method, column, Sums(counts, _ratio), shares=right)


def _corpus(
    method: str, columns: Sequence[str], parts: np.ndarray, score: Callable[[np.ndarray], np.ndarray]
) -> list[ScoreCell]:
    """Corpus scores (..., C) over counts (N, draws, K), their means over draws."""
    count, draws, width = parts.shape

    def values(sums: np.ndarray) -> np.ndarray:
        found: np.ndarray = score(sums.reshape(*sums.shape[:-1], draws, width)).mean(axis=-2)
        return found

    sums = Sums(parts.reshape(count, draws * width), values)
    return [ScoreCell(method, column, sums, place) for place, column in enumerate(columns)]


@dataclass(frozen=True)
class ScoreCells:
    """The items that count, in one order, and every method's cells over them."""

    keys: list[str]
    paintings: list[str]
    emotions: list[str]
    cells: list[ScoreCell]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def sums(self) -> list[Sums]:
        """What the cells follow from, each once."""
        return list(dict.fromkeys(cell.sums for cell in self.cells))

    def part(self, rows: np.ndarray) -> "ScoreCells":
        """The same cells over some of the items, int (n,)."""
        picked_sums = {sums: dataclasses.replace(sums, counts=sums.counts[rows]) for sums in self.sums}
        cells = [
            dataclasses.replace(
                cell,
                sums=picked_sums[cell.sums],
                shares=None if cell.shares is None else cell.shares[rows],
            )
            for cell in self.cells
        ]
        picked = rows.tolist()
        return ScoreCells(
            [self.keys[i] for i in picked],
            [self.paintings[i] for i in picked],
            [self.emotions[i] for i in picked],
            cells,
        )


def score_cells(scores: Scores) -> ScoreCells:
    """Every method's cells, over the items that count."""
    items, masks = scores.counted, scores.masks
    emotions = [item.emotion for item in items]
    ious = dict(
        zip(MEANS.values(), (masks.iou_box, masks.iou_seg, masks.iou_box_val, masks.iou_seg_val), strict=True)
    )
    cells: list[ScoreCell] = []
    for m, method in enumerate(scores.methods):
        cells += mask_cells(method, {column: table[m][masks.counted] for column, table in ious.items()})
        if items and method in scores.explanations:
            cells += text_cells(method, scores.explanations[method].draws, emotions)
    return ScoreCells([item.key for item in items], [item.painting for item in items], emotions, cells)


def mask_cells(method: str, ious: Mapping[str, np.ndarray]) -> list[ScoreCell]:
    """Pr@ and mean IoU of one method; nothing at a threshold that was not chosen."""
    cells = [
        _share(method, column, ious[source] >= enough)
        for column, (source, enough) in MASKS.items()
        if not np.isnan(ious[source]).any()
    ]
    for column, source in MEANS.items():
        if not np.isnan(ious[source]).any() and (cell := _mean(method, column, ious[source][:, None])):
            cells.append(cell)
    return cells


def text_cells(method: str, draws: Sequence[Draw], emotions: Sequence[str]) -> list[ScoreCell]:
    """EA, CLIPScore, ROUGE-L, BLEU and METEOR of one method, over its draws."""
    cells: list[ScoreCell | None] = []
    read = [draw.emotions for draw in draws if draw.emotions is not None]
    if len(read) == len(draws):
        right = np.array([[one[i] == emotion for one in read] for i, emotion in enumerate(emotions)])
        several = _mean(method, "ea", right.astype(np.float64))
        cells.append(_share(method, "ea", right[:, 0]) if len(draws) == 1 else several)
    cells.append(_mean(method, "clipscore", np.stack([draw.clipscores for draw in draws], axis=1), 0.01))
    own = [draw.own for draw in draws if draw.own is not None]
    if len(own) == len(draws):
        cells.append(_mean(method, "clip_own", np.stack(own, axis=1)))
    cells += _motif_cells(method, [draw.motifs for draw in draws if draw.motifs is not None])
    texts = [draw.scores for draw in draws if draw.scores is not None]
    if len(texts) == len(draws):
        counts = np.stack([text.bleu for text in texts], axis=1)
        cells += _corpus(method, [f"bleu{n}" for n in range(1, BLEU + 1)], counts, bleu)
        cells.append(_mean(method, "rouge_l", np.stack([text.rouge_l for text in texts], axis=1), 0.01))
    matched = [text.meteor for text in texts if text.meteor is not None]
    if len(matched) == len(draws):
        cells += _corpus(method, ["meteor"], np.stack(matched, axis=1), lambda sums: meteor(sums)[..., None])
    return [cell for cell in cells if cell is not None]


def _motif_cells(method: str, draws: Sequence[MotifScores]) -> list[ScoreCell]:
    """What the explanations of one method name: each draw's mean over those that say it, then the draws'."""
    cells = []
    for column in MOTIF_COLUMNS if draws else ():
        values = np.stack([getattr(draw, column) for draw in draws], axis=1)
        said = ~np.isnan(values)
        cells += _corpus(method, [column], np.stack([np.where(said, values, 0.0), said], axis=-1), _ratio)
    return cells
