"""What several reviewers think of a mask together, how far they agree, and how many masks are good."""

import importlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.reviews.verdicts import VERDICTS, Verdict

DISPUTED = "disputed"
SKIP = "skip"
Z = 1.959963984540054
"""Normal quantile of a two-sided interval of 95 %."""


@dataclass(frozen=True)
class Consensus:
    """What reviewers think of one mask."""

    key: str
    emotion: str
    mask: str
    """SHA-256 of its PNG."""
    verdict: str
    """That of most reviewers, those who skipped left out; `DISPUTED` where two verdicts have as many."""
    reviewers: int
    """Who did not skip."""
    corrected: str | None
    """The latest correction by someone who did not find the mask good."""
    drawn: bool
    """Whether somebody judged it in random order: only such masks are a sample of all."""


def consensus(verdicts: Iterable[Verdict]) -> list[Consensus]:
    """One for each mask that somebody judged and did not skip, sorted by key, emotion and mask.

    Args:
        verdicts: as `read_reviews` gives them, by time.
    """
    groups: dict[tuple[str, str, str], list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.verdict != SKIP:
            groups.setdefault((verdict.key, verdict.emotion, verdict.mask), []).append(verdict)
    found = []
    for (key, emotion, mask), group in sorted(groups.items()):
        (first, most), *others = Counter(verdict.verdict for verdict in group).most_common()
        tied = bool(others) and others[0][1] == most
        corrections = [verdict.corrected for verdict in group if verdict.corrected is not None]
        found.append(
            Consensus(
                key,
                emotion,
                mask,
                DISPUTED if tied else first,
                len(group),
                corrections[-1] if corrections else None,
                any(verdict.order == "random" for verdict in group),
            )
        )
    return found


def wilson(good: int, judged: int) -> tuple[float, float] | None:
    """The interval of 95 % of a share by Wilson (1927, JASA 22:209); None of nothing."""
    if judged == 0:
        return None
    share, z2 = good / judged, Z * Z
    middle = (share + z2 / (2 * judged)) / (1 + z2 / judged)
    half = Z / (1 + z2 / judged) * math.sqrt(share * (1 - share) / judged + z2 / (4 * judged**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def precision(found: Sequence[Consensus]) -> dict[str, dict[str, Any]]:
    """Emotion (and ``all``, and ``random``: those judged in random order) -> share of good masks.

    Disputed masks count as neither: `good` of `judged`, with `low` and `high` by `wilson`, and `disputed`.
    """
    groups: dict[str, list[Consensus]] = {"all": list(found), "random": [c for c in found if c.drawn]}
    for one in found:
        groups.setdefault(one.emotion, []).append(one)
    table = {}
    for name, group in groups.items():
        decided = [one for one in group if one.verdict != DISPUTED]
        good = sum(one.verdict == "good" for one in decided)
        bounds = wilson(good, len(decided))
        table[name] = {
            "judged": len(decided),
            "good": good,
            "disputed": len(group) - len(decided),
            "precision": good / len(decided) if decided else None,
            "low": bounds and bounds[0],
            "high": bounds and bounds[1],
        }
    return table


def agreement(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Krippendorff's alpha of the verdicts as names, over masks that two reviewers or more judged.

    Returns:
        ``masks`` that several judged, ``reviewers``, and ``alpha``: 1 is full agreement, 0 that of chance;
        None where it is not defined (fewer than two such masks, one verdict alone), or the package that
        computes it is not installed (``why`` says which).
    """
    table: dict[tuple[str, str, str], dict[str, int]] = {}
    for verdict in verdicts:
        if verdict.verdict != SKIP:
            unit = table.setdefault((verdict.key, verdict.emotion, verdict.mask), {})
            unit[verdict.by] = VERDICTS.index(verdict.verdict)
    names = sorted({name for unit in table.values() for name in unit})
    units = [unit for unit in table.values() if len(unit) > 1]
    found: dict[str, Any] = {"reviewers": len(names), "masks": len(units), "alpha": None}
    values = {value for unit in units for value in unit.values()}
    if len(units) < 2 or len(values) < 2:
        return {**found, "why": "needs two masks that several people judged, and two different verdicts"}
    try:  # under another licence than this project, and so never a requirement of it
        krippendorff = importlib.import_module("krippendorff")
    except ImportError:
        return {**found, "why": "pip install 'emosem[review]' brings the package that computes it"}
    data = np.array([[unit.get(name, np.nan) for unit in units] for name in names], np.float64)
    alpha = float(krippendorff.alpha(reliability_data=data, level_of_measurement="nominal"))
    return {**found, "alpha": alpha}
