"""Columns of the score table."""

from collections.abc import Iterable, Mapping
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
CONTROLS: tuple[tuple[str, str, int], ...] = (
    ("clip_own", "CLIP own", 1),
    ("motif", "Motif", 1),
)
"""Whether words look at the picture, where that could be judged (`motif`: on the built-in gallery)."""
NAMED: tuple[tuple[str, str, int], ...] = (
    ("motif_named", "Name a motif", 1),
    ("motif", "It is in the artwork", 1),
    ("motif_blind", "In another artwork", 1),
    ("motif_label", "Under the label", 1),
    ("motif_mask", "What the mask marks", 1),
    ("motif_look", "Its look is right", 1),
)
"""What explanations name, of the built-in gallery alone: see `model.score.motifs.judge.MotifScores`."""


def columns_of(rows: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, str, int], ...]:
    """`COLUMNS`, and those of `CONTROLS` that a row has."""
    there = {column for row in rows for column in row}
    return (*COLUMNS, *(column for column in CONTROLS if column[0] in there))


def cell(row: Mapping[str, Any], column: str, decimals: int) -> str:
    """A number, with its deviation over draws where there is one; a dash where the method has none."""
    if column not in row:
        return "-"
    deviation = f" ± {row[f'{column}_sd']:.{decimals}f}" if f"{column}_sd" in row else ""
    return f"{row[column]:.{decimals}f}{deviation}"
