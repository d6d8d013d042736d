"""Tables of records in the APOLO release's JSON files, in whichever way pandas wrote them."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.common.errors import UserError
from pipeline.releases.names import shown


def read_records(path: Path) -> list[Any]:
    """The records of one of the release's JSON tables, as they are. Raises `UserError` when it is none."""
    return _records(_read_json(path), path)


def _read_json(path: Path) -> Any:
    """A JSON file; `UserError` when it cannot be read, or gives a key twice."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text, object_pairs_hook=_once, parse_int=_number)
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; set paths.apolo (or --apolo) to the folder of the APOLO release"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of which json would keep the last of several values in silence."""
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {shown(twice)} stands twice in one object")
    return values


def _number(text: str) -> int | float:
    """An int; one of more digits than any id as a float: Python refuses to read thousands of digits."""
    return int(text) if len(text) < 20 else float(text)


def _records(value: Any, path: Path) -> list[Any]:
    """A table in JSON as a list of records: pandas' orients "records", "columns", "index" and "split"."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        if {"columns", "data"} <= value.keys():
            return _split_records(value["columns"], value["data"], path)
        columns = {name: column for name, column in value.items() if isinstance(column, dict)}
        if "artemis_id" in columns:
            rows = list(columns["artemis_id"])
            return [{name: column.get(row) for name, column in columns.items()} for row in rows]
        if len(columns) == len(value):
            return list(columns.values())
    raise _no_table(path, "expected a JSON list of objects, or what pandas writes")


def _split_records(columns: Any, rows: Any, path: Path) -> list[Any]:
    """Records of pandas' orient "split"; a row that is no list stays as it is, for its reader to reject."""
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise _no_table(path, f"its columns must be a list of names, not {shown(str(columns))}")
    if not isinstance(rows, list):
        raise _no_table(path, f"its data must be a list of rows, not {shown(str(rows))}")
    return [dict(zip(columns, row, strict=False)) if isinstance(row, list) else row for row in rows]


def _no_table(path: Path, why: str) -> UserError:
    return UserError(f"{path} is no table of records: {why}")
