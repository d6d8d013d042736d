"""The small SAM's prompts, targets and losses, and what its quality is measured with."""

import numpy as np
import pytest
import torch
from torch import nn

from model.pretrain.pictures import NOTHING, SIDE, Pictures
from model.pretrain.prompting import (
    CARRIERS,
    SUBCELLS,
    Teacher,
    decode,
    dense_loss,
    iou,
    mask_loss,
    preprocess,
    zoom,
)
from model.pretrain.sam_quality import probe
from model.pretrain.scenes import CLASSES, Canvas, load_canvases
from model.pretrain.segmentation_data import (
    CELL,
    KINDS,
    draw_points,
    draw_sets,
    present_kinds,
    set_masks,
    tight_boxes,
    visual_targets,
)
from pipeline.backbones.sam import build_sam
from tests.worlds.backbones import SAM

SEED = 1_000_900


@pytest.fixture(scope="module")
def canvases() -> list[Canvas]:
    return load_canvases(SEED, 3, 1)


@pytest.mark.parametrize("prompts", [0, 3])
def test_batched_decoding_equals_sams_own(prompts: int) -> None:
    """Different pictures in one batch, against `MaskDecoder` on each alone."""
    torch.manual_seed(0)
    sam = build_sam(SAM).eval()
    grids, tokens = torch.randn(4, 16, 8, 8), torch.randn(4, prompts, 16)
    dense_pe = sam.prompt_encoder.get_dense_pe()
    _, no_mask = sam.prompt_encoder(points=None, boxes=None, masks=None)
    with torch.inference_mode():
        own = sam.mask_decoder.mask_tokens.weight.expand(4, -1, -1)
        masks, scores = decode(sam, grids, own, tokens, dense_pe)
        for i in range(4):
            expected = sam.mask_decoder.predict_masks(grids[i : i + 1], dense_pe, tokens[i : i + 1], no_mask)
            torch.testing.assert_close(masks[i : i + 1], expected[0], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(scores[i : i + 1], expected[1], rtol=1e-5, atol=1e-5)


def test_many_mask_tokens_share_hypernetwork_0() -> None:
    torch.manual_seed(0)
    sam = build_sam(SAM).eval()
    grids = torch.randn(2, 16, 8, 8)
    slots = sam.mask_decoder.mask_tokens.weight[:1].expand(2, 8, -1)
    masks, _ = decode(sam, grids, slots, grids.new_zeros(2, 0, 16), sam.prompt_encoder.get_dense_pe())
    assert masks.shape == (2, 8, 32, 32)
    torch.testing.assert_close(masks[:, 3], masks[:, 0])  # the same token, the same network


def test_mask_loss_against_a_loop_over_pixels() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(5, 6, 7), (torch.rand(5, 6, 7) > 0.6).float()
    for found, scores, truth in zip(mask_loss(logits, target), logits.numpy(), target.numpy(), strict=True):
        p = 1 / (1 + np.exp(-scores.astype(np.float64)))
        pixels = zip(p.flatten(), truth.flatten(), strict=True)
        entropy = np.mean([-3 * np.log(q) if there else -np.log(1 - q) for q, there in pixels])
        dice = 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)
        assert float(found) == pytest.approx(4 * entropy + dice, rel=1e-5)
    both_empty = mask_loss(torch.full((1, 4, 4), -20.0), torch.zeros(1, 4, 4))
    assert float(both_empty) == pytest.approx(0, abs=1e-4)


def test_iou_by_hand() -> None:
    logits = torch.tensor([[[1.0, 1], [-1, -1]], [[-1, -1], [-1, -1]], [[1, 1], [1, 1]]])
    target = torch.tensor([[[1.0, 0], [1, 0]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]])
    torch.testing.assert_close(iou(logits, target), torch.tensor([1 / 3, 1.0, 0.0]))


