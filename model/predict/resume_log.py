"""The resume log of the command `predict`: what is finished, so that a killed run goes on where it was.

One line of JSON per finished picture, written when its maps are on the disk. A line that a kill cut in two is
dropped. A prediction counts only for the same model, params and code (`identity`), the same file behind the
picture's name, and while its own files are there and no other picture has taken their names.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.common.errors import RunFailed
from pipeline.common.files import DISK_FULL

Row = dict[str, Any]
"""A line of predictions.jsonl."""


class ResumeLog:
    """The finished predictions of one output folder; `close` it."""

    def __init__(self, path: Path, identity: str) -> None:
        """Read what is there; the folder must belong to this run alone.

        Args:
            path: the file; made where needed.
            identity: fingerprint of everything that decides a prediction, but for picture and emotion.
        """
        self._identity = identity
        self._path = path
        self._entries: dict[tuple[str, str], Mapping[str, Any]] = {}
        whole = 0
        if path.is_file():
            data = path.read_bytes()
            whole = data.rfind(b"\n") + 1
            for line in data[:whole].splitlines():
                self._remember(line)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self._file, whole)
        os.lseek(self._file, whole, os.SEEK_SET)

    def _remember(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            for emotion, rows in entry["predictions"].items():
                self._entries[entry["name"], emotion] = {**entry, "rows": rows}
        except (ValueError, KeyError, TypeError, AttributeError):
            pass  # not a line of ours: whatever it stood for is predicted again

    def rows(self, picture: Path, name: str, emotion: str) -> list[Row] | None:
        """The rows of a picture whose outputs are called `name`, or None when it is not finished."""
        entry = self._entries.get((name, emotion))
        if entry is None or entry["identity"] != self._identity:
            return None
        if entry["image"] != picture.as_posix() or entry["stamp"] != stamp(picture):
            return None
        rows: list[Row] = entry["rows"]
        whole = all(Path(row[kind]).is_file() for row in rows for kind in ("map", "overlay"))
        return rows if rows and whole else None

    def append(
        self, picture: Path, stamp: Sequence[int], name: str, predictions: Mapping[str, Sequence[Row]]
    ) -> None:
        """Log a picture's predictions, rows by emotion; on the disk when this returns.

        `stamp` is the file's from before it was read. Raises `RunFailed` when the disk is full.
        """
        entry = {
            "identity": self._identity,
            "image": picture.as_posix(),
            "stamp": stamp,
            "name": name,
            "predictions": predictions,
        }
        line = json_line(entry)
        try:
            os.write(self._file, line)
            os.fsync(self._file)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            raise RunFailed(
                f"the disk or your quota is full: {self._path} could not be written. Make room and run the "
                "same command again; what is finished is kept"
            ) from error
        self._remember(line)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


def stamp(path: Path) -> list[int]:
    """Size and time of a file: another stamp, another content. [0, 0] where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return [0, 0]
    return [stat.st_size, stat.st_mtime_ns]


def json_line(value: Any) -> bytes:
    """A value as one line of JSON in UTF-8; bytes of a file's name that are no UTF-8 as JSON escapes."""
    return (json.dumps(value, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
