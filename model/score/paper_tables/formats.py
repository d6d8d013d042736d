"""A table of the paper with ours beside it, as Markdown, CSV, JSON and LaTeX.

Names and notes come from data and file names: each format is escaped.
"""

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from model.metrics.columns import COLUMNS
from model.metrics.markdown import Markdown, escape
from model.metrics.markdown import table as markdown_table

FORMATS: Mapping[str, tuple[str, int | None]] = {
    **{column: (heading, decimals) for column, heading, decimals in COLUMNS},
    "emo_rel": ("Emo-Rel", None),
    "mask_prefix": ("m''", None),
    "prompt_prefix": ("p''", None),
    "backbone": ("Backbone", None),
    "params": ("#Params (M)", 2),
    "gpu": ("GPU", None),
    "training": ("Training Time", None),
    "flops": ("FLOPs (G)", 2),
    "fps": ("FPS", 2),
}
"""Heading and decimals of a column; None for words."""


@dataclasses.dataclass(frozen=True)
class TableCell:
    """One number or word, and what it is of."""

    value: float | bool | str
    data: str = ""
    weights: str = ""
    marks: str = ""
    """† other data than the paper's, ‡ other weights, § counted and not measured."""
    low: float | None = None
    """Bootstrap interval."""
    high: float | None = None
    sd: float | None = None
    """Over draws of the explanations."""


@dataclasses.dataclass(frozen=True)
class TableRow:
    """One method, by the paper or by us."""

    name: str
    method: str
    source: str
    """paper or here."""
    cells: Mapping[str, TableCell]


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """One table of the paper."""

    label: str
    title: str
    head: str
    """Heading of the column of names."""
    columns: Sequence[str]
    rows: Sequence[TableRow]
    notes: Sequence[str]


def number(cell: TableCell | None, column: str, escape: Callable[[str], str] = str) -> str:
    """A cell as people read it, without its marks; a dash where there is none."""
    if cell is None:
        return "-"
    if isinstance(cell.value, bool):
        return "yes" if cell.value else "no"
    decimals = FORMATS[column][1]
    if decimals is None or isinstance(cell.value, str):
        return escape(str(cell.value))
    text = f"{cell.value:.{decimals}f}"
    if cell.low is not None and cell.high is not None:
        return f"{text} [{cell.low:.{decimals}f}, {cell.high:.{decimals}f}]"
    return text if cell.sd is None else f"{text} ± {cell.sd:.{decimals}f}"


def legend(table: PaperTable) -> list[str]:
    """What the marks and brackets in a table mean, as far as they occur."""
    cells = [cell for row in table.rows for cell in row.cells.values()]
    lines = []
    for mark, field, meaning in (
        ("†", "data", "not the paper's data, not comparable with the printed rows"),
        ("‡", "weights", "not the paper's weights"),
        ("§", "weights", "counted, not measured"),
    ):
        if named := sorted({str(getattr(cell, field)) for cell in cells if mark in cell.marks}):
            lines.append(f"{mark} {meaning}: {'; '.join(named)}.")
    return lines


def markdown(table: PaperTable) -> str:
    """GitHub's Markdown; text is escaped for it and for HTML."""
    head = [table.head, "Source", *(FORMATS[column][0] for column in table.columns)]
    lines = []
    for row in table.rows:
        cells = [
            Markdown(number(cell, column, escape) + (cell.marks if cell else ""))
            for column, cell in ((column, row.cells.get(column)) for column in table.columns)
        ]
        lines.append([row.name, row.source, *cells])
    notes = [escape(line, code=True) for line in [*legend(table), *table.notes]]
    return (
        "\n\n".join([f"# {table.label}: {table.title}", markdown_table(head, lines, left=2), *notes]) + "\n"
    )


def as_csv(table: PaperTable) -> str:
    """One line a cell, in UTF-8: the number with its interval and deviation, what it is of, its marks."""
    parts = ("value", "low", "high", "sd", "data", "weights", "marks")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["table", "name", "method", "source", "column", *parts])
    for row in table.rows:
        about = [_plain(text) for text in (table.label, row.name, row.method, row.source)]
        for column in (column for column in table.columns if column in row.cells):
            values = (_plain(getattr(row.cells[column], part)) for part in parts)
            writer.writerow([*about, column, *values])
    return out.getvalue()


def _plain(value: Any) -> str:
    """A field of a csv: nothing for None, text that a spreadsheet would compute as text."""
    text = "" if value is None else str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(("=", "+", "-", "@")) else text


def as_json(table: PaperTable) -> str:
    """The whole table; a cell has only what is known of it."""
    content = dataclasses.asdict(table)
    for row in content["rows"]:
        row["cells"] = {
            column: {part: value for part, value in cell.items() if value not in (None, "")}
            for column, cell in row["cells"].items()
        }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "†": r"$^{\dagger}$",
    "‡": r"$^{\ddagger}$",
    "§": r"$^{\S}$",
    "`": "",
}


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is, by pdflatex too; line breaks become spaces."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


def latex(table: PaperTable) -> str:
    """A `table*` float in booktabs' rules, its notes below it."""
    head = [table.head, "Source", *(FORMATS[column][0] for column in table.columns)]
    lines = [_latex_line(head), r"\midrule"]
    for row in table.rows:
        cells = []
        for column in table.columns:
            cell = row.cells.get(column)
            cells.append(number(cell, column) + (cell.marks if cell else ""))
        lines.append(_latex_line([row.name, row.source, *cells]))
    notes = " ".join(escape_latex(line) for line in [*legend(table), *table.notes])
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,graphicx}",
            r"\begin{table*}",
            rf"\caption{{{escape_latex(f'{table.label} of EmoSEM: {table.title}')}.}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{ll{'r' * len(table.columns)}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}",
            *([r"\par\footnotesize " + notes] if notes else []),
            r"\end{table*}",
            "",
        ]
    )


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(escape_latex(cell) for cell in cells) + r" \\"


RENDERERS: Mapping[str, Callable[[PaperTable], str]] = {
    "md": markdown,
    "csv": as_csv,
    "json": as_json,
    "tex": latex,
}
