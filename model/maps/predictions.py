"""Reads the folders that `prediction_writer` writes, as methods to be scored."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.maps.map_files import decode_npy
from model.maps.method import ItemId, Method, scaled_maps
from model.metrics.segmentation import Scaling
from pipeline.common.errors import UserError
from pipeline.common.schema import PREDICTIONS, map_name
from pipeline.common.sums import check_sum
from pipeline.common.tars import TarMembers
from pipeline.releases.apolo import ApoloItem


def read_predictions(folder: Path, scaling: Scaling, step: str | None = None) -> list[Method]:
    """The methods of one folder, by name.

    Args:
        folder: ``data/predict/VARIANT`` or ``data/baselines/ROW``.
        scaling: see `model.metrics.segmentation`.
        step: what writes the folder, for messages; None for step `predict`.

    Raises:
        UserError: a file is missing, damaged, or predicts an item twice.
    """
    path = folder / "predictions.parquet"
    step = step or f"the predict step for {folder.name}"
    try:
        table = pq.read_table(path, columns=PREDICTIONS.names)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); run {step}") from None
    maps = TarMembers([folder / "maps.tar"], step)
    for file in (path, folder / "maps.tar"):
        check_sum(file, f"run {step} again")
    drawn: dict[str, dict[ItemId, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    for row in table.to_pylist():
        draws = drawn[row["method"]][row["key"], row["item_emotion"]]
        if row["seed"] in draws:
            raise UserError(
                f"{path} predicts {row['method']} for {row['painting']}, {row['item_emotion']}, "
                f"seed {row['seed']} more than once; run {step} again"
            )
        draws[row["seed"]] = row["explanation"] or ""
    return [_method(name, maps, drawn[name], scaling) for name in sorted(drawn)]


def _method(
    name: str, maps: TarMembers, drawn: Mapping[ItemId, Mapping[int, str]], scaling: Scaling
) -> Method:
    """A method whose maps lie in a tar; `drawn` are its explanations by item and seed."""

    def read(item: ApoloItem) -> np.ndarray | None:
        data = maps.read(f"{item.key}.{map_name(name, item.emotion)}")
        return None if data is None else decode_npy(data)

    texts = {item: [draws[seed] for seed in sorted(draws)] for item, draws in drawn.items()}
    segments_only = not any(text for draws in texts.values() for text in draws)
    return Method(name, scaled_maps(read, scaling), explanations={} if segments_only else texts)
