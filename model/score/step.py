"""Step `score`: every method's predictions on the APOLO items, judged by the paper's metrics (Sec. 4.1).

Masks by the APOLO protocol (`metrics.segmentation`), explanations by BLEU, METEOR, ROUGE-L, CLIPScore and EA,
for step `predict`'s methods and for the baselines. All rows count the same items. A missing or unusable
prediction is wrong everywhere (IoU 0, an empty explanation), and is listed; an item without a usable label,
or whose label is empty, counts for no method. Masks are scored twice: at the fixed threshold, and at the one
that the method does best with on APOLO's val items.

The inputs are read once (`read_inputs`), and `compute_scores` holds the results in memory; the tables, pages,
statistics and the paper's tables are all made of those. Java takes longest, and starts first: it works on the
explanations while torch is imported and masks are scored.
"""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.metrics import text
from model.score import score_page
from model.score.explanations import ReferenceItems, begin_texts
from model.score.inputs import Judges, ScoreInputs, check_judges, load_judges, read_inputs
from model.score.items import describe_release, item_name
from model.score.paper_tables.tables import write_tables
from model.score.params import ScoreParams
from model.score.result_tables import item_table, sweep_table, text_table
from model.score.scores import Scores, compute_scores, find_draws
from model.score.statistics import page
from model.score.statistics.bootstrap import summarise
from model.score.summary import write_summary
from pipeline.backbones.params import BackbonesParams, ClipParams
from pipeline.common.digests import seal
from pipeline.common.files import write_bytes, write_json, write_parquet
from pipeline.common.fingerprint import as_json
from pipeline.common.lock import writes
from pipeline.common.params import Paths
from pipeline.common.progress import waiting
from pipeline.common.sums import write_sums
from pipeline.releases.gallery_mark import drawn_evaluation

PAGES = ("score.md", "statistics.json", "statistics.md", "tables", "methods.json", "summary.json", "plots")
"""What the step writes to metrics/ itself."""
LISTED = 20
"""Problems named in the metrics; all of them are in items.parquet."""


@writes(lambda paths, *_: [paths.step("score"), *(paths.metrics / name for name in PAGES)])
def score_methods(paths: Paths, params: ScoreParams, backbones: BackbonesParams) -> dict[str, Any]:
    """Score everything there is; writes data/score/*.parquet and, in metrics/, {summary.json, methods.json,
    score.md, statistics.*, tables/, plots/}.

    Returns the content of metrics/score.json; without Java it has no BLEU, METEOR and ROUGE-L, and says so.
    Raises `UserError` when there is nothing to score, or an earlier step's files are absent.
    """
    with contextlib.ExitStack() as stack:
        with waiting("score", "reading APOLO, predictions and weights"):
            inputs = read_inputs(paths, params)
            check_judges(paths, params, backbones)
            draws = find_draws(inputs.items, inputs.methods)
            texts = stack.enter_context(begin_texts(ReferenceItems.of(inputs.items), draws))
            judges = load_judges(paths, params, backbones, inputs.pictures)
        scores = compute_scores(inputs, texts, judges, params)
    metrics = _metrics(paths, inputs, judges, scores, params, backbones)
    with waiting("score", f"intervals by {params.statistics.resamples:,} bootstrap resamples"):
        statistics = summarise(scores, inputs.styles, params.statistics)
    _write(paths, scores, metrics, statistics)
    return seal(metrics)


def _metrics(
    paths: Paths,
    inputs: ScoreInputs,
    judges: Judges,
    scores: Scores,
    params: ScoreParams,
    backbones: BackbonesParams,
) -> dict[str, Any]:
    """The content of metrics/score.json."""
    return {
        "data": describe_release(paths.apolo),
        "drawn": drawn_evaluation(paths),
        "backbones": describe_backbones(backbones),
        "tiny": is_tiny(backbones),
        "split": params.split,
        "rows": scores.rows(),
        "protocol": _protocol(params, params.clip or backbones.clip),
        "text": text.versions(),
        "alignment": judges.classifier.training,
        "items": {
            "apolo": len(inputs.items),
            "counted": len(scores.counted),
            "rejected": len(inputs.notes),
            "val": len(inputs.val),
        },
        "problems": [*scores.absent, *inputs.notes[:LISTED], *_problems(scores)],
    }


def _protocol(params: ScoreParams, clip: ClipParams) -> dict[str, Any]:
    """The params of the step, with CLIPScore's CLIP by its file's name, not its place on somebody's disk."""
    named = dataclasses.replace(clip, checkpoint=Path(clip.checkpoint.name))
    protocol: dict[str, Any] = as_json(dataclasses.replace(params, clip=named))
    return protocol


def _write(paths: Paths, scores: Scores, metrics: Mapping[str, Any], statistics: Mapping[str, Any]) -> None:
    folder = paths.step("score")
    tables = {
        "items.parquet": item_table(scores),
        "texts.parquet": text_table(scores),
        "sweep.parquet": sweep_table(scores),
    }
    for name, table in tables.items():
        write_parquet(folder / name, table)
    write_sums(folder, tables)
    write_json(paths.metrics / "methods.json", by_method(metrics["rows"]))
    write_summary(paths, scores, metrics["rows"])
    write_bytes(paths.metrics / "score.md", score_page.markdown(metrics).encode())
    write_json(paths.metrics / "statistics.json", seal(statistics))
    write_bytes(paths.metrics / "statistics.md", page.markdown(statistics).encode())
    write_tables(paths, metrics, statistics)


def by_method(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rows of metrics/score.json by name, metrics/methods.json: DVC compares no lists."""
    return {row["method"]: {name: row[name] for name in row if name != "method"} for row in rows}


def is_tiny(backbones: BackbonesParams) -> bool:
    """Whether an encoder is one of this repository's small ones."""
    return "tiny" in (backbones.sam.arch, backbones.clip.name)


def describe_backbones(backbones: BackbonesParams) -> str:
    """Whose weights were at work, for the head of every table."""
    if is_tiny(backbones):
        return "tiny (not the paper's)"
    return f"SAM {backbones.sam.arch}, CLIP {backbones.clip.name}, {backbones.language_model.name}"


def _problems(scores: Scores) -> list[str]:
    """One line per method (or label) and kind of problem: which, and the first items by name."""
    lines = []
    for name, problems in (
        ("label", scores.masks.labels),
        *zip(scores.methods, scores.masks.problems, strict=True),
    ):
        kinds: dict[str, list[str]] = {}
        for item, problem in zip(scores.items, problems, strict=True):
            if problem is not None:
                kinds.setdefault(problem, []).append(item_name(item))
        for kind, names in list(kinds.items())[:LISTED]:
            rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            lines.append(f"{name}: {kind}: {', '.join(names[:LISTED])}{rest}")
    return lines
