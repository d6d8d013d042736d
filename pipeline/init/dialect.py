"""A csv's encoding, delimiter and quotes, by its first bytes."""

import codecs
import csv
import io
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.errors import UserError
from pipeline.releases.csv_rows import DELIMITERS, QUOTES, dialect_advice, unicode_of, wrong_bytes
from pipeline.releases.source import Source

START = 2**21
"""Bytes that are looked at."""
ROWS = 2000
"""Records that are looked at, at most."""
BAD_LINES = 0.002
"""Share of lines that may be no UTF-8 in a file that is UTF-8: they become rejected rows."""


@dataclass(frozen=True)
class Sample:
    """A csv's dialect, its header, and its first records."""

    source: Source
    """With encoding, delimiter and quote alone."""
    mark: bool
    """Whether it starts with a byte-order mark."""
    header: list[str]
    rows: list[list[str]]
    """Those that are as wide as the header."""


def sniff_csv(path: Path) -> Sample:
    """Look at the start of a csv. Raises `UserError` where it is none, or cannot be opened."""
    try:
        with path.open("rb") as file:
            start = file.read(START)
            whole = not file.read(1)
    except OSError as error:
        raise UserError(f"--artemis {path} cannot be opened ({error.strerror})") from None
    if not start.strip():
        raise UserError(f"--artemis {path} is empty")
    if (why := wrong_bytes(start, unicode_of(start) or "utf-8")) is not None:
        raise UserError(f"--artemis {path} is {why}")
    encoding = _encoding(start)
    text = _text(start, encoding, whole)
    source = _dialect(text, encoding)
    header, *rows = _records(text, source) or [[]]
    if (why := dialect_advice(header, source)) is not None:
        raise UserError(f"--artemis {path} {why}")
    mark = start.startswith(codecs.BOM_UTF8) or encoding in ("utf-16", "utf-32")
    return Sample(source, mark, [name.strip() for name in header], [r for r in rows if len(r) == len(header)])


def _encoding(start: bytes) -> str:
    """utf-8, a wide one, or cp1252, which any bytes may be."""
    wide = unicode_of(start)
    if wide is not None:
        return wide
    lines = start.splitlines()[:-1] or start.splitlines()
    bad = sum(_is_bad(line) for line in lines)
    return "cp1252" if bad > BAD_LINES * len(lines) else "utf-8"


def _is_bad(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _text(start: bytes, encoding: str, whole: bool) -> str:
    """The bytes as text; where there are more of them, without the last line, which may be cut."""
    text = start.decode("utf-8-sig" if encoding == "utf-8" else encoding, errors="replace")
    return text if whole else text[: text.rfind("\n") + 1] or text


def _dialect(text: str, encoding: str) -> Source:
    """The delimiter and quote that give the most fields in records as wide as the header."""
    choices = [Source(delimiter=d, quote=q, encoding=encoding) for q in QUOTES for d in DELIMITERS]
    return max(choices, key=lambda source: _fit(_records(text[:65536], source)[:100], source))


def _fit(records: list[list[str]], source: Source) -> tuple[bool, float, int]:
    """How well records look like a table: whether they do, the share of even rows, the number of columns."""
    if not records or len(records[0]) < 2 or dialect_advice(records[0], source) is not None:
        return False, 0.0, 0
    even = sum(len(row) == len(records[0]) for row in records) / len(records)
    return True, round(even, 1), len(records[0])


def _records(text: str, source: Source) -> list[list[str]]:
    """The first records that are not blank; up to the first that cannot be read."""
    records: list[list[str]] = []
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=source.delimiter, quotechar=source.quote, strict=False
    )
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                records.append(fields)
            if len(records) > ROWS:
                break
    except csv.Error:
        pass
    return records
