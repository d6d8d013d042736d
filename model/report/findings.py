"""The scores from several sides: intervals, thresholds, emotions and styles, EA confusion, IoU histograms."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from model.report.charts import Bar, Line, Mark, forest_plot, histogram, line_chart
from model.report.curves import COLOURS
from model.report.verdict import find_lead, is_control
from pipeline.common.digests import check_file, read_sealed
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError

FOREST = (("seg_pr25", "Seg Pr@25"), ("seg_pr50", "Seg Pr@50"))
SWEPT = (("mean_iou", "Mean IoU"), ("seg_pr25", "Seg Pr@25"), ("seg_pr50", "Seg Pr@50"))
COLUMN = "seg_pr25"
"""What the heat maps show."""


@dataclass(frozen=True)
class Figure:
    """A chart with its heading, and the lines that its legend names."""

    name: str
    chart: Markup
    lines: list[Line]


@dataclass(frozen=True)
class HeatMap:
    """A table of shares, coloured by them."""

    name: str
    columns: list[str]
    rows: list[tuple[str, int, list[tuple[float, str] | None]]]
    """(heading, items or texts, [(share in percent, what more there is to say), or None, per column])."""


def read_result_statistics(path: Path) -> dict[str, Any]:
    """metrics/statistics.json. Raises `UserError`."""
    try:
        found = read_sealed(path)
        return {
            name: found[name]
            for name in ("params", "items", "methods", "pairs", "by_emotion", "by_style", "histograms")
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error!r}); run the score step again") from None


def read_table(path: Path) -> list[dict[str, Any]]:
    """Rows of one of step score's tables. Raises `UserError`."""
    try:
        rows: list[dict[str, Any]] = pq.read_table(check_file(path)).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({error}); run the score step again") from None
    return rows


def forests(statistics: Mapping[str, Any], order: Sequence[str]) -> list[Figure]:
    """A forest plot per column: the methods in `order`, the leader strong where it is beyond noise."""
    figures = []
    for column, name in FOREST:
        lead = find_lead(statistics, column)
        strong = lead.method if lead and lead.beyond_noise else ""
        cells = ((method, statistics["methods"].get(method, {}).get(column)) for method in order)
        bars = [
            Bar(method, cell["value"], cell["low"], cell["high"], method == strong, is_control(method))
            for method, cell in cells
            if cell is not None
        ]
        if bars:
            figures.append(Figure(name, forest_plot(f"{name} of each method, with its interval", bars), []))
    return figures


def threshold_figures(
    sweep: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], fixed: float
) -> list[Figure]:
    """Scores on val items by threshold, with the fixed one and each method's own.

    Args:
        sweep: rows of data/score/sweep.parquet.
        rows: of metrics/score.json, with ``threshold_val``.
        fixed: the protocol's threshold.
    """
    own = {row["method"]: row["threshold_val"] for row in rows if "threshold_val" in row}
    methods = list(dict.fromkeys(row["method"] for row in sweep))
    figures = []
    for column, name in SWEPT if methods else ():
        lines, marks = [], []
        for place, method in enumerate(methods):
            mine = [row for row in sweep if row["method"] == method]
            style = place % COLOURS
            steps, values = [row["threshold"] for row in mine], [row[column] for row in mine]
            lines.append(Line(method, style, steps, values))
            if own.get(method) in steps:
                marks.append(Mark(style, own[method], values[steps.index(own[method])]))
        chart = line_chart(f"{name} on val items by threshold", lines, marks, upright=(fixed, f"{fixed:g}"))
        figures.append(Figure(name, chart, lines))
    return figures


def heat_maps(statistics: Mapping[str, Any], order: Sequence[str]) -> list[HeatMap]:
    """Seg Pr@25 of every method by emotion and by style, with intervals."""
    emotions = [name for name in EMOTIONS if name in statistics["by_emotion"]]
    return [
        _heat_map("Seg Pr@25 by emotion", statistics["by_emotion"], emotions, order),
        _heat_map("Seg Pr@25 by art style", statistics["by_style"], sorted(statistics["by_style"]), order),
    ]


def _heat_map(name: str, parts: Mapping[str, Any], groups: Iterable[str], order: Sequence[str]) -> HeatMap:
    rows = []
    for group in groups:
        methods = parts[group]["methods"]
        cells = (methods.get(method, {}).get(COLUMN) for method in order)
        shown = [
            None if cell is None else (cell["value"], f"{cell['low']:.0f}\N{EN DASH}{cell['high']:.0f}")
            for cell in cells
        ]
        rows.append((group.replace("_", " "), parts[group]["items"], shown))
    return HeatMap(name, list(order), rows)


def confusions(texts: Sequence[Mapping[str, Any]]) -> list[HeatMap]:
    """Of each EmoSEM method: which emotion EA's classifier reads (columns) where which was asked for (rows).

    `texts` are rows of data/score/texts.parquet: every draw of every explanation counts.
    """
    found: dict[str, dict[str, Counter[str]]] = {}
    for row in texts:
        if row["ea"] is not None and not is_control(row["method"]):
            found.setdefault(row["method"], {}).setdefault(row["emotion"], Counter())[row["ea"]] += 1
    maps = []
    for method, counts in found.items():
        read = {name for counter in counts.values() for name in counter}
        columns = [*EMOTIONS, *sorted(read - set(EMOTIONS))]
        rows: list[tuple[str, int, list[tuple[float, str] | None]]] = []
        for emotion in (name for name in EMOTIONS if name in counts):
            total = counts[emotion].total()
            shares: list[tuple[float, str] | None] = [
                (100 * counts[emotion][name] / total, "") for name in columns
            ]
            rows.append((emotion, total, shares))
        maps.append(HeatMap(method, columns, rows))
    return maps


def iou_histograms(statistics: Mapping[str, Any], order: Sequence[str]) -> list[Figure]:
    """Items by their IoU by pixels, a chart per method, all of one height."""
    edges, methods = statistics["histograms"]["edges"], statistics["histograms"]["methods"]
    shown = [method for method in order if method in methods]
    top = max((max(methods[method]["seg"]) for method in shown), default=0)
    return [
        Figure(
            method,
            histogram(f"Items by IoU by pixels, {method}", edges, methods[method]["seg"], top, (0.25, 0.5)),
            [],
        )
        for method in shown
    ]
