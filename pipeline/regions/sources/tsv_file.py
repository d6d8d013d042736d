"""Tab-separated files with one row per picture, as scene_graph_benchmark and Oscar write them.

They hold tens of gigabytes (features as base64 text), so they are read once from end to end, for an index of
where each row lies, and then by row. The `.lineidx` that may lie beside such a file is never read: its writer
counted characters, so a name like "eugène" moves every later offset.
The pass also takes the SHA-256, which is the file's identity in fingerprints: size and time alone would redo
every shard in each copy, and miss an edit that keeps them.

Pictures are named in such a file as their user pleased. Rows are matched to artworks by painting, in any
spelling that `names.plain_name` knows, with or without extension and folders; the folder decides between
two styles of one painting. An artwork's key works as well.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.common.errors import UserError
from pipeline.common.files import write_parquet
from pipeline.common.fingerprint import fingerprint
from pipeline.common.params import Paths
from pipeline.regions.sources.source import Artwork
from pipeline.releases.names import plain_name

FOLDER = "tsv_index"
"""Under paths.data: a cache, which may be deleted at any time."""
EDGE = 1 << 20
"""Bytes at either end that, with size and time, tell whether an index still fits its file."""
PIECE = 1 << 24
"""Bytes of a row held at once by the pass over the file."""
MAX_ROW = 1 << 28
"""Bytes; a longer row is taken for a file without line ends, and never read whole."""
MAX_NAME = 4096
"""Bytes; a longer first column is no picture's name."""
EXTENSION = re.compile(r"\.(jpe?g|png|webp|gif|tiff?|bmp)$", re.IGNORECASE)
QUOTED = re.compile(r"""^(["'])(.*)\1$""", re.DOTALL)
BYTES_LITERAL = re.compile(r"""b(['"]).*\1""", re.DOTALL)
INDEX = pa.schema([("name", pa.string()), ("offset", pa.int64()), ("length", pa.int64())])


class BadRow(Exception):  # noqa: N818 - named for what it says, as `wikiart.BadImage`
    """A row that cannot be used; `reason` is one short word, `detail` is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def unwrapped(text: str) -> str:
    """A value that was printed as Python bytes, ``b'...'``, without its wrapping; others unchanged."""
    text = text.strip()
    if not BYTES_LITERAL.fullmatch(text):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return _decoded(value) if isinstance(value, bytes) else text


def _decoded(data: bytes) -> str:
    """UTF-8, or Latin-1 for what is none: every byte string is some name."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def split_name(name: str) -> tuple[str, str]:
    """(folder, painting) of a picture's name in a file: no extension, no further folders."""
    parts = QUOTED.sub(r"\2", unwrapped(name)).replace("\\", "/").rstrip("/").split("/")
    folder = parts[-2] if len(parts) > 1 else ""
    return folder, EXTENSION.sub("", parts[-1].replace("#", "."))


def _plain(name: str) -> str:
    return plain_name(name).replace(" ", "_")


@dataclass(frozen=True)
class Tsv:
    """A file and where its rows lie. See `open_tsv`."""

    path: Path
    sha256: str
    malformed: int
    """Rows without a name or a second column, or too long; never matched."""
    names: list[str]
    """First column of the rows, in the file's order."""
    offsets: np.ndarray
    """int64 (rows), bytes."""
    lengths: np.ndarray
    """int64 (rows), bytes, the line's end included."""

    def __len__(self) -> int:
        return len(self.names)

    @functools.cached_property
    def _by_painting(self) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(self.names):
            rows.setdefault(_plain(split_name(name)[1]), []).append(row)
        return rows

    def find(self, artwork: Artwork) -> int | None:
        """The row of an artwork, or None.

        Of several, the one whose name is the painting's to the letter, then the one in a folder named as
        the art style, then one without a folder, then the first.
        """
        candidates = self._by_painting.get(_plain(artwork["painting"])) or self._by_painting.get(
            artwork["key"]
        )
        if not candidates:
            return None
        style = _plain(artwork["art_style"])

        def misfit(row: int) -> tuple[bool, int, int]:
            folder, painting = split_name(self.names[row])
            place = 0 if _plain(folder) == style else 1 if not folder else 2
            return painting != artwork["painting"], place, row

        return min(candidates, key=misfit)

    def columns_of(self, file: IO[bytes], artwork: Artwork) -> list[str]:
        """The columns of an artwork's row, after the name. `file`: this file, open for reading bytes.

        Raises `BadRow` (not-in-source), and `UserError` when the row is not where the index says: then the
        file was changed meanwhile.
        """
        row = self.find(artwork)
        if row is None:
            raise BadRow("not-in-source", f"no row for {artwork['art_style']}/{artwork['painting']}")
        file.seek(int(self.offsets[row]))
        line = file.read(int(self.lengths[row])).rstrip(b"\r\n")
        name, *columns = (_decoded(part) for part in line.split(b"\t"))
        if name != self.names[row]:
            raise UserError(f"{self.path} was changed while it was read; run again once it is complete")
        return columns

    def counts(self, works: Sequence[Artwork]) -> dict[str, int]:
        """Rows that artworks use, that none uses, and malformed ones. Raises `UserError` if none is used."""
        used = {row for work in works if (row := self.find(work)) is not None}
        if works and not used:
            theirs = ", ".join(repr(name[:80]) for name in self.names[:3]) or "there are none"
            raise UserError(
                f"none of the {len(works)} artworks is in {self.path}. Its rows are named {theirs}; "
                f"paintings are named {works[0]['painting']!r}, with or without {works[0]['art_style']!r}/ "
                "before and .jpg after"
            )
        return {
            "tsv_rows": len(self) + self.malformed,
            "tsv_unused": len(self) - len(used),
            "tsv_malformed": self.malformed,
        }


