"""The paper's claims as differences between two methods, tested on this run's scores over seeds.

They were written down before any run of several seeds was looked at. The verdict on each:

    holds            its p, corrected by Holm over all claims, is below 1 - level, and the sign is the claimed
    does not hold    the same with the other sign; or the whole interval lies below the smaller of a point and
                     the paper's own difference, so that there is no gain worth the name
    cannot be told   otherwise, and where a trained method has one seed only
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.baselines import clip_vinvl
from model.score.paper_tables.tables import published
from model.score.statistics.bootstrap import holm
from model.score.statistics.seeds import SeedScores

SINGLE, MULTI, TEACHER = "emosem-single", "emosem-multi", clip_vinvl.NAME
NO_PREFIX, MASK, PROMPT = (f"{SINGLE}:{name}" for name in ("no-prefix", "prefix-mask", "prefix-prompt"))
POINT = 1.0
"""Percentage points that are worth the name."""
HOLDS, FAILS, UNTOLD, UNMEASURED = "holds", "does not hold", "cannot be told", "not measured"


@dataclass(frozen=True)
class Claim:
    """`ahead` scores higher than `behind`."""

    where: str
    """In the paper."""
    says: str
    ahead: str
    behind: str
    column: str


CLAIMS = (
    *(
        Claim("Tab. 1", f"The student ({name}) surpasses its teacher, {at}", student, TEACHER, column)
        for name, student in (("single", SINGLE), ("multi", MULTI))
        for at, column in (("at 0.35", "seg_pr50"), ("each at its own threshold", "seg_pr50_val"))
    ),
    *(
        Claim("Tab. 2", f"EmoSEM surpasses {name}", SINGLE, sca, column)
        for name, sca in (("SCA_base", "sca-base"), ("SCA_huge-FT", "sca-untied"))
        for column in ("ea", "meteor", "seg_pr50")
    ),
    Claim("Tab. 4", "The mask prefix helps", MASK, NO_PREFIX, "ea"),
    Claim("Tab. 4", "The prompt prefix helps", PROMPT, NO_PREFIX, "ea"),
    Claim("Tab. 4", "Both prefixes help", SINGLE, NO_PREFIX, "ea"),
    Claim("Tab. 4", "Both are better than the mask alone", SINGLE, MASK, "ea"),
    Claim("Tab. 4", "Both are better than the prompt alone", SINGLE, PROMPT, "ea"),
    Claim("Tab. 4", "Prefixes help masks too", SINGLE, NO_PREFIX, "seg_pr50"),
    *(
        Claim("Tab. 5", "One mask token is better than three", SINGLE, f"{SINGLE}:ambiguity-aware", column)
        for column in ("ea", "seg_pr50")
    ),
    Claim("Tab. 6", "Multi's masks are better than single's", MULTI, SINGLE, "seg_pr50"),
    Claim("Tab. 6", "Single's words are better than multi's", SINGLE, MULTI, "ea"),
    Claim("Fig. 7", "Tuning the mask head is better than the decoder", SINGLE, f"{SINGLE}:ft-md", "seg_pr50"),
)


def recipe_claims(name: str) -> list[Claim]:
    """That this run's labels are better than those of the run `name`, whose methods are ``NAME/METHOD``."""
    at = (("at 0.35", "seg_pr50"), ("each at its own threshold", "seg_pr50_val"))
    told = (("labels", TEACHER, TEACHER), ("single", SINGLE, SINGLE), ("multi", MULTI, MULTI))
    claims = [
        Claim("–", f"{what}: better than {name}'s, {place}", ahead, f"{name}/{behind}", column)
        for what, ahead, behind in told
        for place, column in at
    ]
    return claims + [
        Claim("–", f"{what} surpasses {name}'s labels, {place}", student, f"{name}/{TEACHER}", column)
        for what, student in (("single", SINGLE), ("multi", MULTI))
        for place, column in at
    ]


@functools.cache
def _printed() -> dict[tuple[str, str], float]:
    """The paper's number for (method, column)."""
    rows = [row for table in published()["tables"].values() for row in table["rows"]]
    return {
        (row["method"], column): float(value)
        for row in rows
        for column, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def paper_difference(claim: Claim) -> float | None:
    """What the paper prints, points; None where it prints no such two numbers."""
    a, b = (_printed().get((method, claim.column)) for method in (claim.ahead, claim.behind))
    return None if a is None or b is None else round(a - b, 2)


def judge(scores: SeedScores, claims: Sequence[Claim] = CLAIMS) -> list[dict[str, Any]]:
    """A row for each claim: what the paper says, our difference with interval and p, and the verdict."""
    rows: list[dict[str, Any]] = []
    for claim in claims:
        row: dict[str, Any] = {
            "where": claim.where,
            "says": claim.says,
            "ahead": claim.ahead,
            "behind": claim.behind,
            "column": claim.column,
            "paper": paper_difference(claim),
        }
        names = [(method, claim.column) for method in (claim.ahead, claim.behind)]
        if all(name in scores.means for name in names):
            row |= scores.difference(*names)
            row["seeds"] = [len(scores.means[name].by_seed) for name in names]
        rows.append(row)
    tested = [row for row in rows if "p" in row]
    for row, corrected in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = corrected
    return [row | {"verdict": verdict(row, 1 - scores.params.level)} for row in rows]


def verdict(row: Mapping[str, Any], alpha: float) -> str:
    """See the module; `row` is one of `judge`."""
    if "p" not in row:
        return UNMEASURED
    trained = [method.rpartition("/")[2] != TEACHER for method in (row["ahead"], row["behind"])]
    if any(is_trained and seeds < 2 for is_trained, seeds in zip(trained, row["seeds"], strict=True)):
        return UNTOLD
    if row["p_holm"] < alpha:
        return HOLDS if row["difference"] > 0 else FAILS
    paper = row["paper"]
    return FAILS if row["high"] < min(POINT, POINT if paper is None else abs(paper)) else UNTOLD
