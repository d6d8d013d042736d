"""What verdicts do to masks: the params, and the edits that follow."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from pipeline.common.params import STRICT
from pipeline.reviews.consensus import Consensus, consensus
from pipeline.reviews.verdicts import Reviews

Action = Literal["keep", "exclude", "down-weight", "replace"]
Split = Literal["train", "val", "test", "rest"]


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ReviewsParams:
    """What is done with a mask on which reviewers agree. By default nothing: their verdicts are not used."""

    wrong_place: Action = "keep"
    """exclude: the emotion leaves the artwork, its utterances with it. replace: the corrected mask takes its
    place, see `uncorrected`. down-weight: it counts less in the mask losses, see `weight`."""
    too_big: Action = "keep"
    """The same for masks that are too big."""
    not_visible: Action = "keep"
    """The same for emotions whose cause is not in the picture."""
    disputed: Action = "keep"
    """The same for masks on which as many reviewers think one thing as another."""
    uncorrected: Literal["keep", "exclude", "down-weight"] = "keep"
    """What replace does where nobody drew a correction."""
    weight: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """What a down-weighted mask counts in the mask losses; others count 1."""
    reviewers: Annotated[int, Field(ge=1)] = 1
    """Only masks that at least so many people judged, those who skipped not counted."""
    splits: Annotated[tuple[Split, ...], Field(min_length=1)] = ("train",)
    """Only masks of these splits. With test, people correct the row clip+vinvl that models are compared
    with."""

    @property
    def used(self) -> bool:
        """Whether any verdict does anything."""
        return any(action != "keep" for action in self.actions().values())

    def actions(self) -> dict[str, Action]:
        """Consensus -> what is done."""
        return {
            "wrong-place": self.wrong_place,
            "too-big": self.too_big,
            "not-visible": self.not_visible,
            "disputed": self.disputed,
        }


@dataclass(frozen=True)
class Edit:
    """What is done with one mask."""

    key: str
    emotion: str
    mask: str
    """SHA-256 of the PNG that was judged."""
    action: Action
    verdict: str
    reviewers: int
    weight: float | None = None
    """Of down-weight."""
    corrected: str | None = None
    """Of replace."""


def find_edits(
    reviews: Reviews, params: ReviewsParams, splits: Mapping[str, str]
) -> tuple[list[Edit], dict[str, int]]:
    """The edits, sorted by key, emotion and mask, and where all masks that were judged went.

    Args:
        reviews: all verdicts.
        params: what is done.
        splits: key -> split of every artwork.

    Returns:
        The edits, and counts: ``judged = edits + keep + few_reviewers + other_splits + unknown_artworks``.
    """
    edits = []
    counts: Counter[str] = Counter(
        judged=0, edits=0, keep=0, few_reviewers=0, other_splits=0, unknown_artworks=0
    )
    for one in consensus(reviews.verdicts):
        counts["judged"] += 1
        edit = _edit(one, params)
        if one.key not in splits:
            counts["unknown_artworks"] += 1
        elif splits[one.key] not in params.splits:
            counts["other_splits"] += 1
        elif one.reviewers < params.reviewers:
            counts["few_reviewers"] += 1
        elif edit is None:
            counts["keep"] += 1
        else:
            counts["edits"] += 1
            edits.append(edit)
    return edits, dict(counts)


def _edit(one: Consensus, params: ReviewsParams) -> Edit | None:
    action = params.actions().get(one.verdict, "keep")
    if action == "replace" and one.corrected is None:
        action = params.uncorrected
    if action == "keep":
        return None
    return Edit(
        one.key,
        one.emotion,
        one.mask,
        action,
        one.verdict,
        one.reviewers,
        params.weight if action == "down-weight" else None,
        one.corrected if action == "replace" else None,
    )


def describe_reviews(reviews: Reviews, counts: Mapping[str, int]) -> dict[str, Any]:
    """For metrics: what the folder holds, and where it went."""
    return {
        **reviews.counts,
        "verdicts": len(reviews.verdicts),
        "bad_lines": dict(sorted(Counter(line.reason for line in reviews.bad).items())),
        "reviewers": len({verdict.by for verdict in reviews.verdicts}),
        **counts,
    }
