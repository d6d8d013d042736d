"""What step `masks` reads of a shard: its tables by key, their numbers as arrays and not as objects.

It works through a shard in a fifth of a second, in which the footers of tables with hundreds of row groups
would be read several times: they are read once in a process.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.common.emotions import EMOTIONS
from pipeline.common.params import Paths
from pipeline.common.schema import REGIONS, SIMILARITY
from pipeline.common.tables import UTTERANCE_COLUMNS, table_file, whole_shard_file

Group = dict[str, list[Any]]
"""``artemis_id`` and ``utterance`` lists."""


def read_works(paths: Paths, shard: int, columns: Sequence[str]) -> list[dict[str, Any]]:
    """``key`` and these columns of `schema.ARTWORKS` in a shard, sorted by key, as `tables.read_artworks`."""
    table = _read_near(table_file(paths, "artworks"), "shard", shard, shard, ("key", *columns))
    rows: list[dict[str, Any]] = table.sort_by("key").to_pylist()
    return rows


def read_utterances(paths: Paths, keys: Sequence[str]) -> dict[str, dict[str, Group]]:
    """Key -> emotion -> what was said, in the order of `EMOTIONS`, as `tables.read_groups`.

    `keys`: of a shard's artworks, sorted.
    """
    found: dict[str, dict[str, Group]] = {key: {} for key in keys}
    if not keys:
        return found
    file = table_file(paths, "utterances")
    table = _read_near(file, "key", keys[0], keys[-1], UTTERANCE_COLUMNS).sort_by("artemis_id")
    for key, emotion, artemis_id, utterance in zip(*(c.to_pylist() for c in table.columns), strict=True):
        if key in found and emotion in EMOTIONS:
            group = found[key].setdefault(emotion, {"artemis_id": [], "utterance": []})
            group["artemis_id"].append(artemis_id)
            group["utterance"].append(utterance)
    return {
        key: {emotion: groups[emotion] for emotion in EMOTIONS if emotion in groups}
        for key, groups in found.items()
    }


class _Footer(NamedTuple):
    metadata: pq.FileMetaData
    ranges: list[tuple[Any, Any] | None]
    """Of each row group the least and the greatest value of a column, where they are noted."""


def _read_near(file: Path, column: str, low: Any, high: Any, wanted: Sequence[str]) -> pa.Table:
    """Columns of the rows with `column` from `low` to `high`; other row groups are not read."""
    status = file.stat()
    footer = _footer(file, column, status.st_ino, status.st_size, status.st_mtime_ns)
    near = [n for n, span in enumerate(footer.ranges) if span is None or (span[0] <= high and low <= span[1])]
    with pq.ParquetFile(file, metadata=footer.metadata) as parquet:
        table = parquet.read_row_groups(near, [*dict.fromkeys((*wanted, column))], use_threads=False)
    inside = pc.and_(pc.greater_equal(table[column], low), pc.less_equal(table[column], high))
    return table.filter(inside).select(list(wanted))


@functools.lru_cache(maxsize=8)
def _footer(file: Path, column: str, *_stamp: int) -> _Footer:
    metadata = pq.read_metadata(file)
    at = metadata.schema.names.index(column)
    ranges: list[tuple[Any, Any] | None] = []
    for number in range(metadata.num_row_groups):
        noted = metadata.row_group(number).column(at).statistics
        ranges.append((noted.min, noted.max) if noted is not None and noted.has_min_max else None)
    return _Footer(metadata, ranges)


def read_boxes(paths: Paths, shard: int) -> dict[str, tuple[np.ndarray, str]]:
    """Key -> boxes, float32 (N, 4) xyxy in pixels of the upright picture, and the detector's name.

    Raises `ValueError` for a box of other than four numbers.
    """
    file = whole_shard_file(paths, "regions", shard)
    table = pq.read_table(file, schema=REGIONS, columns=["key", "boxes", "source"])
    ends, boxes = _lists(table["boxes"].combine_chunks())
    sides, numbers = _lists(boxes)
    if not np.array_equal(sides, np.arange(0, 4 * len(boxes) + 1, 4)):
        raise ValueError(f"{file} has a box of other than four numbers")
    corners = numbers.to_numpy().reshape(-1, 4)
    rows = zip(table["key"].to_pylist(), ends, ends[1:], table["source"].to_pylist(), strict=False)
    return {key: (corners[begin:end], source) for key, begin, end, source in rows}


def read_masks(paths: Paths, shard: int) -> dict[str, list[str | None] | None]:
    """Key -> the masks of its regions, as stored."""
    table = pq.read_table(whole_shard_file(paths, "regions", shard), schema=REGIONS, columns=["key", "masks"])
    return dict(zip(table["key"].to_pylist(), table["masks"].to_pylist(), strict=True))


def read_scores(paths: Paths, shard: int) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
    """Key -> emotion -> float32 (N,), one cosine per region; and the table's lineage."""
    table = pq.read_table(whole_shard_file(paths, "similarity", shard))
    similar = table.select(SIMILARITY.names)
    ends, scores = _lists(similar["scores"].combine_chunks())
    numbers = scores.to_numpy()
    found: dict[str, dict[str, np.ndarray]] = {}
    rows = zip(similar["key"].to_pylist(), similar["emotion"].to_pylist(), ends, ends[1:], strict=False)
    for key, emotion, begin, end in rows:
        found.setdefault(key, {})[emotion] = numbers[begin:end]
    return found, json.loads((table.schema.metadata or {}).get(b"lineage", b"{}"))


def _lists(column: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Where lists (L,) begin and end among their values, int64 (L + 1,), and the values; null is empty."""
    counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]), column.flatten()