def open_tsv(path: Path | None, key: str, paths: Paths) -> Tsv:
    """A file with its index, which is made on the first use and kept in ``paths.data/tsv_index``.

    key: the params key that names the file, for messages. Raises `UserError` when it is unset or missing.
    """
    if path is None:
        raise UserError(f"regions.{key} must name the file to read")
    if not path.is_file():
        raise UserError(f"{path} does not exist; correct regions.{key}")
    stat = path.stat()
    return _open_at(path, paths.step(FOLDER), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _open_at(path: Path, folder: Path, size: int, mtime_ns: int) -> Tsv:
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    cached = folder / f"{path.name}.{place}.parquet"
    stamp = f"1 {size} {mtime_ns} {_edges(path, size)}"
    table = _read_index(cached, stamp)
    if table is None:
        print(f"regions: reading {path} once, {size / 1e9:.1f} GB, to index its rows", file=sys.stderr)
        table = _make_index(path, stamp)
        write_parquet(cached, table)
    facts = table.schema.metadata
    return Tsv(
        path,
        sha256=facts[b"sha256"].decode(),
        malformed=int(facts[b"malformed"]),
        names=table["name"].to_pylist(),
        offsets=table["offset"].to_numpy(),
        lengths=table["length"].to_numpy(),
    )


def _edges(path: Path, size: int) -> str:
    with path.open("rb") as file:
        head = file.read(EDGE)
        file.seek(max(0, size - EDGE))
        return hashlib.sha256(head + file.read(EDGE)).hexdigest()


def _read_index(cached: Path, stamp: str) -> pa.Table | None:
    """The kept index, if it is of this very file, and as it was written."""
    try:
        table = pq.read_table(cached)
        facts = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        whole = facts.pop("index_sha256", None) == _index_digest(table, facts)
    except (OSError, ValueError, pa.ArrowException):  # as rotten bytes show: a cache is made again
        return None
    return table if whole and facts.get("stamp") == stamp else None


def _index_digest(table: pa.Table, facts: dict[str, str]) -> str:
    return fingerprint({name: table[name].to_pylist() for name in table.column_names}, facts)


def _make_index(path: Path, stamp: str) -> pa.Table:
    """One pass over the file."""
    digest = hashlib.sha256()
    rows: list[tuple[str, int, int]] = []
    malformed = 0
    with path.open("rb", buffering=1 << 22) as file:
        for head, offset, length in _lines(file, digest):
            name, tab, _ = head.partition(b"\t")
            if tab and name.strip() and length <= MAX_ROW:
                rows.append((_decoded(name), offset, length))
            elif head.strip():
                malformed += 1
    columns = zip(*rows, strict=True) if rows else ([], [], [])
    facts = {"stamp": stamp, "sha256": digest.hexdigest(), "malformed": str(malformed)}
    arrays = [pa.array(column, field.type) for column, field in zip(columns, INDEX, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=INDEX)
    return table.replace_schema_metadata({**facts, "index_sha256": _index_digest(table, facts)})


def _lines(file: IO[bytes], digest: Any) -> Iterator[tuple[bytes, int, int]]:
    """(first bytes, offset, length) of every line, a piece at a time: a line may be the whole file."""
    offset = 0
    while piece := file.readline(PIECE):
        head, start = piece[: MAX_NAME + 1], offset
        while piece:
            digest.update(piece)
            offset += len(piece)
            piece = b"" if piece.endswith(b"\n") else file.readline(PIECE)
        yield head, start, offset - start
