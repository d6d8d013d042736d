"""Training curves: what training left in ``runs/VARIANT/dvclive``, as charts."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from model.report.charts import Line, line_chart

COLOURS = 6
"""Colour classes in the pages' style sheet."""


@dataclass(frozen=True)
class Curve:
    """One chart: a metric, with a line per variant."""

    name: str
    lines: list[Line]
    chart: Markup


def read_curves(runs: Path) -> list[Curve]:
    """A chart per metric that any variant has, training metrics first."""
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
    return [Curve(name, found, line_chart(name, found)) for name, found in sorted(lines.items())]


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
