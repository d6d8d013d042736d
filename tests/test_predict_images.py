"""Pictures of one's own: real small encoders, a random model that knows them, files in and files out."""

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
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from model import predict_images as module
from model.about import About, ClipSeen, SamSeen
from model.checkpoint import new_model
from model.data import Features
from model.emosem import EmoSEM
from model.picture_files import find_pictures, output_names
from model.predict import Ask, PredictParams, answer_batch
from model.predict_images import JOURNAL, predict_images
from model.predictor import Predictor, parse_emotions
from pipeline import features
from pipeline.artworks import read_image
from pipeline.backbones import BackbonesParams, ClipParams, SamParams
from pipeline.backbones.clip import BPE, build_clip
from pipeline.emotions import EMOTIONS
from pipeline.features import FeaturesParams
from pipeline.parallel import ParallelParams
from pipeline.params import UserError
from pipeline.storage import load_npy, read_tar, sha256_file, write_json
from tests import encoders, tiny_world
from tests.imports import ROOT

PARAMS = PredictParams(batch=3, max_new_tokens=6, device="cpu")
SIZES = {"tall.v2.jpg": (90, 60), "wide.png": (40, 100), "square.webp": (50, 50), "z/deep.png": (33, 47)}
"""(height, width) of the pictures."""


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> BackbonesParams:
    """SAM and GPT-2 of the tiny world, and a CLIP as wide as that GPT-2."""
    folder = tmp_path_factory.mktemp("weights")
    sam, language_model = tiny_world.backbones(folder)
    encoders.train_clip_bpe(encoders.WORDS, folder / BPE, merges=40)
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32,
            "patch_size": 8,
            "width": tiny_world.WIDTH,
            "layers": 2,
            "head_width": 8,
        },
        "text_cfg": {"context_length": 12, "vocab_size": 600, "width": 16, "heads": 2, "layers": 1},
    }
    torch.manual_seed(8)
    save_file(build_clip(config).state_dict(), folder / "clip.safetensors")
    write_json(folder / "clip.json", config)
    return BackbonesParams(
        SamParams("tiny", sam),
        ClipParams("tiny", folder / "clip.safetensors"),
        language_model=language_model,
        device="cpu",
    )


def about(backbones: BackbonesParams, **clip: Any) -> About:
    """The account that a training on features of these backbones gives."""
    sam, visual = (sha256_file(part.checkpoint) for part in (backbones.sam, backbones.clip))
    return About(sam=SamSeen("tiny", sam), clip=ClipSeen("tiny", visual, **clip))


def new_run(backbones: BackbonesParams, run: Path, account: About | None, seed: int = 1) -> Path:
    torch.manual_seed(seed)
    model = new_model(
        backbones.sam.checkpoint,
        backbones.language_model,
        paradigm="single",
        prefix="mask+prompt",
        finetune="mask-head",
        detach_prompt=False,
        max_tokens=25,
        visual_dim=tiny_world.WIDTH,
    )
    model.about = account
    model.save_pretrained(run)
    return run


