"""The APOLO protocol against a plain-Python version of the released script's mathematics, and by hand."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from model.metrics import segmentation
from model.metrics.segmentation import (
    MapScores,
    Truth,
    fill_boxes,
    foreground,
    foreground_iou,
    scaled,
    score_maps,
)

# ---- the released script's mathematics in plain Python: no NumPy, no OpenCV ---------------------------


def plain_min_max(rows: list[list[float]]) -> list[list[float]] | None:
    low, high = min(map(min, rows)), max(map(max, rows))
    return [[(v - low) / (high - low) for v in row] for row in rows] if high > low else None


def plain_bilinear(rows: list[list[float]], height: int, width: int) -> list[list[float]]:
    """Half-pixel centres, edges repeated: what cv2.INTER_LINEAR means."""

    def taps(size: int, wanted: int) -> list[tuple[int, int, float]]:
        found = []
        for i in range(wanted):
            at = (i + 0.5) * size / wanted - 0.5
            low = math.floor(at)
            share = at - low
            found.append((min(max(low, 0), size - 1), min(max(low + 1, 0), size - 1), share))
        return found

    columns = taps(len(rows[0]), width)
    across = [[row[a] * (1 - s) + row[b] * s for a, b, s in columns] for row in rows]
    return [
        [across[a][x] * (1 - s) + across[b][x] * s for x in range(width)]
        for a, b, s in taps(len(rows), height)
    ]


def plain_boxes(mask: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """8-connected components by flood fill, each as its filled tight box."""
    filled: set[tuple[int, int]] = set()
    left = set(mask)
    while left:
        todo, component = [left.pop()], set()
        while todo:
            y, x = todo.pop()
            component.add((y, x))
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if (y + dy, x + dx) in left:
                        left.remove((y + dy, x + dx))
                        todo.append((y + dy, x + dx))
        ys, xs = [y for y, _ in component], [x for _, x in component]
        filled |= {(y, x) for y in range(min(ys), max(ys) + 1) for x in range(min(xs), max(xs) + 1)}
    return filled


def plain_score(pred: set[tuple[int, int]], truth: set[tuple[int, int]]) -> float:
    """Mean of the classes' IoU inside the union, times two, clamped: the script's own detour."""
    if not pred:
        return 0.0
    union = pred | truth
    ious = []
    for inside in (True, False):
        a = {p for p in union if (p in pred) == inside}
        b = {p for p in union if (p in truth) == inside}
        if a | b:
            ious.append(len(a & b) / len(a | b))
    score = sum(ious) / len(ious) * 2
    return 1.0 if score >= 2 else score


def pixels(mask: np.ndarray) -> set[tuple[int, int]]:
    return {(int(y), int(x)) for y, x in np.argwhere(mask)}


def plain_item(
    map_: np.ndarray, truth: np.ndarray, threshold: float, box_truth: bool
) -> tuple[float, float] | None:
    """(seg, box) of one item, or None when a value is too near the threshold to call."""
    scaled = plain_min_max(map_.astype(float).tolist())
    if scaled is None:
        return 0.0, 0.0
    values = plain_bilinear(scaled, *truth.shape)
    if any(abs(v - threshold) < 1e-5 for row in values for v in row):
        return None
    pred = {(y, x) for y, row in enumerate(values) for x, v in enumerate(row) if v > threshold}
    label = pixels(truth)
    return plain_score(pred, label), plain_score(
        plain_boxes(pred), plain_boxes(label) if box_truth else label
    )


# ---- properties ---------------------------------------------------------------------------------------

SIDE = st.integers(1, 14)
SIZE = st.tuples(SIDE, SIDE)


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1), SIZE, SIZE, st.sampled_from([0.2, 0.35, 0.5]), st.booleans())
def test_scores_equal_the_plain_version(
    seed: int, map_size: tuple[int, int], size: tuple[int, int], threshold: float, box_truth: bool
) -> None:
    rng = np.random.default_rng(seed)
    map_ = rng.normal(size=map_size).astype(rng.choice([np.float16, np.float32, np.float64]))
    truth = rng.random(size) < rng.choice([0.1, 0.5, 0.9])
    assume(truth.any())
    wanted = plain_item(map_, truth, threshold, box_truth)
    assume(wanted is not None)
    found = score_maps([map_], [truth], threshold=threshold, box_truth=box_truth)
    assert (found.iou_seg[0], found.iou_box[0]) == pytest.approx(wanted, abs=1e-12)


def plain_rates(items: list[tuple[np.ndarray | None, np.ndarray]], box: bool) -> tuple[int, int, int] | None:
    """(items that count, Pr@25's and Pr@50's hits) as the script counts them; None when one is too near."""
    counter = hits_25 = hits_50 = 0
    for map_, truth in items:
        if not truth.any():
            continue
        scores = (0.0, 0.0) if map_ is None else plain_item(map_, truth, 0.35, box_truth=True)
        if scores is None:
            return None
        counter += 1
        hits_25 += scores[box] >= 0.25
        hits_50 += scores[box] >= 0.5
    return counter, hits_25, hits_50


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_rates_equal_the_plain_count(seed: int) -> None:
    """Twelve items, of which some have no map, a constant one, the label's size turned, or an empty label."""
    rng = np.random.default_rng(seed)
    items: list[tuple[np.ndarray | None, np.ndarray]] = []
    for kind in rng.permutation(["map"] * 7 + ["none", "constant", "turned", "empty", "one-pixel"]):
        height, width = rng.integers(2, 12, 2)
        truth = np.zeros((height, width), np.uint8)
        y, x = rng.integers(0, height), rng.integers(0, width)
        truth[y : y + rng.integers(1, 9), x : x + rng.integers(1, 9)] = kind != "empty"
        map_ = truth * 0.5 + rng.random((height, width))
        if kind == "turned":
            map_ = map_.T
        if kind in ("constant", "one-pixel"):
            map_ = np.full((1, 1) if kind == "one-pixel" else (3, 4), 0.7)
        items.append((None if kind == "none" else map_, truth))
    by_pixels, by_boxes = plain_rates(items, box=False), plain_rates(items, box=True)
    assume(by_pixels is not None and by_boxes is not None)
    rates = score_maps(*zip(*items, strict=True)).rates()
    for name, wanted in (("seg", by_pixels), ("box", by_boxes)):
        assert wanted is not None
        assert rates["items"] == wanted[0] == 11
        assert rates[f"{name}_pr25"] == pytest.approx(100 * wanted[1] / 11)
        assert rates[f"{name}_pr50"] == pytest.approx(100 * wanted[2] / 11)


