"""The VinVL detector against its published sizes, hand computations and torchvision."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.resnet import Bottleneck as TorchvisionBottleneck
from torchvision.ops import FrozenBatchNorm2d as TorchvisionFrozenNorm

from pipeline.common.errors import UserError
from pipeline.regions.vinvl.config import VinvlConfig
from pipeline.regions.vinvl.detector import AttrRCNN, Regions, to_input
from pipeline.regions.vinvl.resnext import FrozenBatchNorm2d, make_layer
from pipeline.regions.vinvl.roi_heads import cap_attributes
from pipeline.regions.vinvl.rpn import cell_anchors, grid_anchors
from tests.worlds.detectors import SMALL, detector, pictures

# FACTS of the published checkpoint: ratio by ratio (0.5, 1, 2), sizes 32..512.
ANCHORS = [
    (-15, -4, 30, 19), (-38, -16, 53, 31), (-84, -40, 99, 55), (-176, -88, 191, 103), (-360, -184, 375, 199),
    (-8, -8, 23, 23), (-24, -24, 39, 39), (-56, -56, 71, 71), (-120, -120, 135, 135), (-248, -248, 263, 263),
    (-3, -14, 18, 29), (-14, -36, 29, 51), (-36, -80, 51, 95), (-80, -168, 95, 183), (-168, -344, 183, 359),
]  # fmt: skip


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


def test_config_refuses_nonsense() -> None:
    with pytest.raises(UserError, match="min_detections"):
        dataclasses.replace(SMALL, min_detections=30)
    with pytest.raises(UserError, match="unknown settings"):
        VinvlConfig.from_json({"stem": 3})
    assert VinvlConfig.from_json(json.loads(json.dumps(SMALL.to_json()))) == SMALL
