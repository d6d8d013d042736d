"""The small CLIP's data, tokenizer, loss and quality, and a recipe cut to a few steps."""

import dataclasses
import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from torch.nn import functional as F
from torchvision.ops import box_iou

from model.pretrain import clip, clip_data, scenes, training_state
from model.pretrain.clip import ClipPretrainParams
from model.pretrain.clip_boxes import bad_framings, cut, framing, jitter, overlaps
from model.pretrain.clip_loss import contrastive_loss, fits
from model.pretrain.clip_quality import evaluate
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
    shares = torch.tensor([[0.5, 0.0], [1.0, 0.25], [0.0, 0.0]])  # the last crop is framed too badly
    named = torch.tensor([[house, any_, any_, any_], [snake, blue, any_, any_], [house, blue, any_, any_]])
    found = fits(shown, named, shares)
    assert found.tolist() == [[0.5, 0.0, 0.0], [1.0, 0.25, 0.0], [0.0, 0.0, 0.0]]
    anything = fits(shown, torch.full((1, 4), any_), shares)
    assert anything.tolist() == [[0.5], [1.0], [0.0]]


def test_one_positive_each_is_clips_own_loss() -> None:
    torch.manual_seed(0)
    images, texts = (F.normalize(torch.randn(7, 5), dim=1) for _ in range(2))
    logits = 9 * images @ texts.T
    target = torch.arange(7)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(contrastive_loss(images, texts, torch.tensor(9.0), torch.eye(7)), expected)


def test_crops_that_fit_nothing_are_only_told_from() -> None:
    """Against sums written out: 4 crops, 2 texts; crop 2 fits nothing, crop 3 is not asked for by text 1."""
    torch.manual_seed(1)
    images, texts = F.normalize(torch.randn(4, 3), dim=1), F.normalize(torch.randn(2, 3), dim=1)
    weights = torch.tensor([[0.25, 0.0], [0.75, 1.0], [0.0, 0.0], [1.0, 1.0]])
    unasked = torch.zeros(4, 2, dtype=torch.bool)
    unasked[3, 1] = True
    e = np.exp(5 * (images @ texts.T).double().numpy())
    rows = [
        -np.log(e[0, 0] / e[0].sum()),
        -(0.75 * np.log(e[1, 0] / e[1].sum()) + 1.0 * np.log(e[1, 1] / e[1].sum())) / 1.75,
        -(np.log(e[3, 0] / e[3].sum()) + np.log(e[3, 1] / e[3].sum())) / 2,
    ]
    first = -sum(w * np.log(e[i, 0] / e[:, 0].sum()) for i, w in ((0, 0.25), (1, 0.75), (3, 1.0))) / 2
    second = -np.log(e[1, 1] / e[:3, 1].sum())
    expected = (np.mean(rows) + np.mean([first, second])) / 2
    found = contrastive_loss(images, texts, torch.tensor(5.0), weights, unasked)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_no_crop_that_fits_is_no_loss() -> None:
    vectors = F.normalize(torch.ones(2, 3), dim=1).requires_grad_()
    loss = contrastive_loss(vectors, vectors, torch.tensor(5.0), torch.zeros(2, 2))
    loss.backward()
    assert loss.item() == 0 and vectors.grad is not None and not vectors.grad.any()


def test_jittered_boxes_stay_in_the_picture() -> None:
    torch.manual_seed(0)
    sizes = torch.tensor([[300, 448], [448, 200]])
    boxes = torch.tensor([[[0.0, 0, 40, 30], [400, 250, 448, 300]], [[0, 0, 200, 448], [190, 440, 200, 448]]])
    for _ in range(50):
        for moved in (jitter(boxes, sizes), bad_framings(boxes, sizes, 3)):
            assert (moved[..., :2] >= 0).all()
            assert (moved[..., 2:] <= sizes.flip(-1)[:, None]).all()
            assert (moved[..., 2:] - moved[..., :2] >= 8).all()


def test_what_is_well_framed_and_what_is_not() -> None:
    torch.manual_seed(0)
    sizes = torch.tensor([[400, 448]])
    motifs = torch.tensor([[[20.0, 30, 120, 160], [200, 50, 290, 200], [60, 250, 200, 390]]])
    many = motifs.repeat(1, 300, 1)
    well = box_iou(jitter(many, sizes)[0], motifs[0])
    assert (well.amax(1) > 0.54).all() and 0.65 < well.amax(1).mean() < 0.75
    badly = box_iou(bad_framings(motifs, sizes, 900)[0], motifs[0]).amax(1)
    assert 0.6 < (badly < 0.5).float().mean() < 0.95  # some are right by chance
    assert (badly < 0.1).float().mean() > 0.05 and ((badly > 0.3) & (badly < 0.5)).float().mean() > 0.1
    other = overlaps(many[:, :20], motifs)[0]
    torch.testing.assert_close(other, box_iou(many[0, :20], motifs[0]))
    shares = framing(torch.tensor([0.0, 0.49, 0.5, 0.75, 1.0]))
    torch.testing.assert_close(shares, torch.tensor([0.0, 0.0, 0.25, 0.625, 1.0]))


