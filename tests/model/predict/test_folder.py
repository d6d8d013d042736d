"""The command `predict`: files in and files out, a killed run that goes on, names and mistakes."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from model.predict import folder as module
from model.predict.folder import RESUME_LOG, _write, predict_images, predictions_text
from model.predict.params import PredictParams
from model.predict.predictor import Predictor
from pipeline.backbones.params import BackbonesParams
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.lock import only_writer
from tests.imports import ROOT
from tests.worlds.own_pictures import PARAMS, SIZES, new_run, provenance_of


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """(pictures, questions) of every call of the model."""
    calls: list[tuple[int, int]] = []
    plain = Predictor.predict_prepared

    def noted(self: Predictor, pictures: Any, emotions: Any) -> Any:
        calls.append((len(pictures), sum(map(len, emotions))))
        return plain(self, pictures, emotions)

    monkeypatch.setattr(Predictor, "predict_prepared", noted)
    return calls


def test_pictures_get_maps_of_their_size_and_bad_ones_a_reason(
    run: Path, pictures: Path, backbones: BackbonesParams, tmp_path: Path, asked: list[tuple[int, int]]
) -> None:
    out = tmp_path / "out"
    rows = predict_images(run, [pictures], ["fear,awe", "fear"], out, PARAMS, backbones)
    lines = (out / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    names = [Path(row["image"]).relative_to(pictures).as_posix() for row in rows]
    assert names == ["broken.jpg", *(n for n in sorted(SIZES) for _ in range(2))]
    assert rows[0]["error"].startswith("not-an-image") and rows[0]["emotion"] is None
    for name, row in zip(names[1:], rows[1:], strict=True):
        assert Path(row["map"]).name == f"{Path(name).stem}_{row['emotion']}.png"
        pixels = cv2.imread(row["map"], cv2.IMREAD_UNCHANGED)
        assert pixels.shape == SIZES[name] and pixels.dtype == np.uint8
        assert cv2.imread(row["overlay"]).shape == (*SIZES[name], 3)
        assert isinstance(row["explanation"], str) and row["seed"] == 0
    assert [row["emotion"] for row in rows[1:]] == ["awe", "fear"] * 4
    assert asked == [(2, 4), (2, 4)]  # batches of three files, a broken one in the first


def test_maps_are_the_predictors_and_several_seeds_are_rows(
    run: Path, pictures: Path, backbones: BackbonesParams, tmp_path: Path
) -> None:
    params = dataclasses.replace(PARAMS, seeds=(0, 5))
    rows = predict_images(run, [pictures / "wide.png"], ["all"], tmp_path / "out", params, backbones)
    assert [(row["emotion"], row["seed"]) for row in rows] == [(e, s) for e in EMOTIONS for s in (0, 5)]
    (found,) = Predictor.load(run, backbones, params).predict([pictures / "wide.png"])
    for row in rows:
        mask = found[row["emotion"]].mask
        assert mask.dtype == np.float32 and mask.shape == SIZES["wide.png"]
        pixels = cv2.imread(row["map"], cv2.IMREAD_UNCHANGED)
        np.testing.assert_allclose(pixels / 255, mask, atol=0.5 / 255 + 1e-5)
        assert found[row["emotion"]].explanations[(0, 5).index(row["seed"])] == row["explanation"]


def test_a_second_run_asks_nothing_and_only_what_changed_is_asked_again(
    run: Path, pictures: Path, backbones: BackbonesParams, tmp_path: Path, asked: list[tuple[int, int]]
) -> None:
    out = tmp_path / "out"

    def again(emotions: str = "awe,fear", model: Path = run, params: PredictParams = PARAMS) -> int:
        asked.clear()
        predict_images(model, [pictures], [emotions], out, params, backbones)
        return sum(questions for _, questions in asked)

    assert again() == 8
    first = (out / "predictions.jsonl").read_bytes()
    assert again() == 0 and (out / "predictions.jsonl").read_bytes() == first
    assert again(params=dataclasses.replace(PARAMS, batch=1)) == 0  # speed is no reason
    assert again("awe,fear,anger") == 4  # the new emotion of each picture
    assert again() == 0 and (out / "predictions.jsonl").read_bytes() == first
    (out / "wide_awe.png").unlink()
    assert again() == 1
    Image.new("RGB", (30, 20)).save(pictures / "wide.png")
    assert again() == 2
    assert again(params=dataclasses.replace(PARAMS, temperature=0.7)) == 8
    other = new_run(backbones, tmp_path / "other", provenance_of(backbones), seed=2)
    assert again(model=other) == 8


def test_another_picture_of_the_same_name_does_not_inherit_an_answer(
    run: Path, backbones: BackbonesParams, tmp_path: Path, asked: list[tuple[int, int]]
) -> None:
    """Two folders, one output folder: the maps of the first are overwritten by the second."""
    out, maps = tmp_path / "out", []
    for name, colour in (("a", "red"), ("b", "blue")):
        picture = tmp_path / name / "same.bmp"
        picture.parent.mkdir()
        Image.new("RGB", (40, 30), colour).save(picture)
        os.utime(picture, ns=(1, 1))  # nor do equal sizes and times help
    for name in "aba":
        (row,) = predict_images(run, [tmp_path / name / "same.bmp"], ["awe"], out, PARAMS, backbones)
        maps.append(Path(row["map"]).read_bytes())
    assert maps[0] == maps[2] != maps[1] and len(asked) == 3


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from model.predict import folder as module
from pipeline.backbones.params import BackbonesParams, ClipParams, SamParams
run, pictures, out, sam, clip = sys.argv[1:]
write, lines = os.write, 0
def fatal(file, line):
    global lines
    lines += 1
    if lines == 3:
        write(file, line[:30])
        os.kill(os.getpid(), signal.SIGKILL)
    return write(file, line)
module.resume_log.os.write = fatal
backbones = BackbonesParams(SamParams("tiny", Path(sam)), ClipParams("tiny", Path(clip)), device="cpu")
params = module.PredictParams(batch=1, max_new_tokens=6, device="cpu")
module.predict_images(Path(run), [Path(pictures)], ["awe"], Path(out), params, backbones)
"""


