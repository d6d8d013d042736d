"""What `shard-stats` answers, and the files that it writes on request."""

import csv
import io
from pathlib import Path
from typing import Any

from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes
from pipeline.shard_stats.compare import compare as compare_labels
from pipeline.shard_stats.compare import comparison_grid
from pipeline.shard_stats.labels import Labels, ShardStatsParams
from pipeline.shard_stats.page import render_page
from pipeline.shard_stats.summary import By, summarise, worst_rows
from pipeline.shard_stats.text import csv_rows, render, summary_grids, summary_lines, worst_grid

ON_PAGE = 50
"""Labels that the page lists when no number is given."""


def answer(
    folder: Path,
    params: ShardStatsParams,
    by: By,
    worst: int,
    compare: Path | None,
    csv_file: Path | None,
    page: Path | None,
) -> tuple[dict[str, Any], str]:
    """The numbers, for JSON, and the text for a terminal.

    Args:
        folder: ``data/shards``.
        params: from which value on a label is flagged.
        by: what the table has a row for.
        worst: how many of the most suspicious labels are listed.
        compare: another shards folder, the earlier one.
        csv_file, page: files to write the table and everything to.

    Raises:
        UserError: no shards, damaged ones, or a file that cannot be written.
    """
    found = summarise(folder, params)
    labels = Labels.read(folder, params)
    lines, grids = summary_lines(found), summary_grids(found, by)
    if worst:
        found["worst"] = worst_rows(labels, worst)
        grids.append(worst_grid(found["worst"]))
    if compare is not None:
        earlier = Labels.read(compare, params)
        found["compared"] = compare_labels(earlier, labels, summarise(compare, params), found)
        grids.append(comparison_grid(found["compared"]))
    if csv_file is not None:
        _write(csv_file, _csv(list(csv_rows(found, by))))
    if page is not None:
        listed = worst_rows(labels, worst or ON_PAGE)
        _write(page, render_page(found, listed, grids if compare else None))
    return found, render(grids, lines)


def _csv(rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _write(path: Path, text: str) -> None:
    try:
        write_bytes(path, text.encode())
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); name another file") from None