@pytest.mark.parametrize("speckled", [0.0, segmentation.SPECKLED, 1.0])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 1.0])
def test_boxes_equal_flood_fill(monkeypatch: pytest.MonkeyPatch, speckled: float, share: float) -> None:
    """By contours, by labels, and by whichever is faster."""
    monkeypatch.setattr(segmentation, "SPECKLED", speckled)
    rng = np.random.default_rng(int(100 * share))
    for _ in range(30):
        mask = rng.random(rng.integers(1, 15, 2)) < share
        assert pixels(fill_boxes(mask)) == plain_boxes(pixels(mask))


def test_a_single_box_holds_all_components() -> None:
    mask = np.zeros((6, 7), bool)
    mask[1, 2] = mask[4, 5] = True
    wanted = {(y, x) for y in range(1, 5) for x in range(2, 6)}
    assert pixels(fill_boxes(mask, "single")) == wanted
    assert not fill_boxes(np.zeros((3, 3), bool), "single").any()
    truth = Truth.of(mask, boxes="single")
    assert pixels(truth.boxes) == wanted
    assert truth.ious(mask) == (1.0, 1.0)  # the prediction gets a single box too
    corner = np.zeros((6, 7), bool)
    corner[1, 2] = True
    assert truth.ious(corner) == (1 / 2, 1 / 16)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1e3), st.floats(-1e3, 1e3))
