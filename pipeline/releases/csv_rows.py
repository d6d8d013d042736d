"""A csv's records, one by one, however broken the file: fields, or the reason why a line has none.

What the file is must be known (`Source`): a file that looks like another kind is refused with the way to read
it.
"""

import codecs
import csv
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from pipeline.common.errors import UserError
from pipeline.releases.names import shown
from pipeline.releases.source import Source

LINES_PER_ROW = 50
"""A quoted utterance that runs on for more lines than this was never closed: only its first line is given
up, so that one stray quote does not swallow the rest of the file."""
LINE_CHARS = 2**24
"""A longer line is cut here, read on to its end and rejected: a file may be one line of many gigabytes."""
BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
MAGIC = {
    b"PK\x03\x04": "a zip file; unpack it, or save the Excel workbook as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save it as CSV UTF-8",
    b"\x1f\x8b": "packed by gzip; unpack it",
    b"PAR1": "a Parquet file; write it as csv, such as by pandas.read_parquet(FILE).to_csv(CSV, index=False)",
}
"""First bytes of files that are no csv -> what they are, and what to do."""
DELIMITERS = (",", ";", "\t", "|")
QUOTES = ('"', "'")


def open_csv(path: Path, source: Source) -> TextIO:
    """The csv as text; bytes that are no UTF-8 as surrogates, those of another encoding as U+FFFD.

    Raises `UserError` when it cannot be opened, or its first bytes are those of another kind of file.
    """
    utf8 = codecs.lookup(source.encoding).name == "utf-8"
    try:
        with path.open("rb") as binary:
            start = binary.read(4096)
        if (why := wrong_bytes(start, source.encoding)) is not None:
            raise UserError(f"the ArtEmis csv {path} is {why}")
        encoding, errors = ("utf-8-sig", "surrogateescape") if utf8 else (source.encoding, "replace")
        return path.open(encoding=encoding, errors=errors, newline="")
    except OSError as error:
        raise UserError(
            f"the ArtEmis csv {path} cannot be opened ({error.strerror}); "
            "set paths.artemis in the params file, or draw the built-in gallery first"
        ) from None


def wrong_bytes(start: bytes, encoding: str) -> str | None:
    """What else a file is that starts so, and what to do; None where it may be a csv in this encoding."""
    for magic, what in MAGIC.items():
        if start.startswith(magic):
            return what
    if start.lstrip().startswith((b"{", b"[")):
        return "JSON; write it as csv, such as by pandas.read_json(FILE).to_csv(CSV, index=False)"
    found, name = unicode_of(start), codecs.lookup(encoding).name
    if name in ("utf-16", "utf-32") and found != name:
        return f"no {name} with a byte-order mark; set utterances.encoding to {found or 'utf-8'}"
    if found is None or name.startswith(found[:6]):
        return None
    return f"UTF-16 or UTF-32; set utterances.encoding to {found}, or save it as UTF-8"


def unicode_of(start: bytes) -> str | None:
    """The wide Unicode encoding of a text that starts so; None where it is not wide."""
    for mark, name in BOMS.items():
        if start.startswith(mark):
            return name
    even, odd = start[:200:2].count(0), start[1:200:2].count(0)
    pairs = len(start[:200]) // 2
    if pairs >= 8 and max(even, odd) > 0.7 * pairs and min(even, odd) < 0.3 * pairs:  # Latin text in pairs
        return "utf-16-be" if even > odd else "utf-16-le"
    return None


def read_records(file: TextIO, source: Source) -> Iterator[list[str] | str]:
    """The csv's records as lists of fields, or the reason why a line is none; blank lines are left out."""
    lines = _lines(file)
    pending: deque[str] = deque()
    taken: list[str] = []
    incomplete = False

    def feed() -> Iterator[str]:
        """Lines for one record; the csv module asks for another only inside an open quote."""
        nonlocal incomplete
        while len(taken) < LINES_PER_ROW:
            line = pending.popleft() if pending else next(lines, None)
            if line is None:
                break
            taken.append(line)
            yield line
        incomplete = bool(taken)

    while True:
        taken.clear()
        incomplete = False
        try:
            fields = next(csv.reader(feed(), delimiter=source.delimiter, quotechar=source.quote), None)
        except csv.Error:  # a field beyond the csv module's own limit of 128 KiB
            pending.extendleft(reversed(taken[1:]))
            yield "field-too-long"
            continue
        if incomplete:
            pending.extendleft(reversed(taken[1:]))
            yield "unclosed-quote"
        elif fields is None:
            return
        elif len(fields) > 1 or "".join(fields).strip():
            yield fields


def _lines(file: TextIO) -> Iterator[str]:
    """The file's lines with their ends; of one beyond `LINE_CHARS`, its start."""
    while line := file.readline(LINE_CHARS):
        rest = line
        while rest and not rest.endswith(("\n", "\r")):
            rest = file.readline(LINE_CHARS)
        yield line


def check_header(path: Path, header: list[str] | str | None, source: Source) -> list[str]:
    """The header's fields. Raises `UserError` where there are none, or they speak of another dialect."""
    if header is None:
        raise UserError(f"the ArtEmis csv {path} is empty; expected a header line with the columns' names")
    if isinstance(header, str):
        raise UserError(f"the ArtEmis csv {path} has no readable header line ({header})")
    header = [name.removeprefix("\ufeff") for name in header]
    why = dialect_advice(header, source)
    if why is not None:
        raise UserError(f"the ArtEmis csv {path} {why}")
    return header


def dialect_advice(header: list[str], source: Source) -> str | None:
    """What is odd about a header that was read with this dialect, and what to do; None where nothing is."""
    if len(header) == 1 and header[0].strip().lower().startswith("sep="):
        return f"starts with Excel's line {shown(header[0])}; remove that line, and set utterances.delimiter"
    names = [name.strip() for name in header]
    if len(names) == 1:
        found = max(DELIMITERS, key=names[0].count)
        if names[0].count(found) and found == source.delimiter:
            return "has all of its header inside one pair of quotes; save it again without quotes round lines"
        if names[0].count(found):
            what = {";": "semicolons", "\t": "tabs", ",": "commas"}.get(found, found)
            return (
                f"looks separated by {what}: its header is {shown(names[0])}. "
                f'Set utterances.delimiter to "{escaped(found)}"'
            )
    other = "'" if source.quote == '"' else '"'
    if all(len(name) > 2 and name[0] == name[-1] == other for name in names):
        return f"has {other} round its fields: {shown(names[0])}. Set utterances.quote to {other}"
    return None


def escaped(delimiter: str) -> str:
    """As YAML writes it between double quotes."""
    return "\\t" if delimiter == "\t" else delimiter


def header_of(lines: Iterable[str], source: Source) -> list[str]:
    """The first record of some lines; empty where there is none."""
    reader = csv.reader(lines, delimiter=source.delimiter, quotechar=source.quote)
    return next((fields for fields in reader if any(field.strip() for field in fields)), [])
