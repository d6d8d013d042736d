"""How good are the pseudo-masks, before any training? Their recipe, judged by APOLO's annotators.

The pseudo-mask of an APOLO item is made from its artwork's regions and what was said about it, as those that
EmoSEM is trained on are, and scored by the APOLO protocol. The factored similarities make every recipe cheap:
aggregation, negatives, centring, temperature, support and threshold are swept on a CPU (`label_sweep`), over
one or several folders of data (other detectors, other CLIPs).

Everything is chosen on the val items alone; the test items are scored once, with what was chosen. The sweep's
finalists and the current params are scored by the protocol, at the labels' own size.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.baselines import entire_artwork
from model.label_card.sweep import (
    Candidate,
    LabelCardParams,
    RecipeSource,
    read_source,
    recipes,
    sweep_recipes,
)
from model.maps.method import Method, item_id, scaled_maps
from model.score.items import read_items
from model.score.params import ScoreParams
from model.score.score_masks import MapTable, score_masks, sweep_masks
from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes, write_json
from pipeline.common.fingerprint import as_json
from pipeline.common.params import Paths
from pipeline.masks.recipe import MasksParams, pseudo_masks, region_runs
from pipeline.releases.apolo import ApoloItem

FIELDS = ("support", "aggregate", "negatives", "center", "temperature")
"""Of `MasksParams`, what is swept."""
LISTED = 20
"""Recipes and problems on the page; all of them are in the JSON."""


def make_card(
    paths: Paths,
    masks: MasksParams,
    score: ScoreParams,
    params: LabelCardParams,
    folders: Sequence[Path] = (),
) -> dict[str, Any]:
    """Sweep the recipe and write metrics/label_card.json and .md; returns the former's content.

    Args:
        paths: APOLO, and the data folder whose utterances tables say what the items are.
        masks: the current recipe, whose place is reported.
        score: the protocol; its `threshold` is the fixed one.
        params: what is swept.
        folders: data folders to compare, each with regions/ and similarity/; none: that of `paths`.

    Raises:
        UserError: no val or no test item with a usable label, a step's files are absent, or a folder has
            nothing of the val items.
    """
    test, every, notes = read_items(paths.apolo, "test", paths)
    val = [item for item in every if item.split == "val"]
    wanted = {item.key for item in every}
    sources = [read_source(dataclasses.replace(paths, data=data), wanted) for data in folders or [paths.data]]
    for source in sources:
        if val and not any(source.find(item) for item in val):
            raise UserError(
                f"{source.data} has regions and similarities of none of the {len(val)} val items of "
                f"{paths.apolo}"
            )
    candidates = [
        candidate
        for place, source in enumerate(sources)
        for candidate in sweep_recipes(place, source, val, recipes(masks, params, source.has_masks), score)
    ]
    if not candidates:
        raise UserError(f"{paths.apolo} has no val item with a usable label; a recipe is chosen on those")
    candidates.sort(key=lambda candidate: candidate.rank(score.threshold))
    current = [place for place, candidate in enumerate(candidates) if candidate.recipe == masks]
    final = sorted({*range(min(params.finalists, len(candidates))), *current})
    rows = _final_rows(val, test, sources, candidates, final, score)
    best = max(
        (row for row in rows if row["place"] is not None),
        key=lambda row: (row["val"]["mean_iou"], -row["place"]),
    )
    card = {
        "apolo": paths.apolo.as_posix(),
        "items": {"val": len(candidates[0].sweep.ious), "test": rows[0]["test"]["items"]},
        "sources": [_describe(source, every) for source in sources],
        "swept": {**as_json(params), "thresholds": score.sweep, "recipes": len(candidates)},
        "protocol": {"threshold": score.threshold, "box_truth": score.box_truth, "boxes": score.boxes},
        "current": [place + 1 for place in current],
        "best": best,
        "final": rows,
        "sweep": [_sweep_row(place, c, score.threshold) for place, c in enumerate(candidates, 1)],
        "problems": notes,
    }
    write_json(paths.metrics / "label_card.json", card)
    write_bytes(paths.metrics / "label_card.md", card_text(card).encode())
    return card


# ---- the finalists, by the protocol ----------------------------------------------------------------


def pseudo_mask_method(name: str, source: RecipeSource, recipe: MasksParams, score: ScoreParams) -> Method:
    """The stored pseudo-masks that a recipe would make, as a method."""

    def read(item: ApoloItem) -> np.ndarray | None:
        found = source.find(item)
        if found is None:
            return None
        work, cosines = found
        size = (work.height, work.width)
        runs = region_runs(work.boxes, work.masks, *size)[0] if recipe.support == "sam" else None
        return pseudo_masks(work.boxes, cosines, *size, recipe, runs)[0]

    return Method(name, scaled_maps(read, score.scaling))


def _final_rows(
    val: Sequence[ApoloItem],
    test: Sequence[ApoloItem],
    sources: Sequence[RecipeSource],
    candidates: Sequence[Candidate],
    final: Sequence[int],
    score: ScoreParams,
) -> list[dict[str, Any]]:
    """The chosen candidates on both splits, at the threshold that the val items like best; then all of the
    picture, for comparison."""
    methods = [
        pseudo_mask_method(str(place), sources[candidates[place].source], candidates[place].recipe, score)
        for place in final
    ]
    sweeps = sweep_masks(val, methods, score)
    chosen = [None if sweep is None else sweep.best(score.threshold) for sweep in sweeps]
    methods.append(Method(entire_artwork.NAME, entire_artwork.foreground, finished=True))
    tables = [score_masks(items, methods, score, [*chosen, None]) for items in (val, test)]
    if not tables[1].counted.any():
        raise UserError(f"none of the {len(test)} test items has a usable label: {tables[1].labels[0]}")
    rows = []
    for number, method in enumerate(methods):
        splits = {name: _rates(table, number) for name, table in zip(("val", "test"), tables, strict=True)}
        about: dict[str, Any] = {"recipe": method.name, "place": None}
        if not method.finished:
            candidate = candidates[final[number]]
            about = {"place": final[number] + 1, "source": candidate.source, **_recipe(candidate.recipe)}
        rows.append(about | splits)
    return rows


def _rates(table: MapTable, method: int) -> dict[str, float]:
    """Percentages of one method, mean IoU by pixels among them: that at the chosen threshold where there is
    one, and at the fixed one."""
    ious, chosen = table.iou_seg[method][table.counted], table.iou_seg_val[method][table.counted]
    fixed = 100 * float(ious.mean())
    best = fixed if np.isnan(chosen).any() else 100 * float(chosen.mean())
    return {**table.rates(method), "mean_iou": best, "mean_iou_fixed": fixed}


def _recipe(recipe: MasksParams) -> dict[str, Any]:
    return {field: getattr(recipe, field) for field in FIELDS}


def _sweep_row(place: int, candidate: Candidate, fixed: float) -> dict[str, Any]:
    sweep = candidate.sweep
    best = int(np.flatnonzero(sweep.thresholds == sweep.best(fixed))[0])
    nearest = int(np.abs(sweep.thresholds - fixed).argmin())
    return {
        "place": place,
        "source": candidate.source,
        **_recipe(candidate.recipe),
        "threshold": float(sweep.thresholds[best]),
        "mean_iou": float(sweep.mean_iou[best]),
        "seg_pr25": float(sweep.precision(25)[best]),
        "seg_pr50": float(sweep.precision(50)[best]),
        "mean_iou_fixed": float(sweep.mean_iou[nearest]),
    }


def _describe(source: RecipeSource, items: Sequence[ApoloItem]) -> dict[str, Any]:
    without = sorted({"_".join(item_id(item)) for item in items if source.find(item) is None})
    return {
        "data": source.data.as_posix(),
        **source.lineage,
        "region_masks": source.has_masks,
        "items_without": len(without),
        "without": without[:LISTED],
    }


# ---- for people ------------------------------------------------------------------------------------


def card_text(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    items, swept, best = card["items"], card["swept"], card["best"]
    fixed = card["protocol"]["threshold"]
    parts = [
        "# Label card",
        "Pseudo-masks of the APOLO items, made from their artworks' regions and what was said about them, "
        f"scored by the APOLO protocol before any training. APOLO: `{_text(card['apolo'])}`, {items['val']} "
        f"val and {items['test']} test items with a usable label.",
        "\n".join(_source_line(place, source) for place, source in enumerate(card["sources"])),
        f"Swept on the val items: {swept['recipes']} recipes (data folder, support, aggregate, negatives, "
        f"center, temperature) at {swept['thresholds']} thresholds each, ranked by mean IoU in the masks' "
        "own frame. The finalists and the current params are scored again by the protocol, at the labels' "
        "size. "
        "Recipe and threshold are chosen on val alone; test is scored once, with what was chosen, so its "
        "numbers are honest. Those of val flatter: they are the best of many.",
        "## By the protocol, at the threshold chosen on val",
        _table(_FINAL_HEAD, [_final_line(row, card) for row in card["final"]]),
        f"Best on val: place {best['place']}. In params: `masks: {_flow(best)}`. Its best threshold is "
        f"{best['val']['threshold_val']:g} (for hard masks in training: `train.binarise`). "
        + _current_sentence(card),
        f"## The sweep: the first {min(LISTED, len(card['sweep']))} of {len(card['sweep'])} recipes, on val",
        _table(_SWEEP_HEAD, [_sweep_line(row, fixed) for row in card["sweep"][:LISTED]]),
    ]
    if card["problems"]:
        shown = card["problems"][:LISTED]
        more = len(card["problems"]) - len(shown)
        lines = [f"- {_text(line)}" for line in shown] + ([f"- and {more} more"] if more else [])
        parts += ["## Problems", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


_FINAL_HEAD = (
    *("Recipe", "Place in sweep", "Threshold", "Val mean IoU", "Val Seg Pr@25", "Val Seg Pr@50"),
    *("Test mean IoU", "Test Seg Pr@25", "Test Seg Pr@50", "Test Box Pr@25", "Test Box Pr@50"),
)
_SWEEP_HEAD = (
    *("Place", "Data", "Recipe", "Threshold", "Mean IoU", "Seg Pr@25", "Seg Pr@50", "Mean IoU at the fixed"),
)


def _source_line(place: int, source: Mapping[str, Any]) -> str:
    clips = [
        f"{lineage.get('clip', {}).get('name', 'unknown')} ({lineage.get('utterances', '?')})"
        for lineage in source["similarity"]
    ]
    without = f"; {source['items_without']} items have nothing here, IoU 0" * bool(source["items_without"])
    return (
        f"- data {place}: `{_text(source['data'])}`, detector {_text(', '.join(source['detector']))}, "
        f"CLIP {_text(', '.join(clips))}{without}"
    )


def _final_line(row: Mapping[str, Any], card: Mapping[str, Any]) -> list[str]:
    val, test = row["val"], row["test"]
    whole = row["place"] is None
    name = row["recipe"] if whole else f"data {row['source']}, {_words(row)}"
    if row["place"] in card["current"]:
        name += " (current params)"
    suffix = "" if whole else "_val"
    return [
        f"**{name}**" if row == card["best"] else name,
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
    return f"{row['support']}, {row['aggregate']}, {weights}"


def _flow(row: Mapping[str, Any]) -> str:
    """A recipe as it stands in params.yaml."""
    values = (f"{field}: {json.dumps(row[field]).strip(chr(34))}" for field in FIELDS)
    return f"{{{', '.join(values)}}}"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _text(text: str) -> str:
    """Text of data or paths on one line of Markdown, no HTML."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("`", "'")
