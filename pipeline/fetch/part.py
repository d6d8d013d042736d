"""The file beside a place where a download lies until it is whole: ``NAME.part``, and a note about it.

The note says which version of which file the part is the beginning of. It is kept for files of unknown hash
only: of the others, a wrong part is found out at the end.
"""

import json
from pathlib import Path
from typing import Any

from pipeline.common.files import write_json


def part_of(path: Path) -> Path:
    """The part of the file that shall be at `path`."""
    return path.with_name(f"{path.name}.part")


def note_of(part: Path) -> Path:
    """The note about a part."""
    return part.with_name(f"{part.name}.json")


def write_note(part: Path, url: str, validator: str) -> None:
    """Note where the part is from, and what the server calls this version of the file ("" for nothing)."""
    write_json(note_of(part), {"url": url, "validator": validator})


def read_note(part: Path) -> dict[str, Any]:
    """The note about a part; empty where there is none that can be read."""
    try:
        noted = json.loads(note_of(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def forget(part: Path) -> None:
    """Remove a part and its note."""
    part.unlink(missing_ok=True)
    note_of(part).unlink(missing_ok=True)


def size_of(part: Path) -> int:
    """Bytes of a part, 0 where there is none."""
    return part.stat().st_size if part.is_file() else 0
