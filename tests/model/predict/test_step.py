"""Predictions for APOLO items, on a tiny random world."""

import dataclasses
import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from model.data.cached_features import read_features
from model.emosem.network import EmoSEM
from model.emosem.pretrained import build_pretrained
from model.predict import step as module
from model.predict.params import PredictParams
from model.predict.step import other_emotions, predict_items, predict_queries
from pipeline.common.arrays import parse_npy
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.common.schema import ARTWORKS, PREDICTIONS, UTTERANCES, map_name
from pipeline.common.tars import read_tar
from pipeline.reader.index import Index
from pipeline.releases.apolo import ApoloItem
from tests.worlds import trained_shards
from tests.worlds.damaged_tars import DAMAGES, damage

PARAMS = PredictParams(batch=3, max_new_tokens=8)


def save_model(parts: tuple[Path, Path], folder: Path, paradigm: str, prefix: str) -> EmoSEM:
    torch.manual_seed(1)
    model = build_pretrained(
        *parts,
        paradigm=paradigm,  # type: ignore[arg-type]
        prefix=prefix,  # type: ignore[arg-type]
        finetune="mask-head",
        detach_prompt=False,
        max_tokens=25,
        visual_dim=trained_shards.WIDTH,
    ).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Shards of seven artworks, and the three models in runs/."""
    folder = tmp_path_factory.mktemp("world")
    parts = trained_shards.backbones(folder / "weights")
    paths = trained_shards.shards(folder, {"train": 2, "test": 5})
    for variant, paradigm, prefix in (
        ("single", "single", "mask+prompt"),
        ("multi", "multi", "mask"),
        ("no-prefix", "single", "none"),
    ):
        save_model(parts, paths.runs / variant, paradigm, prefix)
    for name, schema in (("utterances", UTTERANCES), ("artworks", ARTWORKS)):
        path = paths.step("utterances") / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(schema.empty_table(), path)
    return paths


def item(key: str, emotion: str, split: str = "test") -> ApoloItem:
    return ApoloItem(f"painter_{key}", key, emotion, split, (1,), ("words",), Path("nowhere.npy"))


@pytest.fixture
def items(world: Paths, monkeypatch: pytest.MonkeyPatch) -> list[ApoloItem]:
    """Both emotions of two artworks, one of a third, and an artwork that has no features."""
    rows = Index.load(world.step("shards")).rows("test")
    found = [
        item(row.key, emotion, "val" if n else "test")
        for n, row in enumerate(rows[:2])
        for emotion in row.emotions
    ]
    found += [item(rows[2].key, rows[2].emotions[0]), item("f" * 16, "awe")]
    monkeypatch.setattr(module, "load_items", lambda *_: (found, []))
    return found


@pytest.mark.parametrize("variant", ["single", "multi", "no-prefix"])
def test_every_item_gets_a_map_and_an_explanation(world: Paths, items: list[ApoloItem], variant: str) -> None:
    metrics = predict_items(world, PARAMS, variant)
    method = {"single": "emosem-single", "multi": "emosem-multi", "no-prefix": "emosem-single:no-prefix"}[
        variant
    ]
    table = pq.read_table(world.step("predict") / variant / "predictions.parquet")
    assert table.schema.equals(PREDICTIONS)
    rows = [row for row in table.to_pylist() if row["method"] == method]
    assert {(r["key"], r["item_emotion"]) for r in rows} == {(i.key, i.emotion) for i in items[:5]}
    assert all(row["asked_emotion"] == row["item_emotion"] for row in rows)
    assert metrics["without_features"] == 1 and metrics["predictions"][method] == 5
    maps = {
        f"{key}.{ext}": data
        for key, members in read_tar(world.step("predict") / variant / "maps.tar")
        for ext, data in members.items()
    }
    for row in rows:
        array = parse_npy(maps[f"{row['key']}.{map_name(method, row['item_emotion'])}"])
        assert array.shape == (24, 32) and array.dtype == np.float16  # the padding is gone
        assert array.min() >= 0 and array.max() <= 1
    others = [row for row in table.to_pylist() if row["method"] == f"{method}:other-emotion"]
    assert len(others) == (5 if variant == "single" else 0)
    assert len(maps) == len(rows) + len(others)
    own = {(r["key"], r["item_emotion"]): r for r in rows}
    for row in others:  # the control for one emotion is the answer to the other
        asked = own.get((row["key"], row["asked_emotion"]))
        if asked:
            assert row["explanation"] == asked["explanation"]
            a, b = (
                f"{row['key']}.{map_name(f'{method}:other-emotion', row['item_emotion'])}",
                asked["item_emotion"],
            )
            assert maps[a] == maps[f"{row['key']}.{map_name(method, b)}"]


def test_the_same_bytes_again_in_other_batches_the_same_texts(world: Paths, items: list[ApoloItem]) -> None:
    out = world.step("predict") / "single"

    def run(params: PredictParams) -> tuple[bytes, bytes]:
        predict_items(world, params, "single")
        return (out / "predictions.parquet").read_bytes(), (out / "maps.tar").read_bytes()

    first = run(PARAMS)
    assert run(PARAMS) == first
    assert run(PredictParams(batch=1, max_new_tokens=8))[0] == first[0]
    table = pq.read_table(io.BytesIO(first[0]))
    run(PredictParams(batch=3, max_new_tokens=8, seeds=(0, 5)))
    both = pq.read_table(out / "predictions.parquet").to_pylist()
    assert [row for row in both if row["seed"] == 0] == table.to_pylist()
    texts = [[row["explanation"] for row in both if row["seed"] == seed] for seed in (0, 5)]
    assert len(texts[0]) == len(texts[1]) and texts[0] != texts[1]


def test_probabilities_are_the_models(world: Paths) -> None:
    index = Index.load(world.step("shards"))
    model = EmoSEM.from_pretrained(world.runs / "single")
    key = index.rows("test")[0].key
    features = read_features(index, key)
    ((question, found),) = predict_queries(model, [(key, "fear")], lambda _: features, PARAMS)
    with torch.no_grad():
        sam = torch.from_numpy(features.sam)[None].float()
        logits = model.segment(sam, torch.tensor([0]), torch.tensor([EMOTIONS.index("fear")])).mask_logits
    np.testing.assert_allclose(found.probability, logits[0, :24].sigmoid().numpy(), rtol=1e-6)
    assert question == (key, "fear") and len(found.explanations) == 1


def test_the_other_emotion_is_the_next_that_the_artwork_evokes(world: Paths) -> None:
    index = Index.load(world.step("shards"))
    row = index.rows("test")[0]
    three = [item(row.key, emotion) for emotion in ("awe", "anger", "sadness")]
    others = other_emotions(three, index)
    assert [others[i] for i in three] == ["anger", "sadness", "awe"]
    alone = item(row.key, row.emotions[0])
    assert other_emotions([alone], index) == {alone: row.emotions[1]}  # as the annotators felt


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_shard_is_named(world: Paths, items: list[ApoloItem], tmp_path: Path, how: str) -> None:
    """Whichever member is hit, also one that no item needs."""
    paths = dataclasses.replace(world, data=tmp_path / "data")
    shutil.copytree(world.data, paths.data)
    tar = next(paths.step("features").glob("*.tar"))
    damage(tar, how)
    with pytest.raises(UserError, match=rf"^{tar} is damaged: .*run the features step again$"):
        predict_items(paths, PARAMS, "multi")
