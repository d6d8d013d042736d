"""The csv of who felt what about which picture: read once, in one stream; every row is kept or rejected.

ArtEmis's own columns are ``art_style,painting,emotion,utterance,repetition``; its relatives' are in
`layouts`. APOLO refers to utterances by their row in ArtEmis's release v0, counted from 0 after the header
and without blank lines, as pandas counts. Source: the ArtEmis release v0 (Achlioptas et al., CVPR 2021).
"""

import functools
import hashlib
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import regex  # type: ignore[import-untyped]

from pipeline.common.emotions import ALL_EMOTIONS
from pipeline.releases.csv_rows import check_header, open_csv, read_records
from pipeline.releases.layouts import Columns, find_columns
from pipeline.releases.names import shown, unsafe_name
from pipeline.releases.source import PLAIN, Role, Source
from pipeline.releases.words import read_emotion, read_language, read_split

COLUMNS = ("art_style", "painting", "emotion", "utterance", "repetition")
"""Of ArtEmis's release v0."""
OTHER_IDS = 10**9
"""Ids of rows that are not in release v0 are larger: their row in the csv is added."""
_COUNT = re.compile(r"([0-9]{1,9})(?:\.0*)?")
_VISIBLE = regex.compile(r"[^\p{Z}\p{Cc}\p{Cf}\p{Cs}\p{Default_Ignorable_Code_Point}\u2800]")
"""Any character but white space, formats, fillers, selectors and Braille without dots."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One valid annotation."""

    artemis_id: int
    """By which APOLO knows it: its row in release v0, `OTHER_IDS` and more for rows that are not in that; in
    a csv that is no relative of ArtEmis, its row."""
    art_style: str
    """Of a picture that is named by its file: the folder or data set that the csv gives, or ""."""
    painting: str
    """Of a picture that is named by its file: the file's name."""
    emotion: str
    """One of `ALL_EMOTIONS`."""
    utterance: str
    """White space collapsed to single spaces."""
    repetition: int
    """How many annotations were collected for this artwork; 0 where the csv has no such column."""
    row: int = field(default=-1, compare=False)
    """In the csv, from 0."""
    image: str = ""
    """The picture's file as the csv names it, with ``/``; "" where that is ART_STYLE/PAINTING.jpg."""
    split: str = ""
    """train | val | test | rest where the csv has a column for it."""


@dataclass(frozen=True, slots=True)
class Reject:
    """One thing that was given up: a row of `schema.REJECTS`."""

    source: str
    """File it came from."""
    row: int
    """Its row there, or -1 for a whole file or record."""
    reason: str
    """A short word, to count by."""
    detail: str
    """For people: the value, shortened."""


def read_csv(path: Path, max_chars: int, source: Source = PLAIN) -> Iterator[Annotation | Reject]:
    """Stream the csv's rows in order; memory grows only by a 16-byte digest per row (to find duplicates).

    An utterance of more than `max_chars` characters is rejected. Reject reasons: unclosed-quote,
    field-too-long, wrong-field-count, not-utf8, undecodable, control-character, empty-art-style,
    empty-painting, empty-image, unsafe-name, other-language, unknown-emotion, left-out-emotion,
    unknown-split, empty-utterance, utterance-too-long, bad-repetition, duplicate. Raises `UserError` when the
    file is missing, empty, in another dialect than `source` says, or lacks a column.
    """
    with open_csv(path, source) as file:
        records = read_records(file, source)
        columns = find_columns(path, check_header(path, next(records, None), source), source)
        ids = _Ids(columns)
        seen: set[bytes] = set()
        for number, fields in enumerate(records):
            artemis_id = ids.next(fields, number)
            row = _check(fields, columns, (number, artemis_id), path.name, max_chars, source)
            if isinstance(row, Annotation):
                values = (row.art_style, row.painting, row.emotion, row.utterance, str(row.repetition))
                digest = hashlib.blake2b("\0".join(values).encode(), digest_size=16).digest()
                if digest in seen:
                    row = Reject(path.name, number, "duplicate", shown(row.utterance))
                seen.add(digest)
            yield row


def read_layout(path: Path, source: Source) -> Columns:
    """The layout that the csv's header has, and where its columns are. Raises `UserError` as `read_csv`."""
    with open_csv(path, source) as file:
        return find_columns(path, check_header(path, next(read_records(file, source), None), source), source)


class _Ids:
    """Which row of release v0 each row is.

    ArtEmis v2 puts its own rows first and those of release v0 after them, in their order.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._column = columns.place.get("version", columns.place.get("anchor"))
        self._old = ("old",) if "version" in columns.place else ("", "nan")
        self._count = 0
        self._is_old = True

    def next(self, fields: list[str] | str, row: int) -> int:
        """The id of the csv's next row."""
        if self._column is None:
            return row
        if len(fields) == self._columns.width and isinstance(fields, list):  # else as the row before it
            self._is_old = fields[self._column].strip().lower() in self._old
        if not self._is_old:
            return OTHER_IDS + row
        self._count += 1
        return self._count - 1


