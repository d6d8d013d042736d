"""The small detector's training: targets against brute force, folding of batch norm, learning itself."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model.pretrain import detection_data, detection_loss, vinvl
from model.pretrain.detection_data import ATTRIBUTES, LABELS, Example
from model.pretrain.detection_loss import Sampling
from pipeline.gallery.scenes.scene import scene
from pipeline.gallery.world import COLOURS, KINDS, SCENERY
from pipeline.regions.vinvl.boxes import HEAD_WEIGHTS, RPN_WEIGHTS, decode, encode, iou
from pipeline.regions.vinvl.detector import AttrRCNN, load_vinvl
from pipeline.regions.vinvl.resnext import FrozenBatchNorm2d

SMALL = dataclasses.replace(
    vinvl.SMALL,
    stem_channels=8,
    groups=2,
    stage_channels=16,
    blocks=(1, 1, 1, 1),
    short_side=96,
    long_side=160,
    roi_resolution=4,
    min_detections=5,
)


def shapes(seed: int, count: int) -> list[Example]:
    """Pictures of one or two flat squares and discs: something that a detector learns in seconds."""
    examples = []
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        height, width = (96, 144) if i % 2 else (128, 96)
        image = np.full((height, width, 3), 200, np.uint8)
        y, x = np.mgrid[:height, :width]
        boxes, labels = [], []
        for label, left in ((1, 4), (2, width // 2)):
            side = int(rng.integers(24, width // 2 - 8))
            x1, y1 = left + int(rng.integers(0, width // 2 - side - 3)), int(rng.integers(0, height - side))
            inside = (x >= x1) & (x < x1 + side) & (y >= y1) & (y < y1 + side)
            if label == 2:
                inside &= (x - x1 - side / 2) ** 2 + (y - y1 - side / 2) ** 2 <= (side / 2) ** 2
            image[inside] = (180, 30, 30) if label == 1 else (30, 30, 180)
            boxes.append((x1, y1, x1 + side - 1, y1 + side - 1))
            labels.append(label)
        examples.append(
            Example(image, np.array(boxes, np.float32), np.array(labels), np.array(labels, np.int64))
        )
    return examples


def test_examples_are_the_scenes_boxes() -> None:
    drawn = scene(1_000_900, 0)
    config = vinvl.SMALL
    example = detection_data.to_example(drawn, config)
    height, width = drawn.image.shape[:2]
    assert example.image.shape[:2] == config.resized_size(height, width)
    x_scale, y_scale = example.image.shape[1] / width, example.image.shape[0] / height
    motif = max(drawn.motifs, key=lambda m: m.mask.sum())
    rows, columns = np.nonzero(motif.mask)
    expected = [
        columns.min() * x_scale,
        rows.min() * y_scale,
        (columns.max() + 1) * x_scale - 1,
        (rows.max() + 1) * y_scale - 1,
    ]
    (row,) = [i for i, box in enumerate(example.boxes) if np.allclose(box, expected, atol=1e-3)]
    assert LABELS[example.labels[row]] == motif.kind
    assert ATTRIBUTES[example.attributes[row]] == motif.look.colour
    sky = example.boxes[example.labels == LABELS.index("sky")]
    assert len(sky) == 1 and sky[0, 1] == 0
    assert len(set(LABELS)) == len(LABELS) == 1 + len(KINDS) + len(SCENERY)
    assert len(ATTRIBUTES) == 1 + len(COLOURS)


def test_drawing_in_processes_changes_nothing() -> None:
    alone, together = (detection_data.draw_examples(1_000_901, 2, SMALL, workers) for workers in (1, 2))
    for a, b in zip(alone, together, strict=True):
        for field in dataclasses.fields(Example):
            np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


def test_mirrored_pictures_keep_their_boxes() -> None:
    torch.manual_seed(0)
    examples = shapes(1, 8)[1::2] + shapes(1, 8)[::2]
    batch = vinvl.augment(vinvl.to_tensors(examples, "cpu"))
    mean = torch.tensor(vinvl.SMALL.pixel_mean_bgr)[:, None, None]
    moved = 0
    for i, example in enumerate(examples):
        height, width = batch.sizes[i].tolist()
        assert not batch.images[i, :, height:].any() and not batch.images[i, :, :, width:].any()
        blue, _, red = batch.images[i] + mean
        square = (red - blue)[:height, :width] > 60
        rows, columns = square.nonzero(as_tuple=True)
        tight = [columns.min(), rows.min(), columns.max(), rows.max()]
        assert batch.boxes[i, 0].tolist() == [float(v) for v in tight]
        moved += int(not np.array_equal(example.boxes[0], batch.boxes[i, 0].numpy()))
    assert 0 < moved < len(examples)


def test_folded_norm_gives_what_batch_norm_gave() -> None:
    torch.manual_seed(0)
    model = vinvl.thaw(AttrRCNN(SMALL)).train()
    x = torch.randn(4, 3, 64, 64) * 50
    for _ in range(3):
        model.backbone(x)
    learned = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in learned:
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.bias)
        norm.running_var.mul_(1e-4)  # so small that forgetting eps would show
    model, x = model.double().eval(), x.double()
    frozen = vinvl.freeze(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())
    assert sum(isinstance(m, FrozenBatchNorm2d) for m in frozen.modules()) == len(learned)
    torch.testing.assert_close(frozen.backbone(x), model.backbone(x), rtol=1e-6, atol=1e-9)
    assert frozen.state_dict().keys() == AttrRCNN(SMALL).state_dict().keys()


def asked(seed: int = 0) -> tuple[AttrRCNN, detection_loss.DetectionBatch, detection_loss.Anchored]:
    torch.manual_seed(seed)
    model = AttrRCNN(SMALL).eval()
    for head in (model.rpn.head.cls_logits, model.rpn.head.bbox_pred):
        nn.init.normal_(head.weight, std=0.3)
    batch = vinvl.augment(vinvl.to_tensors(shapes(2, 4), "cpu"))
    with torch.no_grad():
        said = detection_loss.ask_rpn(model, model.backbone(batch.images, batch.sizes), batch.sizes)
    return model, batch, said


def test_training_proposals_are_those_of_the_test_path() -> None:
    model, batch, said = asked()
    model.rpn.config = dataclasses.replace(SMALL, rpn_pre_nms=50, rpn_post_nms=20)
    sampling = Sampling(pre_nms=50, proposals=20)
    padded = detection_loss.propose(said, batch.sizes, SMALL.rpn_nms, sampling)
    with torch.no_grad():
        expected = model.rpn(model.backbone(batch.images, batch.sizes), batch.sizes.tolist())
    for row, boxes in zip(padded, expected, strict=True):
        torch.testing.assert_close(row[: len(boxes)], boxes, rtol=0, atol=1e-3)
        assert not row[len(boxes) :].any()


def test_rpn_loss_equals_a_loop_over_all_anchors() -> None:
    """With room for every anchor nothing is left to chance."""
    _, batch, said = asked(1)
    found = detection_loss.rpn_losses(said, batch, Sampling(anchors=10**6))
    class_loss = box_loss = count = 0.0
    for i in range(len(batch.labels)):
        real = batch.boxes[i][batch.labels[i] > 0]
        overlap = iou(said.anchors[i], real)
        overlap[~said.inside[i]] = -1
        best_of_box = overlap.max(dim=0).values
        for k in range(overlap.shape[0]):
            if not said.inside[i, k]:
                continue
            best = overlap[k].max()
            positive = bool(best >= 0.7) or any(overlap[k, g] == best_of_box[g] > 0 for g in range(len(real)))
            if not positive and best >= 0.3:
                continue
            p = said.logits[i, k].sigmoid().double().clamp(1e-12, 1 - 1e-12)
            class_loss -= (p.log() if positive else (1 - p).log()).item()
            count += 1
            if positive:
                target = encode(real[overlap[k].argmax()], said.anchors[i, k], RPN_WEIGHTS)
                d = (said.deltas[i, k] - target).abs().double()
                box_loss += torch.where(d < 1 / 9, 4.5 * d * d, d - 1 / 18).sum().item()
    assert found["rpn_class"].item() == pytest.approx(class_loss / count, rel=1e-3)
    assert found["rpn_box"].item() == pytest.approx(box_loss / count, rel=1e-3)


def test_sampled_regions_have_the_labels_of_their_boxes() -> None:
    _, batch, said = asked(2)
    sampling = Sampling(regions=24, foreground=0.5)
    proposals = detection_loss.propose(said, batch.sizes, 0.7, sampling)
    regions = detection_loss.sample_regions(proposals, batch, sampling)
    start = 0
    for i, boxes in enumerate(regions.boxes):
        labels = regions.labels[start : start + len(boxes)]
        overlap = iou(boxes, batch.boxes[i])
        best, match = overlap.max(dim=1)
        assert len(boxes) <= 24 and int((labels > 0).sum()) <= 12
        assert torch.equal(labels > 0, best >= 0.5)
        assert torch.equal(labels[best >= 0.5], batch.labels[i][match[best >= 0.5]])
        assert {1, 2} <= set(labels.tolist())  # true boxes are candidates themselves
        decoded = decode(regions.targets[start : start + len(boxes)], boxes, HEAD_WEIGHTS)
        shown = labels > 0
        torch.testing.assert_close(decoded[shown], batch.boxes[i][match[shown]], rtol=0, atol=1e-2)
        start += len(boxes)
    assert start == len(regions.labels) == len(regions.attributes) == len(regions.targets)


def test_training_learns_and_writes_a_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Squares and discs from nothing: the loss falls, unseen pictures' boxes are found and named."""
    monkeypatch.setattr(vinvl, "SMALL", SMALL)
    monkeypatch.setattr(vinvl, "draw_examples", lambda seed, count, config, workers: shapes(seed, count))
    params = vinvl.VinvlPretrainParams(scenes=64, held_out=12, steps=80, batch=8, lr=3e-3, workers=1)
    metrics = vinvl.train_vinvl(tmp_path, params, "cpu")
    assert metrics["loss_last"] < 0.5 * metrics["loss_first"]
    assert metrics["recall_motifs"] > 0.7
    assert metrics["named"] > 0.8
    loaded = load_vinvl(tmp_path / "vinvl.safetensors")
    assert loaded.config == SMALL and loaded.labels == list(LABELS)
    content = json.loads((tmp_path / "vinvl.json").read_text())
    assert content["label_to_idx"][LABELS[1]] == 1
    found = loaded.propose([shapes(9, 1)[0].image])[0]
    assert found.attributes is not None and len(found.boxes) >= 5


def test_the_gallerys_own_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="1000000"):
        vinvl.VinvlPretrainParams(seed=7)
