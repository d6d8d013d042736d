"""Do people's verdicts make labels better? The APOLO items that somebody judged, before and after."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from model.label_card.sweep import RecipeSource
from model.maps.method import Method, scaled_maps
from model.metrics.markdown import table
from model.score.params import ScoreParams
from model.score.score_masks import score_masks
from pipeline.common.fingerprint import sha256_bytes
from pipeline.common.params import Paths
from pipeline.masks.png import png_bytes
from pipeline.masks.recipe import MasksParams, paint, region_runs, weigh
from pipeline.masks.reviewed import Editor
from pipeline.releases.apolo import ApoloItem
from pipeline.reviews.consensus import consensus
from pipeline.reviews.edits import Edit, Split, find_edits
from pipeline.reviews.verdicts import read_reviews


def compare_reviewed(
    paths: Paths, masks: MasksParams, score: ScoreParams, source: RecipeSource, items: Sequence[ApoloItem]
) -> dict[str, Any]:
    """Mean IoU (percent, by pixels, at the fixed threshold) of judged items, by verdict and by edit.

    Edits are those of `masks.reviews`, of all splits: APOLO's items are not trained on, and only tell
    whether the verdicts are right.

    Returns:
        Empty where `masks.reviews` uses no verdict; else ``reviews``: ``judged`` items; ``verdicts``: verdict
        -> items and mean IoU of the painted masks; ``edits``: what was done -> items, mean IoU before, and
        after (null of those that were left out); ``before`` and ``after`` over the judged items that are
        still there.
    """
    if not masks.reviews.used:
        return {}
    reviews = read_reviews(paths.reviews)
    verdicts = {(one.key, one.emotion, one.mask): one.verdict for one in consensus(reviews.verdicts)}
    pairs = {(key, emotion) for key, emotion, _ in verdicts}
    judged = [item for item in items if (item.key, item.emotion) in pairs and source.find(item) is not None]
    everywhere = dataclasses.replace(masks.reviews, splits=get_args(Split))
    edits, _ = find_edits(reviews, everywhere, {item.key: "test" for item in judged})
    made = [_masks(masks, source, item, edits) for item in judged]
    before = _ious(judged, score, [painted for painted, _, _ in made])
    after = _ious(judged, score, [left for _, left, _ in made])
    said: dict[str, list[int]] = {}
    done: dict[str, list[int]] = {}
    for place, item in enumerate(judged):
        painted, _, counts = made[place]
        digest = sha256_bytes(png_bytes(painted))
        said.setdefault(verdicts.get((item.key, item.emotion, digest), "another mask"), []).append(place)
        for name in counts:
            done.setdefault(name.removeprefix("reviews_"), []).append(place)
    there = [place for place in range(len(judged)) if made[place][1] is not None]
    found = {
        "judged": len(judged),
        "verdicts": {name: _mean(before, places) for name, places in sorted(said.items())},
        "edits": {
            name: {**_mean(before, places), "after": _mean(after, places)["mean_iou"]}
            for name, places in sorted(done.items())
        },
        "before": _mean(before, list(range(len(judged)))),
        "after": _mean(after, there),
    }
    return {"reviews": found}


def _masks(
    masks: MasksParams, source: RecipeSource, item: ApoloItem, edits: Sequence[Edit]
) -> tuple[np.ndarray, np.ndarray | None, Mapping[str, int]]:
    """An item's mask as painted, as reviewers left it (None: left out), and what was done."""
    found = source.find(item)
    assert found is not None  # noqa: S101 - the caller chose such items
    work, cosines = found
    size = (work.height, work.width)
    runs = region_runs(work.boxes, work.masks, *size)[0] if masks.support == "sam" else None
    painted = paint(work.boxes, weigh(cosines, masks)[:1], *size, masks, runs)[0]
    editor = Editor(edit for edit in edits if (edit.key, edit.emotion) == (item.key, item.emotion))
    left = editor.apply(item.key, item.emotion, painted, *size)
    return painted, None if left is None else left.levels, editor.counts()


def _ious(items: Sequence[ApoloItem], score: ScoreParams, maps: Sequence[np.ndarray | None]) -> np.ndarray:
    """float64 (N,) of maps against labels; NaN of items without a map, or without a usable label."""
    if not items:
        return np.empty(0)
    of = {(item.key, item.emotion): map_ for item, map_ in zip(items, maps, strict=True)}
    method = Method("reviewed", scaled_maps(lambda item: of[item.key, item.emotion], score.scaling))
    ious: np.ndarray = score_masks(items, [method], score, missing=np.nan).iou_seg[0]
    return ious


def _mean(ious: np.ndarray, places: Sequence[int]) -> dict[str, Any]:
    values = ious[np.asarray(places, np.int64)]
    values = values[~np.isnan(values)]
    return {"items": len(places), "mean_iou": 100 * float(values.mean()) if len(values) else None}


def reviewed_text(found: Mapping[str, Any]) -> str:
    """The comparison as Markdown."""
    rows = [
        [f"judged {name}", str(row["items"]), _number(row["mean_iou"]), ""]
        for name, row in found["verdicts"].items()
    ]
    rows += [
        [name.replace("_", " "), str(row["items"]), _number(row["mean_iou"]), _number(row["after"])]
        for name, row in found["edits"].items()
    ]
    before, after = found["before"], found["after"]
    rows.append(["all", str(before["items"]), _number(before["mean_iou"]), _number(after["mean_iou"])])
    head = ("Items", "Number", "Mean IoU before", "after")
    return (
        f"## People's verdicts\n\nOf the APOLO items, {found['judged']} have a mask that people judged. What "
        "`masks.reviews` makes of their masks, against APOLO's annotators; items that are left out have no "
        f"mask after.\n\n{table(head, rows, left=1)}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