def _check(
    fields: list[str] | str,
    columns: Columns,
    numbers: tuple[int, int],
    file: str,
    max_chars: int,
    source: Source,
) -> Annotation | Reject:
    """One record as a row, or the first thing that is wrong with it; `numbers`: its row and its id."""
    number, artemis_id = numbers
    if isinstance(fields, str):
        return Reject(file, number, fields, "given up; the rows after this line are counted on from here")
    if len(fields) != columns.width:
        detail = f"{len(fields)} fields where the header has {columns.width}"
        return Reject(file, number, "wrong-field-count", detail)
    values = {role: fields[at].strip() for role, at in columns.place.items()}
    image = _as_posix(values["image"]) if "image" in values else ""
    folder, _, painting = image.rpartition("/")
    style = values.get("art_style", "")
    row = Annotation(
        artemis_id,
        art_style="/".join(filter(None, (style, folder))) if image else style,
        painting=painting if "image" in values else values["painting"],
        emotion=read_emotion(values["emotion"], source.emotion_map) or "",
        utterance=" ".join(values["utterance"].split()),
        repetition=_count(values["repetition"]) if "repetition" in values else 0,
        row=number,
        image=image,
        split=read_split(values["split"]) or "" if "split" in values else "",
    )
    problem = next(_problems(fields, row, values, max_chars, source), None)
    return row if problem is None else Reject(file, number, *problem)


def _as_posix(image: str) -> str:
    """A picture's file with ``/``, without drive, root, "." and "..": ``C:\\art\\a.jpg`` -> ``art/a.jpg``."""
    parts = re.sub(r"^[A-Za-z]:(?=[\\/])", "", image).replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def _count(text: str) -> int:
    """A number of annotations, or -1. More digits than nine would overflow the column.

    "7.0" is 7: pandas writes a column of counts so when one row of it had none.
    """
    match = _COUNT.fullmatch(text)
    return int(match[1]) if match else -1


def _problems(
    fields: list[str], row: Annotation, values: Mapping[Role, str], max_chars: int, source: Source
) -> Iterator[tuple[str, str]]:
    """What is wrong with a row, as (reason, detail); `fields` are the csv's, `values` those that are used."""
    for text in fields:
        if not text.isprintable():  # false for white space too, but true for nearly all rows, and fast
            yield from _bad_characters(text)
        elif "\ufffd" in text and source.encoding != PLAIN.encoding:
            yield "undecodable", f"a byte that is no {source.encoding} in {shown(text)}"
    if source.language and "language" in values and not read_language(values["language"], source.language):
        yield "other-language", shown(values["language"])
    yield from _bad_names(row, values)
    if not row.emotion:
        yield _bad_emotion(values["emotion"], source.emotion_map)
    if "split" in values and not row.split:
        yield "unknown-split", f"{shown(values['split'])} is none of train, val, test, rest"
    if not _VISIBLE.search(row.utterance):
        yield "empty-utterance", shown(row.utterance) if row.utterance else ""
    if len(row.utterance) > max_chars:
        yield "utterance-too-long", f"{len(row.utterance)} characters, the cap is {max_chars}"
    if row.repetition < 0:
        yield "bad-repetition", f"{shown(values['repetition'])} is no count of annotations"


def _bad_names(row: Annotation, values: Mapping[Role, str]) -> Iterator[tuple[str, str]]:
    """What is wrong with the names of a row's picture."""
    if "image" in values:
        if not row.image:
            yield "empty-image", shown(values["image"]) if values["image"] else ""
        for name in (*row.art_style.split("/"), row.painting):
            if name and (why := _unsafe_name(name)) is not None:
                yield "unsafe-name", f"{shown(name)} {why}"
        return
    for what, name in (("art-style", row.art_style), ("painting", row.painting)):
        if not name:
            yield f"empty-{what}", ""
        if (why := _unsafe_name(name)) is not None:
            yield "unsafe-name", f"{shown(name)} {why}"


def _bad_emotion(word: str, mapped: Mapping[str, str | None]) -> tuple[str, str]:
    """Why a word is no emotion."""
    if read_emotion(word, dict.fromkeys(mapped, ALL_EMOTIONS[0])) is not None:
        return "left-out-emotion", f"utterances.emotion_map maps {shown(word)} to null"
    return "unknown-emotion", f"{shown(word)} is none of {', '.join(ALL_EMOTIONS)}"


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
