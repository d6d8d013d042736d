"""Step `report`: one self-contained page of numbers, curves and pictures for a person to judge by.

Everything is inlined (pictures as ``data:`` URIs, curves as SVG) and a content security policy forbids the
page to load anything. Titles, utterances and explanations come from files, and are escaped.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pydantic
from markupsafe import Markup
from pydantic import Field

from model.metrics.columns import COLUMNS, cell
from model.report.charts import histogram
from model.report.curves import read_curves
from model.report.items import Results, item_cards
from model.report.templates import artist_and_title, environment
from pipeline.backbones.params import BackbonesParams
from pipeline.common.digests import read_sealed
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes
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
    side: Annotated[int, Field(ge=32, le=1024)] = 300
    """Size of a picture: it has as many pixels as a square of this side."""
    utterances: Annotated[int, Field(ge=1)] = 4
    """Human explanations shown beside each item."""


@writes(lambda paths, *_: [paths.report])
def build_report(paths: Paths, params: ReportParams, backbones: BackbonesParams) -> dict[str, Any]:
    """Write report/index.html; returns counts.

    Raises `UserError` when score or shards have not run, or a tar of masks or predictions is damaged.
    """
    score = _read_scores(paths.metrics / "score.json")
    if not {"drawn", "tiny"} <= score.keys():
        raise UserError(f"{paths.metrics / 'score.json'} is of an older version; run the score step again")
    statistics = read_statistics(paths.step("shards"))
    results = Results(paths, score)
    cards, notes = item_cards(results, params.items, params.seed, params.side, params.utterances)
    page = (
        environment()
        .get_template("report_template.html")
        .render(
            score=score,
            drawn=drawn_text(score["drawn"]),
            backbones=backbones,
            groups=_table(score["rows"]),
            columns=COLUMNS,
            curves=read_curves(paths.runs),
            cards=cards,
            shown=results.shown,
            notes=notes,
            params=params,
            emotions=[name for name in EMOTIONS if name in statistics["emotions"]],
            stats=statistics,
            areas=_area_chart(statistics),
            artists=artist_and_title,
        )
    )
    write_bytes(paths.report / "index.html", page.encode())
    return {"items": len(cards), "bytes": len(page.encode()), "not_shown": len(notes)}


def _read_scores(path: Path) -> dict[str, Any]:
    try:
        return read_sealed(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); run the score step") from None


def _table(
    rows: Sequence[dict[str, Any]],
) -> list[tuple[str, list[tuple[dict[str, Any], list[tuple[str, bool]]]]]]:
    """[(group, [(row, [(text, whether best of its column), ...]), ...]), ...]; controls are never best."""
    fair = [row for row in rows if ":" not in row["method"]]
    best = {name: max((row[name] for row in fair if name in row), default=None) for name, _, _ in COLUMNS}
    groups: dict[str, list[tuple[dict[str, Any], list[tuple[str, bool]]]]] = {}
    for row in rows:
        control = ":" in row["method"]
        ours = row["method"].startswith("emosem")
        group = "Controls" if control else "EmoSEM" if ours else "Baselines"
        cells = [
            (cell(row, name, decimals), not control and name in row and row[name] == best[name])
            for name, _, decimals in COLUMNS
        ]
        groups.setdefault(group, []).append((row, cells))
    return list(groups.items())


def _area_chart(statistics: dict[str, Any]) -> Markup:
    area = statistics["mask_area"]
    return histogram(
        "Pseudo-masks by the share of the artwork that they cover", area["edges"], area["counts"]
    )
