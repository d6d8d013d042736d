"""One shard's rows of the tables that `utterances` and `regions` wrote, and what tells when they changed."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.emotions import EMOTIONS
from pipeline.params import Paths, UserError, fingerprint
from pipeline.schema import ARTWORKS, REGIONS, SIMILARITY, shard_stem
from pipeline.storage import sha256_file

SAID = ("key", "emotion", "artemis_id", "utterance")
"""What any step reads of `schema.UTTERANCES`."""
SCHEMAS = {"regions": REGIONS, "similarity": SIMILARITY}
"""Of the tables that a step writes by shard."""

Groups = dict[tuple[str, str], dict[str, list[Any]]]
"""(key, emotion) -> ``artemis_id`` and ``utterance`` lists."""


def shard_file(paths: Paths, step: str, shard: int) -> Path:
    """The Parquet file of a shard. Raises `UserError` when the step has not written it."""
    path = paths.step(step) / f"{shard_stem(shard)}.parquet"
    if not path.is_file():
        raise UserError(f"{path} does not exist; run the {step} step first")
    return path


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
        columns: of `schema.ARTWORKS` that the step reads. Of the utterances it is `SAID`, of the eight
            emotions.
        shards: only these.

    Raises `UserError` when the utterances step has not run.
    """
    works = pq.read_table(_table(paths, "artworks")).to_pandas().sort_values("key")
    if shards is not None:
        works = works[works["shard"].isin(list(shards))]
    shard_of = works.set_index("key")["shard"]
    words = {shard: hashlib.sha256() for shard in works["shard"].unique().tolist()}
    seen = works[list(columns)]
    if pictures:
        seen = seen.assign(bytes=[file_size(paths.wikiart / path) for path in works["path"]])
    said = pq.ParquetFile(_table(paths, "utterances"))
    for batch in said.iter_batches(columns=list(SAID)):  # never the whole table: half a million rows
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


def read_artworks(paths: Paths, shard: int) -> list[dict[str, Any]]:
    """Rows of `schema.ARTWORKS` in a shard, sorted by key; only the shard's part of the file is read."""
    table = pq.read_table(_table(paths, "artworks"), filters=[("shard", "=", shard)])
    rows: list[dict[str, Any]] = table.sort_by("key").to_pylist()
    return rows


def read_groups(paths: Paths, shard: int) -> Groups:
    """What was said about a shard's artworks, by key, then in the order of `EMOTIONS`.

    Utterances are in the order of the csv; those of "something else" are left out. As `read_artworks`, it
    costs the shard's rows and not the table, because the utterances step wrote them together.
    """
    keys = [work["key"] for work in read_artworks(paths, shard)]
    if not keys:
        return {}
    near = (pc.field("key") >= keys[0]) & (pc.field("key") <= keys[-1])  # what row groups can be skipped by
    wanted = pc.field("key").isin(keys) & pc.field("emotion").isin(EMOTIONS)
    table = pq.read_table(_table(paths, "utterances"), filters=near & wanted)
    groups: Groups = {}
    columns = (table.sort_by("artemis_id")[name].to_pylist() for name in SAID)
    for key, emotion, artemis_id, utterance in zip(*columns, strict=True):
        group = groups.setdefault((key, emotion), {"artemis_id": [], "utterance": []})
        group["artemis_id"].append(artemis_id)
        group["utterance"].append(utterance)
    order = sorted(groups, key=lambda pair: (pair[0], EMOTIONS.index(pair[1])))
    return {pair: groups[pair] for pair in order}


def read_regions(paths: Paths, shard: int) -> dict[str, tuple[np.ndarray, str]]:
    """Key -> boxes, float32 (N, 4) xyxy in pixels of the upright picture, and the detector's name."""
    table = pq.read_table(
        shard_file(paths, "regions", shard), schema=REGIONS, columns=["key", "boxes", "source"]
    )
    return {
        row["key"]: (np.array(row["boxes"], np.float32).reshape(-1, 4), row["source"])
        for row in table.to_pylist()
    }


def _table(paths: Paths, name: str) -> Path:
    """The file of a table of the utterances step. Raises `UserError` when it is not there."""
    path = paths.step("utterances") / f"{name}.parquet"
    if not path.is_file():
        raise UserError(f"{path} does not exist; run the utterances step first")
    return path


def file_size(path: Path) -> int:
    """Bytes of a file, -1 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _row_hashes(frame: pd.DataFrame) -> bytes:
    """One 64-bit hash per row."""
    return pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes()
