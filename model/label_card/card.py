"""How good are the pseudo-masks, before any training? Their recipe, judged by APOLO's annotators.

The pseudo-mask of an APOLO item is made from its artwork's regions and utterances, as those that
EmoSEM is trained on are, and scored by the APOLO protocol. The factored similarities make every recipe cheap:
aggregation, negatives, centring, temperature, support and threshold are swept on a CPU (`sweep`), over
one or several folders of data (other detectors, other CLIPs).

Everything is chosen on the val items alone; the test items are scored once, with what was chosen. The sweep's
finalists and the current params are scored by the protocol, at the labels' own size.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.baselines import entire_artwork
from model.label_card.differences import differences
from model.label_card.page import FIELDS, LISTED, card_text
from model.label_card.reviewed import compare_reviewed
from model.label_card.sweep import (
    Candidate,
    LabelCardParams,
    RecipeSource,
    read_source,
    recipes,
    sweep_recipes,
)
from model.maps.method import Method, item_id, scaled_maps
from model.score.items import describe_release, read_items
from model.score.params import ScoreParams
from model.score.score_masks import MapTable, score_masks, sweep_masks
from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes, write_json
from pipeline.common.fingerprint import as_json
from pipeline.common.lock import writes
from pipeline.common.params import Paths
from pipeline.masks.recipe import MasksParams, paint, region_runs, weigh
from pipeline.releases.apolo import ApoloItem
from pipeline.releases.gallery_mark import drawn_evaluation


@writes(lambda paths, *_: [paths.metrics / name for name in ("label_card.json", "label_card.md")])
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
    current = [place for place, one in enumerate(candidates) if one.recipe.recipe() == masks.recipe()]
    final = sorted({*range(min(params.finalists, len(candidates))), *current})
    reference = final.index(current[0]) if current else None
    rows = _final_rows(val, test, sources, candidates, final, score, reference)
    placed = (row for row in rows if row["place"] is not None)
    best = max(placed, key=lambda row: (row["val"]["mean_iou"], -row["place"]))
    card = {
        **_evaluated_on(paths),
        "items": {"val": len(candidates[0].sweep.ious), "test": rows[0]["test"]["items"]},
        "sources": [_describe(source, every) for source in sources],
        "swept": {**as_json(params), "thresholds": score.sweep, "recipes": len(candidates)},
        "protocol": {"threshold": score.threshold, "box_truth": score.box_truth, "boxes": score.boxes},
        "current": [place + 1 for place in current],
        "best": best,
        "final": rows,
        "sweep": [_sweep_row(place, c, score.threshold) for place, c in enumerate(candidates, 1)],
        "problems": notes,
        **compare_reviewed(paths, masks, score, sources[0], every),
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
        return paint(work.boxes, weigh(cosines, recipe)[:1], *size, recipe, runs)[0]

    return Method(name, scaled_maps(read, score.scaling))


def _final_rows(
    val: Sequence[ApoloItem],
    test: Sequence[ApoloItem],
    sources: Sequence[RecipeSource],
    candidates: Sequence[Candidate],
    final: Sequence[int],
    score: ScoreParams,
    reference: int | None,
) -> list[dict[str, Any]]:
    """The chosen candidates on both splits, at the threshold that the val items like best; then all of the
    picture, for comparison.

    `reference`: which of the chosen the others are compared with, the current params; None where they have no
    place.
    """
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
            if reference is not None:
                about["ahead_of_current"] = {
                    name: differences(table, number, reference, items, score.statistics)
                    for name, table, items in zip(("val", "test"), tables, (val, test), strict=True)
                }
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


def _evaluated_on(paths: Paths) -> dict[str, Any]:
    return {"apolo": describe_release(paths.apolo), "drawn": drawn_evaluation(paths)}


def _shown(folder: Path) -> str:
    """A data folder without the part of the path that is of somebody's disk."""
    here = Path.cwd()
    if not folder.is_absolute():
        return folder.as_posix()
    return (folder.relative_to(here) if folder.is_relative_to(here) else Path(*folder.parts[-2:])).as_posix()


def _describe(source: RecipeSource, items: Sequence[ApoloItem]) -> dict[str, Any]:
    without = sorted({"_".join(item_id(item)) for item in items if source.find(item) is None})
    return {
        "data": _shown(source.data),
        **source.lineage,
        "region_masks": source.has_masks,
        "items_without": len(without),
        "without": without[:LISTED],
    }


# ---- for people ------------------------------------------------------------------------------------