@pytest.fixture(scope="module")
def run(backbones: BackbonesParams, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_run(backbones, tmp_path_factory.mktemp("runs") / "single", about(backbones))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of four pictures, one of them deeper, a broken one and a text."""
    folder = tmp_path / "pictures"
    rng = np.random.default_rng(0)
    for name, size in SIZES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("ignored")
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """(pictures, questions) of every call of the model."""
    calls: list[tuple[int, int]] = []
    plain = Predictor.answer

    def noted(self: Predictor, pictures: Any, emotions: Any) -> Any:
        calls.append((len(pictures), sum(map(len, emotions))))
        return plain(self, pictures, emotions)

    monkeypatch.setattr(Predictor, "answer", noted)
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
    paths = encoders.write_world(tmp_path, shards=1)
    cached = FeaturesParams(sam_dtype=dtype, clip_normalisation=normalisation, batch=2)
    features.build(paths, cached, backbones, ParallelParams())
    samples = dict(read_tar(paths.step("features") / "000000.tar"))
    account = about(backbones, normalisation=normalisation)
    assert account.sam is not None
    account = dataclasses.replace(account, sam=dataclasses.replace(account.sam, dtype=dtype))
    predictor = Predictor.load(new_run(backbones, tmp_path / "run", account), backbones, PARAMS)
    works = {row["key"]: paths.wikiart / row["path"] for row in module.features._artworks_by_shard(paths)[0]}
    found = predictor.predict([works[key] for key in samples], ["awe", "anger"], keys=list(samples))
    for (key, members), answers in zip(samples.items(), found, strict=True):
        card = json.loads(members["json"])
        grids = {n: load_npy(members[f"{n}.npy"]) for n in ("sam", "clip")}
        scale = load_npy(members["sam_scale.npy"]) if dtype == "int8" else None
        seen = Features(grids["sam"], grids["clip"], *card["sam"]["input_size"], scale)
        (again,) = predictor.encode([predictor.prepare(read_image(works[key]))])
        assert again.sam.dtype == seen.sam.dtype and again[2:4] == seen[2:4]
        asks = [Ask(0, key, emotion) for emotion in ("awe", "anger")]
        for ask, cached_answer in zip(asks, answer_batch(predictor.model, [seen], asks, PARAMS), strict=True):
            size = (card["width"], card["height"])
            mask = cv2.resize(cached_answer.probability, size, interpolation=cv2.INTER_LINEAR)
            np.testing.assert_allclose(answers[ask.emotion].mask, mask, atol=2e-3)
            assert answers[ask.emotion].explanations == cached_answer.explanations


# ---- the same again ------------------------------------------------------------------------------------


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
    other = new_run(backbones, tmp_path / "other", about(backbones), seed=2)
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
from model import predict_images as module
from pipeline.backbones import BackbonesParams, ClipParams, SamParams
run, pictures, out, sam, clip = sys.argv[1:]
write, lines = os.write, 0
def fatal(file, line):
    global lines
    lines += 1
    if lines == 3:
        write(file, line[:30])
        os.kill(os.getpid(), signal.SIGKILL)
    return write(file, line)
module.journal.os.write = fatal
backbones = BackbonesParams(SamParams("tiny", Path(sam)), ClipParams("tiny", Path(clip)), device="cpu")
params = module.PredictParams(batch=1, max_new_tokens=6, device="cpu")
module.predict_images(Path(run), [Path(pictures)], ["awe"], Path(out), params, backbones)
"""


def test_killed_at_any_moment_it_goes_on_to_the_same_end(
    run: Path, pictures: Path, backbones: BackbonesParams, tmp_path: Path, asked: list[tuple[int, int]]
) -> None:
    out, params = tmp_path / "out", dataclasses.replace(PARAMS, batch=1)
    predict_images(run, [pictures], ["awe"], out, params, backbones)
    whole = {path.name: path.read_bytes() for path in out.iterdir() if path.name != JOURNAL}
    shutil.rmtree(out)
    weights = [str(backbones.sam.checkpoint), str(backbones.clip.checkpoint)]
    command = [sys.executable, "-c", KILLED, str(run), str(pictures), str(out), *weights]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    assert not (out / "predictions.jsonl").exists()
    journal = (out / JOURNAL).read_bytes()
    assert journal.count(b"\n") == 2 and not journal.endswith(b"\n")
    asked.clear()
    predict_images(run, [pictures], ["awe"], out, params, backbones)
    assert len(asked) == len(SIZES) - 2
    predict_images(run, [pictures], ["awe"], out, params, backbones)
    assert len(asked) == len(SIZES) - 2
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.name != JOURNAL} == whole