def test_scale_and_offset_of_a_map_do_not_matter(seed: int, scale: float, offset: float) -> None:
    rng = np.random.default_rng(seed)
    values = rng.permutation(48).reshape(6, 8).astype(np.float64)  # steps far coarser than rounding
    assert np.array_equal(foreground(values, 6, 8), foreground(values * scale + offset, 6, 8))


def test_a_component_in_anothers_hole_adds_nothing() -> None:
    ring = np.zeros((9, 9), bool)
    ring[1:8, 1:8] = True
    ring[2:7, 2:7] = False
    ring[4, 4] = True
    assert pixels(fill_boxes(ring)) == {(y, x) for y in range(1, 8) for x in range(1, 8)}


# ---- by hand ------------------------------------------------------------------------------------------


def test_two_components_by_hand() -> None:
    """Prediction: an L of 3 pixels (box 2x2) and a lone pixel; label: the L's corner filled, nothing else."""
    pred = np.array([[1, 0, 0, 0, 0], [1, 1, 0, 0, 1], [0, 0, 0, 0, 0]], np.float32)
    truth = np.array([[1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], np.uint8)
    both = score_maps([pred], [truth])
    assert both.iou_seg[0] == 2 / 5  # common: (0,0) and (1,1); union: those, (1,0), (0,1), (1,4)
    assert both.iou_box[0] == 4 / 5  # the 2x2 boxes agree; the lone pixel is extra
    assert score_maps([pred], [truth], box_truth=False).iou_box[0] == 3 / 5


def test_diagonal_neighbours_are_one_component() -> None:
    mask = np.eye(3, dtype=bool)
    assert fill_boxes(mask).all()


def test_thresholds_are_inclusive_for_precision_and_exclusive_for_foreground() -> None:
    rates = MapScores(np.array([0.25, 0.5, np.nextafter(0.25, 0)]), np.array([0.5, 0.25, 0.0])).rates()
    assert rates == {
        "items": 3,
        "seg_pr25": pytest.approx(200 / 3),
        "seg_pr50": pytest.approx(100 / 3),
        "box_pr25": pytest.approx(200 / 3),
        "box_pr50": pytest.approx(100 / 3),
    }
    quarter = np.zeros((1, 4), np.uint8)
    quarter[0, 0] = 1
    assert foreground_iou(quarter, np.ones((1, 4), np.uint8)) == 0.25
    assert foreground(np.array([[0.0, 0.5, 1.0]]), 1, 3, threshold=0.5).tolist() == [[False, False, True]]


def test_constant_maps_have_no_foreground() -> None:
    truth = np.ones((4, 4), bool)
    for value in (0.0, 0.5, 1.0):
        for scaling in ("before-resize", "after-resize"):
            assert not foreground(np.full((2, 3), value), 4, 4, scaling=scaling).any()  # type: ignore[arg-type]
    assert score_maps([np.ones((4, 4)), np.zeros((4, 4))], [truth, truth]).iou_seg.tolist() == [0.0, 0.0]


def test_a_one_pixel_map_is_constant_and_a_one_pixel_label_counts() -> None:
    truth = np.zeros((5, 5), bool)
    truth[2, 2] = True
    map_ = truth.astype(np.float32)
    assert score_maps([np.ones((1, 1))], [truth]).iou_seg[0] == 0.0
    scores = score_maps([map_], [truth])
    assert (scores.iou_seg[0], scores.iou_box[0]) == (1.0, 1.0)


def test_empty_labels_leave_the_denominator() -> None:
    truth = np.zeros((3, 3), bool)
    full = np.ones((3, 3), bool)
    map_ = np.arange(9.0).reshape(3, 3)
    scores = score_maps([map_, map_, None], [truth, full, full])
    assert np.isnan(scores.iou_seg[0])
    assert np.isnan(scores.iou_box[0])
    assert scores.rates()["items"] == 2
    assert scores.rates()["seg_pr25"] == 50.0  # 5 of 9 pixels are above 0.35; the missing map is wrong
    assert score_maps([map_], [truth]).rates() == {"items": 0}


def test_a_perfect_map_is_one_and_not_two() -> None:
    truth = np.zeros((4, 4), np.uint8)
    truth[1:3, 1:3] = 1
    assert score_maps([truth.astype(np.float32)], [truth]).iou_seg[0] == 1.0


def test_scaling_after_the_resize_differs_only_for_smaller_maps() -> None:
    map_ = np.zeros((7, 7))
    map_[3, 3], map_[0, 0] = 1.0, 0.31
    same = [foreground(map_, 7, 7, scaling=s) for s in ("before-resize", "after-resize")]  # type: ignore[arg-type]
    larger = [foreground(map_, 10, 10, scaling=s) for s in ("before-resize", "after-resize")]  # type: ignore[arg-type]
    assert np.array_equal(*same)
    assert larger[0].sum() < larger[1].sum()  # the peak falls between pixels, and is stretched back to 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(value: float) -> None:
    map_ = np.ones((2, 2))
    map_[0, 1] = value
    with pytest.raises(ValueError, match=r"item 1: map holds 1 of 4 values that are NaN or infinite"):
        score_maps([np.eye(2), map_], [np.eye(2), np.eye(2)])
    with pytest.raises(ValueError, match=r"truth holds 1 of 4"):
        Truth.of(map_)
    with pytest.raises(ValueError, match=r"pred holds 1 of 4"):
        foreground_iou(map_, np.ones((2, 2)))


def test_wrong_axes_shapes_and_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"two axes .*not shape \(2, 2, 3\)"):
        foreground(np.ones((2, 2, 3)), 4, 4)
    with pytest.raises(ValueError, match=r"some pixels, not shape \(0, 4\)"):
        foreground(np.ones((0, 4)), 4, 4)
    with pytest.raises(ValueError, match=r"real numbers, not complex"):
        foreground(np.ones((2, 2), complex), 4, 4)
    with pytest.raises(ValueError, match=r"pred is \(2, 3\) and truth is \(3, 2\)"):
        foreground_iou(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="more labels than maps: only one of them has item 1"):
        score_maps([np.eye(2)], [np.eye(2), np.eye(2)])


