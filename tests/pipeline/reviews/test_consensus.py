"""Consensus by hand, alpha against the published example, intervals against scipy."""

from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from pipeline.reviews.consensus import agreement, consensus, precision, wilson
from pipeline.reviews.edits import ReviewsParams, find_edits
from pipeline.reviews.verdicts import VERDICTS, Reviews, Verdict
from tests.pipeline.reviews.test_verdicts import verdict


def voted(*votes: str, key: str = "0" * 16, **changes: Any) -> list[Verdict]:
    return [verdict(n, by=f"r{n}", verdict=vote, key=key, **changes) for n, vote in enumerate(votes)]


@pytest.mark.parametrize(
    ("votes", "expected", "reviewers"),
    [
        (["good"], "good", 1),
        (["good", "too-big"], "disputed", 2),
        (["good", "too-big", "too-big"], "too-big", 3),
        (["good", "skip", "skip"], "good", 1),
        (["good", "good", "too-big", "too-big", "wrong-place"], "disputed", 5),
    ],
)
def test_most_reviewers_decide(votes: list[str], expected: str, reviewers: int) -> None:
    (one,) = consensus(voted(*votes))
    assert (one.verdict, one.reviewers) == (expected, reviewers)


def test_verdicts_on_another_mask_are_no_votes_on_this() -> None:
    one, other = consensus([verdict(1), verdict(2, by="bob", verdict="too-big", mask="b" * 64)])
    assert (one.verdict, other.verdict) == ("good", "too-big")
    assert consensus(voted("skip", "skip")) == []


@pytest.mark.parametrize(("good", "judged"), [(0, 5), (5, 5), (3, 7), (180, 200), (1, 1)])
def test_wilson_is_that_of_scipy(good: int, judged: int) -> None:
    reference = binomtest(good, judged).proportion_ci(0.95, method="wilson")
    assert wilson(good, judged) == pytest.approx((reference.low, reference.high), abs=1e-9)
    assert wilson(0, 0) is None


def test_precision_counts_by_emotion_and_the_random_ones_apart() -> None:
    found = consensus(
        [
            *voted("good", key="1" * 16, order="random"),
            *voted("too-big", key="2" * 16),
            *voted("good", "too-big", key="3" * 16),
            *voted("good", key="4" * 16, emotion="fear"),
        ]
    )
    table = precision(found)
    assert {name: (row["good"], row["judged"], row["disputed"]) for name, row in table.items()} == {
        "all": (2, 3, 1),
        "random": (1, 1, 0),
        "awe": (1, 2, 1),
        "fear": (1, 1, 0),
    }


def test_alpha_is_that_of_the_published_example() -> None:
    """Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), C: nominal, four observers: 0.743."""
    pytest.importorskip("krippendorff")
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
    words = {1: "good", 2: "wrong-place", 3: "too-big", 4: "not-visible"}
    said = [
        verdict(unit, by=f"r{row}", key=f"{unit:016x}", verdict=words[value])
        for row, values in enumerate(table)
        for unit, value in enumerate(values)
        if value in words  # without the tenth unit, on which all say 5
    ]
    found = agreement(said)
    assert (found["reviewers"], found["masks"]) == (4, 10)
    assert found["alpha"] == pytest.approx(_nominal_alpha(table), abs=1e-12)
    assert set(words.values()) < set(VERDICTS)


def _nominal_alpha(table: list[list[int]]) -> float:
    """By the definition, 1 - observed/expected disagreement of pairs, of the units with values 1 to 4."""
    units = [[row[unit] for row in table if row[unit] in (1, 2, 3, 4)] for unit in range(12)]
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]
    observed = sum(
        sum(a != b for i, a in enumerate(unit) for j, b in enumerate(unit) if i != j) / (len(unit) - 1)
        for unit in units
    ) / len(values)
    pairs = sum(a != b for i, a in enumerate(values) for j, b in enumerate(values) if i != j)
    return 1 - observed / (pairs / (len(values) * (len(values) - 1)))


def test_where_alpha_is_not_defined_it_says_why() -> None:
    assert agreement([])["alpha"] is None
    said = [*voted("good", "good", key="1" * 16), *voted("good", "good", key="2" * 16)]
    assert "two different verdicts" in agreement(said)["why"]


def test_edits_reconcile_with_what_was_judged(tmp_path: Path) -> None:
    drawn = '{"size": [1, 2], "counts": "02"}'
    said = [
        *voted("wrong-place", key="1" * 16),
        *voted("wrong-place", key="2" * 16, corrected=drawn),
        *voted("too-big", key="3" * 16),
        *voted("good", key="4" * 16),
        *voted("not-visible", key="5" * 16),  # of the test split
        *voted("not-visible", key="6" * 16),  # of no artwork
        *voted("good", "not-visible", key="7" * 16),
    ]
    splits = {str(n) * 16: "test" if n == 5 else "train" for n in (1, 2, 3, 4, 5, 7)}
    params = ReviewsParams(
        wrong_place="replace", uncorrected="exclude", too_big="down-weight", not_visible="exclude", weight=0.5
    )
    edits, counts = find_edits(Reviews(said, [], {}), params, splits)
    assert [(edit.key[0], edit.action, edit.weight, edit.corrected) for edit in edits] == [
        ("1", "exclude", None, None),
        ("2", "replace", None, drawn),
        ("3", "down-weight", 0.5, None),
    ]
    assert counts["judged"] == 7 == sum(count for name, count in counts.items() if name != "judged")
    assert (counts["keep"], counts["other_splits"], counts["unknown_artworks"]) == (2, 1, 1)
    some = ReviewsParams(disputed="exclude", reviewers=2, splits=("train", "test"))
    edits, counts = find_edits(Reviews(said, [], {}), some, splits)
    assert [edit.key[0] for edit in edits] == ["7"] and counts["few_reviewers"] == 5
    assert not ReviewsParams().used and find_edits(Reviews(said, [], {}), ReviewsParams(), splits)[0] == []
