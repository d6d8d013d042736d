"""The one Markdown table of this project, in GitHub's dialect, and text that stays text in it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from model.metrics.columns import COLUMNS, cell

_SPECIAL = re.compile(r"([\\|*\[\]])")


class Markdown(str):
    """Text that is Markdown already: it goes into a table as it is."""


def escape(text: str, code: bool = False) -> str:
    """Text as one line that Markdown and HTML show as it is; line breaks become spaces.

    `code`: leave backticks, for a sentence of ours with code in it.
    """
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _SPECIAL.sub(r"\\\1", text)
    return text if code else text.replace("`", "\\`")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table; cells and headings are escaped, unless they are `Markdown`.

    `left`: so many columns are left-aligned, the others, of numbers, right-aligned.
    """
    rule = "|---" * left + "|---:" * (len(head) - left) + "|"
    lines = [f"| {' | '.join(_cell(text) for text in line)} |" for line in (head, *rows)]
    return "\n".join([lines[0], rule, *lines[1:]])


def _cell(text: str) -> str:
    return text if isinstance(text, Markdown) else escape(text)


def score_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of metrics/score.json with all of `COLUMNS`."""
    lines = [
        [row["method"], str(row["items"]), *(cell(row, column, decimals) for column, _, decimals in COLUMNS)]
        for row in rows
    ]
    return table(["Method", "Items", *(heading for _, heading, _ in COLUMNS)], lines)
