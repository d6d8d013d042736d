"""The arithmetic of new labels: hand-computed cases, and properties over all stored levels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.relabel.blend import bent, blend, in_frame, kept
from tests.model.relabel.conftest import rule

EVERY = np.arange(256, dtype=np.uint8).reshape(16, 16)
ABOVE = 89.25
"""The protocol's threshold of 0.35 among the stored levels: where `train.binarise: 0.35` cuts."""
LEVELS = arrays(np.uint8, (6, 7), elements=st.integers(0, 255))
THRESHOLDS = st.floats(0.05, 0.95)


def halves(left: float, right: float) -> np.ndarray:
    """A map (4, 8) of two values, left and right."""
    return np.repeat(np.array([[left, right]]), 4, 0).repeat(4, 1)


def test_a_hand_computed_average() -> None:
    params = rule(label_threshold=0.5, student_threshold=0.2, weight=0.25, agree=0.9)
    label = (halves(1.0, 0.0) * 255).astype(np.uint8)
    label[0, 0] = 153  # 0.6: a fifth of the way from 0.5 to 1, so 0.35 + 0.65 / 5 = 0.48
    student = halves(1.0, 0.0)
    student[1, 1] = 0.6  # half of the way from 0.2 to 1, so 0.675
    student[2, 6] = 0.1  # half of the way from 0 to 0.2, so 0.175
    made = blend(label, student, params)
    assert made.agreed and made.iou == 1.0
    wanted = np.rint(halves(255, 0))
    wanted[0, 0] = round((0.25 * 1 + 0.75 * 0.48) * 255)
    wanted[1, 1] = round((0.25 * 0.675 + 0.75 * 1) * 255)
    wanted[2, 6] = round(0.25 * 0.175 * 255)
    assert made.levels.dtype == np.uint8 and made.levels.tolist() == wanted.tolist()


def test_the_iou_decides() -> None:
    label = np.zeros((1, 8), np.uint8)
    label[0, :4] = 255
    student = np.zeros((1, 8))
    student[0, 2:8] = 1.0  # 2 of 8 pixels in common
    for agree, agreed in ((0.25, True), (0.26, False)):
        made = blend(label, student, rule(weight=1.0, agree=agree))
        assert (made.iou, made.agreed) == (0.25, agreed)
        assert np.array_equal(made.levels, (student * 255).astype(np.uint8) if agreed else label)


def test_labels_of_both_scales_are_cut_at_the_protocols_threshold() -> None:
    for threshold in (0.2, 0.35, 0.5, 0.6, 0.65, 0.9):
        params = rule(label_threshold=threshold)
        assert np.array_equal(kept(EVERY, params) > ABOVE, threshold < EVERY / 255), threshold


def test_a_label_on_the_scale_stays_as_it_is() -> None:
    assert np.array_equal(kept(EVERY, rule(label_threshold=0.35)), EVERY)


@given(LEVELS, arrays(np.float64, (6, 7), elements=st.floats(0, 1)), THRESHOLDS, THRESHOLDS)
def test_no_weight_is_the_label(label: np.ndarray, student: np.ndarray, one: float, other: float) -> None:
    params = rule(label_threshold=one, student_threshold=other, weight=0.0, agree=0.0)
    assert np.array_equal(blend(label, student, params).levels, kept(label, params))
    whole = rule(label_threshold=one, student_threshold=other, weight=1.0, agree=1.0)
    made = blend(label, student, whole)
    assert made.agreed == (made.iou == 1.0)
    assert made.agreed or np.array_equal(made.levels, kept(label, whole))


@given(LEVELS, THRESHOLDS, st.floats(0, 1))
def test_a_student_that_gives_the_label_changes_nothing(
    label: np.ndarray, threshold: float, weight: float
) -> None:
    label[0, 0], label[0, 1] = 0, 255  # as every label has: scaled by its extremes
    params = rule(label_threshold=threshold, student_threshold=threshold, weight=weight, agree=1.0)
    made = blend(label, label / 255, params)
    assert made.agreed and np.abs(made.levels.astype(int) - kept(label, params)).max() <= 1
    assert np.array_equal(made.levels > ABOVE, kept(label, params) > ABOVE)


@given(LEVELS, LEVELS, THRESHOLDS, st.floats(0.1, 1))
def test_more_of_the_label_is_never_less_of_the_new_one(
    one: np.ndarray, other: np.ndarray, threshold: float, weight: float
) -> None:
    params = rule(label_threshold=threshold, weight=1 - weight, agree=0.0)
    student = np.linspace(0, 1, 42).reshape(6, 7)
    low, high = (blend(f(one, other), student, params).levels for f in (np.minimum, np.maximum))
    assert (low <= high).all()


def test_the_average_moves_edges_which_agreement_by_pixels_could_not() -> None:
    """Why it is asked of the mask: where both are on one side of the threshold, so is their average."""
    label, student = (halves(200, 60)).astype(np.uint8), halves(1.0, 0.0)
    student[:, 4] = 1.0
    made = blend(label, student, rule(label_threshold=0.65, weight=0.7))
    assert made.agreed and made.iou == 0.8
    same = (label / 255 > 0.65) == (student > 0.35)
    assert np.array_equal((made.levels > ABOVE)[same], (label / 255 > 0.65)[same])
    assert (made.levels[:, 4] > ABOVE).all() and not (label[:, 4] / 255 > 0.65).any()


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_a_map_in_which_nothing_stands_out_agrees_with_nothing(value: float) -> None:
    assert not in_frame(np.full((3, 5), value), 3, 5).any()
    made = blend(EVERY, np.full((16, 16), value), rule())
    assert (made.iou, made.agreed) == (0.0, False)


def test_two_empty_foregrounds_do_not_agree() -> None:
    made = blend(np.zeros((3, 3), np.uint8), np.zeros((3, 3)), rule(agree=0.01))
    assert (made.iou, made.agreed, made.levels.any()) == (0.0, False, False)


def test_maps_are_brought_to_the_labels_size() -> None:
    small = np.array([[0.2, 0.2], [0.2, 0.7]])
    assert in_frame(small, 2, 2).tolist() == [[0, 0], [0, 1]]
    grown = in_frame(small, 8, 6)
    assert grown.shape == (8, 6) and grown[0, 0] == 0 and grown[-1, -1] == 1
    checks = np.indices((8, 8)).sum(0) % 2
    assert in_frame(checks, 4, 4) == pytest.approx(np.full((4, 4), 0.5))  # by area


def test_the_bend_is_that_of_masks_level() -> None:
    """The same map, bent by the masks step before it is made small: here both at one size."""
    from pipeline.masks.recipe import MasksParams, pseudo_masks

    boxes = np.array([[0, 0, 40, 64], [20, 0, 64, 64], [10, 30, 50, 64.0]])
    scores = np.array([[0.9, 0.4, 0.3]])
    plain, bend = (
        pseudo_masks(boxes, scores, 64, 64, MasksParams(long_side=64, level=level))[0]
        for level in (None, 0.62)
    )
    ours = kept(plain, rule(label_threshold=0.62)).astype(int)
    assert np.abs(ours - bend).max() <= 1 and len(np.unique(bend)) > 4
    assert bent(np.array([0.0, 0.62, 1.0]), 0.62).tolist() == [0.0, 0.35, 1.0]
