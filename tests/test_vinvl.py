"""The VinVL detector against its published sizes, hand computations, torchvision and brute force."""

import dataclasses
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from torchvision.models.resnet import Bottleneck as TorchvisionBottleneck
from torchvision.ops import FrozenBatchNorm2d as TorchvisionFrozenNorm
from torchvision.ops import nms

from pipeline.params import UserError
from pipeline.regions import boxes as box_ops
from pipeline.regions.config import NmsMode, VinvlConfig
from pipeline.regions.postprocess import select
from pipeline.regions.resnext import FrozenBatchNorm2d, make_layer
from pipeline.regions.roi_heads import cap_attributes
from pipeline.regions.rpn import cell_anchors, grid_anchors
from pipeline.regions.vinvl import AttrRCNN, Regions, load_vinvl, to_input
from pipeline.regions.weights import LABELMAP, labelmap_of, read_labels

SMALL = VinvlConfig(
    stem_channels=8,
    groups=2,
    width_per_group=4,
    stage_channels=16,
    blocks=(1, 2, 1, 1),
    roi_resolution=6,
    num_classes=6,
    num_attributes=5,
    class_embedding=3,
    attribute_hidden=7,
    short_side=96,
    long_side=160,
    rpn_pre_nms=300,
    rpn_post_nms=40,
    max_detections=20,
    ignore_box_regression=False,
)

# FACTS of the published checkpoint: ratio by ratio (0.5, 1, 2), sizes 32..512.
ANCHORS = [
    (-15, -4, 30, 19), (-38, -16, 53, 31), (-84, -40, 99, 55), (-176, -88, 191, 103), (-360, -184, 375, 199),
    (-8, -8, 23, 23), (-24, -24, 39, 39), (-56, -56, 71, 71), (-120, -120, 135, 135), (-248, -248, 263, 263),
    (-3, -14, 18, 29), (-14, -36, 29, 51), (-36, -80, 51, 95), (-80, -168, 95, 183), (-168, -344, 183, 359),
]  # fmt: skip


