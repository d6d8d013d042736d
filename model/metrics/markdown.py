"""The one Markdown table of this project, in GitHub's dialect, and text that stays text in it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from model.metrics.columns import cell, columns_of
from pipeline.common.bidi import isolated

_SPECIAL = re.compile(r"([\\`|*\[\]~$]|(?<![^\W_])_|_(?![^\W_]))")
"""Markup wherever it stands; an underscore between two letters or digits is none."""
_BLOCK = re.compile(r"^(#{1,6}(?=\s|$)|[-+](?=\s|-|$)|\d{1,9}(?=[.)](\s|$)))")
"""What would begin a heading, a list or a rule at the start of a line."""
_CODE = re.compile("(`[^`]+`)")


class Markdown(str):
    """Text that is Markdown already: it goes into a table as it is."""


def escape(text: str, code: bool = False) -> str:
    """Text as one line that Markdown and HTML show as it is, and that turns no word around it.

    Line breaks become spaces. `code`: leave what stands between backticks, for a sentence of ours.
    """
    text = isolated(" ".join(text.split()))
    parts = _CODE.split(text) if code and "``" not in text else [text]  # two in a row would pair otherwise
    text = "".join(part if number % 2 else _escape(part) for number, part in enumerate(parts))
    return _BLOCK.sub(lambda mark: f"{mark[0]}\\" if mark[0].isdigit() else f"\\{mark[0]}", text)


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table; cells and headings are escaped, unless they are `Markdown`.

    `left`: so many columns are left-aligned, the others, of numbers, right-aligned.
    """
    rule = "|---" * left + "|---:" * (len(head) - left) + "|"
    lines = [f"| {' | '.join(_cell(text) for text in line)} |" for line in (head, *rows)]
    return "\n".join([lines[0], rule, *lines[1:]])


def _cell(text: str) -> str:
    return text if isinstance(text, Markdown) or text == "-" else escape(text)


def score_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of metrics/score.json with their columns."""
    columns = columns_of(rows)
    lines = [
        [row["method"], str(row["items"]), *(cell(row, column, decimals) for column, _, decimals in columns)]
        for row in rows
    ]
    return table(["Method", "Items", *(heading for _, heading, _ in columns)], lines)
