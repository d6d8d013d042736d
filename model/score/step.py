"""Step `score`: every method's predictions on the APOLO items, judged by the paper's metrics (Sec. 4.1).

Masks by the APOLO protocol (`metrics.segmentation`), explanations by BLEU, METEOR, ROUGE-L, CLIPScore and EA,
for step `predict`'s methods and for the baselines. All rows count the same items. A missing or unusable
prediction is wrong everywhere (IoU 0, an empty explanation), and is listed; an item without a usable label,
or whose label is empty, counts for no method. Masks are scored twice: at the fixed threshold, and at the one
that the method does best with on APOLO's val items.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.alignment.networks import EmotionClassifier
from model.baselines import clip_vinvl, entire_artwork
from model.baselines.rows import read_rows
from model.maps.method import Method, item_id, scaled_maps
from model.maps.predictions import read_predictions
from model.metrics import text
from model.metrics.thresholds import Sweep
from model.score.clipscore_images import PictureJudge
from model.score.explanations import MethodExplanations, ReferenceItems, score_explanations, text_table
from model.score.items import item_name, read_items
from model.score.paper_tables.tables import write_tables
from model.score.params import ScoreParams
from model.score.score_masks import MapTable, score_masks, sweep_masks
from model.score.score_page import markdown
from model.score.statistics import bootstrap
from pipeline.backbones.params import BackbonesParams, ClipParams
from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes, write_parquet
from pipeline.common.fingerprint import as_json
from pipeline.common.params import Paths
from pipeline.common.tables import table_file
from pipeline.releases.apolo import ApoloItem

LISTED = 20
"""Problems named in the metrics; all of them are in items.parquet."""

ITEM_SCORES = pa.schema(
    [
        ("method", pa.string()),
        ("key", pa.string()),
        ("painting", pa.string()),
        ("emotion", pa.string()),
        ("split", pa.string()),
        ("iou_seg", pa.float64()),  # null where the item counts for no method
        ("iou_box", pa.float64()),
        ("explanation", pa.string()),  # the first draw; null for a method that explains nothing
        ("ea", pa.string()),  # the emotion that the classifier reads in it
        ("clipscore", pa.float64()),
        ("problem", pa.string()),
        ("iou_seg_val", pa.float64()),  # at the threshold chosen on the val items; null where there is none
        ("iou_box_val", pa.float64()),
    ]
)

SWEEP = pa.schema(
    [
        ("method", pa.string()),
        ("threshold", pa.float64()),
        ("items", pa.int64()),  # val items with a label
        ("mean_iou", pa.float64()),  # percent, by pixels, as are the next two
        ("seg_pr25", pa.float64()),
        ("seg_pr50", pa.float64()),
    ]
)


# ---- the step --------------------------------------------------------------------------------------


def score_methods(paths: Paths, params: ScoreParams, backbones: BackbonesParams) -> dict[str, Any]:
    """Score everything there is; writes data/score/*.parquet, metrics/{score.md,statistics.*,tables/}.

    Returns the content of metrics/score.json; without Java it has no BLEU, METEOR and ROUGE-L, and says so.
    Raises `UserError` when there is nothing to score, or an earlier step's files are absent.
    """
    items, every, notes = read_items(paths.apolo, params.split, paths)
    methods = find_methods(paths, every, params)
    val = [item for item in every if item.split == "val"]
    sweeps = sweep_masks(val, methods, params)
    chosen = [None if sweep is None else sweep.best(params.threshold) for sweep in sweeps]
    masks = score_masks(items, methods, params, chosen)
    if not masks.counted.any():
        raise UserError(
            f"none of the {len(items)} {params.split} items has a usable label: {masks.labels[0]}"
        )
    counted = [item for item, counts in zip(items, masks.counted.tolist(), strict=True) if counts]
    device = backbones.torch_device()
    judge = EmotionClassifier.load(paths.step("alignment"), device)
    clip = params.clip or backbones.clip
    reference_items = ReferenceItems(
        keys=[item.key for item in counted],
        emotions=[item.emotion for item in counted],
        references=[item.utterances for item in counted],
    )
    pictures = _pictures(paths, clip, device)
    explanations, absent = score_explanations(reference_items, find_draws(counted, methods), judge, pictures)
    rows = [
        {"method": method.name, **masks.rates(m), "missing": masks.problems[m].count("missing")}
        | (explanations[method.name].row if method.name in explanations else {})
        for m, method in enumerate(methods)
    ]
    metrics = {
        "data": describe_data(paths),
        "backbones": describe_backbones(backbones),
        "split": params.split,
        "rows": rows,
        "protocol": as_json(dataclasses.replace(params, clip=clip)),
        "text": text.versions(),
        "alignment": judge.training,
        "items": {"apolo": len(items), "counted": len(counted), "rejected": len(notes), "val": len(val)},
        "problems": absent + notes[:LISTED] + _problems(items, methods, masks),
    }
    item_table = _item_table(items, methods, masks, explanations)
    texts = text_table(reference_items, explanations)
    write_parquet(paths.step("score") / "items.parquet", item_table)
    write_parquet(paths.step("score") / "texts.parquet", texts)
    write_parquet(paths.step("score") / "sweep.parquet", _sweep_table(methods, sweeps))
    write_bytes(paths.metrics / "score.md", markdown(metrics).encode())
    found = bootstrap.write_statistics(paths, item_table, texts, params.statistics)
    write_tables(paths, metrics, found)
    return metrics


def find_methods(paths: Paths, items: Sequence[ApoloItem], params: ScoreParams) -> list[Method]:
    """The baselines, then the predicted methods, then their controls (``method:control``)."""
    predicted: dict[str, Method] = {}
    folders = sorted(path.parent for path in paths.step("predict").glob("*/predictions.parquet"))
    for folder in folders:
        for method in read_predictions(folder, params.scaling):
            if method.name in predicted:
                raise UserError(f"{folder} predicts {method.name}, and so does another folder beside it")
            predicted[method.name] = method
    teacher = clip_vinvl.PseudoMasks(paths, (item.key for item in items))
    others = read_rows(paths, params.scaling)
    return [
        Method(entire_artwork.NAME, entire_artwork.foreground, finished=True),
        *(method for method in others if method.finished),
        Method(clip_vinvl.NAME, scaled_maps(teacher, params.scaling)),
        *(method for method in others if not method.finished),
        *sorted(predicted.values(), key=lambda method: (":" in method.name, method.name)),
    ]


