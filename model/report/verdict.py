"""What the paired tests say: which method leads, by how much, and whether that is more than noise.

All of it is read off metrics/statistics.json, see `model.score.statistics.bootstrap`: two methods are apart
where the p-value of their paired test, after Holm's correction over all pairs of the column, is below one
minus the level of the intervals. Controls (``method:what``) are never compared for the lead.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HEADLINE = (("seg_pr25", "0.25"), ("seg_pr50", "0.5"))
"""Columns of the verdict, and the IoU that each asks for."""

NBSP = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Comparison:
    """One method less another, percentage points."""

    question: str
    column: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    """After Holm's correction."""
    apart: bool


@dataclass(frozen=True)
class Lead:
    """The highest of baselines and EmoSEM in one column."""

    method: str
    value: float
    low: float
    high: float
    others: list[Comparison]
    """The leader less every other, the next best first."""

    @property
    def beyond_noise(self) -> bool:
        """Whether it is apart from every other; False where there is no other."""
        return bool(self.others) and all(other.apart for other in self.others)


def is_control(method: str) -> bool:
    """Whether the method is EmoSEM with something taken away, which must do worse."""
    return ":" in method


def compare(
    statistics: Mapping[str, Any], column: str, first: str, second: str, question: str = ""
) -> Comparison | None:
    """The pair as `first` less `second`; None where it has not been tested."""
    alpha = 1 - statistics["params"]["level"]
    for row in statistics["pairs"]:
        names = (row["first"], row["second"])
        if row["column"] != column or {*names} != {first, second}:
            continue
        sign = 1 if names == (first, second) else -1
        low, high = sorted((sign * row["low"], sign * row["high"]))
        p = row["p_holm"]
        return Comparison(
            question, column, first, second, sign * row["difference"], low, high, p, p < alpha - 1e-12
        )
    return None


def find_lead(
    statistics: Mapping[str, Any], column: str, methods: Iterable[str] | None = None
) -> Lead | None:
    """Who leads a column, of `methods` or of all but controls; None where nobody has a value."""
    cells = {
        name: statistics["methods"][name][column]
        for name in (statistics["methods"] if methods is None else methods)
        if not is_control(name) and column in statistics["methods"].get(name, {})
    }
    order = sorted(cells, key=lambda name: -cells[name]["value"])
    if not order:
        return None
    first = order[0]
    found = [compare(statistics, column, first, other) for other in order[1:]]
    cell = cells[first]
    return Lead(first, cell["value"], cell["low"], cell["high"], [one for one in found if one is not None])


def verdict(statistics: Mapping[str, Any], split: str) -> str:
    """One sentence: the lead at an IoU of 0.25 and of 0.5 by pixels."""
    clauses = [_clause(find_lead(statistics, column), iou) for column, iou in HEADLINE]
    found = "; ".join(clause for clause in clauses if clause)
    if not found:
        return "No method's masks have been judged."
    return f"Of {statistics['items']} APOLO {split} items, {found}."


def _clause(lead: Lead | None, iou: str) -> str:
    if lead is None:
        return ""
    at = f"at an IoU of {iou}"
    if lead.value == 0:
        return f"{at} no method gets one right"
    share = f"{lead.value:.1f}{NBSP}% [{lead.low:.1f}, {lead.high:.1f}]"
    if not lead.others:
        return f"{at} {lead.method}, the only method here, gets {share} right"
    near = [other for other in lead.others if not other.apart]
    if not near:
        after = lead.others[0]
        return (
            f"{at} {lead.method} leads with {share}, {interval(after)} more than {after.second}, "
            f"the next, which is beyond noise ({p_text(after.p)})"
        )
    names = listed(
        [f"{other.second} ({signed(other.difference)} points, {p_text(other.p)})" for other in near]
    )
    return f"{at} {lead.method} is highest with {share}, but cannot be told apart from {names}"


def comparisons(statistics: Mapping[str, Any]) -> list[Comparison]:
    """The questions that a reader brings, each with its paired test, where the methods have run."""
    methods: Mapping[str, Any] = statistics["methods"]
    fair = [name for name in methods if not is_control(name)]
    ours = [name for name in fair if name.startswith("emosem")]
    wanted: list[tuple[str, str, str, str]] = []
    for column, _ in HEADLINE:
        best, base = (
            find_lead(statistics, column, group)
            for group in (ours, [name for name in fair if name not in ours])
        )
        if best and base:
            wanted.append(("Best EmoSEM against the best baseline", column, best.method, base.method))
    wanted += [
        ("Several emotions at a time against one", column, f"emosem-multi{words}", f"emosem-single{words}")
        for words in ("", "-region")
        for column, _ in HEADLINE
    ]
    for name in filter(is_control, methods):
        whole, _, kind = name.partition(":")
        column = "ea" if kind == "no-prefix" else "seg_pr25"
        wanted.append((f"Control: the method against itself, {kind}", column, whole, name))
    found = (
        compare(statistics, column, first, second, question) for question, column, first, second in wanted
    )
    return [one for one in found if one is not None]


def p_text(p: float) -> str:
    """A p-value as a sentence holds it."""
    text = "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
    return text.replace(" ", NBSP)


def signed(difference: float) -> str:
    """A signed difference."""
    return f"{difference:+.1f}".replace("-", "\N{MINUS SIGN}")


def interval(one: Comparison) -> str:
    """A difference with its interval, as a sentence holds it."""
    return f"{one.difference:.1f} points [{one.low:.1f}, {one.high:.1f}]"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