def test_sets_of_kinds_are_as_announced() -> None:
    torch.manual_seed(0)
    present = torch.zeros(6, KINDS, dtype=torch.bool)
    for row in range(6):
        present[row, torch.randperm(KINDS)[: row + 1]] = True
    sets = draw_sets(present, 400, empty=0.25)
    here = (sets & present[:, None]).sum(-1)
    assert int(sets.sum(-1).min()) >= 1 and int(sets.sum(-1).max()) <= 8
    assert int(here.max()) == 3 and int(here[0].max()) == 1
    assert float((here == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert sets.any(1).all()  # every kind is named sooner or later
    assert (draw_sets(present, 50, empty=0.0) & present[:, None]).any(-1).all()


def test_set_masks_equal_a_look_at_every_pixel() -> None:
    rng = np.random.default_rng(0)
    classes = torch.from_numpy(rng.integers(0, len(CLASSES), (2, 8, 8)))
    sets = torch.from_numpy(rng.random((2, 3, KINDS)) < 0.3)
    found = set_masks(sets, classes)
    for b, p in np.ndindex(2, 3):
        wanted = set(sets[b, p].nonzero().flatten().tolist())
        pixels = np.array([[float(int(c) in wanted) for c in row] for row in classes[b]])
        blocks = pixels.reshape(8 // CELL, CELL, 8 // CELL, CELL).mean((1, 3))
        np.testing.assert_allclose(found[b, p], blocks)
    expected = {k for k in range(KINDS) if (classes[0] == k).any()}
    assert set(present_kinds(classes)[0].nonzero().flatten().tolist()) == expected


def test_boxes_and_points_of_targets() -> None:
    target = torch.zeros(2, 10, 12)
    target[0, 3:6, 4:9] = 1
    target[1, 9, 11] = 1
    boxes = tight_boxes(target)
    assert boxes.tolist() == [
        [4 * CELL, 3 * CELL, 9 * CELL, 6 * CELL],
        [11 * CELL, 9 * CELL, 12 * CELL, 10 * CELL],
    ]
    torch.manual_seed(0)
    for _ in range(20):
        points = draw_points(target)
        inside = (points > boxes[:, :2]) & (points < boxes[:, 2:])
        assert inside.all()


def test_pictures_on_the_device(canvases: list[Canvas]) -> None:
    pictures = Pictures.of(canvases, "cpu")
    chosen = torch.arange(3)
    images, owners, sizes = pictures.batch(chosen, mirror=False)
    assert images.shape == (3, 3, SIDE, SIDE) and images.dtype == torch.uint8
    classes = pictures.class_map(chosen, owners)
    for number, canvas in enumerate(canvases):
        for index, motif in enumerate(canvas.motifs, 1):
            assert (classes[number][owners[number] == index] == motif.label).all()
        assert (classes[number][owners[number] == 0] == NOTHING).all()
    torch.manual_seed(1)
    turned = [pictures.batch(chosen, mirror=True) for _ in range(6)]
    mirrored = 0
    for flipped_images, flipped_owners, _ in turned:
        for i in range(3):
            height, width = sizes[i].tolist()
            assert (flipped_owners[i, :, width:] == owners[i, :, width:]).all()  # the padding stays
            straight = torch.equal(flipped_owners[i], owners[i])
            if not straight:
                mirrored += 1
                assert torch.equal(flipped_owners[i, :, :width], owners[i, :, :width].flip(-1))
                assert torch.equal(flipped_images[i, ..., :width], images[i, ..., :width].flip(-1))
            assert height <= SIDE
    assert 3 < mirrored < 15


def test_preprocess_equals_the_encoders(canvases: list[Canvas]) -> None:
    """On the shrunk canvas, against `SamEncoder` on the same picture without its padding."""
    from pipeline.backbones.sam import SamConfig, SamEncoder

    sam = build_sam(SamConfig()).eval()
    pictures = Pictures.of(canvases, "cpu")
    images, _, sizes = pictures.batch(torch.arange(3), mirror=False)
    found = preprocess(sam, images, sizes)
    for i, canvas in enumerate(canvases):
        height, width = canvas.size
        expected = SamEncoder(sam, "cpu").preprocess(np.ascontiguousarray(canvas.image[:height, :width]))
        rows, columns = sizes[i].tolist()
        difference = (found[i] - expected)[:, : rows - 1, : columns - 1].abs()
        assert float(difference.mean()) < 0.07  # four of 255 levels: sides round to whole pixels
        assert not found[i][:, rows:].any() and not found[i][:, :, columns:].any()


def test_prompts_of_a_teacher() -> None:
    torch.manual_seed(0)
    teacher = Teacher(16)
    sets = torch.zeros(1, KINDS, dtype=torch.bool)
    sets[0, [2, 5]] = True
    parts = SUBCELLS**2  # of a cell, each with its own classifier; a kind's direction is their mean
    known = torch.stack(
        [teacher.classify.weight[k * parts : (k + 1) * parts, :, 0, 0].mean(0) for k in (2, 5)]
    )
    directions = known / known.norm(dim=1, keepdim=True)
    torch.testing.assert_close(teacher.meaning(sets)[0], directions.mean(0) * 4)  # sqrt of the width
    assert teacher.prompts(sets).shape == (1, CARRIERS + 1, 16)


def test_zoomed_pictures_and_owners_stay_one(canvases: list[Canvas]) -> None:
    """Pictures painted by owner: after the zoom every pixel still has its owner's colour, but at edges."""
    pictures = Pictures.of(canvases, "cpu")
    owners, sizes = pictures.owners, pictures.sizes
    colours = torch.randint(256, (256, 3), generator=torch.Generator().manual_seed(0))
    painted = colours[owners.long()].permute(0, 3, 1, 2).to(torch.uint8)
    torch.manual_seed(0)
    zoomed = 0
    for _ in range(8):
        images, found, seen = zoom(painted, owners, sizes)
        for i in range(3):
            height, width = seen[i].tolist()
            assert 0 < height <= SIDE and 0 < width <= SIDE
            inner = (slice(2, height - 2), slice(2, width - 2))
            expected = colours[found[i].long()][inner].float()
            off = (images[i].permute(1, 2, 0)[inner] - expected).abs().amax(-1) > 2
            assert float(off.float().mean()) < 0.15  # where two owners meet, colours mix
            same = torch.equal(found[i], owners[i])
            zoomed += not same
            assert not same or torch.equal(seen[i], sizes[i])
    assert 4 < zoomed < 20


def test_the_auxiliary_loss_looks_at_parts_of_a_cell() -> None:
    """A classifier that knows the four quarters of each cell, against maps that have them so or turned."""
    teacher = Teacher(4)
    weight = torch.zeros(len(CLASSES), SUBCELLS**2, 4)
    for part, kind in enumerate((KINDS, KINDS + 1, KINDS + 2, KINDS + 3)):
        weight[kind, part] = 10.0
    teacher.classify.load_state_dict(
        {"weight": weight.flatten(0, 1)[..., None, None], "bias": torch.zeros(len(CLASSES) * SUBCELLS**2)}
    )
    quarters = torch.tensor([[KINDS, KINDS + 1], [KINDS + 2, KINDS + 3]])
    classes = quarters.repeat_interleave(4, 0).repeat_interleave(4, 1).repeat(3, 3)[None]
    grids = torch.ones(1, 4, 3, 3)
    assert float(dense_loss(teacher, grids, classes).detach()) == pytest.approx(0, abs=1e-5)
    assert float(dense_loss(teacher, grids, classes.mT).detach()) == pytest.approx(20, abs=0.1)


def test_visual_targets_are_the_owners_own_pixels(canvases: list[Canvas]) -> None:
    pictures = Pictures.of(canvases, "cpu")
    chosen = torch.tensor([2, 0])
    masks, owner = visual_targets(pictures, chosen, pictures.owners[chosen], 5)
    for row, column in np.ndindex(2, 5):
        own = (pictures.owners[chosen[row]] == owner[row, column]).numpy().astype(np.float64)
        blocks = own.reshape(SIDE // CELL, CELL, SIDE // CELL, CELL).mean((1, 3))
        np.testing.assert_allclose(masks[row, column], blocks)
        assert own.sum() > 0


def test_the_probe_finds_what_is_in_the_cells_and_nothing_else(canvases: list[Canvas]) -> None:
    """An encoder that gives away each cell's class, and one that gives noise."""
    pictures = Pictures.of(canvases, "cpu")
    classes = pictures.class_map(torch.arange(3), pictures.owners)
    told = nn.functional.one_hot(classes, len(CLASSES)).permute(0, 3, 1, 2).float()
    told = nn.functional.avg_pool2d(told, SIDE // 20)
    sam = build_sam(SAM)

    class Tells(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return told[: len(pixels)]

    class Noise(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.randn(len(pixels), 4, 20, 20, generator=torch.Generator().manual_seed(0))

    sam.image_encoder = Tells()
    assert probe(sam, pictures, pictures)["probe_motif_cells"] > 95
    sam.image_encoder = Noise()
    assert probe(sam, pictures, pictures)["probe_motif_cells"] < 30
