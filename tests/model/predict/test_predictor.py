"""`Predictor`: raw pictures answered as cached features are, and by the encoders of the training alone."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

from model.data.cached_features import Features
from model.emosem.network import EmoSEM
from model.predict.answer import BatchQuery, predict_batch
from model.predict.folder import predict_images
from model.predict.predictor import Predictor, parse_emotions
from pipeline.backbones.params import BackbonesParams
from pipeline.common.arrays import parse_npy
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.tables import read_artworks
from pipeline.common.tars import read_tar
from pipeline.features.params import FeaturesParams
from pipeline.features.step import build_features
from pipeline.parallel.map_shards import ParallelParams
from pipeline.releases.wikiart import read_image
from tests.imports import ROOT
from tests.worlds.backbones import write_backbones, write_world
from tests.worlds.own_pictures import PARAMS, SIZES, new_run, provenance_of


def test_batched_equals_one_by_one(run: Path, pictures: Path, backbones: BackbonesParams) -> None:
    files = [pictures / name for name in SIZES]
    together = Predictor.load(run, backbones, dataclasses.replace(PARAMS, batch=16)).predict(files)
    alone = Predictor.load(run, backbones, dataclasses.replace(PARAMS, batch=1))
    for file, batched in zip(files, together, strict=True):
        for emotion in EMOTIONS:
            (single,) = alone.predict([file], [emotion])
            np.testing.assert_allclose(batched[emotion].mask, single[emotion].mask, atol=1e-5)
            assert batched[emotion].explanations == single[emotion].explanations


@pytest.mark.parametrize(("dtype", "normalisation"), [("float16", "clip"), ("int8", "imagenet")])
def test_raw_pictures_are_answered_as_their_cached_features(
    backbones: BackbonesParams, tmp_path: Path, dtype: Any, normalisation: Any
) -> None:
    """The model says how its features were made; the params here say nothing of it."""
    paths = write_world(tmp_path, shards=1)
    cached = FeaturesParams(sam_dtype=dtype, clip_normalisation=normalisation, batch=2)
    build_features(paths, cached, backbones, ParallelParams())
    samples = dict(read_tar(paths.step("features") / "000000.tar"))
    account = provenance_of(backbones, normalisation=normalisation)
    assert account.sam is not None
    account = dataclasses.replace(account, sam=dataclasses.replace(account.sam, dtype=dtype))
    predictor = Predictor.load(new_run(backbones, tmp_path / "run", account), backbones, PARAMS)
    works = {row["key"]: paths.wikiart / row["path"] for row in read_artworks(paths, 0)}
    found = predictor.predict([works[key] for key in samples], ["awe", "anger"], keys=list(samples))
    for (key, members), answers in zip(samples.items(), found, strict=True):
        card = json.loads(members["json"])
        grids = {n: parse_npy(members[f"{n}.npy"]) for n in ("sam", "clip")}
        scale = parse_npy(members["sam_scale.npy"]) if dtype == "int8" else None
        seen = Features(grids["sam"], grids["clip"], *card["sam"]["input_size"], scale)
        (again,) = predictor.encode([predictor.prepare(read_image(works[key]))])
        assert again.sam.dtype == seen.sam.dtype and again[2:4] == seen[2:4]
        asks = [BatchQuery(0, key, emotion) for emotion in ("awe", "anger")]
        for ask, cached_answer in zip(
            asks, predict_batch(predictor.model, [seen], asks, PARAMS), strict=True
        ):
            size = (card["width"], card["height"])
            mask = cv2.resize(cached_answer.probability, size, interpolation=cv2.INTER_LINEAR)
            np.testing.assert_allclose(answers[ask.emotion].mask, mask, atol=2e-3)
            assert answers[ask.emotion].explanations == cached_answer.explanations


def test_other_weights_are_refused(
    run: Path, pictures: Path, backbones: BackbonesParams, tmp_path: Path
) -> None:
    for part in ("sam", "clip"):
        chosen = getattr(backbones, part)
        moved = tmp_path / part / chosen.checkpoint.name
        shutil.copytree(chosen.checkpoint.parent, moved.parent)
        state = load_file(moved)
        first = sorted(state)[0]
        save_file({name: t + (name == first) for name, t in state.items()}, moved)
        other = dataclasses.replace(backbones, **{part: dataclasses.replace(chosen, checkpoint=moved)})
        with pytest.raises(UserError, match=f"trained on other backbones: it reads the features of {part}"):
            predict_images(run, [pictures], ["awe"], tmp_path / "out", PARAMS, other)


def test_a_model_that_does_not_say_is_checked_by_sizes(
    pictures: Path, backbones: BackbonesParams, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = new_run(backbones, tmp_path / "old", None)
    assert "about" not in json.loads((old / "config.json").read_text())
    rows = predict_images(old, [pictures / "wide.png"], ["awe"], tmp_path / "out", PARAMS, backbones)
    assert rows[0]["explanation"] is not None
    assert "does not say which SAM and CLIP" in capsys.readouterr().err
    other = write_backbones(tmp_path / "weights")
    with pytest.raises(UserError, match="trained on other backbones"):
        predict_images(old, [pictures], ["awe"], tmp_path / "out", PARAMS, other)


def test_one_file_is_a_picture_and_other_arrays_are_refused(
    run: Path, pictures: Path, backbones: BackbonesParams
) -> None:
    predictor = Predictor.load(run, backbones, PARAMS)
    file = pictures / "wide.png"
    (one,), (several,) = predictor.predict(file, "awe"), predictor.predict([file], ["awe"])
    np.testing.assert_array_equal(one["awe"].mask, several["awe"].mask)
    pixels = read_image(file)
    for wrong in (pixels / np.float32(255), pixels[..., 0], np.dstack([pixels, pixels[..., :1]])):
        with pytest.raises(ValueError, match="a picture is uint8 RGB"):
            predictor.predict([wrong], ["awe"])


def test_emotions_are_told_apart() -> None:
    assert parse_emotions(["fear, Awe", "fear"]) == parse_emotions("fear,awe") == ["awe", "fear"]
    assert parse_emotions(["all"]) == parse_emotions(["awe,all"]) == list(EMOTIONS)


@pytest.mark.parametrize("page", ["README.md", "docs/use_a_model.md"])
def test_the_lines_of_the_docs(
    page: str,
    run: Path,
    pictures: Path,
    backbones: BackbonesParams,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a folder with a trained run and its weights, as a clone is."""
    shutil.copytree(run, tmp_path / "runs" / "single")
    shutil.copytree(backbones.sam.checkpoint.parent, tmp_path / "weights" / "tiny")
    shutil.copy(pictures / "wide.png", tmp_path / "painting.jpg")
    monkeypatch.chdir(tmp_path)
    lines = (ROOT / page).read_text().split("```python\n")[1].split("```")[0]
    found: dict[str, Any] = {}
    exec(lines.replace("MODEL", "runs/single"), found)  # noqa: S102 - our own lines
    answer = found["found"]
    assert answer.mask.shape == SIZES["wide.png"] and 0 <= answer.mask.min() <= answer.mask.max() <= 1
    assert isinstance(answer.explanations[0], str)
    assert isinstance(found["predictor"].model, EmoSEM)


def test_a_params_file_names_the_encoders_too(
    run: Path, pictures: Path, backbones: BackbonesParams, tmp_path: Path
) -> None:
    sections = {name: {"checkpoint": str(getattr(backbones, name).checkpoint)} for name in ("sam", "clip")}
    params = {"backbones": sections | {"device": "cpu"}, "predict": {"seeds": [2, 5]}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    predictor = Predictor.from_params(run, tmp_path / "params.yaml")
    (found,) = predictor.predict(pictures / "wide.png", "awe")
    assert len(found["awe"].explanations) == 2
