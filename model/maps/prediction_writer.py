"""Writes a method's predictions of APOLO items: ``predictions.parquet`` and ``maps.tar`` in one folder.

The one writer of such folders, for step `predict` and for the baselines alike; `predictions` reads them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.common.files import write_parquet
from pipeline.common.schema import PREDICTIONS, map_name
from pipeline.common.sums import write_sums
from pipeline.common.tars import npy_bytes, write_tar
from pipeline.releases.apolo import ApoloItem


class ItemPrediction(NamedTuple):
    """What a method predicts for one item."""

    item: ApoloItem
    asked_emotion: str
    """The item's own, or another one for a control."""
    map_: np.ndarray
    """(h, w) of any size, range and dtype; stored as it is."""
    explanations: Sequence[str] = ("",)
    """One per seed; a single empty one for a method that only segments."""


def write_predictions(
    folder: Path, predictions: Mapping[str, Sequence[ItemPrediction]], seeds: Sequence[int] = (0,)
) -> None:
    """Write the predictions of some methods, the same bytes in whatever order they come.

    Args:
        folder: where ``maps.tar`` goes (``KEY.METHOD__EMOTION.npy``, by key and name), then
            ``predictions.parquet`` (`schema.PREDICTIONS`, by method, key, item's emotion and seed's place),
            then the SHA256SUMS of both.
        predictions: method -> its predictions, one per item.
        seeds: of the explanations.
    """
    samples: dict[str, dict[str, bytes]] = defaultdict(dict)
    rows: list[dict[str, Any]] = []
    for method, found in sorted(predictions.items()):
        for item, asked, map_, explanations in sorted(found, key=lambda p: (p.item.key, p.item.emotion)):
            samples[item.key][map_name(method, item.emotion)] = npy_bytes(np.ascontiguousarray(map_))
            rows += [
                {
                    "method": method,
                    "key": item.key,
                    "painting": item.painting,
                    "split": item.split,
                    "item_emotion": item.emotion,
                    "asked_emotion": asked,
                    "explanation": explanation,
                    "seed": seed,
                }
                for seed, explanation in zip(seeds, explanations, strict=True)
            ]
    write_tar(folder / "maps.tar", ((key, dict(sorted(samples[key].items()))) for key in sorted(samples)))
    write_parquet(folder / "predictions.parquet", pa.Table.from_pylist(rows, schema=PREDICTIONS))
    write_sums(folder, ("maps.tar", "predictions.parquet"))
