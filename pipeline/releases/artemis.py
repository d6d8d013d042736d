"""The ArtEmis csv: read once, in one stream; every row is kept or rejected with a reason.

Columns ``art_style,painting,emotion,utterance,repetition`` (in any order). An utterance's id is
its row, counted from 0 after the header and without blank lines, as pandas counts: APOLO refers to
utterances by that number. Source: the ArtEmis release v0 (Achlioptas et al., CVPR 2021).
"""

import codecs
import csv
import functools
import hashlib
import math
import re
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import regex  # type: ignore[import-untyped]

from pipeline.common.emotions import ALL_EMOTIONS
from pipeline.common.errors import UserError
from pipeline.releases.names import unsafe_name

COLUMNS = ("art_style", "painting", "emotion", "utterance", "repetition")
LINES_PER_ROW = 50
"""A quoted utterance that runs on for more lines than this was never closed: only its first line is given
up, so that one stray quote does not swallow the rest of the file."""
LINE_CHARS = 2**24
"""A longer line is cut here, read on to its end and rejected: a file may be one line of many gigabytes."""
UTF_16_OR_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_EMOTIONS = frozenset(ALL_EMOTIONS)
_COUNT = re.compile(r"([0-9]{1,9})(?:\.0*)?")
_VISIBLE = regex.compile(r"[^\p{Z}\p{Cc}\p{Cf}\p{Cs}\p{Default_Ignorable_Code_Point}\u2800]")
"""Any character but white space, formats, fillers, selectors and Braille without dots."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One valid annotation."""

    artemis_id: int
    art_style: str
    painting: str
    emotion: str
    """One of `ALL_EMOTIONS`."""
    utterance: str
    """White space collapsed to single spaces."""
    repetition: int
    """How many annotations were collected for this artwork."""


@dataclass(frozen=True, slots=True)
class Reject:
    """One thing that was given up: a row of `schema.REJECTS`."""

    source: str
    """File it came from."""
    row: int
    """Its row there (the ArtEmis id), or -1 for a whole file or record."""
    reason: str
    """A short word, to count by."""
    detail: str
    """For people: the value, shortened."""


def shown(value: str, limit: int = 80) -> str:
    """A value for a message: quoted, escaped and not too long."""
    return repr(value if len(value) <= limit else value[:limit] + "…")


def read_csv(path: Path, max_chars: int) -> Iterator[Annotation | Reject]:
    """Stream the csv's rows in order; memory grows only by a 16-byte digest per row (to find duplicates).

    An utterance of more than `max_chars` characters is rejected. Reject reasons: unclosed-quote,
    field-too-long, wrong-field-count, not-utf8, control-character, empty-art-style, empty-painting,
    unsafe-name, unknown-emotion, empty-utterance, utterance-too-long, bad-repetition, duplicate.
    Raises `UserError` when the file is missing, empty or UTF-16, or lacks a column.
    """
    try:
        with path.open("rb") as binary:
            start = binary.read(4)
        file = path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    except OSError as error:
        raise UserError(
            f"the ArtEmis csv {path} cannot be opened ({error.strerror}); "
            "set paths.artemis in the params file, or draw the built-in gallery first"
        ) from None
    with file:
        if start.startswith(UTF_16_OR_32):
            raise UserError(f"the ArtEmis csv {path} is UTF-16 or UTF-32; save it as UTF-8")
        records = _records(_lines(file))
        order = _column_order(path, next(records, None))
        seen: set[bytes] = set()
        for artemis_id, fields in enumerate(records):
            row = _check(fields, order, artemis_id, path.name, max_chars)
            if isinstance(row, Annotation):
                values = (row.art_style, row.painting, row.emotion, row.utterance, str(row.repetition))
                text = "\0".join(values)
                digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
                if digest in seen:
                    row = Reject(path.name, artemis_id, "duplicate", shown(row.utterance))
                seen.add(digest)
            yield row


def _lines(file: TextIO) -> Iterator[str]:
    """The file's lines with their ends; of one beyond `LINE_CHARS`, its start."""
    while line := file.readline(LINE_CHARS):
        rest = line
        while rest and not rest.endswith(("\n", "\r")):
            rest = file.readline(LINE_CHARS)
        yield line


def _records(lines: Iterable[str]) -> Iterator[list[str] | str]:
    """The csv's records as lists of fields, or the reason why a line is none; blank lines are left out."""
    source = iter(lines)
    pending: deque[str] = deque()
    taken: list[str] = []
    incomplete = False

    def feed() -> Iterator[str]:
        """Lines for one record; the csv module asks for another only inside an open quote."""
        nonlocal incomplete
        while len(taken) < LINES_PER_ROW:
            line = pending.popleft() if pending else next(source, None)
            if line is None:
                break
            taken.append(line)
            yield line
        incomplete = bool(taken)

    while True:
        taken.clear()
        incomplete = False
        try:
            fields = next(csv.reader(feed()), None)
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


