"""Which artworks of the utterances are in the index, and why others are not: the table that ends a step."""

from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from pipeline.common.params import Paths
from pipeline.common.tally import Tally, by_reason
from pipeline.reader.rejections import rejections

UNKNOWN = "in no tar, and no step says why"
"""Cannot be, of shards that the step has reconciled."""


def tally_index(paths: Paths, split: str | None = None) -> Tally:
    """Artworks of a split, or of all, in ``data/shards/index.parquet``; left out with the rejecting step.

    Shards that came without the tables of the steps (from the hub) have nothing to be compared with.
    """
    unit = "artworks" if split is None else f"{split} artworks"
    filters = None if split is None else [("split", "=", split)]
    index = pq.read_table(paths.step("shards") / "index.parquet", columns=["key"], filters=filters)
    kept, table = set(index["key"].to_pylist()), paths.step("utterances") / "artworks.parquet"
    if not table.is_file():
        return Tally(unit, len(kept), {})
    works = pq.read_table(table, columns=["key", "shard"], filters=filters).to_pylist()
    lost = [work for work in works if work["key"] not in kept]
    why = {shard: rejections(paths, shard) for shard in {work["shard"] for work in lost}}
    reasons = ((why[work["shard"]].get(work["key"], UNKNOWN), work["key"]) for work in lost)
    return Tally(unit, len(kept), by_reason(reasons))


def tally_shards(paths: Paths, _counts: Mapping[str, Any]) -> list[Tally]:
    """All artworks."""
    return [tally_index(paths)]
