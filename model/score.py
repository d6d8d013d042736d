"""Step `score`: every method's predictions on the APOLO items, judged by the paper's metrics (Sec. 4.1).

Masks by the APOLO protocol (`metrics.segmentation`), explanations by BLEU, METEOR, ROUGE-L, CLIPScore and EA,
for step `predict`'s methods and for two baselines that need no training. All rows count the same items. A
missing or unusable prediction is wrong everywhere (IoU 0, an empty explanation), and is listed; an item
without a usable label, or whose label is empty, counts for no method.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
from pydantic import Field

from model import score_table
from model.alignment import EmotionClassifier
from model.baselines import clip_vinvl, entire_artwork
from model.methods import FolderMaps, Method, item_id, read_predictions, thresholded
from model.metrics import text
from model.metrics.clipscore import PictureJudge
from model.metrics.explanations import Asked, Told, score_explanations
from model.metrics.segmentation import MapScores, Scaling, Truth
from pipeline import storage
from pipeline.apolo import ApoloItem, BadArray, load_items, load_truth
from pipeline.backbones import BackbonesParams, ClipParams
from pipeline.params import STRICT, Paths, UserError, as_json

LISTED = 20
"""Problems named in the metrics; all of them are in items.parquet."""

ITEMS = pa.schema(
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
    ]
)


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ScoreParams:
    """The protocol. The defaults are those of the published tables."""

    split: Literal["val", "test"] = "test"
    """Which APOLO items."""
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.35
    """Foreground is above this, after min-max (APOLO: 0.35)."""
    box_truth: bool = True
    """Whether the box scenario boxes the label too. The released script does not, the published rows do."""
    scaling: Scaling = "before-resize"
    """When a map is brought to [0, 1]: before it is resized to the label, as in the release, or after."""
    clip: ClipParams | None = None
    """The CLIP behind CLIPScore (the published: ViT-B-32); null: that of `backbones`."""


# ---- items and masks -------------------------------------------------------------------------------


Cell = tuple[float, float, str | None]
"""(IoU by pixels, IoU by boxes, what was wrong with the prediction)."""


@dataclass(frozen=True)
class MapTable:
    """IoU of every (method, item), float64 (M, N): NaN where the item counts for no method."""

    iou_seg: np.ndarray
    iou_box: np.ndarray
    problems: list[list[str | None]]
    """What was wrong with a prediction, per method and item."""
    labels: list[str | None]
    """What was wrong with an item's label; such an item counts for no method."""

    @property
    def counted(self) -> np.ndarray:
        """bool (N,): items that count."""
        return np.array([label is None for label in self.labels], dtype=np.bool_)

    def rates(self, method: int) -> dict[str, float]:
        """Counts and percentages of one method."""
        return MapScores(self.iou_seg[method], self.iou_box[method]).rates()


def read_items(apolo: Path, split: str, paths: Paths) -> tuple[list[ApoloItem], list[ApoloItem], list[str]]:
    """(items of the split, items of both splits, what is wrong with others); `UserError` without any."""
    tables = [paths.step("utterances") / f"{name}.parquet" for name in ("utterances", "artworks")]
    if absent := [str(table) for table in tables if not table.is_file()]:
        raise UserError(f"{', '.join(absent)} missing; run the utterances step")
    every, rejects = load_items(apolo, pq.read_table(tables[0]), pq.read_table(tables[1]))
    items = [item for item in every if item.split == split]
    notes = [f"{reject.reason}: {reject.detail}" for reject in rejects]
    if not items:
        raise UserError(f"{apolo} has no usable {split} item; {notes[0] if notes else 'it lists none'}")
    return items, every, notes


def score_masks(items: Sequence[ApoloItem], methods: Sequence[Method], params: ScoreParams) -> MapTable:
    """Every method's foreground against every item's label; each label is read and boxed once."""

    def judge(item: ApoloItem) -> tuple[str | None, list[Cell]]:
        try:
            truth = Truth.of(load_truth(item), params.box_truth)
        except BadArray as error:
            return str(error), [(np.nan, np.nan, None)] * len(methods)
        if truth.empty:
            return "empty: no pixel is foreground", [(np.nan, np.nan, None)] * len(methods)
        return None, [_judge_one(method, item, truth) for method in methods]

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy and OpenCV let go of the GIL
        judged = list(pool.map(judge, items))
    labels = [label for label, _ in judged]
    by_method = list(zip(*(cells for _, cells in judged), strict=True))
    ious = np.array([[cell[:2] for cell in cells] for cells in by_method], dtype=np.float64)  # (M, N, 2)
    problems = [[problem for _, _, problem in cells] for cells in by_method]
    return MapTable(ious[..., 0], ious[..., 1], problems, labels)


def _judge_one(method: Method, item: ApoloItem, truth: Truth) -> Cell:
    try:
        pred = method.foreground(item, *truth.mask.shape)
    except ValueError as error:
        return 0.0, 0.0, f"unusable map: {error}"
    if pred is None:
        return 0.0, 0.0, "missing"
    return *truth.ious(pred), None if pred.any() else "no foreground (a constant map has none)"


# ---- the step --------------------------------------------------------------------------------------