def _column_order(path: Path, header: list[str] | str | None) -> tuple[int, ...]:
    """Where each of `COLUMNS` stands; names are compared without case and surrounding white space."""
    if header is None:
        raise UserError(f"the ArtEmis csv {path} is empty; expected the columns {', '.join(COLUMNS)}")
    if isinstance(header, str):
        raise UserError(f"the ArtEmis csv {path} has no readable header line ({header})")
    names = [name.strip().lower() for name in header]
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        raise UserError(
            f"the ArtEmis csv {path} lacks the column(s) {', '.join(missing)}; "
            f"its header has {', '.join(shown(name) for name in header)}"
        )
    return (len(names), *(names.index(column) for column in COLUMNS))


def _check(
    fields: list[str] | str, order: tuple[int, ...], artemis_id: int, source: str, max_chars: int
) -> Annotation | Reject:
    """One record as a row, or the first thing that is wrong with it."""
    if isinstance(fields, str):
        return Reject(
            source, artemis_id, fields, "given up; the rows after this line are counted on from here"
        )
    width, *columns = order
    if len(fields) != width:
        detail = f"{len(fields)} fields where the header has {width}"
        return Reject(source, artemis_id, "wrong-field-count", detail)
    style, painting, emotion, utterance, repetition = (fields[column].strip() for column in columns)
    row = Annotation(
        artemis_id, style, painting, emotion.lower(), " ".join(utterance.split()), _count(repetition)
    )
    problem = next(_problems(fields, row, repetition, max_chars), None)
    return row if problem is None else Reject(source, artemis_id, *problem)


def _count(text: str) -> int:
    """A number of annotations, or -1. More digits than nine would overflow the column.

    "7.0" is 7: pandas writes a column of counts so when one row of it had none.
    """
    match = _COUNT.fullmatch(text)
    return int(match[1]) if match else -1


def _problems(
    fields: list[str], row: Annotation, repetition: str, max_chars: int
) -> Iterator[tuple[str, str]]:
    """What is wrong with a row, as (reason, detail); `fields` and `repetition` are as the csv has them."""
    for field in fields:
        if not field.isprintable():  # false for white space too, but true for nearly all rows, and fast
            yield from _bad_characters(field)
    for what, name in (("art-style", row.art_style), ("painting", row.painting)):
        if not name:
            yield f"empty-{what}", ""
        if (why := _unsafe_name(name)) is not None:
            yield "unsafe-name", f"{shown(name)} {why}"
    if row.emotion not in _EMOTIONS:
        yield "unknown-emotion", f"{shown(row.emotion)} is none of {', '.join(ALL_EMOTIONS)}"
    if not _VISIBLE.search(row.utterance):
        yield "empty-utterance", shown(row.utterance) if row.utterance else ""
    if len(row.utterance) > max_chars:
        yield "utterance-too-long", f"{len(row.utterance)} characters, the cap is {max_chars}"
    if row.repetition < 0:
        yield "bad-repetition", f"{shown(repetition)} is no count of annotations"


_unsafe_name = functools.lru_cache(maxsize=1024)(unsafe_name)
"""An artwork's rows follow each other."""


def _bad_characters(field: str) -> Iterator[tuple[str, str]]:
    """Bytes that are no UTF-8, and control characters other than white space."""
    for char in field:
        category = unicodedata.category(char)
        if category == "Cs":  # how `surrogateescape` passes such a byte on
            yield "not-utf8", f"byte 0x{ord(char) & 0xFF:02x} in {shown(field)}"
        elif category == "Cc" and char not in "\t\n\r":
            yield "control-character", f"U+{ord(char):04X} in {shown(field)}"


def split_artworks(
    repetitions: Mapping[tuple[str, str], int],
    fractions: tuple[float, float, float],
    seed: int,
    rest_repetition: int,
) -> dict[tuple[str, str], str]:
    """ArtEmis's own random split, by artwork: (art_style, painting) -> train | val | test | rest.

    `repetitions` gives every artwork's annotation count; those of `rest_repetition` or more go to rest (0:
    none do). The others are sorted by the joined text art_style + painting and permuted as scikit-learn's
    ``train_test_split`` does, train against the rest, then val against test, so that the splits of the
    ArtEmis release come out the same (its ``make_train_test_val_splits``).
    """
    rest = {work for work, count in repetitions.items() if rest_repetition and count >= rest_repetition}
    works = sorted((work for work in repetitions if work not in rest), key=lambda work: work[0] + work[1])
    _, val_share, test_share = fractions
    held_out, train = _random_halves(len(works), math.ceil((val_share + test_share) * len(works)), seed)
    num_test = min(round(test_share * len(works)), len(held_out))
    test, val = _random_halves(len(held_out), num_test, seed)
    splits = dict.fromkeys(rest, "rest")
    splits |= {works[i]: "train" for i in train}
    splits |= {works[held_out[i]]: "val" for i in val}
    splits |= {works[held_out[i]]: "test" for i in test}
    return splits


def _random_halves(count: int, first: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices 0..count-1 in two random parts, the first with `first` of them (as scikit-learn shuffles)."""
    order = np.random.RandomState(seed).permutation(count)
    return order[:first], order[first:]
