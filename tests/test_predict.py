"""Predictions for APOLO items and for pictures of one's own, on a tiny random world."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from model import predict as module
from model import predict_images as images_module
from model.checkpoint import new_model
from model.data import read_features
from model.emosem import EmoSEM
from model.predict import PredictParams, answer, other_emotions, predict
from model.predict_images import predict_images
from pipeline.apolo import ApoloItem
from pipeline.backbones import BackbonesParams
from pipeline.emotions import EMOTIONS
from pipeline.params import Paths, UserError
from pipeline.schema import ARTWORKS, PREDICTIONS, UTTERANCES, map_name
from pipeline.shard_index import Index
from pipeline.storage import load_npy, read_tar
from tests import tiny_world

PARAMS = PredictParams(batch=3, max_new_tokens=8)


def save_model(parts: tuple[Path, Path], folder: Path, paradigm: str, prefix: str) -> EmoSEM:
    torch.manual_seed(1)
    model = new_model(
        *parts,
        paradigm=paradigm,  # type: ignore[arg-type]
        prefix=prefix,  # type: ignore[arg-type]
        finetune="mask-head",
        detach_prompt=False,
        max_tokens=25,
        visual_dim=tiny_world.WIDTH,
    ).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """Shards of seven artworks, and the three models in runs/."""
    folder = tmp_path_factory.mktemp("world")
    parts = tiny_world.backbones(folder / "weights")
    paths = tiny_world.shards(folder, {"train": 2, "test": 5})
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
    metrics = predict(world, PARAMS, variant)
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
        array = load_npy(maps[f"{row['key']}.{map_name(method, row['item_emotion'])}"])
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
        predict(world, params, "single")
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
    ((question, found),) = answer(model, [(key, "fear")], lambda _: features, PARAMS)
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


# ---- pictures of one's own ---------------------------------------------------------------------------


class Encoder:
    """Stands in for both encoders: random grids that depend on the picture alone."""

    img_size = tiny_world.SAM.img_size

    def encode(self, images: list[np.ndarray]) -> torch.Tensor:
        return torch.stack([self._noise(image, 32, 8, 8) for image in images])

    def patch_tokens(self, images: list[np.ndarray]) -> torch.Tensor:
        return torch.stack([self._noise(image, 16, tiny_world.WIDTH) for image in images])

    def _noise(self, image: np.ndarray, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(int(image.sum())))

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        scale = self.img_size / max(height, width)
        return round(height * scale), round(width * scale)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(images_module, "load_sam", lambda *_: Encoder())
    monkeypatch.setattr(images_module, "load_clip", lambda *_: Encoder())
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("tall.v2.jpg", (90, 60)), ("wide.png", (40, 100))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("ignored")
    return folder


def test_pictures_get_maps_of_their_size_and_bad_ones_a_reason(
    world: Paths, pictures: Path, tmp_path: Path
) -> None:
    rows = predict_images(
        world.runs / "single", pictures, "fear", tmp_path / "out", PARAMS, BackbonesParams()
    )
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    broken, tall, wide = rows
    assert broken["image"].endswith("broken.jpg") and "error" in broken
    for row, stem, shape in ((tall, "tall.v2", (90, 60)), (wide, "wide", (40, 100))):
        assert row["emotion"] == "fear" and isinstance(row["explanation"], str)
        assert Path(row["map"]).name == f"{stem}_fear.png"
        assert cv2.imread(row["map"], cv2.IMREAD_UNCHANGED).shape == shape
        assert cv2.imread(row["overlay"]).shape == (*shape, 3)


def test_all_emotions_of_one_picture(world: Paths, pictures: Path, tmp_path: Path) -> None:
    one = pictures / "wide.png"
    rows = predict_images(world.runs / "multi", one, "all", tmp_path / "out", PARAMS, BackbonesParams())
    assert [row["emotion"] for row in rows] == list(EMOTIONS)
    assert len(list((tmp_path / "out").glob("wide_*.png"))) == 16


def test_mistakes_are_named(world: Paths, pictures: Path, tmp_path: Path) -> None:
    (pictures / "empty").mkdir()
    for path, emotion, message in (
        ("wide.png", "joy", "unknown emotion 'joy'"),
        ("none.png", "fear", "does not exist"),
        ("empty", "awe", "no picture"),
    ):
        with pytest.raises(UserError, match=message):
            predict_images(
                world.runs / "single", pictures / path, emotion, tmp_path, PARAMS, BackbonesParams()
            )


def test_other_backbones_are_refused(
    world: Paths, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Encoder, "img_size", 64)
    with pytest.raises(UserError, match="trained on other backbones"):
        predict_images(world.runs / "single", pictures, "awe", tmp_path, PARAMS, BackbonesParams())


def test_pictures_that_differ_in_their_suffix_keep_it(world: Paths, pictures: Path, tmp_path: Path) -> None:
    Image.new("RGB", (30, 30)).save(pictures / "wide.jpg")
    rows = predict_images(world.runs / "single", pictures, "awe", tmp_path / "out", PARAMS, BackbonesParams())
    names = {Path(row["map"]).name for row in rows if "map" in row}
    assert names == {"tall.v2_awe.png", "wide.jpg_awe.png", "wide.png_awe.png"}
