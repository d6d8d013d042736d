"""The numbers of `shard-stats` as one self-contained page: no script, nothing loaded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.common.page_templates import environment
from pipeline.shard_stats.text import (
    Grid,
    distribution_grid,
    group_grid,
    shard_grid,
    summary_lines,
    worst_grid,
)

HERE = Path(__file__).parent


def render_page(
    found: Mapping[str, Any], worst: Sequence[Mapping[str, Any]], more: Sequence[Grid] | None = None
) -> str:
    """The page as text.

    Args:
        found: `summary.summarise`.
        worst: the most suspicious labels, `summary.worst_rows`.
        more: further tables, shown last.
    """
    grids = [
        worst_grid(worst),
        group_grid(found, "emotion"),
        group_grid(found, "style"),
        shard_grid(found),
        distribution_grid(found),
        *(more[-1:] if more else ()),
    ]
    return (
        environment(HERE).get_template("page_template.html").render(lines=summary_lines(found), grids=grids)
    )