def detector(seed: int = 0, config: VinvlConfig = SMALL) -> AttrRCNN:
    """A small detector whose every constant matters: norms have random means and biases."""
    torch.manual_seed(seed)
    model = AttrRCNN(config)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.uniform_(0.7, 1.5)
            module.running_var.uniform_(0.3, 1.2)
            module.bias.normal_(std=0.3)
            module.running_mean.normal_(std=0.3)
    for name, parameter in model.named_parameters():
        if name.endswith(("cls_score.weight", "cls_logits.weight", "attr_score.weight", "fc_attr.weight")):
            torch.nn.init.normal_(parameter, std=0.5)
        if name.endswith("bbox_pred.weight"):
            torch.nn.init.normal_(parameter, std=0.05)
    return model.eval().requires_grad_(False)


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [
        np.kron(
            rng.integers(0, 256, (h // 20 + 1, w // 20 + 1, 3), dtype=np.uint8),
            np.ones((20, 20, 1), np.uint8),
        )[:h, :w]
        for h, w in sizes
    ]


# ---- sizes and constants -----------------------------------------------------------------------------


def test_true_size_has_the_published_state_dict() -> None:
    with torch.device("meta"):
        state = AttrRCNN(VinvlConfig()).state_dict()
    assert len(state) == 841
    assert sum(tensor.numel() for tensor in state.values()) == 177_118_843
    aliases = {name for name in state if name.startswith("attribute.feature_extractor.")}
    assert sum(t.numel() for name, t in state.items() if name not in aliases) == 148_332_155
    shapes = {
        "backbone.body.stem.conv1.weight": (64, 3, 7, 7),
        "backbone.body.stem.bn1.running_var": (64,),
        "backbone.body.layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "backbone.body.layer2.7.conv2.weight": (512, 16, 3, 3),
        "backbone.body.layer3.35.conv3.weight": (1024, 1024, 1, 1),
        "rpn.anchor_generator.cell_anchors.0": (15, 4),
        "rpn.head.conv.weight": (1024, 1024, 3, 3),
        "rpn.head.cls_logits.bias": (15,),
        "rpn.head.bbox_pred.weight": (60, 1024, 1, 1),
        "roi_heads.box.feature_extractor.head.layer4.0.conv1.weight": (2048, 1024, 1, 1),
        "roi_heads.box.feature_extractor.head.layer4.2.conv2.weight": (2048, 64, 3, 3),
        "roi_heads.box.feature_extractor.head.layer4.0.downsample.1.bias": (2048,),
        "roi_heads.box.predictor.cls_score.weight": (1595, 2048),
        "roi_heads.box.predictor.bbox_pred.weight": (6380, 2048),
        "attribute.feature_extractor.head.layer4.1.conv3.weight": (2048, 2048, 1, 1),
        "attribute.predictor.cls_embedding.weight": (1595, 256),
        "attribute.predictor.fc_attr.weight": (512, 2304),
        "attribute.predictor.attr_score.bias": (525,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert not any(name.endswith("num_batches_tracked") for name in state)


def test_anchors_equal_the_published_table() -> None:
    config = VinvlConfig()
    assert cell_anchors(config.anchor_sizes, config.anchor_ratios).tolist() == [list(row) for row in ANCHORS]


def test_anchors_of_a_map_go_row_by_row() -> None:
    grid = grid_anchors(torch.tensor(ANCHORS[:2], dtype=torch.float32), 2, 3).tolist()
    assert len(grid) == 2 * 3 * 2
    assert grid[1] == [-38, -16, 53, 31]
    assert grid[2] == [1, -4, 46, 19]  # one cell to the right: +16 in x
    assert grid[6] == [-15, 12, 30, 35]  # one cell down: +16 in y


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (600, 800)),
        ((640, 480), (800, 600)),
        ((600, 900), (600, 900)),  # already there: untouched
        ((300, 1200), (250, 1000)),  # 600 would make the long side 2400
        ((333, 500), (600, 900)),  # 600 * 500 / 333 = 900.9, cut down
        ((1000, 599), (1000, 599)),  # 1000.0 / 599 * 600 > 1000: the short side becomes round(599.0)
        ((4, 4000), (1, 1000)),
        ((1, 5000), (1, 5000)),  # round(0.2) would leave nothing
    ],
)
def test_resize_rule(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert VinvlConfig().resized_size(*size) == expected


def test_input_is_bgr_minus_mean_resized_by_pillow() -> None:
    image = pictures((70, 110))[0]
    resized = np.asarray(Image.fromarray(image).resize((150, 96), Image.Resampling.BILINEAR), np.float64)
    x = to_input(image, SMALL).numpy()
    assert x.shape == (3, 96, 150)
    np.testing.assert_allclose(x[0], resized[:, :, 2] - 103.530, atol=1e-4)
    np.testing.assert_allclose(x[1], resized[:, :, 1] - 116.280, atol=1e-4)
    np.testing.assert_allclose(x[2], resized[:, :, 0] - 123.675, atol=1e-4)
    with pytest.raises(ValueError, match="uint8"):
        to_input(image.astype(np.float32), SMALL)


def test_frozen_norm_has_no_eps() -> None:
    norm = FrozenBatchNorm2d(1)
    norm.weight.fill_(3.0)
    norm.bias.fill_(0.5)
    norm.running_mean.fill_(2.0)
    norm.running_var.fill_(1e-4)  # an eps of 1e-5 would give 28.6 + 0.5
    assert norm(torch.full((1, 1, 1, 1), 2.1)).item() == pytest.approx(3 * 0.1 / 0.01 + 0.5, rel=1e-5)


def test_layers_equal_torchvisions_bottlenecks() -> None:
    """Independent: torchvision's ResNeXt block with its own frozen norm at eps 0, the same weights."""
    torch.manual_seed(3)
    ours = make_layer(SMALL, 2).eval()

    def norm(channels: int) -> torch.nn.Module:
        return TorchvisionFrozenNorm(channels, eps=0.0)

    downsample = torch.nn.Sequential(torch.nn.Conv2d(16, 32, 1, stride=2, bias=False), norm(32))
    kwargs = {"groups": 2, "base_width": 64, "norm_layer": norm}
    theirs = torch.nn.Sequential(
        TorchvisionBottleneck(16, 8, stride=2, downsample=downsample, **kwargs),
        TorchvisionBottleneck(32, 8, **kwargs),
    )
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 16, 9, 12)
    torch.testing.assert_close(ours(x), theirs(x))


# ---- boxes -------------------------------------------------------------------------------------------


def test_decode_by_hand() -> None:
    box = torch.tensor([10.0, 20.0, 29.0, 59.0])  # 20 wide, 40 high, centre (20, 40)
    deltas = torch.tensor([1.0, -2.0, 5 * math.log(2), 0.0])
    # weights 10, 10, 5, 5: centre (20 + 0.1 * 20, 40 - 0.2 * 40) = (22, 32), size (40, 40)
    expected = [2.0, 12.0, 41.0, 51.0]
    assert box_ops.decode(deltas, box, box_ops.HEAD_WEIGHTS).tolist() == pytest.approx(expected, abs=1e-4)
    huge = box_ops.decode(torch.tensor([0.0, 0.0, 99.0, 0.0]), box, box_ops.RPN_WEIGHTS)
    assert (huge[2] - huge[0] + 1).item() == pytest.approx(20 * 1000 / 16, rel=1e-4)


BOXES = hnp.arrays(np.float32, (5, 4), elements=st.floats(0, 50, width=32)).map(
    lambda a: np.concatenate([a[:, :2], a[:, :2] + a[:, 2:]], axis=1)
)


@given(BOXES, BOXES)
@settings(max_examples=30, deadline=None)
def test_encode_is_the_inverse_of_decode(targets: np.ndarray, boxes: np.ndarray) -> None:
    t, b = torch.from_numpy(targets), torch.from_numpy(boxes)
    deltas = box_ops.encode(t, b, box_ops.HEAD_WEIGHTS)
    np.testing.assert_allclose(box_ops.decode(deltas, b, box_ops.HEAD_WEIGHTS), targets, atol=2e-3)


def test_clip_keeps_corners_on_pixels() -> None:
    boxes = torch.tensor([[-5.0, 3.0, 40.0, 25.0], [31.0, 19.0, 31.0, 19.0]])
    assert box_ops.clip(boxes, 20, 32).tolist() == [[0, 3, 31, 19], [31, 19, 31, 19]]


def test_iou_counts_pixels() -> None:
    found = box_ops.iou(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 0, 2, 1], [5.0, 5, 6, 6]]))
    assert found.tolist() == [[pytest.approx(2 / 6), 0.0]]


