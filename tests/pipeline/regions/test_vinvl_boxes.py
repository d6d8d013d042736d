"""VinVL's box arithmetic and its three filters of detections, against hand computations and brute force."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchvision.ops import nms

from pipeline.regions.vinvl.boxes import HEAD_WEIGHTS, RPN_WEIGHTS, clip, decode, encode, iou, per_class_nms
from pipeline.regions.vinvl.config import NmsMode, VinvlConfig
from pipeline.regions.vinvl.postprocess import select
from tests.worlds.detectors import SMALL


def test_decode_by_hand() -> None:
    box = torch.tensor([10.0, 20.0, 29.0, 59.0])  # 20 wide, 40 high, centre (20, 40)
    deltas = torch.tensor([1.0, -2.0, 5 * math.log(2), 0.0])
    # weights 10, 10, 5, 5: centre (20 + 0.1 * 20, 40 - 0.2 * 40) = (22, 32), size (40, 40)
    expected = [2.0, 12.0, 41.0, 51.0]
    assert decode(deltas, box, HEAD_WEIGHTS).tolist() == pytest.approx(expected, abs=1e-4)
    huge = decode(torch.tensor([0.0, 0.0, 99.0, 0.0]), box, RPN_WEIGHTS)
    assert (huge[2] - huge[0] + 1).item() == pytest.approx(20 * 1000 / 16, rel=1e-4)


BOXES = hnp.arrays(np.float32, (5, 4), elements=st.floats(0, 50, width=32)).map(
    lambda a: np.concatenate([a[:, :2], a[:, :2] + a[:, 2:]], axis=1)
)


@given(BOXES, BOXES)
@settings(max_examples=30)
def test_encode_is_the_inverse_of_decode(targets: np.ndarray, boxes: np.ndarray) -> None:
    t, b = torch.from_numpy(targets), torch.from_numpy(boxes)
    deltas = encode(t, b, HEAD_WEIGHTS)
    np.testing.assert_allclose(decode(deltas, b, HEAD_WEIGHTS), targets, atol=2e-3)


def test_clip_keeps_corners_on_pixels() -> None:
    boxes = torch.tensor([[-5.0, 3.0, 40.0, 25.0], [31.0, 19.0, 31.0, 19.0]])
    assert clip(boxes, 20, 32).tolist() == [[0, 3, 31, 19], [31, 19, 31, 19]]


def test_iou_counts_pixels() -> None:
    found = iou(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 0, 2, 1], [5.0, 5, 6, 6]]))
    assert found.tolist() == [[pytest.approx(2 / 6), 0.0]]


def random_detections(seed: int, n: int = 30, classes: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, classes, 2, generator=generator) * 30
    boxes = torch.cat([corner, corner + 5 + torch.rand(n, classes, 2, generator=generator) * 30], dim=2)
    return (torch.randn(n, classes, generator=generator) * 2).softmax(1), boxes


@pytest.mark.parametrize("seed", range(3))
def test_per_class_nms_equals_torchvision_class_by_class(seed: int) -> None:
    scores, boxes = random_detections(seed)
    keep = per_class_nms(boxes, scores, 0.3)
    for c in range(scores.shape[1]):
        assert set(keep[:, c].nonzero().flatten().tolist()) == set(
            nms(boxes[:, c], scores[:, c], 0.3).tolist()
        )


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
