"""What step `baselines` hands to step `score`: ``data/baselines/``.

``rows.json`` names the rows in their order; only they are read. A method that answers with maps has a folder
as step `predict` writes them (``maps.tar``, ``predictions.parquet`` without explanations); one that answers
with objects has their boxes (``objects.parquet``), because a map would be scaled, resized and cut at a
threshold, and a picture that is all objects would have no foreground left.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from model.baselines import objects
from model.methods import Method, read_predictions
from model.metrics.segmentation import Scaling
from pipeline import storage
from pipeline.apolo import ApoloItem
from pipeline.params import Paths, UserError
from pipeline.schema import PREDICTIONS, map_name

ROWS = "rows.json"


def write_rows(folder: Path, names: list[str]) -> None:
    """Name the rows that are there; written last, so that score never reads half a step."""
    storage.write_json(folder / ROWS, names)


def read_rows(paths: Paths, scaling: Scaling) -> list[Method]:
    """The rows of step `baselines`, none where it has not run. Raises `UserError` for unusable files."""
    folder = paths.step("baselines")
    if not (folder / ROWS).is_file():
        return []
    try:
        names: list[str] = json.loads((folder / ROWS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / ROWS} cannot be read ({error}); run the baselines step again") from None
    methods: list[Method] = []
    for name in names:
        if (folder / name / objects.FILE).is_file():
            methods.append(objects.read_objects(name, folder / name / objects.FILE))
        else:
            methods += read_predictions(folder / name, scaling)
    return methods


def write_maps(folder: Path, method: str, maps: Mapping[ApoloItem, bytes]) -> None:
    """Write maps, each the bytes of a ``.npy`` file, as step `predict` would."""
    items = sorted(maps, key=lambda item: (item.key, map_name(method, item.emotion)))
    storage.write_tar(folder / "maps.tar", _samples(method, items, maps))
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
    storage.write_parquet(folder / "predictions.parquet", pa.Table.from_pylist(rows, schema=PREDICTIONS))


def _samples(
    method: str, items: list[ApoloItem], maps: Mapping[ApoloItem, bytes]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    for item in items:
        yield item.key, {map_name(method, item.emotion): maps[item]}


def map_bytes(map_: np.ndarray) -> bytes:
    """A map as it is stored, whatever its size and numbers."""
    return storage.npy_bytes(np.ascontiguousarray(map_))
