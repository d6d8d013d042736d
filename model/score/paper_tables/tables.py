"""The paper's tables with our rows beside the printed ones: metrics/tables/NAME.{md,csv,json,tex}.

The printed numbers are in published.json, each row with the name that its method has in metrics/score.json.
Every cell says what data and what weights it is of: a number from other data, or from other weights, is
marked and is not comparable. A method without a row in score.json gets one from anyone's maps:

    python cli.py score --maps DIR --json > metrics/maps/NAME.json

Source: EmoSEM, Tables 1 to 6 and Figure 7.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.metrics.columns import COLUMNS
from model.score.paper_tables.formats import RENDERERS, PaperTable, TableCell, TableRow
from pipeline.common.files import write_bytes
from pipeline.common.params import Paths

PUBLISHED = Path(__file__).with_name("published.json")
DESCRIPTIONS = ("emo_rel", "mask_prefix", "prompt_prefix", "backbone")
"""What is true of a method, whoever runs it."""
PAPERS_BACKBONES = ("SAM vit_b", "CLIP ViT-B-16")
COUNTED = "the paper's sizes, no weights"


def published() -> dict[str, Any]:
    """The paper's printed numbers, see published.json."""
    content: dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return content


# ---- the step's part -------------------------------------------------------------------------------


def write_tables(paths: Paths, metrics: Mapping[str, Any], statistics: Mapping[str, Any]) -> list[Path]:
    """Write every table for the content of metrics/score.json; returns the Markdown files.

    `statistics`: the content of metrics/statistics.json, whose intervals go into the cells; {} without any.
    Others' rows come from metrics/maps/*.json, where those are.
    """
    others, notes = read_others(paths.metrics / "maps")
    pages = []
    for name, table in build_tables(metrics, statistics, others, notes).items():
        for suffix, render in RENDERERS.items():
            path = paths.metrics / "tables" / f"{name}.{suffix}"
            write_bytes(path, render(table).encode())
        pages.append(paths.metrics / "tables" / f"{name}.md")
    return pages


