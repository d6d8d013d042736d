"""The rows as text on the screen, and as a Markdown table in a page."""

import html
from pathlib import Path
from typing import Any

from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes

START, END = "<!-- table of bench peers -->", "<!-- end of the table -->"
"""Between them the page's table is replaced."""
COLUMNS = ("row", "times as fast", "spread", "by processor time", "spread", "ours", "theirs", "turns")


def text(found: dict[str, Any]) -> str:
    """For the screen: a line a row, and under each what was compared, or why it was not."""
    lines = [f"{_where(found['machine'])}\n", f"{'row':<16}{'ratio':>7}  {'spread':<15}{'cpu':>7}  rates"]
    for name, row in found["rows"].items():
        if "ratio" in row:
            lines.append(
                f"{name:<16}{row['ratio']:>7}  {_spread(row['ratio_spread']):<15}{row['cpu_ratio']:>7}  "
                f"{row['ours_per_second']} {row['unit']}/s, theirs {row['peer_per_second']}"
            )
        else:
            lines.append(f"{name:<16}{'-':>7}")
        lines.append(f"{'':<18}{row['ours']} beside {_peer(row)}")
        lines += [f"{'':<18}{row[key]}" for key in ("agreement", "problem", "left_out") if key in row]
    lines.append("\nratio: their seconds over ours, above 1 where we are faster; cpu: of processor time")
    return "\n".join(lines)


def markdown(found: dict[str, Any]) -> str:
    """The table for a page, with its hardware and date."""
    lines = [_where(found["machine"]) + ".", "", f"| {' | '.join(COLUMNS)} |", f"|---|{'---:|' * 7}"]
    notes = []
    for name, row in found["rows"].items():
        if "ratio" in row:
            cells = (
                f"**{row['ratio']}**",
                _spread(row["ratio_spread"]),
                row["cpu_ratio"],
                _spread(row["cpu_ratio_spread"]),
                f"{row['ours_per_second']} {row['unit']}/s",
                f"{row['peer_per_second']}",
                row["turns"],
            )
        else:
            cells = ("–",) * 7
        lines.append(f"| `{name}` | {' | '.join(map(str, cells))} |")
        notes += [f"- `{name}`: {_cell(_note(row))}"]
    return "\n".join([*lines, "", *notes])


def _note(row: dict[str, Any]) -> str:
    parts = [f"{row['ours']} beside {_peer(row)}"]
    parts += [row[key] for key in ("work", "agreement", "problem") if key in row]
    return "; ".join(parts) + (f"; left out: {row['left_out']}" if "left_out" in row else "") + "."


def _peer(row: dict[str, Any]) -> str:
    return row["peer"] + (f" ({row['version']})" if "version" in row else "")


def _spread(ends: list[float]) -> str:
    return f"{ends[0]} to {ends[1]}"


def _where(machine: dict[str, Any]) -> str:
    state = "" if machine["load"] is None else f", load {machine['load']} at the start"
    busy = "" if machine["quiet"] or machine["load"] is None else " (a busy machine)"
    device, cores = machine["device"], machine["cores"]
    return f"{device} of {cores} core(s){state}{busy}; torch {machine['torch']}; {machine['date']}"


def _cell(words: str) -> str:
    """Words of other packages' errors as plain Markdown."""
    return html.escape(words, quote=False).replace("|", "\\|").replace("\n", " ")


def check_page(page: Path) -> None:
    """Raises `UserError` for a file that is there and has no place for the table."""
    if page.is_dir() or not page.parent.is_dir():
        raise UserError(f"--markdown {page}: name a file in a folder that exists")
    if page.exists() and page.suffix != ".md":
        raise UserError(f"--markdown {page} is no .md file; it is left as it is")
    if page.exists():
        _split(page)


def write_page(page: Path, found: dict[str, Any]) -> None:
    """Put the table into a page between `START` and `END`, or into a new file."""
    before, after = _split(page) if page.exists() else ("", "\n")
    whole = f"{before}{START}\n\n{markdown(found)}\n\n{END}{after}"
    write_bytes(page, whole.encode())


def _split(page: Path) -> tuple[str, str]:
    words = page.read_text(encoding="utf-8")
    if words.count(START) != 1 or words.count(END) != 1 or words.index(END) < words.index(START):
        raise UserError(
            f"--markdown {page} lacks a line {START} with {END} below; add both, or name a new file"
        )
    return words[: words.index(START)], words[words.index(END) + len(END) :]
