"""A method's prediction maps: one writer and one reader."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.maps.map_files import TarMaps, decode_npy
from model.maps.method import ItemId, Method, scaled_maps
from model.metrics.segmentation import Scaling
from pipeline.common.errors import UserError
from pipeline.common.files import write_parquet
from pipeline.common.schema import PREDICTIONS, map_name
from pipeline.common.tars import npy_bytes, write_tar
from pipeline.releases.apolo import ApoloItem


def read_predictions(folder: Path, scaling: Scaling) -> list[Method]:
    """The methods of one ``data/predict/VARIANT``. Raises `UserError` when its files are unusable."""
    path = folder / "predictions.parquet"
    try:
        table = pq.read_table(path, columns=PREDICTIONS.names)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); run the predict step for {folder.name}") from None
    tar = TarMaps([folder / "maps.tar"])
    drawn: dict[str, dict[ItemId, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    for row in table.to_pylist():
        draws = drawn[row["method"]][row["key"], row["item_emotion"]]
        if row["seed"] in draws:
            raise UserError(
                f"{path} predicts {row['method']} for {row['painting']}, {row['item_emotion']}, "
                f"seed {row['seed']} more than once; run the predict step for {folder.name} again"
            )
        draws[row["seed"]] = row["explanation"] or ""
    return [_predicted(name, tar, drawn[name], scaling) for name in sorted(drawn)]


def _predicted(
    name: str, tar: TarMaps, drawn: Mapping[ItemId, Mapping[int, str]], scaling: Scaling
) -> Method:
    def read(item: ApoloItem) -> np.ndarray | None:
        data = tar.read(f"{item.key}.{map_name(name, item.emotion)}")
        return None if data is None else decode_npy(data)

    texts = {item: [draws[seed] for seed in sorted(draws)] for item, draws in drawn.items()}
    silent = not any(text for draws in texts.values() for text in draws)
    return Method(name, scaled_maps(read, scaling), explanations={} if silent else texts)


def write_maps(folder: Path, method: str, maps: Mapping[ApoloItem, bytes]) -> None:
    """Write maps, each the bytes of a ``.npy`` file, as step `predict` would."""
    items = sorted(maps, key=lambda item: (item.key, map_name(method, item.emotion)))
    write_tar(folder / "maps.tar", _samples(method, items, maps))
    rows: list[dict[str, Any]] = [
        {
            "method": method,
            "key": item.key,
            "painting": item.painting,
            "split": item.split,
            "item_emotion": item.emotion,
            "asked_emotion": item.emotion,
            "explanation": "",
            "seed": 0,
        }
        for item in items
    ]
    write_parquet(folder / "predictions.parquet", pa.Table.from_pylist(rows, schema=PREDICTIONS))


def _samples(
    method: str, items: list[ApoloItem], maps: Mapping[ApoloItem, bytes]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    for item in items:
        yield item.key, {map_name(method, item.emotion): maps[item]}


def map_bytes(map_: np.ndarray) -> bytes:
    """A map as it is stored, whatever its size and numbers."""
    return npy_bytes(np.ascontiguousarray(map_))
