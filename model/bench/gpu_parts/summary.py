"""What `bench gpu` found, held against its goals, and as text."""

import dataclasses
from typing import Any

from model.bench.rounding import significant


@dataclasses.dataclass(frozen=True)
class Goal:
    """What a GPU of today should reach, by the best of some rows."""

    title: str
    at_least: float
    part: str
    rows: tuple[str, ...]


GOALS = (
    Goal("SAM ViT-B encodes/s, end to end", 150, "sam-vit_b", ("end_to_end.compiled", "end_to_end.eager")),
    Goal("CLIP crops/s, end to end", 3000, "crops", ("end_to_end.fp16", "end_to_end.float32")),
    Goal("VinVL artworks/s, end to end", 10, "vinvl", ("end_to_end.batch_4", "end_to_end.batch_1")),
    Goal("training samples/s, batch 16, resident", 4000, "training-compiled", ("batch_16.resident",)),
    Goal("training samples/s, batch 16, resident, eager", 4000, "training", ("batch_16.resident",)),
    Goal("inference artworks/s, batched", 100, "answering", ("artworks.batch_64", "artworks.batch_16")),
    Goal("inference artworks/s, one at a time", 20, "answering", ("artworks.one",)),
)


def goals(parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Each goal with the best that was found for it, None where nothing was."""
    found = []
    for goal in GOALS:
        rows = parts.get(goal.part, {}).get("rows", {})
        best = max((rows[name].get("per_second", 0.0) for name in goal.rows if name in rows), default=0.0)
        value = significant(best) if best else None
        reached = None if value is None else value >= goal.at_least
        found.append({"title": goal.title, "at_least": goal.at_least, "found": value, "reached": reached})
    return found


def failures(found: dict[str, Any]) -> list[str]:
    """What did not work or was not right: parts that did not end well, rows with a problem, checks that
    failed."""
    lines = []
    for name, part in found["parts"].items():
        if part["status"] != "done":
            lines.append(f"{name}: {part['status']}: {part['reason']}")
        for row, values in part["rows"].items():
            if "problem" in values:
                lines.append(f"{name}: {row}: {values['problem']}")
            elif values.get("passed") is False:
                detail = values.get("summary") or f"{values['difference']}, at most {values['at_most']}"
                lines.append(f"{name}: {row}: not as on the processor: {detail}")
    return lines


UNITS = {"tflop_per_second": (1e12, "TFLOP"), "gigabytes_per_second": (1e9, "GB")}
"""Rows that are no number of things: what their rate is divided by, and its unit."""


def text(found: dict[str, Any]) -> str:
    """Rates and goals as Markdown tables, how many checks passed, then what failed."""
    lines = [
        "| measured | per second | spread | of the roofline | peak memory, GB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    rows = [(f"{name}: {row}", v) for name, part in found["parts"].items() for row, v in part["rows"].items()]
    lines += [f"| {name} | {_cells(values)} |" for name, values in rows if "per_second" in values]
    lines += ["", "| goal | at least | found | |", "| --- | ---: | ---: | --- |"]
    words = {None: "not measured", True: "reached", False: "missed"}
    for goal in found["goals"]:
        value = "" if goal["found"] is None else f"{goal['found']:,}"
        word = "tiny" if found["tiny"] else words[goal["reached"]]
        lines.append(f"| {goal['title']} | {goal['at_least']:,} | {value} | {word} |")
    checks = [values["passed"] for _, values in rows if "passed" in values]
    seconds = sum(part["seconds"] for part in found["parts"].values())
    passed = f"{sum(checks)} of {len(checks)} checks passed"
    lines += ["", f"{passed}; {seconds:.0f} s for {len(found['parts'])} part(s) on {_machine(found)}."]
    if found["tiny"]:
        lines.append("Tiny sizes: the rates mean nothing.")
    return "\n".join([*lines, *failures(found)])


def _machine(found: dict[str, Any]) -> str:
    machine = found["parts"].get("ceilings", {}).get("rows", {}).get("machine", {})
    return f"{machine['device']}, torch {machine['torch']}" if machine else found["device"]


def _cells(values: dict[str, Any]) -> str:
    """The columns of a row: rate, spread, share of the roofline, memory."""
    divisor, unit = next((UNITS[name] for name in UNITS if name in values), (1, ""))
    rate, low, high = (
        f"{significant(values[name] / divisor):,}" for name in ("per_second", "lowest", "highest")
    )
    share, memory = values.get("share_of_roofline"), values.get("peak_memory")
    cells = (
        f"{rate} {unit}".strip(),
        f"{low} to {high}",
        "" if share is None else f"{share:.1%}",
        "" if memory is None else f"{memory / 1e9:.2f}",
    )
    return " | ".join(cells)
