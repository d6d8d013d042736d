"""What step `masks` reads of a shard: its tables by key, their numbers as arrays and not as objects."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.common.params import Paths
from pipeline.common.schema import REGIONS, SIMILARITY
from pipeline.common.tables import read_groups, whole_shard_file

Group = dict[str, list[Any]]
"""``artemis_id`` and ``utterance`` lists."""


def read_utterances(paths: Paths, shard: int) -> dict[str, dict[str, Group]]:
    """Key -> emotion -> what was said, in the order of `EMOTIONS`."""
    found: dict[str, dict[str, Group]] = {}
    for (key, emotion), group in read_groups(paths, shard).items():
        found.setdefault(key, {})[emotion] = group
    return found


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
