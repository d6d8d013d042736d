"""The sweep over thresholds against scoring at each of them, and the choice by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.metrics import thresholds as thresholds_module
from model.metrics.segmentation import foreground_iou, scaled
from model.metrics.thresholds import MAX_STEPS, Sweep, count_below, grid, sweep_ious


@settings(max_examples=80)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([2, 10, 100, MAX_STEPS]),
    st.sampled_from(["smooth", "levels", "byte", "ones"]),
)
def test_the_sweep_equals_scoring_at_every_threshold(seed: int, steps: int, kind: str) -> None:
    """Also where values are thresholds themselves: steps of 1/100, bytes, zeros and ones."""
    rng = np.random.default_rng(seed)
    maps: dict[str, np.ndarray] = {
        "smooth": rng.normal(size=(5, 4)),
        "levels": rng.integers(0, 101, (11, 13)) / 100,
        "byte": rng.integers(0, 256, (11, 13), dtype=np.uint8),
        "ones": rng.random((11, 13)) < 0.3,
    }
    values = scaled(maps[kind], 11, 13)
    truth = rng.random((11, 13)) < rng.choice([0.05, 0.5, 0.95])
    thresholds = grid(steps)
    wanted = [foreground_iou(values > threshold, truth) for threshold in thresholds]
    assert sweep_ious(values, truth, thresholds).tolist() == wanted


@settings(max_examples=100)
@given(st.integers(1, MAX_STEPS), st.integers(0, MAX_STEPS), st.integers(-3, 3))
def test_values_beside_a_threshold_are_counted_exactly(steps: int, place: int, ulps: int) -> None:
    thresholds = grid(steps)
    value = (place % (steps + 1)) / steps
    for _ in range(abs(ulps)):
        value = float(np.nextafter(value, np.sign(ulps) * np.inf))
    assert count_below(np.array([[value]]), thresholds)[0] == (thresholds < value).sum()


def test_large_maps_are_counted_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values, truth = rng.random((9, 11)), rng.random((9, 11)) < 0.4
    whole = sweep_ious(values, truth, grid(100))
    monkeypatch.setattr(thresholds_module, "STRIP", 10)
    assert np.array_equal(sweep_ious(values, truth, grid(100)), whole)


def test_the_fixed_threshold_is_on_the_grid() -> None:
    assert 0.35 in grid(100)
    with pytest.raises(ValueError, match=r"1 to 127 thresholds, not 128"):
        grid(128)


def test_an_empty_foreground_of_an_empty_label_is_zero() -> None:
    assert sweep_ious(np.zeros((2, 3)), np.zeros((2, 3), bool), grid(4)).tolist() == [0.0] * 4


def test_the_best_threshold_by_hand() -> None:
    thresholds = grid(4)  # 0, 0.25, 0.5, 0.75
    ious = np.array([[0.1, 0.3, 0.6, 0.6], [0.1, 0.5, 0.3, 0.3]])
    sweep = Sweep(thresholds, ious)
    assert sweep.mean_iou.tolist() == pytest.approx([10, 40, 45, 45])
    assert sweep.precision(25).tolist() == [0, 100, 100, 100]
    assert sweep.precision(50).tolist() == [0, 50, 50, 50]
    assert sweep.best(0.35) == 0.5  # the nearer of the two best
    assert sweep.best(0.9) == 0.75
    assert Sweep(thresholds, np.full((1, 4), 0.2)).best(0.375) == 0.25  # of two as near, the lower
