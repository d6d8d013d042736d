"""The tables in data/score/: scores per item, explanations per draw, and the sweep of thresholds."""

from typing import Any

import numpy as np
import pyarrow as pa

from model.score.explanations import Draw
from model.score.scores import Scores

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
        ("motifs", pa.list_(pa.string())),  # as in `TEXTS`, of the first draw
        ("motif", pa.bool_()),
    ]
)
"""One row per method and item."""

TEXTS = pa.schema(
    [
        ("method", pa.string()),
        ("key", pa.string()),
        ("emotion", pa.string()),
        ("draw", pa.int32()),
        ("explanation", pa.string()),  # empty where the method has none
        ("ea", pa.string()),  # the emotion that the classifier reads in it; null for an empty explanation
        ("clipscore", pa.float64()),  # null where the picture cannot be read
        ("rouge_l", pa.float64()),  # percent; null, as are the counts, where these metrics could not be run
        ("bleu", pa.list_(pa.float64())),  # counts, see `text_counts.bleu`
        ("meteor", pa.list_(pa.float64())),  # counts, see `text_counts.meteor`
        ("motifs", pa.list_(pa.string())),  # kinds of motif that it names; null but for the built-in gallery
        ("motif", pa.bool_()),  # whether all of them are in the artwork; null where it names none
    ]
)
"""One row per method, draw, and item that counts."""

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
"""One row per method and threshold."""


def item_table(scores: Scores) -> pa.Table:
    """`ITEM_SCORES`, in the order of methods and of apolo.json."""
    masks = scores.masks
    places = np.cumsum(masks.counted) - 1  # of an item among those that count
    rows = []
    for m, method in enumerate(scores.methods):
        own = scores.explanations.get(method)
        for i, item in enumerate(scores.items):
            counts = bool(masks.counted[i])
            row: dict[str, Any] = {
                "method": method,
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
                row |= {"explanation": own.texts[place], "ea": own.emotions and own.emotions[place]}
                row["clipscore"] = _or_none(own.clipscores[place])
                row |= _motifs(own.draws[0], place)
            rows.append(row)
    return pa.Table.from_pylist(rows, schema=ITEM_SCORES)


def text_table(scores: Scores) -> pa.Table:
    """`TEXTS`, in the order of methods, draws and items."""
    rows = []
    items = scores.counted
    for method, explanations in scores.explanations.items():
        for d, draw in enumerate(explanations.draws):
            text = draw.scores
            for i, item in enumerate(items):
                meteor = None if text is None or text.meteor is None else text.meteor[i].tolist()
                rows.append(
                    {
                        "method": method,
                        "key": item.key,
                        "emotion": item.emotion,
                        "draw": d,
                        "explanation": draw.texts[i],
                        "ea": draw.emotions and draw.emotions[i],
                        "clipscore": _or_none(draw.clipscores[i]),
                        "rouge_l": None if text is None else float(text.rouge_l[i]),
                        "bleu": None if text is None else text.bleu[i].tolist(),
                        "meteor": meteor,
                    }
                    | _motifs(draw, i)
                )
    return pa.Table.from_pylist(rows, schema=TEXTS)


def sweep_table(scores: Scores) -> pa.Table:
    """`SWEEP`, in the order of methods."""
    rows = [
        {
            "method": method,
            "threshold": threshold,
            "items": len(sweep.ious),
            "mean_iou": mean,
            "seg_pr25": pr25,
            "seg_pr50": pr50,
        }
        for method, sweep in zip(scores.methods, scores.sweeps, strict=True)
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


def _motifs(draw: Draw, place: int) -> dict[str, Any]:
    """What an explanation names, and whether it is in the artwork; nothing where that is not judged."""
    if draw.motifs is None:
        return {}
    named = draw.motifs.kinds[place]
    return {"motifs": named, "motif": bool(draw.motifs.motif[place]) if named else None}


def _or_none(value: float) -> float | None:
    """A number of a table: NaN is no number."""
    return None if np.isnan(value) else float(value)
