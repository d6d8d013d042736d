"""Columns of the score table."""

from collections.abc import Mapping
from typing import Any

COLUMNS: tuple[tuple[str, str, int], ...] = (
    ("box_pr25", "Box Pr@25", 2),
    ("box_pr50", "Box Pr@50", 2),
    ("seg_pr25", "Seg Pr@25", 2),
    ("seg_pr50", "Seg Pr@50", 2),
    ("ea", "EA", 1),
    ("bleu1", "BLEU-1", 1),
    ("bleu2", "BLEU-2", 1),
    ("bleu3", "BLEU-3", 1),
    ("bleu4", "BLEU-4", 1),
    ("meteor", "METEOR", 1),
    ("rouge_l", "ROUGE-L", 1),
    ("clipscore", "CLIPScore", 1),
)
"""Column of a row, its heading, and decimals as the paper prints them."""


def cell(row: Mapping[str, Any], column: str, decimals: int) -> str:
    """A number, with its deviation over draws where there is one; a dash where the method has none."""
    if column not in row:
        return "-"
    deviation = f" ± {row[f'{column}_sd']:.{decimals}f}" if f"{column}_sd" in row else ""
    return f"{row[column]:.{decimals}f}{deviation}"
