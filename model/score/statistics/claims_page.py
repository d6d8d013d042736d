"""The page of claims: metrics/claims.md, and its content as JSON."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.metrics.columns import COLUMNS
from model.metrics.markdown import Markdown, escape, table
from model.score.params import StatisticsParams
from model.score.statistics.claims import CLAIMS, POINT, judge, recipe_claims
from model.score.statistics.page import cell, p_value
from model.score.statistics.seeds import SeedScores, over_seeds, read_cells
from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes, write_json
from pipeline.common.fingerprint import as_json

AT_OWN_THRESHOLD = tuple(
    (f"{column}_val", heading, decimals)
    for column, heading, decimals in COLUMNS
    if column.startswith(("seg_", "box_"))
)
BY_SEED = ("seg_pr50", "seg_pr50_val", "ea")
"""Columns of which every seed's value is shown."""
HEADINGS = {column: heading for column, heading, _ in COLUMNS} | {
    column: f"{heading}, own threshold" for column, heading, _ in AT_OWN_THRESHOLD
}


def score_seeds(
    folders: Mapping[int, Path], params: StatisticsParams, beside: Mapping[str, Sequence[Path]]
) -> dict[str, Any]:
    """The content of claims.json.

    Args:
        folders: of step `score`, by training seed; at least one.
        params: of the bootstrap.
        beside: name of another run -> its seeds' folders, scored on the same items.

    Raises:
        UserError: absent or damaged files, other items, or a name that a run cannot have.
    """
    tables = [read_cells(folder) for folder in folders.values()]
    claims = [*CLAIMS]
    for name, others in beside.items():
        if not name or "/" in name or ":" in name:
            raise UserError(f"ablations.beside: {name!r} cannot be a name; it stands before methods' own")
        claims += recipe_claims(name)
        for folder in others:
            found = read_cells(folder)
            cells = [dataclasses.replace(each, method=f"{name}/{each.method}") for each in found.cells]
            tables.append(dataclasses.replace(found, cells=cells))
    scores = over_seeds(tables, params)
    return {
        "params": as_json(params),
        "items": scores.items,
        "units": scores.units,
        "seeds": list(folders),
        "beside": {name: len(others) for name, others in beside.items()},
        "methods": _methods(scores),
        "claims": judge(scores, claims),
    }


def _methods(scores: SeedScores) -> dict[str, dict[str, Any]]:
    methods: dict[str, dict[str, Any]] = {}
    for method, column in scores.means:
        methods.setdefault(method, {})[column] = scores.estimate((method, column))
    return methods


def write_claims(metrics: Path, content: Mapping[str, Any], about: Sequence[str] = ()) -> str:
    """Write claims.json and claims.md to a folder; returns the page. `about`: sentences of what was run."""
    page = markdown(content, about)
    write_json(metrics / "claims.json", content)
    write_bytes(metrics / "claims.md", page.encode())
    return page


# ---- the page --------------------------------------------------------------------------------------


def markdown(content: Mapping[str, Any], about: Sequence[str] = ()) -> str:
    """The page for the content of claims.json."""
    params = content["params"]
    level = f"{100 * params['level']:g} %"
    what = "items" if params["unit"] == "item" else f"items of {content['units']:,} paintings"
    seeds = content["seeds"]
    parts = [
        "# What the paper claims, and what this run says",
        " ".join(
            [
                *map(escape, about),
                f"{content['items']:,} test {what}; training seeds {', '.join(map(str, seeds))}.",
                f"In brackets: {level} intervals that count both, {params['resamples']:,} resamples of the "
                f"{params['unit']}s, which are the same for all methods, and the variance between seeds "
                "(Welch and Satterthwaite's t). Where a method has one training only, or none, paintings "
                "alone.",
            ]
        ),
        _claims(content["claims"]),
        _rule(content),
        "## Scores\n\n" + _scores(content["methods"], COLUMNS),
        "Each at the threshold with its highest mean IoU on the val items:\n\n"
        + _scores(content["methods"], AT_OWN_THRESHOLD),
        "## Seed by seed\n\n" + _by_seed(content["methods"]),
    ]
    return "\n\n".join(parts) + "\n"


def _rule(content: Mapping[str, Any]) -> str:
    alpha = 1 - content["params"]["level"]
    tested = sum("p" in row for row in content["claims"])
    return (
        f"Holm: p corrected for all {tested} claims that could be tested. *Holds*: that p is below "
        f"{alpha:.2g}, with the claimed sign. *Does not hold*: the same with the other sign, or the whole "
        f"interval lies below {POINT:g} point and below the paper's own difference. *Cannot be told*: all "
        "else, and whatever rests on one training of a method."
    )


def _claims(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for row in rows:
        measured = "p" in row
        paper = "–" if row["paper"] is None else f"{row['paper']:+.2f}"
        ours = "–"
        if measured:
            ours = f"{row['difference']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
        lines.append(
            [
                row["where"],
                row["says"],
                Markdown(f"`{row['ahead']}` − `{row['behind']}`"),
                HEADINGS[row["column"]],
                Markdown(paper),
                Markdown(ours),
                Markdown(p_value(row["p"]) if measured else "–"),
                Markdown(p_value(row["p_holm"]) if measured else "–"),
                Markdown(f"**{row['verdict']}**"),
            ]
        )
    counts = Counter(row["verdict"] for row in rows)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    head = ["", "Claim", "Difference", "Score", "Paper", "Here", "p", "Holm", "Verdict"]
    return f"{table(head, lines, left=4)}\n\nOf {len(rows)}: {told}."


def _scores(methods: Mapping[str, Any], columns: Sequence[tuple[str, str, int]]) -> str:
    shown = [one for one in columns if any(one[0] in cells for cells in methods.values())]
    rows = [
        [name, str(trainings(cells)), *(cell(cells.get(column), decimals) for column, _, decimals in shown)]
        for name, cells in methods.items()
    ]
    return table(["Method", "Seeds", *(heading for _, heading, _ in shown)], rows)


def trainings(cells: Mapping[str, Any]) -> int:
    """How many trainings a method's row rests on; 1 for one that is not trained, too."""
    return max(len(estimate["by_seed"]) for estimate in cells.values())


def _by_seed(methods: Mapping[str, Any]) -> str:
    rows = []
    for name, cells in methods.items():
        if trainings(cells) > 1:
            values = [cells.get(column, {}).get("by_seed", ()) for column in BY_SEED]
            rows.append([name, *(" / ".join(f"{one:.1f}" for one in each) or "-" for each in values)])
    headings = [HEADINGS[column] for column in BY_SEED]
    return table(["Method", *headings], rows) if rows else "One training of each so far."
