"""Small line and bar charts as inline SVG, coloured by the page's style sheet (classes ``s0``, ``s1`` …)."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 26
POINTS = 160
"""Most points drawn in a line; more steps than that are averaged over equal stretches."""


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    style: int
    """Number of its colour class."""
    steps: Sequence[float]
    values: Sequence[float]
    """Finite, one per step."""

    @property
    def last(self) -> str:
        """Its last value, as a legend shows it."""
        return f"{self.values[-1]:.3g}"


@dataclass(frozen=True)
class Mark:
    """A point of a line that stands out."""

    style: int
    step: float
    value: float


@dataclass(frozen=True)
class Bar:
    """One row of a forest plot: an estimate and its interval."""

    name: str
    value: float
    low: float
    high: float
    strong: bool
    """Set in bold."""
    faint: bool
    """Set back, as a control is."""


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` + 1 round numbers (1, 2 or 5 times a power of ten apart) that lie in [low, high]."""
    span = high - low
    if not span > 0:
        return [low]
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next((factor for factor in (1, 2, 5) if span / (step * factor) <= most), 10)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def thin(line: Line, most: int = POINTS) -> Line:
    """The line with at most `most` points, each the mean over an equal stretch of the original's."""
    count = len(line.steps)
    if count <= most:
        return line
    edges = [count * i // most for i in range(most + 1)]
    means = [
        (math.fsum(line.steps[a:b]) / (b - a), math.fsum(line.values[a:b]) / (b - a))
        for a, b in itertools.pairwise(edges)
    ]
    return Line(line.name, line.style, [x for x, _ in means], [y for _, y in means])


def line_chart(
    title: str,
    lines: Sequence[Line],
    marks: Sequence[Mark] = (),
    upright: tuple[float, str] | None = None,
) -> Markup:
    """Curves over steps, as one SVG element. Each line needs a point at least.

    Args:
        title: what a screen reader says.
        lines: the curves.
        marks: points that get a ring.
        upright: (step, label) of a vertical line within the curves' range.
    """
    drawn = [thin(line) for line in lines]
    xs = [x for line in drawn for x in line.steps]
    ys = [y for line in drawn for y in line.values]
    (x0, x1), (y0, y1) = _padded(min(xs), max(xs), 0.0), _padded(min(ys), max(ys), 0.05)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for y in ticks(y0, y1, 4):
        at = place(x0, y)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{y:g}</text>')
    for x in ticks(x0, x1, 5):
        at = place(x, y0)[0]
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{_short(x)}</text>')
    for line in drawn:
        points = [place(x, y) for x, y in zip(line.steps, line.values, strict=True)]
        if len(points) == 1:
            parts.append(
                f'<circle class="s{line.style}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="2.5"/>'
            )
        else:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(f'<polyline class="s{line.style}" points="{path}"/>')
    if upright is not None and x0 <= upright[0] <= x1:
        parts.append(_upright(place(upright[0], y0)[0], upright[1]))
    for mark in marks:
        across, up = place(min(max(mark.step, x0), x1), min(max(mark.value, y0), y1))
        parts.append(f'<circle class="mark s{mark.style}" cx="{across:.1f}" cy="{up:.1f}" r="4.5"/>')
    return _svg(title, WIDTH, HEIGHT, parts)


def swatch(style: int) -> Markup:
    """A short piece of a line, for a legend."""
    line = f'<polyline class="s{style}" points="0,4 30,4"/>'
    return Markup(f'<svg class="key" viewBox="0 0 30 8" aria-hidden="true">{line}</svg>')  # noqa: S704 (a number)


def forest_plot(title: str, bars: Sequence[Bar]) -> Markup:
    """Estimates with their intervals over percentages from 0, a row each, as one SVG element."""
    row, left, right = 34, 8, 12  # half of "100" stands right of its place
    top = min(100.0, 10 * math.ceil(max(bar.high for bar in bars) / 10) or 10)
    height = row * len(bars) + BOTTOM

    def across(value: float) -> float:
        return left + min(value, top) / top * (WIDTH - left - right)

    parts = []
    for value in ticks(0, top, 5):
        at = across(value)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{height - BOTTOM + 4}"/>')
        parts.append(f'<text x="{at:.1f}" y="{height - 8}" text-anchor="middle">{value:g}</text>')
    for place, bar in enumerate(bars):
        words, line = place * row + 13, place * row + 23
        look = "strong" if bar.strong else "faint" if bar.faint else "plain"
        said = f"{bar.value:.1f} [{bar.low:.1f}, {bar.high:.1f}]"
        parts.append(
            f'<g class="{look}"><text x="{left}" y="{words}">{escape(bar.name)}</text>'
            f'<text x="{WIDTH - right}" y="{words}" text-anchor="end">{said}</text>'
            f'<line class="reach" x1="{across(bar.low):.1f}" x2="{across(bar.high):.1f}" '
            f'y1="{line}" y2="{line}"/>'
            f'<circle cx="{across(bar.value):.1f}" cy="{line}" r="4.5"/></g>'
        )
    return _svg(title, WIDTH, height, parts)


def histogram(
    title: str,
    edges: Sequence[float],
    counts: Sequence[int],
    top: int = 0,
    uprights: Sequence[float] = (),
) -> Markup:
    """Bars over the intervals between `edges` (one more than `counts`), as one SVG element.

    Args:
        title: what a screen reader says.
        edges, counts: the bars.
        top: what the highest bar may be, to compare charts; 0 for this one's.
        uprights: values with a vertical line.
    """
    top = max([*counts, top, 1])
    low, high = edges[0], edges[-1]

    def across(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def up(count: float) -> float:
        return HEIGHT - BOTTOM - count / top * (HEIGHT - TOP - BOTTOM)

    parts = []
    for count in ticks(0, top, 4):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(count):.1f}" y2="{up(count):.1f}"/>'
            f'<text x="{LEFT - 6}" y="{up(count) + 3.5:.1f}" text-anchor="end">{_short(count)}</text>'
        )
    for a, b, count in zip(edges[:-1], edges[1:], counts, strict=True):
        wide = max(across(b) - across(a) - 1.5, 0.5)
        parts.append(
            f'<rect class="bar" x="{across(a) + 0.75:.1f}" y="{up(count):.1f}" width="{wide:.1f}" '
            f'height="{up(0) - up(count):.1f}"/>'
        )
    for value in ticks(low, high, 5):
        parts.append(f'<text x="{across(value):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{value:g}</text>')
    parts += [_upright(across(value)) for value in uprights]
    return _svg(title, WIDTH, HEIGHT, parts)


def _upright(across: float, label: str = "") -> str:
    line = f'<line class="upright" x1="{across:.1f}" x2="{across:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
    return line + (f'<text x="{across + 4:.1f}" y="{TOP + 8}">{escape(label)}</text>' if label else "")


def _svg(title: str, width: int, height: int, parts: Sequence[str]) -> Markup:
    inside = f"<title>{escape(title)}</title>" + "".join(parts)
    return Markup(f'<svg role="img" viewBox="0 0 {width} {height}">{inside}</svg>')  # noqa: S704 (escaped above)


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    """A range that is not empty, with room at both ends."""
    if high <= low:
        return low - 0.5, high + 0.5
    room = (high - low) * share
    return low - room, high + room


def _short(value: float) -> str:
    """A step or count in few characters: 1500 as 1.5k."""
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"