def test_a_batch_says_what_its_crops_show() -> None:
    canvases = load_canvases(SEED, 3, 1)
    blind = lambda texts, context_length: torch.zeros(len(texts), context_length, dtype=torch.long)  # noqa: E731
    torch.manual_seed(0)
    batch = clip_data.Scenes(canvases, blind, 4, "cpu").batch(np.random.default_rng(0), 6, 2, 5)
    assert batch.boxes.shape == (6, 2 + 2 + 5, 4) and batch.subjects.shape == (6, 4)
    for row, number in enumerate(batch.chosen.tolist()):
        motifs = canvases[number].motifs
        true = torch.tensor([motif.box for motif in motifs])
        iou = box_iou(batch.boxes[row], true)
        for crop in range(9):
            shown = {
                int(traits[0]): float(share)
                for traits, share in zip(batch.traits[row, crop], batch.shares[row, crop], strict=True)
                if share > 0
            }
            labels = {m.label for m, v in zip(motifs, iou[crop], strict=True) if v >= 0.5}
            if crop == 2:
                assert labels <= set(shown) and len(set(shown) - labels) <= 1  # scenery, where there is some
            elif crop == 3:
                assert shown == {scenes.VIEW: 1.0} | {m.label: 1.0 for m in motifs}
            else:
                assert set(shown) == labels
        for crop in range(2):
            assert batch.shares[row, crop].max() > 0.25  # what it was cut for


def test_quality_is_full_marks_for_who_knows_the_boxes() -> None:
    """A CLIP that sees IoUs with the motifs, and one that prefers what shows least of them."""
    canvases = load_canvases(SEED, 3, 1)
    motifs = [(number, motif) for number, canvas in enumerate(canvases) for motif in canvas.motifs]

    class Oracle:
        def __init__(self, sign: float) -> None:
            self.sign, self.seen = sign, -1

        def encode_crops(self, image: np.ndarray, boxes: np.ndarray, fit: str) -> torch.Tensor:
            self.seen += 1
            assert image.shape[:2] == canvases[self.seen].size and fit == "squash"
            iou = box_iou(torch.from_numpy(boxes), torch.tensor([motif.box for _, motif in motifs]))
            own = torch.tensor([number == self.seen for number, _ in motifs])
            return self.sign * iou * own

        def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
            said = [[text in motif.texts for _, motif in motifs] for text in texts]
            return torch.tensor(said).float()

    knowing = evaluate(Oracle(1.0), canvases)  # type: ignore[arg-type]
    assert {name: knowing[name] for name in ("region_top1", "framing_top1", "view_rank")} == {
        "region_top1": 100.0,
        "framing_top1": 100.0,
        "view_rank": 100.0,
    }
    assert knowing["margin"] > 0.9
    misled = evaluate(Oracle(-1.0), canvases)  # type: ignore[arg-type]
    assert misled["region_top1"] == misled["framing_top1"] == misled["view_rank"] == 0.0


def test_training_crops_look_like_the_pipelines() -> None:
    """Averaging on the canvas stays close to the bicubic crops that similarity takes."""
    canvas = load_canvases(SEED, 1, 1)[0]
    image = torch.from_numpy(canvas.image).permute(2, 0, 1)[None]
    boxes = torch.tensor([canvas.motifs[0].box]).round()[None]
    crop = cut(image, boxes, 96)[0].permute(1, 2, 0).numpy() * 255
    x1, y1, x2, y2 = boxes[0, 0].int().tolist()
    reference = Image.fromarray(canvas.image[y1:y2, x1:x2]).resize((96, 96), Image.Resampling.BICUBIC)
    assert np.abs(crop - np.array(reference, np.float32)).mean() < 6


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


def test_looks_are_recognised_in_texts() -> None:
    canvas = load_canvases(SEED, 1, 1)[0]
    bpe_free = lambda texts, context_length: torch.zeros(len(texts), context_length, dtype=torch.long)  # noqa: E731
    table = clip_data.Scenes([canvas], bpe_free, 4, "cpu").table  # type: ignore[arg-type]
    for row, subject in enumerate(canvas.motifs):
        for column, text in enumerate(subject.texts):
            for trait, word in enumerate(subject.look, 1):
                said = bool(word) and word in text.split()
                assert (table.named[row, column, trait] == table.traits[row, trait]) == said or not word
    assert table.traits[-1, 0] == scenes.VIEW