def test_a_picture_that_changes_meanwhile_is_not_dropped(
    run: Path, pictures: Path, backbones: BackbonesParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = module._write

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
    with module.storage.only_writer(tmp_path / "out"), pytest.raises(UserError, match="another run"):
        predict_images(run, [pictures], ["awe"], tmp_path / "out", PARAMS, backbones)


# ---- the right encoders ---------------------------------------------------------------------------------


def test_other_weights_are_refused(
    run: Path, pictures: Path, backbones: BackbonesParams, tmp_path: Path
) -> None:
    for part in ("sam", "clip"):
        chosen = getattr(backbones, part)
        moved = tmp_path / part / chosen.checkpoint.name
        shutil.copytree(chosen.checkpoint.parent, moved.parent)
        state = module.emosem.load_file(moved)
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
    other = encoders.write_backbones(tmp_path / "weights")
    with pytest.raises(UserError, match="trained on other backbones"):
        predict_images(old, [pictures], ["awe"], tmp_path / "out", PARAMS, other)


# ---- names and mistakes ---------------------------------------------------------------------------------


def test_mistakes_are_named(run: Path, pictures: Path, backbones: BackbonesParams, tmp_path: Path) -> None:
    (pictures / "empty").mkdir()
    for path, emotion, message in (
        ("wide.png", "joy", "unknown emotion 'joy'"),
        ("wide.png", ",", "no emotion asked for"),
        ("none.png", "fear", "does not exist"),
        ("empty", "awe", "no picture"),
        ("*.tif", "awe", "no picture .* matches"),
    ):
        with pytest.raises(UserError, match=message):
            predict_images(run, [pictures / path], [emotion], tmp_path / "out", PARAMS, backbones)


def test_emotions_are_told_apart() -> None:
    assert parse_emotions(["fear, Awe", "fear"]) == ["awe", "fear"]
    assert parse_emotions(["all"]) == parse_emotions(["awe,all"]) == list(EMOTIONS)


def test_pictures_are_found_by_folder_pattern_and_name(pictures: Path) -> None:
    def found(*targets: str, out: str = "nowhere") -> list[str]:
        files = find_pictures([pictures / t for t in targets], pictures / out)
        return [file.relative_to(pictures).as_posix() for file in files]

    everything = sorted([*SIZES, "broken.jpg"])
    assert found(".") == found("**/*") == everything
    assert found("*.png") == ["wide.png"] and found("**/*.png") == ["wide.png", "z/deep.png"]
    assert found("wide.png", "*") == [
        "wide.png",
        *(n for n in everything if "/" not in n and n != "wide.png"),
    ]
    assert found("notes.txt") == ["notes.txt"]  # as named; its row will have a reason
    assert "z/deep.png" not in found(".", out="z")  # a run's own maps are no pictures
    (pictures / ".hidden.png").touch()
    (pictures / "[1].png").touch()
    assert ".hidden.png" not in found(".") and found("[1].png") == ["[1].png"]


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


PART = st.text("aA.é", min_size=1, max_size=2)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(PART, PART, st.sampled_from([".png", ".jpg", ".png.jpg"])), max_size=8, unique=True)
)
def test_no_two_names_are_the_same_even_where_case_does_not_count(parts: list[tuple[str, str, str]]) -> None:
    paths = list(dict.fromkeys(Path("x" + folder) / f"x{stem}{suffix}" for folder, stem, suffix in parts))
    names = output_names(paths)
    assert len({name.casefold() for name in names}) == len(paths)
    assert not any("/" in name for name in names)


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


# ---- as a library ---------------------------------------------------------------------------------------


def test_the_lines_of_the_readme(
    run: Path, pictures: Path, backbones: BackbonesParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = {
        "backbones": {
            "sam": {"checkpoint": str(backbones.sam.checkpoint)},
            "clip": {"checkpoint": str(backbones.clip.checkpoint)},
            "device": "cpu",
        }
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copytree(run, tmp_path / "runs" / "single")
    shutil.copy(pictures / "wide.png", tmp_path / "painting.jpg")
    monkeypatch.chdir(tmp_path)
    template = (ROOT / "model" / "model_card_template.md").read_text()
    lines = template.split("```python\n")[1].split("```")[0]
    found: dict[str, Any] = {}
    exec(lines.replace("FOLDER_OF_THIS_MODEL", "runs/single"), found)  # noqa: S102 - our own lines
    answer = found["found"]
    assert answer.mask.shape == SIZES["wide.png"] and 0 <= answer.mask.min() <= answer.mask.max() <= 1
    assert isinstance(answer.explanations[0], str)
    assert isinstance(found["predictor"].model, EmoSEM)