def build(paths: Paths, params: ScoreParams, backbones: BackbonesParams) -> dict[str, Any]:
    """Score everything there is; writes data/score/items.parquet and metrics/score.md.

    Returns the content of metrics/score.json. Raises `UserError` when there is nothing to score, an earlier
    step's files are absent, or no Java is there to compute METEOR.
    """
    items, _, notes = read_items(paths.apolo, params.split, paths)
    methods = find_methods(paths, items, params)
    if any(method.explanations for method in methods):
        text.find_java()  # before the work, not after it
    masks = score_masks(items, methods, params)
    if not masks.counted.any():
        raise UserError(
            f"none of the {len(items)} {params.split} items has a usable label: {masks.labels[0]}"
        )
    heard = [item for item, counts in zip(items, masks.counted.tolist(), strict=True) if counts]
    device = backbones.torch_device()
    judge = EmotionClassifier.load(paths.step("alignment"), device)
    clip = params.clip or backbones.clip
    asked = Asked(
        keys=[item.key for item in heard],
        emotions=[item.emotion for item in heard],
        references=[item.utterances for item in heard],
    )
    told = score_explanations(asked, find_draws(heard, methods), judge, _pictures(paths, clip, device))
    rows = [
        {"method": method.name, **masks.rates(m), "missing": masks.problems[m].count("missing")}
        | (told[method.name].row if method.name in told else {})
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
        "items": {"apolo": len(items), "counted": len(heard), "rejected": len(notes)},
        "problems": notes[:LISTED] + _problems(items, methods, masks),
    }
    storage.write_parquet(paths.step("score") / "items.parquet", _item_table(items, methods, masks, told))
    storage.write_bytes(paths.metrics / "score.md", score_table.markdown(metrics).encode())
    return metrics


def find_methods(paths: Paths, items: Sequence[ApoloItem], params: ScoreParams) -> list[Method]:
    """The baselines, then the predicted methods, then their controls (``method:control``)."""
    predicted: dict[str, Method] = {}
    folders = sorted(path.parent for path in paths.step("predict").glob("*/predictions.parquet"))
    for folder in folders:
        for method in read_predictions(folder, params.threshold, params.scaling):
            if method.name in predicted:
                raise UserError(f"{folder} predicts {method.name}, and so does another folder beside it")
            predicted[method.name] = method
    teacher = clip_vinvl.PseudoMasks(paths, (item.key for item in items))
    return [
        Method(entire_artwork.NAME, entire_artwork.foreground),
        Method(clip_vinvl.NAME, thresholded(teacher, params.threshold, params.scaling)),
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

    table = pq.read_table(paths.step("utterances") / "artworks.parquet", columns=["key", "path"])
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
                kinds.setdefault(problem, []).append(f"{item.painting}_{item.emotion}")
        for kind, names in list(kinds.items())[:LISTED]:
            rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            lines.append(f"{name}: {kind}: {', '.join(names[:LISTED])}{rest}")
    return lines


def _item_table(
    items: Sequence[ApoloItem], methods: Sequence[Method], masks: MapTable, told: Mapping[str, Told]
) -> pa.Table:
    """One row per (method, item), in the order of methods and of apolo.json."""
    places = np.cumsum(masks.counted) - 1  # of an item among those that count
    rows = []
    for m, method in enumerate(methods):
        said = told.get(method.name)
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
            }
            if said is not None and counts:
                place = int(places[i])
                score = float(said.clipscores[place])
                row |= {"explanation": said.texts[place], "ea": said.emotions[place]}
                row["clipscore"] = None if np.isnan(score) else score
            rows.append(row)
    return pa.Table.from_pylist(rows, schema=ITEMS)


def score_folder(maps: Path, apolo: Path, split: str, paths: Paths, params: ScoreParams) -> dict[str, Any]:
    """Score anyone's maps ``PAINTING_EMOTION.npy|png`` (any size, any range) by the APOLO protocol.

    Returns the row and, by name, items without a map ("missing", IoU 0), files of no item ("extra"), files
    that repeat an item ("duplicates") and what could not be used ("problems"). Raises `UserError`.
    """
    items, every, notes = read_items(apolo, split, paths)
    folder = FolderMaps(maps)
    method = Method(maps.name, thresholded(folder, params.threshold, params.scaling))
    table = score_masks(items, [method], params)
    found = {
        f"{item.painting}_{item.emotion}": problem
        for item, problem in zip(items, table.problems[0], strict=True)
        if problem is not None
    }
    unlabelled = [
        f"{item.painting}_{item.emotion}: label: {label}"
        for item, label in zip(items, table.labels, strict=True)
        if label is not None
    ]
    missing = [name for name, problem in found.items() if problem == "missing"]
    problems = [f"{name}: {problem}" for name, problem in found.items() if problem != "missing"]
    return {
        "data": f"{apolo}, {split}",
        "rows": [{"method": method.name, **table.rates(0), "missing": len(missing)}],
        "protocol": {k: v for k, v in as_json(params).items() if k not in ("clip", "split")},
        "missing": missing,
        "extra": folder.unasked(every),
        "duplicates": folder.duplicates,
        "problems": notes + unlabelled + problems,
    }
