"""Verdicts on pseudo-masks: a folder with one append-only file of JSON lines for each reviewer.

A line is a verdict, or takes one back; nothing is ever changed in place. A killed writer leaves at most a
torn last line, which the next writer closes and every reader counts. What else is no verdict is a row with a
reason.
"""

import dataclasses
import fcntl
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.common import rle
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.fingerprint import sha256_text
from pipeline.common.rle import BadMask

VERDICTS = ("good", "wrong-place", "too-big", "not-visible", "skip")
UNDO = "undo"
LONGEST_LINE = 1 << 20
"""Bytes of a line; a correction of 256 x 256 pixels has a few thousand."""
LONGEST_NAME = 60
LARGEST_MASK = 1 << 28
"""Pixels of a correction."""
_KEY, _DIGEST, _ID = re.compile("[0-9a-f]{16}"), re.compile("[0-9a-f]{64}"), re.compile("[0-9A-Za-z-]{1,64}")


@dataclass(frozen=True)
class Verdict:
    """One line: what one person thinks of one mask."""

    id: str
    """Of the line; a line that occurs twice counts once."""
    key: str
    """Of the artwork."""
    emotion: str
    verdict: str
    """One of `VERDICTS`, or `UNDO`."""
    by: str
    """The reviewer's name."""
    at: str
    """UTC, ``2026-11-22T12:00:00.000Z``."""
    mask: str
    """SHA-256 of the PNG that was judged: a verdict holds for that mask, and for no later one."""
    corrected: str | None = None
    """The mask that the reviewer drew instead, as `pipeline.common.rle` writes it, at the size of the stored
    mask or of the picture."""
    order: str = ""
    """How the mask came to be judged: worst, random, or import."""
    undoes: str | None = None
    """Of `UNDO`: the id of the verdict that its reviewer takes back."""


@dataclass(frozen=True)
class BadLine:
    """A line that is no verdict."""

    file: str
    line: int
    """Counted from 1."""
    reason: str
    """torn, not-json, too-long, not-utf8, or a field's name."""
    detail: str


@dataclass(frozen=True)
class Reviews:
    """All that a folder holds. ``lines = verdicts + undone + undos + repeated + superseded + bad``."""

    verdicts: list[Verdict]
    """What stands: each reviewer's latest verdict on each mask, by time, then by place."""
    bad: list[BadLine]
    counts: dict[str, int]
    """lines, undos, undone, repeated, superseded."""
    every: list[Verdict] = dataclasses.field(default_factory=list)
    """All lines that are verdicts or take one back, each once."""


def read_reviews(folder: Path) -> Reviews:
    """Read ``*.jsonl``. A folder that does not exist has no verdicts.

    Raises `UserError` where a file cannot be opened.
    """
    lines: list[Verdict] = []
    bad: list[BadLine] = []
    counts: Counter[str] = Counter(lines=0, undos=0, undone=0, repeated=0, superseded=0)
    seen: set[tuple[str, str]] = set()
    for path in sorted(folder.glob("*.jsonl")):
        for line in read_file(path):
            counts["lines"] += 1
            if isinstance(line, BadLine):
                bad.append(line)
            elif (line.by, line.id) in seen:
                counts["repeated"] += 1
            else:
                seen.add((line.by, line.id))
                lines.append(line)
    return Reviews(standing(lines, counts), bad, dict(counts), lines)


def standing(lines: list[Verdict], counts: Counter[str]) -> list[Verdict]:
    """Verdicts that nobody took back, and that no later one of the same reviewer replaces, by time.

    `counts`: undos, undone and superseded are added to it.
    """
    taken_back = {(line.by, line.undoes) for line in lines if line.verdict == UNDO}
    latest: dict[tuple[str, str, str, str], Verdict] = {}
    for line in sorted(lines, key=lambda line: line.at):
        if line.verdict == UNDO:
            counts["undos"] += 1
        elif (line.by, line.id) in taken_back:
            counts["undone"] += 1
        else:
            place = (line.by, line.key, line.emotion, line.mask)
            counts["superseded"] += place in latest
            latest.pop(place, None)  # so that a dictionary's order is that of time
            latest[place] = line
    return list(latest.values())


