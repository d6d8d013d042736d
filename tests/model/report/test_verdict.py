"""The verdict and the charts say what the statistics hold, in words that a hand-made case checks."""

import re
from typing import Any

import pytest

from model.report.charts import WIDTH, Bar, Line, Mark, forest_plot, line_chart
from model.report.findings import confusions, heat_maps, iou_histograms, threshold_figures
from model.report.verdict import compare, comparisons, find_lead, verdict


def statistics(
    values: dict[str, float], p: dict[tuple[str, str], float], column: str = "seg_pr25"
) -> dict[str, Any]:
    """Methods with one column, tested against each other as `p` says."""
    return {
        "params": {"level": 0.95, "resamples": 1000},
        "items": 200,
        "methods": {
            name: {column: {"value": value, "low": value - 3, "high": value + 4}}
            for name, value in values.items()
        },
        "pairs": [
            {
                "column": column,
                "first": one,
                "second": other,
                "difference": values[one] - values[other],
                "low": values[one] - values[other] - 1,
                "high": values[one] - values[other] + 2,
                "p_holm": value,
            }
            for (one, other), value in p.items()
        ],
    }


def said(found: dict[str, Any]) -> str:
    return verdict(found, "test").replace("\N{NO-BREAK SPACE}", " ")


def test_a_lead_beyond_noise() -> None:
    found = statistics(
        {"a": 50.0, "emosem-x": 62.0, "b": 40.0}, {("a", "emosem-x"): 0.004, ("emosem-x", "b"): 0.0}
    )
    assert said(found) == (
        "Of 200 APOLO test items, at an IoU of 0.25 emosem-x leads with 62.0 % [59.0, 66.0], "
        "12.0 points [10.0, 13.0] more than a, the next, which is beyond noise (p = 0.004)."
    )
    lead = find_lead(found, "seg_pr25")
    assert lead is not None and lead.beyond_noise


def test_a_lead_that_one_method_could_share_is_none() -> None:
    found = statistics({"a": 50.0, "x": 52.0, "b": 40.0}, {("a", "x"): 0.2, ("x", "b"): 0.0001})
    assert said(found).endswith(
        "x is highest with 52.0 % [49.0, 56.0], but cannot be told apart from a (+2.0 points, p = 0.20)."
    )
    lead = find_lead(found, "seg_pr25")
    assert lead is not None and not lead.beyond_noise


@pytest.mark.parametrize("p, apart", [(0.0499, True), (0.05, False), (0.051, False)])
def test_the_level_of_the_intervals_is_that_of_the_tests(p: float, apart: bool) -> None:
    one = compare(statistics({"a": 1.0, "b": 5.0}, {("a", "b"): p}), "seg_pr25", "b", "a")
    assert one is not None and one.apart is apart
    assert (one.difference, one.low, one.high) == (4.0, 2.0, 5.0)  # the pair the other way round


def test_controls_never_lead_and_are_compared_with_their_method() -> None:
    found = statistics(
        {"emosem-single": 50.0, "emosem-single:other-emotion": 90.0},
        {("emosem-single", "emosem-single:other-emotion"): 0.3},
    )
    assert "emosem-single, the only method here, gets 50.0 %" in said(found)
    (one,) = comparisons(found)
    assert one.difference == -40 and not one.apart


def test_nobody_gets_anything_right_and_nothing_was_judged() -> None:
    assert said(statistics({"a": 0.0, "b": 0.0}, {("a", "b"): 1.0})).endswith("no method gets one right.")
    assert said(statistics({}, {})) == "No method's masks have been judged."


