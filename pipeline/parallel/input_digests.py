"""What a step reads of each shard, as digests: what tells when its shard is out of date."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.common.emotions import EMOTIONS
from pipeline.common.fingerprint import fingerprint, sha256_file
from pipeline.common.params import Paths
from pipeline.common.schema import ARTWORKS, REGIONS, SIMILARITY
from pipeline.common.tables import UTTERANCE_COLUMNS, file_size, shard_file, table_file

SCHEMAS = {"regions": REGIONS, "similarity": SIMILARITY}
"""Of the tables that a step writes by shard."""


def input_digests(
    paths: Paths,
    pictures: bool,
    columns: Sequence[str] = tuple(ARTWORKS.names),
    shards: Collection[int] | None = None,
) -> dict[int, str]:
    """Shard -> digest of what a step reads of its rows in the artworks and utterances tables.

    Args:
        paths: where the tables and pictures lie.
        pictures: also of the picture files' sizes. Sizes and not contents: reading 80,000 pictures takes
            longer than many a step, a changed picture nearly always changes its size, and times differ in
            every copy.
        columns: of `schema.ARTWORKS` that the step reads. Of the utterances it is
            `UTTERANCE_COLUMNS`, of the eight emotions.
        shards: only these.

    Raises `UserError` when the utterances step has not run.
    """
    works = pq.read_table(table_file(paths, "artworks")).to_pandas().sort_values("key")
    if shards is not None:
        works = works[works["shard"].isin(list(shards))]
    shard_of = works.set_index("key")["shard"]
    words = {shard: hashlib.sha256() for shard in works["shard"].unique().tolist()}
    seen = works[list(columns)]
    if pictures:
        seen = seen.assign(bytes=[file_size(paths.wikiart / path) for path in works["path"]])
    utterances = pq.ParquetFile(table_file(paths, "utterances"))
    for batch in utterances.iter_batches(
        columns=list(UTTERANCE_COLUMNS)
    ):  # never the whole table: half a million rows
        rows = batch.filter(pc.is_in(batch["emotion"], pa.array(EMOTIONS))).to_pandas()
        for shard, part in rows.groupby(rows["key"].map(shard_of), sort=False):
            words[shard].update(_row_hashes(part))
    return {
        shard: fingerprint(
            hashlib.sha256(_row_hashes(seen[works["shard"] == shard])).hexdigest(), digest.hexdigest()
        )
        for shard, digest in words.items()
    }


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


def content_digest(table: pa.Table) -> str:
    """Digest of columns' names and values, rows in order: float bits, lengths and UTF-8, nulls told apart.

    Compression, dictionaries, row groups, chunks and whatever else a file or Arrow does with the same values
    play no part, nor does the order of the columns. Columns are numbers, strings, and lists of them.
    """
    digests = {}
    for name in table.column_names:
        levels: defaultdict[int, Any] = defaultdict(hashlib.sha256)
        for chunk in table[name].chunks:
            for level, data in enumerate(_levels(chunk) if len(chunk) else ()):
                levels[level].update(data)
        digests[name] = [levels[level].hexdigest() for level in sorted(levels)]
    return fingerprint(digests)


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


def _row_hashes(frame: pd.DataFrame) -> bytes:
    """One 64-bit hash per row."""
    return pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes()
