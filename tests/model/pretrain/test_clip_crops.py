"""Which crops the small CLIP sees, its loss on them, and what is measured of it."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.ops import box_iou

from model.pretrain import clip_data, scenes
from model.pretrain.clip_boxes import bad_framings, cut, framing, jitter, overlaps
from model.pretrain.clip_loss import contrastive_loss, fits
from model.pretrain.clip_quality import evaluate
from model.pretrain.scenes import Canvas, load_canvases

SEED = 1_000_900


@pytest.fixture(scope="module")
def canvases() -> list[Canvas]:
    return load_canvases(SEED, 3, 1)


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


def test_a_batch_says_what_its_crops_show(canvases: list[Canvas]) -> None:
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


def test_quality_is_full_marks_for_who_knows_the_boxes(canvases: list[Canvas]) -> None:
    """A CLIP that sees IoUs with the motifs, and one that prefers what shows least of them."""
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


def test_training_crops_look_like_the_pipelines(canvases: list[Canvas]) -> None:
    """Averaging on the canvas stays close to the bicubic crops that similarity takes."""
    canvas = canvases[0]
    image = torch.from_numpy(canvas.image).permute(2, 0, 1)[None]
    boxes = torch.tensor([canvas.motifs[0].box]).round()[None]
    crop = cut(image, boxes, 96)[0].permute(1, 2, 0).numpy() * 255
    x1, y1, x2, y2 = boxes[0, 0].int().tolist()
    reference = Image.fromarray(canvas.image[y1:y2, x1:x2]).resize((96, 96), Image.Resampling.BICUBIC)
    assert np.abs(crop - np.array(reference, np.float32)).mean() < 6


def test_looks_are_recognised_in_texts(canvases: list[Canvas]) -> None:
    canvas = canvases[0]
    bpe_free = lambda texts, context_length: torch.zeros(len(texts), context_length, dtype=torch.long)  # noqa: E731
    table = clip_data.Scenes([canvas], bpe_free, 4, "cpu").table  # type: ignore[arg-type]
    for row, subject in enumerate(canvas.motifs):
        for column, text in enumerate(subject.texts):
            for trait, word in enumerate(subject.look, 1):
                said = bool(word) and word in text.split()
                assert (table.named[row, column, trait] == table.traits[row, trait]) == said or not word
    assert table.traits[-1, 0] == scenes.VIEW