def read_file(path: Path) -> Iterator[Verdict | BadLine]:
    """Yield the lines of one reviewer's file, blank ones left out. Raises `UserError`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; give yourself read permission") from None
    for number, raw in enumerate(data.split(b"\n"), 1):
        if not raw.strip():
            continue
        whole = number <= data.count(b"\n")
        found = parse_line(raw)
        if isinstance(found, Verdict):
            yield found
        else:
            reason, detail = found
            yield BadLine(path.name, number, reason if whole else "torn", detail)


def parse_line(raw: bytes) -> Verdict | tuple[str, str]:
    """A line as a verdict, or why it is none: (reason, detail)."""
    if len(raw) > LONGEST_LINE:
        return "too-long", f"{len(raw)} bytes, more than {LONGEST_LINE}"
    try:
        values = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return "not-utf8", str(error)
    except (ValueError, RecursionError) as error:
        return "not-json", str(error)
    if not isinstance(values, dict):
        return "not-json", "no JSON object"
    return parse_verdict(values)


def parse_verdict(values: dict[str, Any]) -> Verdict | tuple[str, str]:
    """A verdict from untrusted values, or (reason, detail); unknown fields are left out."""
    kept = {field.name: values[field.name] for field in dataclasses.fields(Verdict) if field.name in values}
    for field in dataclasses.fields(Verdict):
        optional = field.name in ("corrected", "undoes")
        value = kept.get(field.name, field.default)
        if not isinstance(value, str) and not (optional and value is None):
            return field.name, "is missing" if field.name not in kept else f"{str(value)[:80]!r} is no text"
    verdict = Verdict(**kept)
    if wrong := next((name for name, sound in _sound(verdict) if not sound), None):
        return wrong, f"{str(getattr(verdict, wrong))[:80]!r} cannot be"
    if verdict.corrected is not None:
        try:
            check_rle(verdict.corrected)
        except BadMask as error:
            return "corrected", str(error)
    return verdict


def _sound(verdict: Verdict) -> Iterator[tuple[str, bool]]:
    """Yield (field, whether its value can be)."""
    yield "id", _ID.fullmatch(verdict.id) is not None
    yield "key", _KEY.fullmatch(verdict.key) is not None
    yield "emotion", verdict.emotion in EMOTIONS
    yield "verdict", verdict.verdict in (*VERDICTS, UNDO)
    yield "by", is_name(verdict.by)
    yield "at", _is_time(verdict.at)
    yield "mask", _DIGEST.fullmatch(verdict.mask) is not None
    yield "order", len(verdict.order) <= LONGEST_NAME
    yield "undoes", (verdict.undoes is not None) == (verdict.verdict == UNDO)
    yield "corrected", verdict.corrected is None or verdict.verdict in VERDICTS[1:4]


def is_name(text: str) -> bool:
    """Whether a text can be a reviewer's name: printable, of at most 60 characters, not blank at an end."""
    return 0 < len(text) <= LONGEST_NAME and text.isprintable() and text == text.strip()


def _is_time(text: str) -> bool:
    try:
        return text.endswith("Z") and datetime.fromisoformat(text).utcoffset() is not None
    except ValueError:
        return False


def check_rle(text: str) -> tuple[int, int]:
    """(height, width) of a mask in `rle`'s form. Raises `BadMask` when it is none, or too large."""
    try:
        size = json.loads(text)["size"]
        height, width = (int(side) for side in size)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadMask(f"no mask: {error!r}") from None
    if height < 1 or width < 1 or height * width > LARGEST_MASK:
        raise BadMask(f"a mask of {height} x {width} pixels cannot be")
    rle.decode(text, height, width)
    return height, width


def now(after: str = "") -> str:
    """The time, UTC, to milliseconds; at least one behind `after`, whatever the clock says."""
    time = datetime.now(UTC)
    if after:
        time = max(time, datetime.fromisoformat(after).astimezone(UTC) + timedelta(milliseconds=1))
    text = time.isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def reviewer_file(folder: Path, by: str) -> Path:
    """The file of a reviewer: the name in plain letters, and a hash where these leave something out."""
    if not is_name(by):
        raise UserError(f"{by[:80]!r} is no reviewer's name: 1 to {LONGEST_NAME} printable characters")
    letters = unicodedata.normalize("NFKD", by.lower()).encode("ascii", "ignore").decode()
    plain = re.sub("[^a-z0-9]+", "-", letters).strip("-")
    return folder / f"{plain}{'' if plain == by else '-' + sha256_text(by)[:8]}.jsonl".lstrip("-")


def append(folder: Path, verdicts: list[Verdict]) -> None:
    """Write lines to their one reviewer's file and fsync: when this returns, no crash can take them back.

    Several processes may append to one file. A torn last line is closed first. Raises `RunFailed` where the
    lines cannot be written, and then leaves none of them behind.
    """
    if not verdicts:
        return
    path = reviewer_file(folder, verdicts[0].by)
    text = "".join(_line(verdict) for verdict in verdicts).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX)
            _append(handle, text)
        finally:
            os.close(handle)
        if is_new:
            _sync_folder(folder)
    except OSError as error:
        raise RunFailed(f"{path} could not be written: {error.strerror}; the verdict is not noted") from None


def _line(verdict: Verdict) -> str:
    values = {name: value for name, value in dataclasses.asdict(verdict).items() if value is not None}
    return json.dumps(values, ensure_ascii=False) + "\n"


def _append(handle: int, text: bytes) -> None:
    size = os.fstat(handle).st_size
    if size and os.pread(handle, 1, size - 1) != b"\n":
        text = b"\n" + text
    try:
        done = 0
        while done < len(text):
            done += os.write(handle, text[done:])
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, size)
        raise


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
