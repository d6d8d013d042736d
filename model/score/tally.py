"""Which APOLO items were scored, and why others were not, for the table that ends the step."""

from collections.abc import Mapping
from typing import Any

from pipeline.common.params import Paths
from pipeline.common.tally import LeftOut, Tally


def tally_items(_paths: Paths, scores: Mapping[str, Any]) -> list[Tally]:
    """From the content of metrics/score.json: items of the split, and records of both that are no items."""
    items, problems = scores["items"], scores["problems"]
    labels = [problem.removeprefix("label: ") for problem in problems if problem.startswith("label: ")]
    lost = items["apolo"] - items["counted"]
    left_out = {"no usable label": LeftOut(lost, labels[0] if labels else "")} if lost else {}
    if items["rejected"]:
        notes = [problem for problem in problems if problem.split(":")[0] not in _titles(scores)]
        left_out["record that is no item"] = LeftOut(items["rejected"], notes[0] if notes else "")
    return [Tally(f"APOLO items ({scores['split']})", items["counted"], left_out)]


def _titles(scores: Mapping[str, Any]) -> set[str]:
    """What lines about labels and methods begin with."""
    return {"label", *(row["method"].split(":")[0] for row in scores["rows"])}
