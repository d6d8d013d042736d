"""Predictions are written once, in one order, and read back as methods."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from model.maps.prediction_writer import ItemPrediction, write_predictions
from model.maps.predictions import read_predictions
from pipeline.common.arrays import parse_npy
from pipeline.common.tars import read_tar
from pipeline.releases.apolo import ApoloItem

ITEMS = [
    ApoloItem(f"painting {key}", key * 16, emotion, "test", (0,), ("text",), Path("absent.npy"))
    for key in "ba"
    for emotion in ("fear", "awe")
]
MAPS = {item: np.random.default_rng(n).random((5, 7)).round(3) for n, item in enumerate(ITEMS)}


def predictions(*explanations: str, emotion: str | None = None) -> list[ItemPrediction]:
    return [ItemPrediction(item, emotion or item.emotion, map_, explanations) for item, map_ in MAPS.items()]


def test_the_order_of_methods_and_items_does_not_matter(tmp_path: Path) -> None:
    found, control = predictions("text"), predictions("other", emotion="anger")
    write_predictions(tmp_path / "a", {"b": found, "b:other": control})
    write_predictions(tmp_path / "b", {"b:other": control[::-1], "b": found[::-1]})
    for name in ("maps.tar", "predictions.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    samples = list(read_tar(tmp_path / "a" / "maps.tar"))
    names = ["b-other__awe.npy", "b-other__fear.npy", "b__awe.npy", "b__fear.npy"]
    assert [(key, list(members)) for key, members in samples] == [(key * 16, names) for key in "ab"]
    for key, members in samples:
        for name, data in members.items():
            (map_,) = (m for i, m in MAPS.items() if i.key == key and name.endswith(f"__{i.emotion}.npy"))
            np.testing.assert_array_equal(parse_npy(data), map_)
    rows = pq.read_table(tmp_path / "a" / "predictions.parquet").to_pylist()
    assert [(r["method"], r["key"][0], r["item_emotion"], r["asked_emotion"]) for r in rows] == [
        (method, key, emotion, "anger" if ":" in method else emotion)
        for method in ("b", "b:other")
        for key in "ab"
        for emotion in ("awe", "fear")
    ]


def test_explanations_are_rows_by_seed_and_read_in_the_order_of_the_seeds(tmp_path: Path) -> None:
    write_predictions(tmp_path, {"m": predictions("one", "two")}, seeds=(5, 3))
    rows = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert [(row["seed"], row["explanation"]) for row in rows] == [(5, "one"), (3, "two")] * len(ITEMS)
    (method,) = read_predictions(tmp_path, "before-resize")
    for item, map_ in MAPS.items():
        scaled = (map_ - map_.min()) / (map_.max() - map_.min())
        np.testing.assert_allclose(method.answer(item, 5, 7), scaled, atol=1e-6)
        assert method.explanations[item.key, item.emotion] == ["two", "one"]


def test_a_method_that_only_segments_has_no_explanations(tmp_path: Path) -> None:
    write_predictions(tmp_path, {"m": predictions("")})
    (method,) = read_predictions(tmp_path, "before-resize")
    assert dict(method.explanations) == {}
