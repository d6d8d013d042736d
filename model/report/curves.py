"""Training curves: what training left in ``runs/VARIANT/dvclive``, as charts."""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from model.report.charts import Line, Mark, line_chart

COLOURS = 6
"""Colour classes in the pages' style sheet."""


@dataclass(frozen=True)
class Curve:
    """One chart: a metric, with a line per variant."""

    name: str
    lines: list[Line]
    chart: Markup


@dataclass(frozen=True)
class KeptEpoch:
    """Whose weights a variant's model has."""

    epoch: int
    """From 1, as validated."""
    of: int
    """Epochs that were validated."""
    step: float
    """The epoch's last optimizer step."""
    select: str
    """``train.select``: last, or best by `by` on val."""
    best: int
    """The epoch that was best by it."""
    by: str
    """``train.select_by``: a validation curve's name."""


def read_kept(runs: Path) -> dict[str, KeptEpoch]:
    """Variant -> the epoch that was kept; a variant without a validation curve or a config is left out."""
    kept = {}
    for config in sorted(runs.glob("*/config.json")):
        select, by = _select(config)
        curve = config.parent / "dvclive" / "plots" / "metrics" / "val" / f"{by}.tsv"
        steps, values = _read_tsv(curve) if curve.is_file() else ([], [])
        if steps and select:
            sign = 1 if by.startswith("seg_pr") else -1  # a loss is better low
            best = max(
                range(len(values)), key=lambda at: (sign * values[at], at)
            )  # as training: of equals the last
            place = best if select == "best" else len(steps) - 1
            kept[config.parent.name] = KeptEpoch(place + 1, len(steps), steps[place], select, best + 1, by)
    return kept


def _select(config: Path) -> tuple[str, str]:
    """``train.select`` and ``train.select_by`` of a model; the first is empty for no model of ours."""
    try:
        training = json.loads(config.read_text(encoding="utf-8"))["about"]["training"]
        return str(training["select"]), Path(training.get("select_by", "seg_pr50")).name
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "", ""


def read_curves(runs: Path, kept: Mapping[str, KeptEpoch] | None = None) -> list[Curve]:
    """A chart per metric that any variant has, training metrics first; rings mark the epochs `kept`."""
    lines: dict[str, list[Line]] = {}
    variants = sorted(path.parent for path in runs.glob("*/dvclive"))
    order = [*(v for v in ("single", "multi", "no-prefix") if runs / v in variants)]
    order += [variant.name for variant in variants if variant.name not in order]
    for style, variant in enumerate(order):
        folder = runs / variant / "dvclive" / "plots" / "metrics"
        for path in sorted(folder.rglob("*.tsv")):
            steps, values = _read_tsv(path)
            if steps:
                metric = path.relative_to(folder).with_suffix("").as_posix()
                lines.setdefault(metric, []).append(Line(variant, style % COLOURS, steps, values))
    rings = {name: _rings(found, kept or {}) for name, found in lines.items() if name.startswith("val/")}
    return [
        Curve(name, found, line_chart(name, found, rings.get(name, ())))
        for name, found in sorted(lines.items())
    ]


def _rings(lines: list[Line], kept: Mapping[str, KeptEpoch]) -> list[Mark]:
    """Marks on curves that have a point per epoch."""
    return [
        Mark(line.style, kept[line.name].step, line.values[line.steps.index(kept[line.name].step)])
        for line in lines
        if line.name in kept and kept[line.name].step in line.steps
    ]


def _read_tsv(path: Path) -> tuple[list[float], list[float]]:
    """Steps and values of one curve; rows without a finite number are left out."""
    steps, values = [], []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            name = next((n for n in row if n not in ("step", "timestamp")), None)
            try:
                step, value = float(row["step"]), float(row[name] if name else "nan")
            except (KeyError, TypeError, ValueError):
                continue
            if math.isfinite(step) and math.isfinite(value):
                steps.append(step)
                values.append(value)
    return steps, values