def test_maps_of_any_size_meet_the_label() -> None:
    """A bright left half stays the left half at every size and on its side."""
    truth = np.zeros((20, 30), bool)
    truth[:, :15] = True
    for height, width in ((20, 30), (4, 6), (100, 150), (30, 20)):
        map_ = np.zeros((height, width), np.uint8)
        map_[:, : width // 2] = 200
        assert score_maps([map_], [truth]).iou_seg[0] > 0.9


def test_values_of_any_range_are_brought_to_one() -> None:
    """Float64's whole range, its smallest step, and integers beyond float32."""
    for low, high in ((-1.7e308, 1.7e308), (0.0, 5e-324), (2**53 - 2, 2**53)):
        map_ = np.array([[low, high]])
        assert scaled(map_, 1, 2).tolist() == [[0.0, 1.0]]
    assert scaled(np.array([[-(2**62), 2**62]]), 1, 2).tolist() == [[0.0, 1.0]]


def test_a_map_of_the_transposed_size_is_resized_like_any_other() -> None:
    truth = np.zeros((2, 4), bool)
    truth[:, :2] = True
    turned = truth.T.astype(np.float32)  # its upper half is bright
    assert foreground(turned, 2, 4).tolist() == [[True] * 4, [False] * 4]
    assert score_maps([turned], [truth]).iou_seg[0] == 1 / 3


def test_streams_longer_than_a_batch_keep_their_order() -> None:
    truth = np.ones((1, 8), bool)

    def map_of(n: int) -> np.ndarray:
        return (np.arange(8) < 1 + n % 7).astype(np.float32)[None]

    scores = score_maps((map_of(n) for n in range(600)), (truth for _ in range(600)), workers=3)
    assert scores.iou_seg.tolist() == [(1 + n % 7) / 8 for n in range(600)]
