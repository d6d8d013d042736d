"""Step `report`: one self-contained page of numbers, curves and pictures for a person to judge by.

Everything is inlined (pictures as ``data:`` URIs, curves as SVG) and a content security policy forbids the
page to load anything. Titles, utterances and explanations come from files, and are escaped.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pydantic
from markupsafe import Markup
from pydantic import Field

from model.metrics.columns import COLUMNS, CONTROLS, NAMED, cell, columns_of
from model.report.charts import histogram, swatch
from model.report.curves import read_curves, read_kept
from model.report.emotions import artwork_grids
from model.report.findings import (
    confusions,
    forests,
    heat_maps,
    iou_histograms,
    read_result_statistics,
    read_table,
    threshold_figures,
)
from model.report.items import Results, item_cards
from model.report.quality import label_quality
from model.report.sources import drawn_from, trained_models, versions
from model.report.strips import FAILED, failure_strips, quality_strips
from model.report.templates import artist_and_title, environment
from model.report.verdict import comparisons, find_lead, is_control, p_text, signed, verdict
from pipeline.backbones.params import BackbonesParams
from pipeline.common.digests import read_sealed
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes
from pipeline.common.fingerprint import sha256_file
from pipeline.common.lock import writes
from pipeline.common.params import STRICT, Paths
from pipeline.reader.statistics import read_statistics
from pipeline.releases.gallery_mark import drawn_text


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ReportParams:
    """How much the page shows."""

    items: Annotated[int, Field(ge=0)] = 12
    """Test items pictured."""
    seed: int = 7
    """Draws which items: another seed, other pictures."""
    side: Annotated[int, Field(ge=32, le=1024)] = 360
    """Size of a picture: it has as many pixels as a square of this side."""
    utterances: Annotated[int, Field(ge=1)] = 4
    """Human explanations shown beside each item."""
    strip: Annotated[int, Field(ge=0)] = 4
    """Items in each strip: best, median, worst, and every kind of failure."""
    artworks: Annotated[int, Field(ge=0)] = 2
    """Artworks of which all eight emotions are pictured."""


@writes(lambda paths, *_: [paths.report])
def build_report(paths: Paths, params: ReportParams, backbones: BackbonesParams) -> dict[str, Any]:
    """Write report/index.html; returns counts.

    Raises `UserError` when score or shards have not run, or a tar of masks or predictions is damaged.
    """
    score = _read_scores(paths.metrics / "score.json")
    if not {"drawn", "tiny"} <= score.keys():
        raise UserError(f"{paths.metrics / 'score.json'} is of an older version; run the score step again")
    found = read_result_statistics(paths.metrics / "statistics.json")
    statistics = read_statistics(paths.step("shards"))
    kept = read_kept(paths.runs)
    results = Results(paths, score)
    cards, notes = item_cards(results, params.items, params.seed, params.side, params.utterances)
    page = (
        environment()
        .get_template("report_template.html")
        .render(
            score=score,
            drawn=drawn_text(score["drawn"]),
            backbones=backbones,
            groups=_table(score["rows"], found),
            columns=_columns(score["rows"]),
            headings={name: heading for name, heading, _ in (*COLUMNS, *CONTROLS)},
            named_headings=[heading for _, heading, _ in NAMED],
            named=_named(score["rows"], found),
            p_text=p_text,
            signed=signed,
            verdict=verdict(found, score["split"]),
            comparisons=comparisons(found),
            level=found["params"]["level"],
            resamples=found["params"]["resamples"],
            curves=read_curves(paths.runs, kept),
            kept=kept,
            swatch=swatch,
            **_findings(paths, score, found),
            cards=cards,
            shown=results.shown,
            notes=notes,
            params=params,
            all_emotions=EMOTIONS,
            emotions=[name for name in EMOTIONS if name in statistics["emotions"]],
            stats=statistics,
            areas=_area_chart(statistics),
            quality=label_quality(paths.step("shards"), statistics),
            strips=quality_strips(results, params.strip, params.side),
            failures=failure_strips(results, params.strip, params.side) if params.strip else [],
            grids=artwork_grids(results, params.artworks, min(params.side, 240)),
            failed_below=FAILED,
            sources=_sources(paths),
            artists=artist_and_title,
            figure=itertools.count(1).__next__,
        )
    )
    write_bytes(paths.report / "index.html", page.encode())
    return {"items": len(cards), "bytes": len(page.encode()), "not_shown": len(notes)}


def _read_scores(path: Path) -> dict[str, Any]:
    try:
        return read_sealed(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); run the score step") from None


def _sources(paths: Paths) -> dict[str, Any]:
    return {
        "versions": versions(),
        "scores": sha256_file(paths.metrics / "score.json"),
        "models": trained_models(paths.runs),
        "files": drawn_from(paths),
    }


def _findings(paths: Paths, score: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The charts and tables of the scores, in the order of the score table."""
    order = [row["method"] for row in score["rows"]]
    folder = paths.step("score")
    sweep, threshold = read_table(folder / "sweep.parquet"), score["protocol"]["threshold"]
    return {
        "forests": forests(found, order),
        "thresholds": threshold_figures(sweep, score["rows"], threshold),
        "heat_maps": heat_maps(found, order),
        "confusions": confusions(read_table(folder / "texts.parquet")),
        "histograms": iou_histograms(found, order),
    }


def _table(
    rows: Sequence[dict[str, Any]], found: dict[str, Any]
) -> list[tuple[str, list[tuple[dict[str, Any], list[tuple[str, bool]]]]]]:
    """[(group, [(row, [(text, whether it leads its column beyond noise), ...]), ...]), ...]."""
    columns = _columns(rows)
    leads = {name: find_lead(found, name) for name, _, _ in columns}
    bold = {name: lead.method for name, lead in leads.items() if lead is not None and lead.beyond_noise}
    groups: dict[str, list[tuple[dict[str, Any], list[tuple[str, bool]]]]] = {}
    for row in rows:
        control = is_control(row["method"])
        ours = row["method"].startswith("emosem")
        group = "Controls" if control else "EmoSEM" if ours else "Baselines"
        cells = [
            (cell(row, name, decimals), bold.get(name) == row["method"]) for name, _, decimals in columns
        ]
        groups.setdefault(group, []).append((row, cells))
    return list(groups.items())


def _columns(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str, int]]:
    """Of the first table: without those of the second."""
    return [column for column in columns_of(rows) if column[0] not in {name for name, _, _ in NAMED}]


def _named(
    rows: Sequence[dict[str, Any]], found: dict[str, Any]
) -> list[tuple[str, list[dict[str, float] | None]]]:
    """[(method, [estimate or None, per column of `NAMED`]), ...] of methods whose words were so judged."""
    judged = [row["method"] for row in rows if "motif_named" in row]
    return [(name, [found["methods"][name].get(column) for column, _, _ in NAMED]) for name in judged]


def _area_chart(statistics: dict[str, Any]) -> Markup:
    area = statistics["mask_area"]
    return histogram(
        "Pseudo-masks by the share of the artwork that they cover", area["edges"], area["counts"]
    )
