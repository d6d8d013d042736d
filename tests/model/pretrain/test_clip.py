"""The small CLIP's scenes and tokenizer, and its recipe cut to a few steps."""

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest
from open_clip.tokenizer import SimpleTokenizer

from model.pretrain import clip, training_state
from model.pretrain.clip import ClipPretrainParams
from model.pretrain.scenes import (
    CANVAS,
    CLASSES,
    OWNERS,
    SCENERY_OWNER,
    TEXTS,
    Canvas,
    corpus,
    load_canvases,
    load_scenes,
)
from model.pretrain.tokenizers import train_clip_bpe
from pipeline.backbones.clip import load_clip
from pipeline.common.emotions import EMOTIONS
from pipeline.gallery.scenes.scene import scene
from pipeline.gallery.world import KINDS, SCENERY, Scene

SEED = 1_000_900
SENTENCES = corpus(SEED, 1500)


def title(drawn: Scene, index: int) -> tuple[int, str]:
    return index, drawn.title


def test_scenes_do_not_depend_on_the_workers() -> None:
    one = load_scenes(SEED, 3, 1, title)
    assert one == load_scenes(SEED, 3, 2, title)
    assert [index for index, _ in one] == [0, 1, 2]
    with pytest.raises(ValueError, match="seed 7 is a gallery's"):
        load_scenes(7, 1, 1, title)


def test_a_canvas_says_what_the_scene_holds() -> None:
    drawn = scene(SEED, 0)
    canvas = load_canvases(SEED, 1, 1)[0]
    height, width = canvas.size
    assert max(height, width) == CANVAS and canvas.image.shape == (CANVAS, CANVAS, 3)
    assert canvas.image[height:].max(initial=0) == 0 and canvas.image[:, width:].max(initial=0) == 0
    assert [CLASSES[motif.label] for motif in canvas.motifs] == [motif.kind for motif in drawn.motifs]
    scale = max(drawn.image.shape[:2])
    for number, (small, full) in enumerate(zip(canvas.motifs, drawn.motifs, strict=True), 1):
        np.testing.assert_allclose(np.array(small.box) / CANVAS, np.array(full.box) / scale, atol=0.003)
        share = (canvas.owner == number).sum() / OWNERS**2
        assert share == pytest.approx(full.mask.sum() / scale**2, rel=0.1, abs=2e-4)
        assert len(small.texts) == TEXTS
        noun = full.kind.split()[-1]
        assert all(noun in text for text in small.texts)
    for part in canvas.scenery:
        name = CLASSES[part.label]
        x1, y1, x2, y2 = (int(v * OWNERS / CANVAS) for v in part.box)
        window = canvas.owner[y1 : y2 + 1, x1 : x2 + 1]
        assert name in part.texts[0]
        assert (window == SCENERY_OWNER + SCENERY.index(name)).mean() >= 0.6


def test_clip_bpe_reads_back_in_open_clip(tmp_path: Path) -> None:
    path = tmp_path / "bpe.txt.gz"
    train_clip_bpe(SENTENCES, path, merges=800)
    tokenizer = SimpleTokenizer(str(path))
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")
    assert tokenizer.vocab_size == 512 + len(lines) - 1 + 2
    for text in SENTENCES[:50]:
        decoded = tokenizer.decode(tokenizer.encode(text)).strip()
        assert decoded.replace(" - ", "-") == text  # it sets punctuation apart
    assert len(tokenizer.encode("the house")) == 2  # frequent words are one token
    before = path.read_bytes()
    train_clip_bpe(SENTENCES, path, merges=800)
    assert path.read_bytes() == before


def test_the_corpus_names_everything() -> None:
    words = set(" ".join(SENTENCES).split())
    assert {word for name in (*KINDS, *SCENERY, *EMOTIONS) for word in name.split()} <= words
    assert corpus(SEED, 1500) == SENTENCES


RECIPE = ClipPretrainParams(
    scenes=3,
    held_out=2,
    steps=3,
    batch=2,
    motifs_per_scene=2,
    framings_per_scene=2,
    warmup=1,
    cooldown=1,
    sentences=1000,
    workers=1,
)


@pytest.fixture
def three_scenes(monkeypatch: pytest.MonkeyPatch) -> list[Canvas]:
    """The recipe's drawing, short."""
    canvases = load_canvases(SEED, 3, 1)
    monkeypatch.setattr(clip, "load_canvases", lambda seed, count, workers: canvases[:count])
    return canvases


def test_the_recipe_writes_a_loadable_clip(tmp_path: Path, three_scenes: list[Canvas]) -> None:
    measured = clip.train_clip(tmp_path, RECIPE, "cpu", tmp_path / "kept")
    loaded = load_clip("tiny", tmp_path / "clip.safetensors", "cpu")
    assert loaded.encode_text(["a crooked red house"]).shape == (1, 128)
    vision = clip.small_config(1000)["vision_cfg"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    assert loaded.patch_tokens([three_scenes[0].image]).shape == (1, patches, vision["width"])
    names = {"kind_top1", "region_top1", "framing_top1", "view_rank"}
    assert names | {"margin", "loss", "processor_seconds"} <= measured.keys()
    assert all(0 <= measured[name] <= 100 for name in names)
    first = (tmp_path / "clip.safetensors").read_bytes()
    again = clip.train_clip(tmp_path, RECIPE, "cpu", tmp_path / "kept")  # nothing is left to train
    assert again | {"draw_seconds": 0} == measured | {"draw_seconds": 0}
    assert (tmp_path / "clip.safetensors").read_bytes() == first


class _Killed(BaseException):
    """As abrupt as a signal: nothing between here and the test catches it."""


@pytest.mark.usefixtures("three_scenes")
def test_a_killed_training_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clip, "evaluate", lambda *_: {})
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    clip.train_clip(undisturbed, RECIPE, "cpu", undisturbed / "kept")
    with monkeypatch.context() as patch:
        patch.setattr(training_state, "EVERY", 0.0)
        count = training_state.TrainingState.done

        def done(state: training_state.TrainingState) -> None:
            if state.step == 1:
                raise _Killed
            count(state)

        patch.setattr(training_state.TrainingState, "done", done)
        with pytest.raises(_Killed):
            clip.train_clip(killed, RECIPE, "cpu", killed / "kept")
    assert not (killed / "clip.safetensors").exists()
    capsys.readouterr()
    clip.train_clip(killed, RECIPE, "cpu", killed / "kept")
    assert "clip: step 1/3" in capsys.readouterr().out
    assert (killed / "clip.safetensors").read_bytes() == (undisturbed / "clip.safetensors").read_bytes()
    longer = dataclasses.replace(RECIPE, steps=4)
    clip.train_clip(killed, longer, "cpu", killed / "kept")
    assert "clip: step 2/4" in capsys.readouterr().out  # from before the cooldown
