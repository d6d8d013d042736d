"""What a step reads of each shard, as digests: what tells when its shard is out of date."""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.common.emotions import EMOTIONS
from pipeline.common.fingerprint import fingerprint, sha256_file
from pipeline.common.params import Paths
from pipeline.common.schema import REGIONS, SIMILARITY
from pipeline.common.tables import UTTERANCE_COLUMNS, file_size, shard_file

SCHEMAS = {"regions": REGIONS, "similarity": SIMILARITY}
"""Of the tables that a step writes by shard."""


def input_digests(
    artworks: pa.Table,
    utterances: pq.ParquetFile,
    columns: Sequence[str],
    wikiart: Path | None = None,
    shards: Collection[int] | None = None,
) -> dict[int, str]:
    """Shard -> digest of what a step reads of its rows in the artworks and utterances tables.

    Rows of one shard may be anywhere in either table; their order counts among the utterances alone.

    Args:
        artworks: `schema.ARTWORKS`.
        utterances: an open file of `schema.UTTERANCES`, read in batches. Of it a step reads
            `UTTERANCE_COLUMNS`, of the eight emotions.
        columns: of the artworks that the step reads.
        wikiart: folder of the pictures, where the digest is also of the files' sizes. What they hold is the
            column ``sha256``, made where all of them are read; the size tells of most changes since then, and
            reading 80,000 pictures again takes longer than many a step.
        shards: only these.
    """
    works = artworks.sort_by("key")
    if shards is not None:
        works = works.filter(pc.is_in(works["shard"], pa.array(list(shards), works["shard"].type)))
    seen = works.select(list(columns))
    if wikiart is not None:
        sizes = [file_size(wikiart / path) for path in works["path"].to_pylist()]
        seen = seen.append_column("bytes", pa.array(sizes, pa.int64()))
    shard_of = works["shard"].to_numpy()
    pictured = {shard: content_digest(rows) for shard, rows in _by_shard(seen, shard_of)}
    written = {shard: ContentDigest(UTTERANCE_COLUMNS) for shard in pictured}
    keys, emotions = works["key"].combine_chunks(), pa.array(EMOTIONS)
    for batch in utterances.iter_batches(columns=list(UTTERANCE_COLUMNS)):  # not half a million rows at once
        place = pc.index_in(batch["key"], value_set=keys)
        wanted = pc.and_(place.is_valid(), pc.is_in(batch["emotion"], value_set=emotions))
        rows = pa.Table.from_batches([batch.filter(wanted)])
        for shard, part in _by_shard(rows, shard_of[place.filter(wanted).to_numpy()]):
            written[shard].update(part)
    return {shard: fingerprint(digest, written[shard].hexdigest()) for shard, digest in pictured.items()}


def _by_shard(rows: pa.Table, shards: np.ndarray) -> Iterator[tuple[int, pa.Table]]:
    """Yield (shard, its rows in their order), where `shards` holds the shard of every row."""
    if np.any(shards[1:] < shards[:-1]):
        order = np.argsort(shards, kind="stable")
        rows, shards = rows.take(order), shards[order]
    cuts = (np.flatnonzero(np.diff(shards)) + 1).tolist()
    for start, stop in itertools.pairwise([0, *cuts, len(shards)]):
        if stop > start:
            yield int(shards[start]), rows.slice(start, stop - start)


def columns_digest(paths: Paths, step: str, shard: int, columns: Sequence[str], lineage: bool = False) -> str:
    """Digest of what some columns of a shard's table hold, see `content_digest`.

    A file that cannot be read has that of its bytes: its shard then fails by itself, and not the whole run.

    Args:
        paths: where the step wrote.
        step: regions or similarity.
        shard: its number.
        columns: of the step's schema.
        lineage: also of what the file says it was made with.

    Raises `UserError` when the step has not written it.
    """
    path = shard_file(paths, step, shard)
    try:
        content = content_digest(pq.read_table(path, schema=SCHEMAS[step], columns=list(columns)))
        made_with = (pq.read_schema(path).metadata or {}).get(b"lineage", b"") if lineage else b""
    except (OSError, pa.ArrowException):
        return sha256_file(path)
    return fingerprint(content, made_with.hex())


class ContentDigest:
    """Digest of columns' names and values, rows in order: float bits, lengths and UTF-8, nulls told apart.

    Compression, dictionaries, row groups, chunks and whatever else a file or Arrow does with the same values
    play no part, nor does the order of the columns. Columns are numbers, strings, and lists of them.

    Args:
        columns: names of the columns that every part holds.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._levels: dict[str, defaultdict[int, Any]] = {
            name: defaultdict(hashlib.sha256) for name in columns
        }

    def update(self, rows: pa.Table) -> None:
        """Take in the next rows."""
        for name, levels in self._levels.items():
            for chunk in rows[name].chunks:
                for level, data in enumerate(_levels(chunk) if len(chunk) else ()):
                    levels[level].update(data)

    def hexdigest(self) -> str:
        """The digest of all rows so far."""
        return fingerprint(
            {
                name: [levels[level].hexdigest() for level in sorted(levels)]
                for name, levels in self._levels.items()
            }
        )


def content_digest(table: pa.Table) -> str:
    """`ContentDigest` of a whole table."""
    digest = ContentDigest(table.column_names)
    digest.update(table)
    return digest.hexdigest()


def _levels(values: pa.Array) -> Iterator[Any]:
    """Bytes of an array from the outside in: how long each list or string is (-1: null), then what it holds.

    The bytes of two arrays, joined level by level, are those of the arrays joined.
    """
    present = values.drop_null()
    if pa.types.is_list(values.type):
        yield pc.fill_null(pc.list_value_length(values), -1).to_numpy().tobytes()
        yield from _levels(present.flatten())
    elif pa.types.is_string(values.type):
        yield pc.fill_null(pc.binary_length(values), -1).to_numpy().tobytes()
        joined = pc.binary_join(pa.ListArray.from_arrays([0, len(present)], present), "")
        yield joined[0].as_buffer()
    else:
        yield values.is_valid().to_numpy(zero_copy_only=False).tobytes()
        yield present.to_numpy().tobytes()
