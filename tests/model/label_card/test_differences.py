"""Paired intervals against cases whose answer is known."""

from pathlib import Path

import numpy as np
import pytest

from model.label_card.differences import differences
from model.score.params import StatisticsParams
from model.score.score_masks import MapTable
from pipeline.releases.apolo import ApoloItem


def table_of(*ious: np.ndarray, labels: list[str | None] | None = None) -> MapTable:
    stacked = np.stack(ious)
    nothing = [[None] * stacked.shape[1]] * len(stacked)
    labels = labels or [None] * stacked.shape[1]
    return MapTable(stacked, stacked, stacked, stacked, [0.5] * len(stacked), nothing, labels)


def items_of(paintings: list[str]) -> list[ApoloItem]:
    return [ApoloItem(name, name, "awe", "val", (), (), Path("none")) for name in paintings]


def test_two_paintings_are_drawn_whole() -> None:
    """Resamples of two paintings, one with a difference of 0 and one of 50 points, end at 0, 25 or 50."""
    one, other = np.array([0.2, 0.2, 0.8, 0.8]), np.array([0.2, 0.2, 0.3, 0.3])
    found = differences(table_of(one, other), 0, 1, items_of(["a", "a", "b", "b"]), StatisticsParams())
    assert found["mean_iou"] == pytest.approx({"difference": 25, "low": 0, "high": 50})
    assert found["seg_pr50"] == pytest.approx({"difference": 50, "low": 0, "high": 100})
    back = differences(table_of(one, other), 1, 0, items_of(["a", "a", "b", "b"]), StatisticsParams())
    assert back["seg_pr25"] == pytest.approx({"difference": 0, "low": 0, "high": 0})
    assert back["mean_iou"] == pytest.approx({"difference": -25, "low": -50, "high": 0})


def test_many_independent_items_have_the_normal_interval() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(0.6, 0.1, 900), rng.normal(0.5, 0.1, 900)
    found = differences(
        table_of(one, other), 0, 1, items_of([f"p{n}" for n in range(900)]), StatisticsParams()
    )
    reach = 196 * (one - other).std() / 30
    assert found["mean_iou"]["low"] == pytest.approx(100 * (one - other).mean() - reach, abs=0.1)
    assert found["mean_iou"]["high"] == pytest.approx(100 * (one - other).mean() + reach, abs=0.1)


def test_items_without_a_label_do_not_count() -> None:
    one, other = np.array([0.9, np.nan]), np.array([0.4, np.nan])
    table = table_of(one, other, labels=[None, "empty"])
    found = differences(table, 0, 1, items_of(["a", "b"]), StatisticsParams())
    assert found["mean_iou"] == pytest.approx({"difference": 50, "low": 50, "high": 50})
