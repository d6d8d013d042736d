"""Test items by how well they went: the best, the median and the worst, and how masks fail."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from model.maps.overlay import data_uri, fit, lit, overlay
from model.report.items import PictureTile, Results, caption_of
from pipeline.releases.apolo import ApoloItem
from pipeline.releases.apolo_arrays import BadArray, load_truth
from pipeline.releases.wikiart import BadImage, read_image

Place = tuple[str, str]
"""Key of the artwork, emotion of the item."""

FAILED = 0.25
"""An IoU below this is a failure, as Pr@25 has it."""
COARSE = 512
"""Pixels; with thousands of failures in pictures of megapixels, sorting them at full size takes minutes."""
FAILURES = {
    "missing": "there is no map, or none that could be used",
    "nothing": "nothing is marked",
    "another emotion's": "the mask overlaps the truth of another emotion of the artwork more than its own",
    "elsewhere": "less than a tenth of the truth is marked",
    "too large": "at least half of the truth is marked, and more than that beside it",
    "too small": "at least half of what is marked is truth, and less than half of the truth is marked",
    "partly": "some of the truth is marked, and much beside it",
}
"""How a mask fails, in the order in which it is asked."""


@dataclass(frozen=True)
class StripItem:
    """One item of a strip: truth and mask."""

    item: ApoloItem
    tiles: list[PictureTile]


@dataclass(frozen=True)
class Strip:
    """Some items under one heading."""

    name: str
    what: str
    count: int
    """Items that belong here; not all of them are shown."""
    items: list[StripItem]


def best_median_worst(ious: dict[Place, float], count: int) -> dict[str, list[Place]]:
    """At most `count` items from the top, the middle and the bottom, none in two of them; best first."""
    ranked = sorted(ious, key=lambda place: (-ious[place], place))
    count = min(count, len(ranked) // 3)
    start = (len(ranked) - count) // 2
    return {
        "Best": ranked[:count],
        "Median": ranked[start : start + count],
        "Worst": ranked[len(ranked) - count :],
    }


def kind_of_failure(truth: np.ndarray, mask: np.ndarray, others: Iterable[np.ndarray]) -> str:
    """A key of `FAILURES`, of a mask that is there.

    Args:
        truth, mask: bool (H, W).
        others: bool (H, W), what evokes the artwork's other emotions.
    """
    if not mask.any():
        return "nothing"
    inside = int((truth & mask).sum())
    recall, precision = inside / max(int(truth.sum()), 1), inside / int(mask.sum())
    own = _iou(truth, mask)
    if any(_iou(other, mask) > max(own, 0.1) for other in others if other.shape == mask.shape):
        return "another emotion's"
    if recall < 0.1:
        return "elsewhere"
    if recall >= 0.5:
        return "too large"
    return "too small" if precision >= 0.5 else "partly"


def quality_strips(results: Results, count: int, side: int) -> list[Strip]:
    """Best, median and worst items of the shown method."""
    ious = results.ious()
    chosen = best_median_worst(ious, count)
    return [
        Strip(name, "", len(places), _strip_items(results, places, side)) for name, places in chosen.items()
    ]


def failure_strips(results: Results, count: int, side: int) -> list[Strip]:
    """Items of the shown method with an IoU below `FAILED`, by how they fail, the commonest first.

    Of each kind the `count` with the highest IoU are shown: those that missed narrowly.
    """
    ious = results.ious()
    kinds: dict[str, list[Place]] = {}
    for place in sorted((p for p in ious if ious[p] < FAILED), key=lambda p: (-ious[p], p)):
        kinds.setdefault(_kind(results, place), []).append(place)
    order = sorted(kinds, key=lambda kind: (-len(kinds[kind]), kind))
    return [
        Strip(kind, FAILURES[kind], len(kinds[kind]), _strip_items(results, kinds[kind][:count], side))
        for kind in order
    ]


def _kind(results: Results, place: Place) -> str:
    try:
        truth = _coarse(load_truth(results.items[place].map_path))
        mask = results.mask_of(results.shown, results.items[place], truth.shape)
        if mask is None:
            return "missing"
        return kind_of_failure(truth, mask, _other_truths(results, place))
    except (BadArray, ValueError):
        return "missing"


def _other_truths(results: Results, place: Place) -> Iterable[np.ndarray]:
    for emotion in results.emotions_of.get(place[0], ()):
        if emotion != place[1]:
            try:
                yield _coarse(load_truth(results.items[place[0], emotion].map_path))
            except BadArray:
                continue


def _coarse(mask: np.ndarray) -> np.ndarray:
    """Every n-th pixel, so that the longer side has at most some `COARSE`: kinds need no finer ones."""
    step = max(1, max(mask.shape) // COARSE)
    return mask[::step, ::step]


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum()) / max(float((one | other).sum()), 1.0)


def _strip_items(results: Results, places: Sequence[Place], side: int) -> list[StripItem]:
    """Truth and mask of each item; one that cannot be drawn is left out (the cards name such files)."""
    shown = []
    for place in places:
        item = results.items[place]
        try:
            shown.append(StripItem(item, _pair(results, item, side)))
        except (BadImage, BadArray, ValueError):
            continue
    return shown


def _pair(results: Results, item: ApoloItem, side: int) -> list[PictureTile]:
    image = fit(read_image(results.paths.wikiart / results.files[item.key]), side)
    truth = load_truth(item.map_path)
    tiles = [PictureTile("Truth", data_uri(lit(image, truth)), None)]
    map_ = results.map_of(results.shown, item)
    inside = results.mask_of(results.shown, item, truth.shape)
    if map_ is not None and inside is not None:
        uri = data_uri(overlay(image, map_, inside))
        tiles.append(PictureTile(caption_of(results.shown), uri, results.iou(results.shown, item)))
    return tiles
