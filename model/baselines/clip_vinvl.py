"""The baseline CLIP+VinVL: the recipe of the pseudo-masks (Sec. 4.1) applied to the test items themselves.

Its maps are those that step `masks` made for the items' artworks from their own utterances: EmoSEM's teacher,
given the very utterances that it is scored against.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow.parquet as pq

from model.maps.map_files import decode_png
from pipeline.common.params import Paths
from pipeline.common.schema import shard_stem
from pipeline.common.tables import table_file
from pipeline.common.tars import TarMembers
from pipeline.releases.apolo import ApoloItem

NAME = "clip+vinvl"


class PseudoMasks:
    """The pseudo-masks of some artworks, by item."""

    def __init__(self, paths: Paths, keys: Iterable[str]) -> None:
        wanted = set(keys)
        table = pq.read_table(table_file(paths, "artworks"), columns=["key", "shard"])
        rows = zip(table["key"].to_pylist(), table["shard"].to_pylist(), strict=True)
        shards = sorted({shard for key, shard in rows if key in wanted})
        tars = (paths.step("masks") / f"{shard_stem(shard)}.tar" for shard in shards)
        self._masks = TarMembers(tars, "the masks step")

    def __call__(self, item: ApoloItem) -> np.ndarray | None:
        """The item's map, uint8 (h, w), or None when none was made. Raises `ValueError` for a broken one."""
        data = self._masks.read(f"{item.key}.{item.emotion}.png")
        return None if data is None else decode_png(data)
