"""The small CLIP's data, loss and tokenizer, and a recipe cut to two steps."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from torch.nn import functional as F

from model.pretrain import clip, scenes
from model.pretrain.clip import ClipPretrainParams, contrastive_loss, cut, fits, jitter
from model.pretrain.scenes import (
    CANVAS,
    CLASSES,
    OWNERS,
    SCENERY_OWNER,
    TEXTS,
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


def test_what_fits_what() -> None:
    """Crops: a red house; a red house with a blue snake; a red snake. Texts name kind and at times colour."""
    house, snake, red, blue, any_ = 1, 2, 10, 11, -1
    nobody = [-2, -2, -2, -2]
    shown = torch.tensor(
        [
            [[house, red, 20, -1], nobody],
            [[house, red, 20, -1], [snake, blue, 21, -1]],
            [[snake, red, 20, -1], nobody],
        ]
    )
    named = torch.tensor(
        [
            [house, any_, any_, any_],
            [snake, blue, any_, any_],
            [house, blue, any_, any_],
        ]
    )
    expected = [[True, False, False], [True, True, False], [False, False, False]]
    assert fits(shown, named).tolist() == expected


def test_one_positive_each_is_clips_own_loss() -> None:
    torch.manual_seed(0)
    images, texts = (F.normalize(torch.randn(7, 5), dim=1) for _ in range(2))
    logits = 9 * images @ texts.T
    target = torch.arange(7)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    found = contrastive_loss(images, texts, torch.tensor(9.0), torch.eye(7, dtype=torch.bool))
    torch.testing.assert_close(found, expected)


def test_jittered_boxes_stay_in_the_picture() -> None:
    torch.manual_seed(0)
    sizes = torch.tensor([[300, 448], [448, 200]])
    boxes = torch.tensor([[[0.0, 0, 40, 30], [400, 250, 448, 300]], [[0, 0, 200, 448], [190, 440, 200, 448]]])
    for _ in range(50):
        moved = jitter(boxes, sizes)
        assert (moved[..., :2] >= 0).all()
        assert (moved[..., 2:] <= sizes.flip(-1)[:, None]).all()
        assert (moved[..., 2:] - moved[..., :2] >= 8).all()


def test_training_crops_look_like_the_pipelines() -> None:
    """Averaging on the canvas stays close to the bicubic crops that similarity takes."""
    canvas = load_canvases(SEED, 1, 1)[0]
    image = torch.from_numpy(canvas.image).permute(2, 0, 1)[None]
    boxes = torch.tensor([canvas.motifs[0].box]).round()[None]
    crop = cut(image, boxes, 96)[0].permute(1, 2, 0).numpy() * 255
    x1, y1, x2, y2 = boxes[0, 0].int().tolist()
    reference = Image.fromarray(canvas.image[y1:y2, x1:x2]).resize((96, 96), Image.Resampling.BICUBIC)
    assert np.abs(crop - np.array(reference, np.float32)).mean() < 6


def test_the_recipe_writes_a_loadable_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canvases = load_canvases(SEED, 3, 1)
    monkeypatch.setattr(clip, "load_canvases", lambda seed, count, workers: canvases[:count])
    params = ClipPretrainParams(scenes=3, held_out=2, steps=2, batch=2, sentences=1000, workers=1)
    measured = clip.train_clip(tmp_path, params, "cpu")
    loaded = load_clip("tiny", tmp_path / "clip.safetensors", "cpu")
    assert loaded.encode_text(["a crooked red house"]).shape == (1, 128)
    vision = clip.small_config(1000)["vision_cfg"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    assert loaded.patch_tokens([canvases[0].image]).shape == (1, patches, vision["width"])
    assert {"kind_top1", "region_top1", "margin", "loss", "seconds"} <= measured.keys()
    assert 0 <= measured["kind_top1"] <= 100
    first = (tmp_path / "clip.safetensors").read_bytes()
    clip.train_clip(tmp_path, params, "cpu")
    assert (tmp_path / "clip.safetensors").read_bytes() == first


def test_looks_are_recognised_in_texts() -> None:
    canvas = load_canvases(SEED, 1, 1)[0]
    bpe_free = lambda texts, context_length: torch.zeros(len(texts), context_length, dtype=torch.long)  # noqa: E731
    table = clip.Scenes([canvas], bpe_free, 4, "cpu").table  # type: ignore[arg-type]
    for row, subject in enumerate(canvas.motifs):
        for column, text in enumerate(subject.texts):
            for trait, word in enumerate(subject.look, 1):
                said = bool(word) and word in text.split()
                assert (table.named[row, column, trait] == table.traits[row, trait]) == said or not word
    assert table.traits[-1, 0] == scenes.VIEW
