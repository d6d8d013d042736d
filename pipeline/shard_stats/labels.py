"""The labels of a shards folder as columns, with what is suspicious about each: no tar is touched."""

from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
from pydantic import Field

from pipeline.common.digests import check_file
from pipeline.common.errors import UserError
from pipeline.common.params import STRICT
from pipeline.common.schema import LABELS

Share = Annotated[float, Field(ge=0, le=1)]

FLAGS = ("altered", "nothing", "everything", "flat", "twin", "lost")
"""What can be wrong with a label, worst first:

altered      the stored mask is not what its recipe makes of the tables: swapped, shifted, emptied, edited
nothing      hardly a pixel is above the protocol's threshold
everything   nearly all pixels are
flat         all regions fit the utterances about as well
twin         another emotion of the artwork has the same mask
lost         the utterances fit most other artworks of the shard better than their own
"""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ShardStatsParams:
    """From which value on a label is flagged, and how much is listed."""

    altered: Share = 0.8
    """Correlation with what the recipe makes below this. At 64 pixels, sound masks of the built-in gallery
    have 0.97 and more."""
    nothing: Share = 0.002
    """Share of the artwork above the threshold at or below this."""
    everything: Share = 0.9
    """Share of the artwork above the threshold at or above this."""
    flat: Annotated[float, Field(ge=0)] = 0.01
    """Cosine of the best region less the mean over regions below this."""
    twin: Share = 0.999
    """Correlation with the mask of another emotion at or above this."""
    lost: Share = 0.25
    """Share of other artworks that the utterances fit less well, below this; 0.5 is chance."""
    near: Annotated[int, Field(ge=0, le=16)] = 4
    """Bits of 64 by which perceptual hashes of near duplicates may differ."""


class Labels:
    """`schema.LABELS` of a folder, in the order of the index.

    Args:
        table: the rows.
        params: the thresholds.
    """

    def __init__(self, table: pa.Table, params: ShardStatsParams) -> None:
        self.table = table
        values = {
            name: _floats(table, name) for name in ("agreement", "area", "contrast", "twin", "own_rank")
        }
        with np.errstate(invalid="ignore"):  # NaN, what is not known, is never flagged
            self.flags = {
                "altered": values["agreement"] < params.altered,
                "nothing": values["area"] <= params.nothing,
                "everything": values["area"] >= params.everything,
                "flat": values["contrast"] < params.flat,
                "twin": values["twin"] >= params.twin,
                "lost": values["own_rank"] < params.lost,
            }
        """Flag -> bool (N,)."""
        self._values = values

    @classmethod
    def read(cls, folder: Path, params: ShardStatsParams) -> "Labels":
        """The labels of ``data/shards``. Raises `UserError` without them, and when they are damaged."""
        path = folder / "labels.parquet"
        if not path.is_file():
            raise UserError(f"{path} does not exist; run the shards step")
        try:
            return cls(pq.read_table(check_file(path), schema=LABELS), params)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} cannot be read ({error}); run the shards step again") from None

    def __len__(self) -> int:
        return self.table.num_rows

    def floats(self, name: str) -> np.ndarray:
        """A column as float64 (N,), NaN where it is null."""
        return self._values[name] if name in self._values else _floats(self.table, name)

    def texts(self, name: str) -> np.ndarray:
        """A column of words as objects (N,), None where it is null."""
        return self.table[name].to_numpy(zero_copy_only=False)

    def any_flag(self) -> np.ndarray:
        """Bool (N,): labels with at least one flag."""
        return np.logical_or.reduce(list(self.flags.values()))

    def worst_first(self) -> np.ndarray:
        """Numbers of the rows, worst first: by their worst flag, within it by how far they are beyond it.

        Labels without a flag follow, those that find their own artwork worst first; ties by key and emotion.
        """
        how_bad = {
            "altered": self.floats("agreement"),
            "nothing": self.floats("area"),
            "everything": -self.floats("area"),
            "flat": self.floats("contrast"),
            "twin": -self.floats("twin"),
            "lost": self.floats("own_rank"),
        }
        worst = np.full(len(self), len(FLAGS))
        value = np.nan_to_num(self.floats("own_rank"), nan=2.0)
        for place in reversed(range(len(FLAGS))):
            hit = self.flags[FLAGS[place]]
            worst[hit], value[hit] = place, how_bad[FLAGS[place]][hit]
        return np.lexsort((self.texts("emotion").astype(str), self.texts("key").astype(str), value, worst))


def _floats(table: pa.Table, name: str) -> np.ndarray:
    return table[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
