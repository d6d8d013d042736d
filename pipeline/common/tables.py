"""The tables that `utterances` and `regions` wrote: whole, or one shard's rows of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.common.digests import check_file
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.common.schema import ARTWORKS, REGIONS, shard_stem

UTTERANCE_COLUMNS = ("key", "emotion", "artemis_id", "utterance")
"""What any step reads of `schema.UTTERANCES`."""

Groups = dict[tuple[str, str], dict[str, list[Any]]]
"""(key, emotion) -> ``artemis_id`` and ``utterance`` lists."""


def shard_file(paths: Paths, step: str, shard: int) -> Path:
    """The Parquet file of a shard. Raises `UserError` when the step has not written it."""
    path = paths.step(step) / f"{shard_stem(shard)}.parquet"
    if not path.is_file():
        raise UserError(f"{path} does not exist; run the {step} step first")
    return path


def whole_shard_file(paths: Paths, step: str, shard: int) -> Path:
    """`shard_file`, whose bytes are those that the step wrote. Raises also `DamagedFile`."""
    return check_file(shard_file(paths, step, shard))


def open_artworks(paths: Paths) -> pa.Table:
    """All of `schema.ARTWORKS`, sorted by key. Raises `UserError` when the utterances step has not run."""
    return pq.read_table(table_file(paths, "artworks"), schema=ARTWORKS).sort_by("key")


def open_utterances(paths: Paths) -> pq.ParquetFile:
    """The file of `schema.UTTERANCES`, to be read in batches: it may hold half a million rows.

    Raises `UserError` when the utterances step has not run.
    """
    return pq.ParquetFile(table_file(paths, "utterances"))


def rows_by_shard(artworks: pa.Table, columns: Sequence[str]) -> dict[int, list[dict[str, Any]]]:
    """Shard -> its rows of `schema.ARTWORKS`, in the order of the table; `columns`: shard among them."""
    shards: dict[int, list[dict[str, Any]]] = {}
    for row in artworks.select(list(columns)).to_pylist():
        shards.setdefault(row["shard"], []).append(row)
    return shards


def read_artworks(paths: Paths, shard: int) -> list[dict[str, Any]]:
    """Rows of `schema.ARTWORKS` in a shard, sorted by key; only the shard's part of the file is read."""
    file = table_file(paths, "artworks")
    table = pq.read_table(file, schema=ARTWORKS, filters=[("shard", "=", shard)])
    rows: list[dict[str, Any]] = table.sort_by("key").to_pylist()
    return rows


def read_groups(paths: Paths, shard: int) -> Groups:
    """The utterances about a shard's artworks, by key, then in the order of `EMOTIONS`.

    Utterances are in the order of the csv; those of "something else" are left out. As `read_artworks`, it
    costs the shard's rows and not the table, because the utterances step wrote them together.
    """
    keys = [work["key"] for work in read_artworks(paths, shard)]
    if not keys:
        return {}
    near = (pc.field("key") >= keys[0]) & (pc.field("key") <= keys[-1])  # what row groups can be skipped by
    wanted = pc.field("key").isin(keys) & pc.field("emotion").isin(EMOTIONS)
    table = pq.read_table(table_file(paths, "utterances"), filters=near & wanted)
    groups: Groups = {}
    columns = (table.sort_by("artemis_id")[name].to_pylist() for name in UTTERANCE_COLUMNS)
    for key, emotion, artemis_id, utterance in zip(*columns, strict=True):
        group = groups.setdefault((key, emotion), {"artemis_id": [], "utterance": []})
        group["artemis_id"].append(artemis_id)
        group["utterance"].append(utterance)
    order = sorted(groups, key=lambda pair: (pair[0], EMOTIONS.index(pair[1])))
    return {pair: groups[pair] for pair in order}


def read_regions(paths: Paths, shard: int) -> dict[str, tuple[np.ndarray, str]]:
    """Key -> boxes, float32 (N, 4) xyxy in pixels of the upright picture, and the detector's name."""
    file = whole_shard_file(paths, "regions", shard)
    table = pq.read_table(file, schema=REGIONS, columns=["key", "boxes", "source"])
    return {
        row["key"]: (np.array(row["boxes"], np.float32).reshape(-1, 4), row["source"])
        for row in table.to_pylist()
    }


def table_file(paths: Paths, name: str) -> Path:
    """The file of a table of the utterances step. Raises `UserError` when it is absent or damaged."""
    path = paths.step("utterances") / f"{name}.parquet"
    if not path.is_file():
        raise UserError(f"{path} does not exist; run the utterances step first")
    return check_file(path)


def file_size(path: Path) -> int:
    """Bytes of a file, -1 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