def test_a_forest_plot_lies_in_proportion() -> None:
    svg = str(
        forest_plot(
            "<t>", [Bar("<b>", 50.0, 25.0, 100.0, True, False), Bar("c", 0.0, 0.0, 10.0, False, True)]
        )
    )
    centres = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg)]
    reaches = [tuple(map(float, pair)) for pair in re.findall(r'reach" x1="([\d.]+)" x2="([\d.]+)"', svg)]
    zero, hundred = centres[1], reaches[0][1]
    assert (centres[0] - zero) / (hundred - zero) == pytest.approx(0.5, abs=1e-3)
    assert (reaches[0][0] - zero) / (hundred - zero) == pytest.approx(0.25, abs=1e-3)
    assert "&lt;b&gt;" in svg and "<b>" not in svg
    ticks = re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle">(\d+)<', svg)
    widest = 10.5 * 0.6  # a digit of the page's letters, which are 10.5 high
    assert ticks[-1][1] == "100" and float(ticks[-1][0]) + widest * len("100") / 2 <= WIDTH


def test_a_ring_lies_on_its_curve() -> None:
    svg = str(line_chart("t", [Line("a", 0, [0, 5, 10], [0.0, 1.0, 0.5])], [Mark(0, 5, 1.0)], (5, "5")))
    points = re.search(r'points="([^"]+)"', svg)
    ring = re.search(r'mark s0" cx="([\d.]+)" cy="([\d.]+)"', svg)
    line = re.search(r'upright" x1="([\d.]+)"', svg)
    assert points and ring and line
    assert ",".join(ring.groups()) == points[1].split()[1]
    assert line[1] == ring[1]


def test_thresholds_are_marked_where_val_chose_them() -> None:
    sweep = [
        {"method": "m", "threshold": step / 10, "mean_iou": 10.0 * step, "seg_pr25": 1.0, "seg_pr50": 2.0}
        for step in range(5)
    ]
    figures = threshold_figures(sweep, [{"method": "m", "threshold_val": 0.3}], 0.35)
    assert [figure.name for figure in figures] == ["Mean IoU", "Seg Pr@25", "Seg Pr@50"]
    assert all(str(figure.chart).count("mark s0") == 1 and ">0.35<" in figure.chart for figure in figures)
    assert threshold_figures([], [], 0.35) == []


def test_confusion_rows_are_shares_of_what_was_asked_for() -> None:
    texts = [
        {"method": "emosem-x", "emotion": "fear", "ea": ea}
        for ea in ("fear", "fear", "awe", "something else")
    ]
    texts += [{"method": "emosem-x:no-prefix", "emotion": "fear", "ea": "awe"}]
    texts += [{"method": "emosem-x", "emotion": "awe", "ea": None}]
    (found,) = confusions(texts)
    assert found.columns[-1] == "something else"
    ((name, count, cells),) = found.rows
    shares = {column: cell[0] for column, cell in zip(found.columns, cells, strict=True) if cell and cell[0]}
    assert (name, count, shares) == ("fear", 4, {"awe": 25.0, "fear": 50.0, "something else": 25.0})


def test_heat_maps_keep_the_paper_s_order_and_leave_gaps() -> None:
    part = {"items": 3, "methods": {"a": {"seg_pr25": {"value": 33.3, "low": 1.0, "high": 90.6}}}}
    emotions, styles = heat_maps(
        {"by_emotion": {"fear": part, "awe": part}, "by_style": {"Naive_Art": part}}, ["a", "b"]
    )
    assert [row[0] for row in emotions.rows] == ["awe", "fear"]
    assert styles.rows == [("Naive Art", 3, [(33.3, "1\N{EN DASH}91"), None])]


def test_histograms_share_one_height() -> None:
    counts = {"a": {"seg": [10, 0]}, "b": {"seg": [5, 5]}}
    one, other = iou_histograms({"histograms": {"edges": [0.0, 0.5, 1.0], "methods": counts}}, ["a", "b"])
    heights = [
        [float(x) for x in re.findall(r'class="bar".*?height="([\d.]+)"', str(f.chart))] for f in (one, other)
    ]
    assert heights[1] == [pytest.approx(heights[0][0] / 2, abs=0.1)] * 2