def read_others(folder: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What `score --maps --json` printed into NAME.json, by NAME; and what is wrong with other files."""
    found: dict[str, dict[str, Any]] = {}
    notes = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            row, items = content["rows"][0], content["items"]
            numbers = {c: float(row[c]) for c, _, _ in COLUMNS if c in row}
            found[path.stem] = {
                "row": numbers,
                "data": str(content["data"]),
                "drawn": bool(content.get("drawn")),
                "items": int(items["counted"]),
                "left_out": int(row.get("left_out", 0)),
            }
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            notes.append(f"{path} is not what `score --maps DIR --json` prints ({error!r}): left out")
    return found, notes


def build_tables(
    metrics: Mapping[str, Any],
    statistics: Mapping[str, Any],
    others: Mapping[str, Mapping[str, Any]],
    notes: Sequence[str] = (),
) -> dict[str, PaperTable]:
    """All tables by name.

    Args:
        metrics: content of metrics/score.json.
        statistics: content of metrics/statistics.json, or nothing.
        others: rows of others' maps, see `read_others`.
        notes: to be printed below Table 1.
    """
    print_ = published()
    here = _rows_here(metrics, statistics, print_["items"]) | {
        name: _row_of_maps(name, other, print_["items"]) for name, other in others.items()
    }
    names = {row["method"] for table in print_["tables"].values() for row in table["rows"]}
    tables = {}
    for name, table in print_["tables"].items():
        rows = []
        for row in table["rows"]:
            rows.append(_printed_row(row, table["columns"], print_))
            ours = _row_here(row, table["columns"], here.get(row["method"], {}), print_["counted"])
            if ours is not None:
                rows.append(ours)
        own_notes = [*table.get("notes", ()), *_absent(table["rows"], here)]
        if name == "table1":
            extra = sorted(method for method in here if method not in names and ":" not in method)
            rows += [TableRow(method, method, "here", here[method]) for method in extra]
            own_notes += notes
        if any(cell.low is not None for row in rows for cell in row.cells.values()):
            level = 100 * statistics["params"]["level"]
            own_notes.append(f"In brackets: bootstrap {level:g} % interval over the items.")
        tables[name] = PaperTable(
            table["label"], table["title"], table["head"], table["columns"], rows, own_notes
        )
    return tables


def _rows_here(
    metrics: Mapping[str, Any], statistics: Mapping[str, Any], items: int
) -> dict[str, dict[str, TableCell]]:
    """Method -> column -> cell, of score.json."""
    data, weights = metrics["data"], metrics["backbones"]
    same_data = (
        metrics["split"] == "test" and metrics["items"]["counted"] == items and not metrics.get("drawn")
    )
    same_weights = all(part in weights for part in PAPERS_BACKBONES)
    marks = ("" if same_data else "†") + ("" if same_weights else "‡")
    estimates = statistics.get("methods", {})
    rows: dict[str, dict[str, TableCell]] = {}
    for row in metrics["rows"]:
        rows[row["method"]] = cells = {}
        for column in (column for column, _, _ in COLUMNS if column in row):
            estimate = estimates.get(row["method"], {}).get(column, {})
            cells[column] = TableCell(
                *(row[column], data, weights, marks),
                *(estimate.get("low"), estimate.get("high"), row.get(f"{column}_sd")),
            )
    return rows


def _row_of_maps(name: str, other: Mapping[str, Any], items: int) -> dict[str, TableCell]:
    same = other["items"] == items and not other["left_out"] and not other["drawn"]
    return {
        column: TableCell(value, other["data"], f"those behind the maps of {name}", "" if same else "†")
        for column, value in other["row"].items()
    }


def _printed_row(row: Mapping[str, Any], columns: Sequence[str], print_: Mapping[str, Any]) -> TableRow:
    cells = {c: TableCell(row[c], print_["data"], print_["weights"]) for c in columns if c in row}
    name = f"{row['name']} (run by the paper's authors)" if row.get("reproduced") else row["name"]
    return TableRow(name, row["method"], "paper", cells)


def _row_here(
    row: Mapping[str, Any],
    columns: Sequence[str],
    scored: Mapping[str, TableCell],
    counted: Mapping[str, Mapping[str, int]],
) -> TableRow | None:
    """Ours beside a printed row, or None when we have nothing of it."""
    cells = {column: scored[column] for column in columns if column in scored}
    if not cells and "flops" not in columns:
        return None
    for column, name, unit in (("params", "parameters", 1e6), ("flops", "multiply_adds", 1e9)):
        if column in columns and row["method"] in counted:
            cells[column] = TableCell(counted[row["method"]][name] / unit, "", COUNTED, "§")
    described = {c: TableCell(row[c]) for c in DESCRIPTIONS if c in columns and c in row}
    return TableRow(row["method"], row["method"], "here", described | cells)


def _absent(rows: Sequence[Mapping[str, Any]], here: Mapping[str, Any]) -> list[str]:
    """Which printed methods have no row of ours, and how to get one."""
    notes = []
    absent = [row for row in rows if row["method"] not in here and "flops" not in row]
    if elsewhere := [row for row in absent if row.get("elsewhere")]:
        named = ", ".join(f"{row['name']} ({row['method']})" for row in elsewhere)
        notes.append(
            f"Not part of this code: {named}. Save a method's maps of the APOLO items as "
            "PAINTING_EMOTION.npy or .png, any size and range, keep what `python cli.py score --maps DIR "
            "--json` prints as metrics/maps/NAME.json (the name in brackets), and score again: it gets a row."
        )
    if other := [row["method"] for row in absent if not row.get("elsewhere")]:
        notes.append(f"Not scored here yet: {', '.join(other)}; docs/paper.md has the command of each.")
    return notes
