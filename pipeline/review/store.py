"""The verdicts of a folder as a server sees them while people add more, in this process and in others."""

import threading
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.common.errors import UserError
from pipeline.reviews.consensus import Consensus, agreement, consensus, precision
from pipeline.reviews.verdicts import UNDO, Verdict, append, now, parse_line, standing


class Store:
    """Reads what files gained since it last looked, and appends. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._files: dict[Path, tuple[int, list[Verdict]]] = {}
        """File -> bytes read of it, up to the end of a line, and the verdicts in them."""
        self._bad = 0

    def add(self, verdict: Verdict) -> Verdict:
        """Append a verdict, stamped with the time; when this returns it is on disk.

        A verdict whose id is there already is not written again: a page that heard no answer may ask twice.
        Raises `UserError`, `RunFailed`.
        """
        with self._lock:
            lines = [line for line in self._lines() if line.by == verdict.by]
            if again := next((line for line in lines if line.id == verdict.id), None):
                return again
            latest = max((line.at for line in lines), default="")
            stamped = Verdict(**{**vars(verdict), "at": now(latest)})
            append(self.folder, [stamped])
            return stamped

    def undo(self, by: str, id_: str) -> Verdict | None:
        """Take a reviewer's latest verdict back; returns it, or None where there is none."""
        with self._lock:
            mine = [verdict for verdict in self.standing() if verdict.by == by]
            if not mine or any(line.id == id_ and line.by == by for line in self._lines()):
                return None
            last = mine[-1]
            changes = {"id": id_, "verdict": UNDO, "undoes": last.id, "corrected": None, "order": ""}
            self.add(Verdict(**{**vars(last), **changes}))
            return last

    def standing(self) -> list[Verdict]:
        """What stands, by time."""
        with self._lock:
            return standing(self._lines(), Counter())

    def disputed(self) -> list[Consensus]:
        """Masks on which reviewers do not agree."""
        return [one for one in consensus(self.standing()) if one.verdict == "disputed"]

    def statistics(self) -> dict[str, Any]:
        """Counts, agreement and precision of all that stands."""
        verdicts = self.standing()
        return {
            "verdicts": len(verdicts),
            "reviewers": dict(sorted(Counter(verdict.by for verdict in verdicts).items())),
            "agreement": agreement(verdicts),
            "precision": precision(consensus(verdicts)),
            "bad_lines": self._bad,
        }

    def _lines(self) -> list[Verdict]:
        """All lines that are verdicts, each id once."""
        for path in sorted(self.folder.glob("*.jsonl")):
            self._read_on(path)
        found = {(line.by, line.id): line for _, lines in self._files.values() for line in lines}
        return list(found.values())

    def _read_on(self, path: Path) -> None:
        start, lines = self._files.get(path, (0, []))
        try:
            with path.open("rb") as file:
                if file.seek(0, 2) < start:  # somebody put another file there
                    start, lines = 0, []
                file.seek(start)
                data = file.read()
        except OSError as error:
            raise UserError(
                f"{path} cannot be read: {error.strerror}; give yourself read permission"
            ) from None
        end = data.rfind(b"\n") + 1
        for raw in data[:end].split(b"\n"):
            found = parse_line(raw) if raw.strip() else None
            if isinstance(found, Verdict):
                lines.append(found)
            elif found is not None:
                self._bad += 1
        self._files[path] = start + end, lines
