"""Anyone's explanations: a ``.jsonl`` or ``.csv`` file of painting, emotion, text."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.score.items import item_name
from pipeline.common.errors import UserError
from pipeline.releases.apolo import ApoloItem
from pipeline.releases.names import plain_name, shown

FIELDS = ("painting", "emotion", "text")
LONGEST = 10_000
"""Characters of an explanation; a longer one is no sentence about a painting."""


@dataclass
class NamedTexts:
    """Explanations by the name of their item, found under any spelling of it."""

    title: str
    """The file's name."""
    texts: dict[str, list[str]] = field(default_factory=dict)
    """Plain name of an item -> its explanations, in the order of the file."""
    shown: dict[str, str] = field(default_factory=dict)
    """Plain name -> name, as the file first spells it."""
    lines: int = 0
    """Lines, or rows, of the file."""
    bad: list[str] = field(default_factory=list)
    """Lines that cannot be used, and why."""

    def of(self, item: ApoloItem) -> list[str]:
        """An item's explanations; none where the file has none."""
        return self.texts.get(plain_name(item_name(item)), [])

    def of_no_item(self, items: Iterable[ApoloItem]) -> dict[str, str]:
        """Names of the file that are none of the items': plain name -> name."""
        wanted = {plain_name(item_name(item)) for item in items}
        return {name: self.shown[name] for name in self.texts if name not in wanted}


def open_texts(path: Path) -> NamedTexts:
    """Read a file of explanations. Raises `UserError` when it cannot be read, or holds none."""
    texts = NamedTexts(path.stem)
    rows = {".jsonl": _json_rows, ".csv": _csv_rows}.get(path.suffix.lower())
    if rows is None:
        raise UserError(f"{path}: explanations are read from .jsonl or .csv files with {', '.join(FIELDS)}")
    try:
        for place, row in rows(path):
            texts.lines += 1
            problem = _take(texts, row)
            if problem is not None:
                texts.bad.append(f"{place}: {problem}")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; it should hold the explanations") from None
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as explanations in UTF-8: {error}") from None
    if not texts.texts:
        why = texts.bad[0] if texts.bad else "it is empty"
        raise UserError(f"{path} holds no explanation with {', '.join(FIELDS)}: {why}")
    return texts


def _take(texts: NamedTexts, row: Any) -> str | None:
    """Take in one row, or say what is wrong with it."""
    if isinstance(row, str):
        return row
    if not isinstance(row, dict):
        return f"needs {', '.join(FIELDS)}, has {shown(str(row))}"
    values = [row.get(name) for name in FIELDS]
    for name, value in zip(FIELDS, values, strict=True):
        if not isinstance(value, str):
            return f"{name} must be a text, not {shown(str(value))}" if name in row else f"lacks {name}"
    painting, emotion, text = (" ".join(str(value).split()) for value in values)
    if not (painting and emotion):
        return "painting or emotion is empty"
    if len(text) > LONGEST:
        return f"the text of {shown(painting)} has {len(text)} characters; at most {LONGEST} are read"
    name = f"{painting}_{emotion}"
    texts.texts.setdefault(plain_name(name), []).append(text)
    texts.shown.setdefault(plain_name(name), name)
    return None


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, value, or what is wrong) of every line that is not blank."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                yield f"line {number}", f"is no JSON: {error}"


def _csv_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, fields by name, or what is wrong) of every row. Raises `UserError` without the columns."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        head = [name.strip() for name in next(rows, [])]
        if lacking := [name for name in FIELDS if name not in head]:
            raise UserError(f"{path} lacks the column {', '.join(lacking)}; it has {', '.join(head)[:200]}")
        for row in rows:
            if not row:
                continue
            place = f"line {rows.line_num}"
            if len(row) == len(head):
                yield place, dict(zip(head, row, strict=True))
            else:
                yield place, f"has {len(row)} fields, not {len(head)}; quote texts that hold commas"