def test_killed_at_any_moment_it_goes_on_to_the_same_end(
    run: Path, pictures: Path, backbones: BackbonesParams, tmp_path: Path, asked: list[tuple[int, int]]
) -> None:
    out, params = tmp_path / "out", dataclasses.replace(PARAMS, batch=1)
    predict_images(run, [pictures], ["awe"], out, params, backbones)
    whole = {path.name: path.read_bytes() for path in out.iterdir() if path.name != RESUME_LOG}
    shutil.rmtree(out)
    weights = [str(backbones.sam.checkpoint), str(backbones.clip.checkpoint)]
    command = [sys.executable, "-c", KILLED, str(run), str(pictures), str(out), *weights]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    assert not (out / "predictions.jsonl").exists()
    log = (out / RESUME_LOG).read_bytes()
    assert log.count(b"\n") == 2 and not log.endswith(b"\n")
    asked.clear()
    predict_images(run, [pictures], ["awe"], out, params, backbones)
    assert len(asked) == len(SIZES) - 2
    predict_images(run, [pictures], ["awe"], out, params, backbones)
    assert len(asked) == len(SIZES) - 2
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.name != RESUME_LOG} == whole


def test_a_picture_that_changes_meanwhile_is_not_dropped(
    run: Path, pictures: Path, backbones: BackbonesParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = _write

    def touched(out: Path, job: Any, *rest: Any) -> Any:
        os.utime(job.picture, ns=(5, 5))
        return write(out, job, *rest)

    monkeypatch.setattr(module, "_write", touched)
    (row,) = predict_images(run, [pictures / "wide.png"], ["awe"], tmp_path / "out", PARAMS, backbones)
    assert row["error"].startswith("changed") and row["emotion"] is None


def test_two_runs_do_not_share_a_folder(
    run: Path, pictures: Path, backbones: BackbonesParams, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    with only_writer(tmp_path / "out"), pytest.raises(UserError, match="another run"):
        predict_images(run, [pictures], ["awe"], tmp_path / "out", PARAMS, backbones)


def test_mistakes_are_named(run: Path, pictures: Path, backbones: BackbonesParams, tmp_path: Path) -> None:
    (pictures / "empty").mkdir()
    for path, emotion, message in (
        ("wide.png", "joy", "unknown emotion 'joy'"),
        ("wide.png", ",", "no emotion given"),
        ("none.png", "fear", "does not exist"),
        ("empty", "awe", "no picture"),
        ("*.tif", "awe", "no picture .* matches"),
    ):
        with pytest.raises(UserError, match=message):
            predict_images(run, [pictures / path], [emotion], tmp_path / "out", PARAMS, backbones)


def test_rows_are_described_in_words_that_any_terminal_takes() -> None:
    told = {"image": "a/caf\udce9.png", "emotion": "awe", "explanation": "vast ☁"}
    bad = {"image": "b.png", "emotion": None, "explanation": None, "error": "empty: 0 bytes"}
    assert predictions_text([told, bad]) == (
        "a/caf\\udce9.png  awe: vast ☁\nb.png  not answered: empty: 0 bytes"
    )


def test_pictures_of_one_stem_keep_apart(
    run: Path, pictures: Path, backbones: BackbonesParams, tmp_path: Path
) -> None:
    Image.new("RGB", (30, 30)).save(pictures / "WIDE.jpg")
    Image.new("RGB", (30, 30), "red").save(pictures / "z" / "square.webp")
    rows = predict_images(run, [pictures], ["awe"], tmp_path / "out", PARAMS, backbones)
    names = [Path(row["map"]).name for row in rows if "map" in row]
    assert len(names) == 6 and {"WIDE.jpg_awe.png", "wide.png_awe.png", "deep_awe.png"} <= set(names)
    assert sum(name.endswith("square.webp_awe.png") for name in names) == 2
    assert all((tmp_path / "out" / name).is_file() for name in names)


def test_strange_names_are_no_trouble(run: Path, backbones: BackbonesParams, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (30, 20)).save(folder / "plain.png")
    long = "ö" * 120 + ".png"
    for name in (long, os.fsdecode(b"caf\xe9.png"), 'a "quoted"\nline.png'):
        shutil.copy(folder / "plain.png", folder / name)
    rows = predict_images(run, [folder], ["awe"], tmp_path / "out", PARAMS, backbones)
    assert len(rows) == 4 and not any("error" in row for row in rows)
    lines = (tmp_path / "out" / "predictions.jsonl").read_bytes().decode().splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert all(Path(row["map"]).is_file() for row in rows)