def random_detections(seed: int, n: int = 30, classes: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, classes, 2, generator=generator) * 30
    boxes = torch.cat([corner, corner + 5 + torch.rand(n, classes, 2, generator=generator) * 30], dim=2)
    return (torch.randn(n, classes, generator=generator) * 2).softmax(1), boxes


@pytest.mark.parametrize("seed", range(3))
def test_per_class_nms_equals_torchvision_class_by_class(seed: int) -> None:
    scores, boxes = random_detections(seed)
    keep = box_ops.per_class_nms(boxes, scores, 0.3)
    for c in range(scores.shape[1]):
        assert set(keep[:, c].nonzero().flatten().tolist()) == set(
            nms(boxes[:, c], scores[:, c], 0.3).tolist()
        )


# ---- post-processing ---------------------------------------------------------------------------------


def overlap(a: list[float], b: list[float]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def greedy(boxes: list[list[float]], scores: list[float], threshold: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if all(overlap(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def brute_mode_1(p: torch.Tensor, boxes: torch.Tensor, config: VinvlConfig) -> list[tuple[int, int]]:
    n, classes = p.shape
    survived = {c: set(greedy(boxes[:, c].tolist(), p[:, c].tolist(), 0.3)) for c in range(1, classes)}
    best = []
    for i in range(n):
        options = [(p[i, c].item(), -c) for c in range(1, classes) if i in survived[c]]
        if options:
            score, c = max(options)
            best.append((score, i, -c))
    best.sort(reverse=True)
    count = sum(score >= config.score_threshold for score, _, _ in best)
    count = min(max(count, config.min_detections), config.max_detections)
    return [(i, c) for _, i, c in best[:count]]


def brute_mode_0(p: torch.Tensor, boxes: torch.Tensor, config: VinvlConfig) -> list[tuple[int, int]]:
    threshold = config.score_threshold
    for _ in range(11):
        found = []
        for c in range(1, p.shape[1]):
            rows = [i for i in range(len(p)) if p[i, c] > threshold]
            kept = greedy([boxes[i, c].tolist() for i in rows], [p[i, c].item() for i in rows], config.nms)
            found += [(rows[k], c) for k in kept]
        if len(found) >= config.min_detections:
            break
        threshold /= 2
    if len(found) > config.max_detections:
        last = sorted((p[i, c].item() for i, c in found), reverse=True)[config.max_detections - 1]
        found = [(i, c) for i, c in found if p[i, c] >= last]
    return found


def brute_mode_2(p: torch.Tensor, boxes: torch.Tensor, config: VinvlConfig) -> list[tuple[int, int]]:
    labels = [max(range(1, p.shape[1]), key=lambda c: p[i, c].item()) for i in range(len(p))]
    scores = [p[i, c].item() for i, c in enumerate(labels)]
    rows = [i for i in range(len(p)) if scores[i] > 0.01 * config.score_threshold]
    kept = greedy([boxes[i, labels[i]].tolist() for i in rows], [scores[i] for i in rows], config.nms)
    chosen = [rows[k] for k in kept]
    count = sum(scores[i] >= config.score_threshold for i in chosen)
    count = min(max(count, config.min_detections), config.max_detections)
    return [(i, labels[i]) for i in chosen[:count]]


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize(("threshold", "low", "high"), [(0.2, 1, 100), (0.9, 12, 100), (0.05, 2, 7)])
def test_filters_equal_brute_force(mode: NmsMode, threshold: float, low: int, high: int) -> None:
    config = dataclasses.replace(
        SMALL, nms_mode=mode, score_threshold=threshold, min_detections=low, max_detections=high
    )
    brute = (brute_mode_0, brute_mode_1, brute_mode_2)[mode]
    for seed in range(4):
        p, boxes = random_detections(seed)
        rows, labels = select(p, boxes, config)
        assert list(zip(rows.tolist(), labels.tolist(), strict=True)) == brute(p, boxes, config)


def apart(n: int, classes: int) -> torch.Tensor:
    """(n, classes, 4) boxes that do not touch; every class has its proposal's."""
    x = torch.arange(n, dtype=torch.float32) * 20
    return torch.stack([x, x * 0, x + 9, x * 0 + 9], dim=1)[:, None].expand(-1, classes, -1)


def test_mode_0_halves_its_threshold_until_there_are_enough() -> None:
    p = torch.tensor([[0.0, 0.85, 0.02], [0.0, 0.3, 0.2], [0.0, 0.11, 0.05], [0.0, 0.1125, 0.01]])
    config = dataclasses.replace(SMALL, nms_mode=0, score_threshold=0.9, min_detections=3)
    rows, labels = select(p, apart(4, 3), config)  # 0.9, 0.45, 0.225, then 0.1125: above it are three
    assert list(zip(rows.tolist(), labels.tolist(), strict=True)) == [(0, 1), (1, 1), (1, 2)]
    least = dataclasses.replace(config, min_detections=20)  # ten halvings end at 0.00088
    assert len(select(p, apart(4, 3), least)[0]) == 8


def test_mode_0_keeps_ties_beyond_the_maximum() -> None:
    p = torch.tensor([[0.1, 0.9], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.6, 0.4]])
    config = dataclasses.replace(SMALL, nms_mode=0, score_threshold=0.2, max_detections=2, min_detections=1)
    assert select(p, apart(5, 2), config)[0].tolist() == [0, 1, 2, 3]
    for other in (dataclasses.replace(config, nms_mode=1), dataclasses.replace(config, nms_mode=2)):
        assert select(p, apart(5, 2), other)[0].tolist() == [0, 1]


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_boxes_without_width_survive(mode: NmsMode) -> None:
    """Clipped to a line at the picture's edge, as the original lets them through; IoU with them is 0."""
    boxes = torch.tensor([[[9.0, 2.0, 9.0, 8.0]] * 2, [[9.0, 3.0, 9.0, 7.0]] * 2, [[0.0, 0.0, 9.0, 9.0]] * 2])
    p = torch.tensor([[0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    config = dataclasses.replace(SMALL, nms_mode=mode, min_detections=1)
    assert select(p, boxes, config)[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_filters_accept_no_proposals(mode: NmsMode) -> None:
    rows, labels = select(torch.zeros(0, 6), torch.zeros(0, 6, 4), dataclasses.replace(SMALL, nms_mode=mode))
    assert rows.tolist() == labels.tolist() == []


# ---- the whole detector ------------------------------------------------------------------------------


def assert_same(found: Regions, expected: Regions, tolerance: float = 1e-5) -> None:
    assert found.labels == expected.labels
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=tolerance)
    np.testing.assert_allclose(found.scores, expected.scores, atol=tolerance)
    assert found.features is not None and expected.features is not None
    np.testing.assert_allclose(found.features, expected.features, atol=tolerance)
    assert found.attributes is not None and expected.attributes is not None
    assert [[n for n, _ in row] for row in found.attributes] == [
        [n for n, _ in row] for row in expected.attributes
    ]


@pytest.mark.parametrize("ignore_box_regression", [False, True])
def test_a_batch_gives_what_each_picture_gives_alone(ignore_box_regression: bool) -> None:
    """In float64, so that random weights' near-ties cannot change places and every difference counts."""
    model = detector(config=dataclasses.replace(SMALL, ignore_box_regression=ignore_box_regression)).double()
    images = pictures((120, 190), (200, 120), (97, 97), (300, 200), (51, 64))
    together = model.propose(images, features=True)
    assert len({to_input(image, SMALL).shape for image in images}) > 2
    for image, found in zip(images, together, strict=True):
        assert_same(found, model.propose([image], features=True)[0])


def test_propose_frames_names_and_limits() -> None:
    model = detector()
    model.labels = ["__background__", *"abcde"]
    image = pictures((240, 380))[0]
    found = model.propose([image])[0]
    assert found.features is None
    assert SMALL.min_detections <= len(found.boxes) <= SMALL.max_detections
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, [0, 2]] <= 380).all() and (found.boxes[:, [1, 3]] <= 240).all()
    assert found.boxes[:, 2].max() > 190  # in pixels of the original, not of the resized 152 x 96
    assert (np.diff(found.scores) <= 0).all()
    assert [model.labels[i] for i in found.class_ids] == found.labels
    assert model.propose([]) == []


def test_attribute_head_by_hand() -> None:
    """Final boxes pooled again, class embedding appended, threshold and background applied."""
    model = detector()
    image = pictures((96, 150))[0]
    found = model.propose([image])[0]
    boxes = torch.from_numpy(found.boxes)  # resized and original frames agree at this size
    maps = list(model.backbone(to_input(image, SMALL)[None]))
    features = model.roi_heads.box.feature_extractor(maps, [boxes])
    head = model.attribute.predictor
    x = torch.cat([features, head.cls_embedding.weight[torch.from_numpy(found.class_ids)]], dim=1)
    hidden = (x @ head.fc_attr.weight.T + head.fc_attr.bias).clamp(min=0)
    p = (hidden @ head.attr_score.weight.T + head.attr_score.bias).softmax(1)
    assert found.attributes is not None
    for row, named in zip(p, found.attributes, strict=True):
        expected = {str(i): v for i, v in enumerate(row.tolist()) if i and v > SMALL.attribute_threshold}
        assert dict(named) == pytest.approx(expected, abs=1e-5)
        assert [v for _, v in named] == sorted((v for _, v in named), reverse=True)


def test_cap_of_attributes_ranks_zeros_too() -> None:
    table = torch.tensor([[0.0, 0.5, 0.2], [0.0, 0.3, 0.4]])
    # four above zero, limit 3: the second smallest of all six is 0.0, so nothing goes
    assert torch.equal(cap_attributes(table, 3), table)
    # limit 1: the fourth smallest is 0.3
    assert cap_attributes(table, 1).tolist() == [
        [0.0, 0.5, 0.0],
        [0.0, pytest.approx(0.3), pytest.approx(0.4)],
    ]
    assert torch.equal(cap_attributes(table, 0), table)  # no limit
    assert torch.equal(cap_attributes(table, 4), table)


# ---- checkpoints -------------------------------------------------------------------------------------


def official(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """As the original's trainer writes it, with its optimizer and scheduler."""
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    weight.sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    training = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(), "iteration": 7}
    torch.save({"model": state} | training, path)
    return path


def test_official_format_round_trip(tmp_path: Path) -> None:
    model = detector()
    labelmap = tmp_path / "map.json"
    tables = {
        "label_to_idx": {name: str(i + 1) for i, name in enumerate("abcde")},  # strings, as some files have
        "attribute_to_idx": {name: i + 1 for i, name in enumerate(("red", "old", "wet", "big"))},
    }
    labelmap.write_text(json.dumps(tables))
    loaded = load_vinvl(official(tmp_path / "vinvl.pth", model.state_dict()), labelmap, SMALL)
    assert loaded.labels == ["__background__", *"abcde"]
    assert loaded.attributes == ["__no_attribute__", "red", "old", "wet", "big"]
    image = pictures((130, 170))[0]
    found, expected = loaded.propose([image], features=True)[0], model.propose([image], features=True)[0]
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.features, expected.features)
    shared = loaded.attribute.feature_extractor is loaded.roi_heads.box.feature_extractor
    assert shared and not loaded.training


def test_saved_weights_find_their_sizes(tmp_path: Path) -> None:
    model = detector()
    model.save(tmp_path / "vinvl")
    loaded = load_vinvl(tmp_path / "vinvl.safetensors")
    assert loaded.config == SMALL and loaded.labels[1:] == model.labels[1:]
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)


def test_names_by_suffix_prefix_and_alias(tmp_path: Path) -> None:
    state = detector().state_dict()

    def reload(changed: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return load_vinvl(official(tmp_path / "x.pth", changed), config=SMALL).state_dict()

    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    twice = {f"model.module.{name}": tensor for name, tensor in state.items()}
    suffixes = {name.replace("backbone.body.", ""): tensor for name, tensor in state.items()}
    once = {name: t for name, t in state.items() if not name.startswith("attribute.feature_extractor")}
    other = {name: t for name, t in state.items() if not name.startswith("roi_heads.box.feature_extractor")}
    no_anchors = {name: t for name, t in state.items() if "cell_anchors" not in name}
    for changed in (wrapped, twice, suffixes, once, other, no_anchors):
        for name, tensor in reload(changed).items():
            torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)


def test_of_two_copies_of_layer4_the_attribute_heads_wins(tmp_path: Path) -> None:
    state = dict(detector().state_dict())
    name = "feature_extractor.head.layer4.0.conv1.weight"
    state[f"attribute.{name}"] = state[f"attribute.{name}"] + 1
    loaded = load_vinvl(official(tmp_path / "x.pth", state), config=SMALL).state_dict()
    torch.testing.assert_close(loaded[f"roi_heads.box.{name}"], state[f"attribute.{name}"], rtol=0, atol=0)


def test_a_wrapper_around_some_names_only_is_refused(tmp_path: Path) -> None:
    """The original would strip nothing, find nothing under those names and leave them at random."""
    state = {f"module.{n}" if n.startswith("rpn") else n: t for n, t in detector().state_dict().items()}
    with pytest.raises(UserError, match=r"missing: rpn\..*\n.*left over: module\.rpn"):
        load_vinvl(official(tmp_path / "x.pth", state), config=SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rpn.head.conv.bias": None}, "1 missing: rpn.head.conv.bias"),
        ({"optimizer.step": torch.zeros(1)}, "1 left over: optimizer.step"),
        ({"rpn.head.conv.bias": torch.zeros(3)}, r"rpn.head.conv.bias \(3,\) instead of \(64,\)"),
        ({"rpn.anchor_generator.cell_anchors.0": torch.zeros(15, 4)}, "differs from the anchors"),
        (
            {"rpn.head.conv.bias": None, "conv.bias": torch.zeros(64), "bias": torch.zeros(64)},
            "left over: bias",
        ),
    ],
)
def test_anything_else_is_refused(
    tmp_path: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    state = {name: t for name, t in (detector().state_dict() | change).items() if t is not None}
    with pytest.raises(UserError, match=message):
        load_vinvl(official(tmp_path / "x.pth", state), config=SMALL)


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("unpickled",))


def test_files_that_are_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no detector checkpoint"):
        load_vinvl("absent.pth", config=SMALL)
    torch.save({"model": {}, "scheduler": Payload()}, "evil.pth")
    with pytest.raises(UserError, match=r"it holds a \w+\.mkdir.*save its weights alone"):
        load_vinvl("evil.pth", config=SMALL)
    assert not Path("unpickled").exists()
    for name in ("noise.pth", "noise.safetensors"):
        Path(name).write_bytes(b"not weights at all")
        with pytest.raises(UserError, match="noise"):
            load_vinvl(name, config=SMALL)
    Path("labels.json").write_text(json.dumps({"label_to_idx": {"a": 1, "b": 3}}))
    official(Path("fine.pth"), detector().state_dict())
    with pytest.raises(UserError, match="must number 1 to 5"):
        load_vinvl("fine.pth", "labels.json", SMALL)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"idx_to_label": {"1": "a"}}, "must hold label_to_idx"),
        ({"label_to_idx": ["a", "b"]}, "must hold label_to_idx"),
        ({"label_to_idx": {"a": "one", "b": 2}}, "must hold label_to_idx"),
        ({"label_to_idx": {"a": 1, "b": None}}, "must hold label_to_idx"),
        ({"label_to_idx": {"a": 1, "b": 1}}, "each once"),
        ({"label_to_idx": {"a": 1, "b": 2, "c": "2"}}, "3 entries up to 2"),
        ({"label_to_idx": {"a": 1, "b": 2, "c": 3}}, "entries up to 3"),
    ],
)
def test_label_maps_that_do_not_fit(tmp_path: Path, content: dict[str, object], message: str) -> None:
    (tmp_path / "map.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_labels(tmp_path / "map.json", "label_to_idx", 3)


def test_label_map_quirks(tmp_path: Path) -> None:
    """Numbers as texts, in any order, the background named or not, inverse tables beside, accents."""
    labels: dict[str, int | str] = {"b": "2", "été": 1}
    tables = {"label_to_idx": labels, "idx_to_label": {"1": "été"}, "predicate_to_idx": {}}
    (tmp_path / LABELMAP).write_text(json.dumps(tables))
    assert read_labels(tmp_path / LABELMAP, "label_to_idx", 3) == ["__background__", "été", "b"]
    labels["__background__"] = 0
    (tmp_path / "x.json").write_text(json.dumps(tables))
    assert read_labels(tmp_path / "x.json", "label_to_idx", 3) == ["__background__", "été", "b"]
    assert labelmap_of(tmp_path / "x.pth") == tmp_path / "x.json"
    (tmp_path / "x.json").write_text(json.dumps({"config": {}}))  # sizes only
    assert labelmap_of(tmp_path / "x.pth") == tmp_path / LABELMAP
    assert labelmap_of(tmp_path / "elsewhere" / "x.pth") is None


def test_mode_2_with_box_regression_warns(tmp_path: Path) -> None:
    path = official(tmp_path / "x.pth", detector().state_dict())
    with pytest.warns(UserWarning, match="boxes of other proposals"):
        load_vinvl(path, config=dataclasses.replace(SMALL, nms_mode=2))


def test_config_refuses_nonsense() -> None:
    with pytest.raises(UserError, match="min_detections"):
        dataclasses.replace(SMALL, min_detections=30)
    with pytest.raises(UserError, match="unknown settings"):
        VinvlConfig.from_json({"stem": 3})
    assert VinvlConfig.from_json(json.loads(json.dumps(SMALL.to_json()))) == SMALL