def find_draws(items: Sequence[ApoloItem], methods: Sequence[Method]) -> dict[str, list[list[str]]]:
    """Of the methods that explain: name -> draw -> text per item, empty where the method said nothing."""
    draws: dict[str, list[list[str]]] = {}
    for method in methods:
        texts = [method.explanations.get(item_id(item), ()) for item in items]
        count = max(map(len, texts), default=0)
        if count:
            draws[method.name] = [[t[d] if d < len(t) else "" for t in texts] for d in range(count)]
    return draws


def _pictures(paths: Paths, clip: ClipParams, device: str) -> PictureJudge:
    from pipeline.backbones.clip import load_clip

    table = pq.read_table(table_file(paths, "artworks"), columns=["key", "path"])
    files = zip(table["key"].to_pylist(), table["path"].to_pylist(), strict=True)
    return PictureJudge(
        load_clip(clip.name, clip.checkpoint, device), {key: paths.wikiart / path for key, path in files}
    )


def describe_data(paths: Paths) -> str:
    """What was scored, for the head of every table."""
    drawn = paths.step("gallery").resolve() in paths.apolo.resolve().parents
    return "built-in gallery" if drawn else f"APOLO release at {paths.apolo}"


def describe_backbones(backbones: BackbonesParams) -> str:
    """Whose weights were at work, for the head of every table."""
    if "tiny" in (backbones.sam.arch, backbones.clip.name):
        return "tiny (not the paper's)"
    return f"SAM {backbones.sam.arch}, CLIP {backbones.clip.name}, {backbones.language_model.name}"


def _problems(items: Sequence[ApoloItem], methods: Sequence[Method], masks: MapTable) -> list[str]:
    """One line per method (or label) and kind of problem: which, and the first items by name."""
    lines = []
    for name, problems in (
        ("label", masks.labels),
        *((method.name, row) for method, row in zip(methods, masks.problems, strict=True)),
    ):
        kinds: dict[str, list[str]] = {}
        for item, problem in zip(items, problems, strict=True):
            if problem is not None:
                kinds.setdefault(problem, []).append(item_name(item))
        for kind, names in list(kinds.items())[:LISTED]:
            rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            lines.append(f"{name}: {kind}: {', '.join(names[:LISTED])}{rest}")
    return lines


def _item_table(
    items: Sequence[ApoloItem],
    methods: Sequence[Method],
    masks: MapTable,
    explanations: Mapping[str, MethodExplanations],
) -> pa.Table:
    """One row per (method, item), in the order of methods and of apolo.json."""
    places = np.cumsum(masks.counted) - 1  # of an item among those that count
    rows = []
    for m, method in enumerate(methods):
        own = explanations.get(method.name)
        for i, item in enumerate(items):
            counts = bool(masks.counted[i])
            row: dict[str, Any] = {
                "method": method.name,
                "key": item.key,
                "painting": item.painting,
                "emotion": item.emotion,
                "split": item.split,
                "iou_seg": float(masks.iou_seg[m, i]) if counts else None,
                "iou_box": float(masks.iou_box[m, i]) if counts else None,
                "problem": masks.problems[m][i] if counts else f"label: {masks.labels[i]}",
                "iou_seg_val": _or_none(masks.iou_seg_val[m, i]),
                "iou_box_val": _or_none(masks.iou_box_val[m, i]),
            }
            if own is not None and counts:
                place = int(places[i])
                row |= {"explanation": own.texts[place], "ea": own.emotions[place]}
                row["clipscore"] = _or_none(own.clipscores[place])
            rows.append(row)
    return pa.Table.from_pylist(rows, schema=ITEM_SCORES)


def _or_none(value: float) -> float | None:
    """A number of a table: NaN is no number."""
    return None if np.isnan(value) else float(value)


def _sweep_table(methods: Sequence[Method], sweeps: Sequence[Sweep | None]) -> pa.Table:
    """`SWEEP`: one row per method and threshold, in the order of methods."""
    rows = [
        {
            "method": method.name,
            "threshold": threshold,
            "items": len(sweep.ious),
            "mean_iou": mean,
            "seg_pr25": pr25,
            "seg_pr50": pr50,
        }
        for method, sweep in zip(methods, sweeps, strict=True)
        if sweep is not None
        for threshold, mean, pr25, pr50 in zip(
            sweep.thresholds.tolist(),
            sweep.mean_iou.tolist(),
            sweep.precision(25).tolist(),
            sweep.precision(50).tolist(),
            strict=True,
        )
    ]
    return pa.Table.from_pylist(rows, schema=SWEEP)
