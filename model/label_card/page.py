"""The label card as Markdown."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from model.label_card.reviewed import reviewed_text
from model.metrics.markdown import Markdown, escape, table
from pipeline.common.bidi import isolated
from pipeline.common.protocol import THRESHOLD
from pipeline.releases.gallery_mark import drawn_text

FIELDS = ("support", "aggregate", "negatives", "center", "temperature", "relative", "level")
"""Of `MasksParams`, what a row of the card tells."""
LISTED = 20
"""Recipes and problems on the page; all of them are in the JSON."""


def card_text(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    items, swept, best = card["items"], card["swept"], card["best"]
    fixed = card["protocol"]["threshold"]
    parts = [
        "# Label card",
        "Pseudo-masks of the APOLO items, made from their artworks' regions and what was said about them, "
        f"scored by the APOLO protocol before any training. APOLO: `{_text(card['apolo'])}`, {items['val']} "
        f"val and {items['test']} test items with a usable label. {drawn_text(card['drawn'])}".strip(),
        "\n".join(_source_line(place, source) for place, source in enumerate(card["sources"])),
        f"Swept on the val items: {swept['recipes']} recipes (data folder, support, aggregate, negatives, "
        f"center, temperature, relative) at {swept['thresholds']} thresholds each, ranked by mean IoU in the "
        "masks' own frame. The finalists and the current params are scored again by the protocol, at the "
        "labels' size. "
        "Recipe and threshold are chosen on val alone; test is scored once, with what was chosen, so its "
        "numbers are honest. Those of val flatter: they are the best of many.",
        "## By the protocol, at the threshold chosen on val",
        table(_FINAL_HEAD, [_final_line(row, card) for row in card["final"]], left=len(_FINAL_HEAD)),
        f"Best on val: place {best['place']}. In params: `masks: {_flow(best)}`. "
        + _threshold_sentence(best)
        + _current_sentence(card),
        *_ahead(card),
        f"## The sweep: the first {min(LISTED, len(card['sweep']))} of {len(card['sweep'])} recipes, on val",
        table(
            _SWEEP_HEAD, [_sweep_line(row, fixed) for row in card["sweep"][:LISTED]], left=len(_SWEEP_HEAD)
        ),
    ]
    if "reviews" in card:
        parts.append(reviewed_text(card["reviews"]))
    if card["problems"]:
        shown = card["problems"][:LISTED]
        more = len(card["problems"]) - len(shown)
        lines = [f"- {escape(line, code=True)}" for line in shown] + ([f"- and {more} more"] if more else [])
        parts += ["## Problems", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


_FINAL_HEAD = (
    *("Recipe", "Place in sweep", "Threshold", "Val mean IoU", "Val Seg Pr@25", "Val Seg Pr@50"),
    *("Test mean IoU", "Test Seg Pr@25", "Test Seg Pr@50", "Test Box Pr@25", "Test Box Pr@50"),
)


_SWEEP_HEAD = (
    *("Place", "Data", "Recipe", "Threshold", "Mean IoU", "Seg Pr@25", "Seg Pr@50", "Mean IoU at the fixed"),
)


def _threshold_sentence(best: Mapping[str, Any]) -> str:
    """How to make the best threshold that of training or of the protocol."""
    threshold = float(best["val"]["threshold_val"])
    level = threshold
    if best["level"] is not None:  # of maps that are bent already
        level = float(np.interp(threshold, (0.0, THRESHOLD, 1.0), (0.0, best["level"], 1.0)))
    bent = f"; `masks.level: {level:.3g}` makes it {THRESHOLD:g}" if level > 0 else ""
    return f"Its best threshold is {threshold:g} (for hard masks in training: `train.binarise`{bent}). "


def _ahead(card: Mapping[str, Any]) -> list[str]:
    """How far the finalists are ahead of the current params; nothing where these have no place."""
    rows = [row for row in card["final"] if "ahead_of_current" in row and row["place"] != card["current"][0]]
    if not rows:
        return []
    columns = ("mean_iou", "seg_pr25", "seg_pr50")
    lines = [
        [f"data {row['source']}, {_words(row)}"]
        + [_ahead_cell(row["ahead_of_current"][split][name]) for split in ("val", "test") for name in columns]
        for row in rows
    ]
    head = (
        "Recipe",
        *(f"{split} {name}" for split in ("Val", "Test") for name in ("mean IoU", "Pr@25", "Pr@50")),
    )
    return [
        "## Ahead of the current params by\n\nPercentage points at each one's own threshold, with paired "
        "bootstrap intervals over artworks. On val the best of many is ahead by luck too.",
        table(head, lines, left=1),
    ]


def _ahead_cell(found: Mapping[str, float]) -> str:
    return f"{found['difference']:+.2f} [{found['low']:.1f}, {found['high']:.1f}]"


def _source_line(place: int, source: Mapping[str, Any]) -> str:
    clips = [
        f"{lineage.get('clip', {}).get('name', 'unknown')} ({lineage.get('utterances', '?')})"
        for lineage in source["similarity"]
    ]
    without = f"; {source['items_without']} items have nothing here, IoU 0" * bool(source["items_without"])
    return (
        f"- data {place}: `{_text(source['data'])}`, detector {escape(', '.join(source['detector']))}, "
        f"CLIP {escape(', '.join(clips))}{without}"
    )


def _final_line(row: Mapping[str, Any], card: Mapping[str, Any]) -> list[str]:
    val, test = row["val"], row["test"]
    whole = row["place"] is None
    name = row["recipe"] if whole else f"data {row['source']}, {_words(row)}"
    if row["place"] in card["current"]:
        name += " (current params)"
    suffix = "" if whole else "_val"
    return [
        Markdown(f"**{escape(name)}**") if row == card["best"] else name,
        "-" if whole else str(row["place"]),
        "-" if whole else f"{val['threshold_val']:g}",
        *(f"{val[column]:.2f}" for column in ("mean_iou", f"seg_pr25{suffix}", f"seg_pr50{suffix}")),
        f"{test['mean_iou']:.2f}",
        *(f"{test[f'{c}{suffix}']:.2f}" for c in ("seg_pr25", "seg_pr50", "box_pr25", "box_pr50")),
    ]


def _sweep_line(row: Mapping[str, Any], fixed: float) -> list[str]:
    numbers = (row[column] for column in ("mean_iou", "seg_pr25", "seg_pr50"))
    at_fixed = f"{row['mean_iou_fixed']:.2f} ({fixed:g})"
    name = [str(row["place"]), str(row["source"]), _words(row), f"{row['threshold']:g}"]
    return [*name, *(f"{number:.2f}" for number in numbers), at_fixed]


def _current_sentence(card: Mapping[str, Any]) -> str:
    places = ", ".join(map(str, card["current"]))
    if not places:
        return "The current params ask for masks of regions that no folder has, so they have no place."
    return f"The current params are at place {places} of {len(card['sweep'])}."


def _words(row: Mapping[str, Any]) -> str:
    """A recipe in a few words."""
    if row["temperature"] > 0:
        weights = f"temperature {row['temperature']:g}"
    else:
        weights = f"negatives {row['negatives']}" + (", centred" if row["center"] else "")
    relative = f", relative {row['relative']:g}" if row["relative"] > 0 else ""
    level = f", level {row['level']:g}" if row["level"] is not None else ""
    return f"{row['support']}, {row['aggregate']}, {weights}{relative}{level}"


def _flow(row: Mapping[str, Any]) -> str:
    """A recipe as it stands in params.yaml."""
    values = (
        f"{field}: {json.dumps(row[field]).strip(chr(34))}" for field in FIELDS if row[field] is not None
    )
    return f"{{{', '.join(values)}}}"


def _text(path: str) -> str:
    """A path between backticks: one line, in which a backtick of its own would end the code."""
    return isolated(" ".join(path.split()).replace("`", "'"))
