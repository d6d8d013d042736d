"""What people compare between runs, for DVC: a few numbers, and curves and confusions as small tables.

    metrics/summary.json                one number a key, flat: `dvc metrics show`, `dvc exp show`
    metrics/plots/thresholds/NAME.csv   a row per threshold on the val items; NAME: a variant, or the teacher
    metrics/plots/emotions/VARIANT.csv  a row per item and draw: the emotion asked for, the one that was read

By variant, the folder's name in data/predict/, not by method, whose name says what departs from the paper: a
variant keeps its columns when an experiment changes it. All other numbers are in metrics/methods.json.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from model.baselines import clip_vinvl
from model.score.scores import Scores
from pipeline.common.files import write_bytes, write_json
from pipeline.common.params import Paths

COLUMNS = {"seg_pr25": "pr25", "seg_pr50": "pr50", "ea": "ea"}
"""Of the score table, and their names here: so few and short that `dvc exp show` fits a terminal."""
CONTROL = "no-prefix"
"""The variant that is there to be worse: not in the summary."""
TEACHER = "teacher"
"""Name of the pseudo-masks, which the score table calls clip+vinvl."""
NOTHING = "nothing"
"""Read in an empty explanation."""


def read_variants(paths: Paths) -> dict[str, str]:
    """The method of each variant that was predicted; its controls have longer names (``METHOD:control``)."""
    files = sorted(paths.step("predict").glob("*/predictions.parquet"))
    names = {file.parent.name: pq.read_table(file, columns=["method"])["method"].unique() for file in files}
    return {variant: min(found.to_pylist(), key=len) for variant, found in names.items() if len(found)}


def summary(rows: Sequence[Mapping[str, Any]], variants: Mapping[str, str]) -> dict[str, float]:
    """``VARIANT.COLUMN`` -> percent, rounded to two decimals.

    Args:
        rows: of metrics/score.json.
        variants: see `read_variants`.
    """
    by_method = {row["method"]: row for row in rows}
    shown = {variant: by_method.get(method, {}) for variant, method in variants.items() if variant != CONTROL}
    return {
        f"{variant}.{name}": round(row[column], 2)
        for variant, row in shown.items()
        for column, name in COLUMNS.items()
        if column in row
    }


def write_summary(paths: Paths, scores: Scores, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the files above for the rows of metrics/score.json."""
    variants = read_variants(paths)
    write_json(paths.metrics / "summary.json", summary(rows, variants))
    folder = paths.metrics / "plots"
    for name, method in {**variants, TEACHER: clip_vinvl.NAME}.items():
        _write_csv(folder / "thresholds" / f"{name}.csv", THRESHOLDS, _thresholds(scores, method))
    for name, method in variants.items():
        _write_csv(folder / "emotions" / f"{name}.csv", ("asked", "read"), _emotions(scores, method))


THRESHOLDS = ("threshold", "mean_iou", "seg_pr25", "seg_pr50")


def _thresholds(scores: Scores, method: str) -> Iterable[Sequence[Any]]:
    """Rows of `THRESHOLDS`, percent; none for a method without a sweep."""
    sweep = dict(zip(scores.methods, scores.sweeps, strict=True)).get(method)
    if sweep is None:
        return ()
    columns = (sweep.mean_iou, sweep.precision(25), sweep.precision(50))
    return zip(sweep.thresholds.tolist(), *(column.round(4).tolist() for column in columns), strict=True)


def _emotions(scores: Scores, method: str) -> Iterable[Sequence[Any]]:
    """(asked for, read by the classifier) of every item that counts and every draw."""
    explained = scores.explanations.get(method)
    for draw in explained.draws if explained else ():
        if draw.emotions is None:  # no classifier was at hand
            continue
        for item, read in zip(scores.counted, draw.emotions, strict=True):
            yield item.emotion, read or NOTHING


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())
