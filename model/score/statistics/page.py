"""The statistics that a person reads: Markdown."""

from collections.abc import Mapping
from typing import Any

from model.metrics.columns import COLUMNS, CONTROLS, columns_of
from model.metrics.markdown import Markdown, table

PAIRED = ("seg_pr25", "seg_pr50", "ea", "clipscore", *(column for column, _, _ in CONTROLS))
"""Columns whose pairs are shown; all of them are in the JSON."""


def cell(estimate: Mapping[str, float] | None, decimals: int) -> Markdown:
    """A number with its interval; a dash where the method has none."""
    if estimate is None:
        return Markdown("-")
    value, low, high = (f"{estimate[name]:.{decimals}f}" for name in ("value", "low", "high"))
    return Markdown(f"{value} [{low}, {high}]")


def p_value(p: float) -> str:
    """A p-value as people read it."""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def markdown(statistics: Mapping[str, Any]) -> str:
    """The page ``metrics/statistics.md`` for the content of ``metrics/statistics.json``."""
    params = statistics["params"]
    parts = [
        "# How sure the scores are",
        f"{100 * params['level']:g} % intervals over {params['resamples']} resamples of "
        f"{statistics['items']} items, drawn by {params['unit']}; every method stands on the same resamples.",
        _methods(statistics["methods"]),
        _pairs(statistics["pairs"]),
        "p: McNemar's exact test where a column is a share of items, else the paired bootstrap. "
        "Holm: corrected for the number of pairs in the column.",
        "## By emotion\n\n" + _groups(statistics["by_emotion"]),
        "## By style\n\n" + _groups(statistics["by_style"]),
    ]
    return "\n\n".join(parts) + "\n"


def _methods(methods: Mapping[str, Any]) -> str:
    columns = columns_of(methods.values())
    rows = [
        [name, *(cell(cells.get(column), decimals) for column, _, decimals in columns)]
        for name, cells in methods.items()
    ]
    return table(["Method", *(heading for _, heading, _ in columns)], rows)


def _pairs(pairs: list[dict[str, Any]]) -> str:
    headings = {column: heading for column, heading, _ in (*COLUMNS, *CONTROLS)}
    rows = [
        [
            f"{row['first']} - {row['second']}",
            headings[row["column"]],
            Markdown(f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"),
            Markdown(p_value(row["p"])),
            Markdown(p_value(row["p_holm"])),
        ]
        for row in pairs
        if row["column"] in PAIRED
    ]
    return table(["Difference", "Score", "Percentage points", "p", "Holm"], rows)


def _groups(groups: Mapping[str, Any]) -> str:
    """Seg Pr@25 and, of methods that explain, EA of every method, one row per group."""
    names = list(dict.fromkeys(name for part in groups.values() for name in part["methods"]))
    shown = [
        (name, column)
        for name in names
        for column in ("seg_pr25", "ea")
        if any(column in part["methods"].get(name, {}) for part in groups.values())
    ]
    headings = {"seg_pr25": "Seg Pr@25", "ea": "EA"}
    rows = [
        [group, str(part["items"])]
        + [cell(part["methods"].get(name, {}).get(column), 1) for name, column in shown]
        for group, part in groups.items()
    ]
    return table(["", "Items", *(f"{name} {headings[column]}" for name, column in shown)], rows)
