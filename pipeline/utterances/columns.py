"""The annotations of an ArtEmis csv in columns, and the artworks they are about."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from pipeline.common import schema
from pipeline.releases.artemis import Annotation, Reject

Name = tuple[str, str]
"""(art style, painting), as the csv spells them."""

CHUNK = 65_536
"""Rows gathered before they become an Arrow batch: Python objects of a whole ArtEmis would need gigabytes."""
COLUMNS = pa.schema(
    [
        ("row", pa.int64()),  # of the csv
        ("artemis_id", pa.int64()),
        ("work", pa.int32()),  # position of its name in `Annotations.works`
        ("emotion", pa.string()),
        ("utterance", pa.string()),
        ("repetition", pa.int32()),
    ]
)
"""Of `Annotations.batches`."""


@dataclasses.dataclass(slots=True, eq=False)
class Artwork:
    """One artwork of the csv; its split and its picture are found later."""

    number: int
    """Position among the csv's names, in the order of the csv."""
    art_style: str
    painting: str
    key: str
    image: str = ""
    """Its picture's file as the csv names it; "" where that is ART_STYLE/PAINTING.jpg."""
    listed: set[str] = dataclasses.field(default_factory=set)
    """The splits that the csv has for its rows."""
    names: dict[Name, int] = dataclasses.field(default_factory=dict)
    """All names that the csv has for it, each with the largest repetition of its rows."""
    split: str = ""
    path: str | None = None
    """Of its picture, relative to paths.wikiart."""
    size: tuple[int, int] = (0, 0)
    """Upright width and height, pixels."""
    sha256: str | None = None
    """Of its picture's file; None where its bytes were not read."""
    phash: str | None = None
    """`perceptual_hash` of its picture; None where its pixels were not read."""
    problem: Reject | None = None
    """Why its picture cannot be used."""


@dataclasses.dataclass
class Annotations:
    """The csv's valid rows in columns, its artworks, and its rejects."""

    batches: list[pa.RecordBatch] = dataclasses.field(default_factory=list)
    """Of `COLUMNS`, in the order of the csv."""
    works: dict[Name, Artwork] = dataclasses.field(default_factory=dict)
    """By name, in the order of the csv: the nth is that of `COLUMNS`' work n. Several names may have one."""
    rejects: list[Reject] = dataclasses.field(default_factory=list)
    count: int = 0
    """Rows of the csv, rejects included."""


def gather(stream: Iterable[Annotation | Reject]) -> Annotations:
    """Turn the csv's stream into columns, batch by batch."""
    rows = Annotations()
    pending = _columns()
    for row in stream:
        rows.count += 1
        if isinstance(row, Reject):
            rows.rejects.append(row)
            continue
        name = (row.art_style, row.painting)
        work = rows.works.get(name)
        if work is None:
            key = schema.artwork_key(*name)
            work = rows.works[name] = Artwork(len(rows.works), *name, key, row.image)
        work.listed |= {row.split} - {""}
        work.names[name] = max(work.names.get(name, 0), row.repetition)
        values = (row.row, row.artemis_id, work.number, row.emotion, row.utterance, row.repetition)
        for column, value in zip(pending, values, strict=True):
            column.append(value)
        if len(pending[0]) == CHUNK:
            rows.batches.append(_batch(pending))
            pending = _columns()
    rows.batches.append(_batch(pending))
    return rows


def _columns() -> tuple[list[Any], ...]:
    return tuple([] for _ in COLUMNS)


def _batch(columns: tuple[list[Any], ...]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, COLUMNS, strict=True)],
        schema=COLUMNS,
    )
