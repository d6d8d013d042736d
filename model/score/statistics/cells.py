"""The numbers of the score table as functions of counts summed over items, which is what can be resampled."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.metrics.text_counts import BLEU, bleu, meteor

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


@dataclass(frozen=True)
class ScoreCell:
    """One number of one method, as a function of counts summed over items."""

    method: str
    column: str
    counts: np.ndarray
    """float64 (N, K): the item's part of the sums."""
    value: Callable[[np.ndarray], np.ndarray]
    """Sums, float64 (..., K), to values (...); NaN where there is nothing to divide by."""
    shares: np.ndarray | None = None
    """bool (N,) where the value is the plain share of items that are right: what McNemar's test counts."""


def _ratio(sums: np.ndarray) -> np.ndarray:
    """100 x the first sum over the second."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share: np.ndarray = 100.0 * sums[..., 0] / sums[..., 1]
    return share


def _mean(method: str, column: str, values: np.ndarray, scale: float = 1.0) -> ScoreCell | None:
    """A cell that is the mean of values (N, draws); NaN is left out. None when there are none."""
    valid = ~np.isnan(values)
    if not valid.any():
        return None
    counts = np.stack([np.where(valid, values, 0.0).sum(axis=1) * scale, valid.sum(axis=1)], axis=1)
    return ScoreCell(method, column, counts, _ratio)


def _share(method: str, column: str, right: np.ndarray) -> ScoreCell:
    counts = np.stack([right, np.ones(len(right))], axis=1).astype(np.float64)
    return ScoreCell(method, column, counts, _ratio, right)


def _corpus(
    method: str, column: str, parts: np.ndarray, score: Callable[[np.ndarray], np.ndarray]
) -> ScoreCell:
    """A corpus score over counts (N, draws, K), its mean over draws."""
    count, draws, width = parts.shape

    def value(sums: np.ndarray) -> np.ndarray:
        found: np.ndarray = score(sums.reshape(*sums.shape[:-1], draws, width)).mean(axis=-1)
        return found

    return ScoreCell(method, column, parts.reshape(count, draws * width), value)


@dataclass(frozen=True)
class ScoreCells:
    """The items that count, in one order, and every method's cells over them."""

    keys: list[str]
    paintings: list[str]
    emotions: list[str]
    cells: list[ScoreCell]

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, rows: np.ndarray) -> "ScoreCells":
        """The same cells over some of the items, int (n,)."""
        cells = [
            dataclasses.replace(
                cell,
                counts=cell.counts[rows],
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


def read_cells(items: pa.Table, texts: pa.Table) -> ScoreCells:
    """Cells of the tables `score.ITEMS` and `explanations.TEXTS`.

    Items without a usable label count for no method and are left out. Raises `ValueError` when the methods do
    not stand on the same items.
    """
    frame = items.select(["method", "key", "painting", "emotion", *MEANS.values()]).to_pydict()
    methods = list(dict.fromkeys(frame["method"]))
    rows = {method: [i for i, name in enumerate(frame["method"]) if name == method] for method in methods}
    first = rows[methods[0]] if methods else []
    names = [(frame["key"][i], frame["emotion"][i]) for i in first]
    for method, places in rows.items():
        if [(frame["key"][i], frame["emotion"][i]) for i in places] != names:
            raise ValueError(f"{method} does not stand on the items of {methods[0]}, in their order")
    counted = [n for n, i in enumerate(first) if frame["iou_seg"][i] is not None]
    cells: list[ScoreCell] = []
    for method, places in rows.items():
        kept = [places[n] for n in counted]
        ious = {
            column: np.array([frame[column][i] for i in kept], dtype=np.float64) for column in MEANS.values()
        }
        cells += _mask_cells(method, ious)
        cells += _text_cells(method, texts, [names[n] for n in counted])
    return ScoreCells(
        [names[n][0] for n in counted],
        [frame["painting"][first[n]] for n in counted],
        [names[n][1] for n in counted],
        cells,
    )


def _mask_cells(method: str, ious: Mapping[str, np.ndarray]) -> list[ScoreCell]:
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


def _text_cells(method: str, texts: pa.Table, names: Sequence[tuple[str, str]]) -> list[ScoreCell]:
    """EA, CLIPScore, ROUGE-L, BLEU and METEOR of one method, over its draws; empty when it says nothing."""
    mine = texts.filter(pc.equal(texts["method"], method)).to_pylist()
    if not mine or not names:
        return []
    draws = 1 + max(row["draw"] for row in mine)
    by_item = {(row["key"], row["emotion"], row["draw"]): row for row in mine}
    ordered = [[by_item[*name, d] for d in range(draws)] for name in names]

    def numbers(field: str) -> np.ndarray:
        return np.array([[row[field] for row in several] for several in ordered], dtype=np.float64)

    right = np.array([[row["ea"] == row["emotion"] for row in several] for several in ordered])
    cells: list[ScoreCell | None] = (
        [_share(method, "ea", right[:, 0])] if draws == 1 else [_mean(method, "ea", right.astype(np.float64))]
    )
    cells.append(_mean(method, "clipscore", numbers("clipscore"), 0.01))
    if mine[0]["bleu"] is not None:
        counts = numbers("bleu")
        cells += [_corpus(method, f"bleu{n}", counts, _nth_bleu(n)) for n in range(1, BLEU + 1)]
        cells.append(_mean(method, "rouge_l", numbers("rouge_l"), 0.01))
    if mine[0]["meteor"] is not None:
        cells.append(_corpus(method, "meteor", numbers("meteor"), meteor))
    return [cell for cell in cells if cell is not None]


def _nth_bleu(n: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda sums: bleu(sums)[..., n - 1]
