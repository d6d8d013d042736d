"""Is this protocol the published one? The row "entire artwork" answers, without any model.

Its prediction is the same all-ones mask in both scenarios, so its published counts depend on the labels and
the protocol alone: 68.61 and 37.70 % by pixels, 82.37 and 63.81 % by boxes, which are whole numbers of items
out of 5,441. Where they are not met, the protocol's switches are tried one by one.
Source: EmoSEM's Table 1, row "Entire artwork"; the counts are derived from its percentages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from model.baselines.entire_artwork import foreground
from model.metrics.segmentation import Boxes, MapScores, Truth
from model.score.items import describe_release, item_name, read_released_items
from model.score.params import ScoreParams
from model.score.score_masks import in_threads, read_truth
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.releases.apolo import ApoloItem
from pipeline.releases.gallery_mark import read_mark
from pipeline.releases.source import PLAIN, Source

COLUMNS = ("seg_pr25", "seg_pr50", "box_pr25", "box_pr50")
SWITCHES: tuple[tuple[bool, Boxes], ...] = ((True, "components"), (True, "single"), (False, "components"))
"""(box_truth, boxes): all protocols that differ for a prediction that is a box already."""


@dataclass(frozen=True)
class Published:
    """How many items the row "entire artwork" gets right in the published table."""

    items: int = 5441
    """Test items with a label."""
    counts: tuple[int, int, int, int] = (3733, 2051, 4482, 3472)
    """Of them the right ones, in the order of `COLUMNS`."""


PRINTED = Published()


def check_protocol(
    apolo: Path,
    split: str,
    paths: Paths,
    params: ScoreParams,
    published: Published = PRINTED,
    source: Source = PLAIN,
    artemis: Path | None = None,
) -> dict[str, Any]:
    """Count what the all-ones prediction gets right, by the params' protocol and by every other switch.

    Returns ``items``, ``counts`` (by the params' protocol), ``variants`` (by every switch), ``matches`` (None
    where the items are not as many test items as the published), ``switches`` (those that meet the published
    counts), ``verdict`` (a sentence) and ``problems``. Raises `UserError` without items.
    """
    released = read_released_items(apolo, split, paths, source, artemis)
    items = released.items
    judged = in_threads(lambda item: _ious(item, params), items, "score: all-ones masks")
    ious = np.array([row for row in judged if not isinstance(row, str)]).reshape(-1, 1 + len(SWITCHES))
    problems = [
        f"{item_name(item)}: label: {row}"
        for item, row in zip(items, judged, strict=True)
        if isinstance(row, str)
    ]
    if not len(ious):
        raise UserError(f"none of the {len(items)} {split} items has a usable label: {problems[0]}")
    variants = [
        {"box_truth": box_truth, "boxes": boxes, "counts": _counts(MapScores(ious[:, 0], ious[:, 1 + place]))}
        for place, (box_truth, boxes) in enumerate(SWITCHES)
    ]
    # without boxed labels `boxes` changes nothing: the prediction is a box already
    mine = variants[SWITCHES.index((params.box_truth, params.boxes if params.box_truth else "components"))]
    wanted = dict(zip(COLUMNS, published.counts, strict=True))
    fitting = [_switch(variant) for variant in variants if variant["counts"] == wanted]
    if comparable := split == "test" and len(ious) == published.items:
        verdict = _verdict(mine, wanted, fitting)
    else:
        verdict = (
            f"Not comparable: the published counts are of {published.items} test items with a label, "
            f"these are {len(ious)} {split} items."
        )
    return {
        "data": f"{describe_release(apolo)}, {split}",
        "drawn": read_mark(apolo) is not None,
        "items": len(ious),
        "counts": mine["counts"],
        "protocol": _switch(mine),
        "published": {"items": published.items, "counts": wanted},
        "matches": mine["counts"] == wanted if comparable else None,
        "switches": fitting if comparable else [],
        "variants": variants,
        "verdict": verdict,
        "problems": released.notes + problems,
    }


def _ious(item: ApoloItem, params: ScoreParams) -> list[float] | str:
    """IoU by pixels and, for every switch, by boxes; or what is wrong with the label."""
    truth = read_truth(item, replace(params, box_truth=False))
    if isinstance(truth, str):
        return truth
    pred = foreground(item, *truth.mask.shape)
    ious = [Truth.of(truth.mask, box_truth, boxes).ious(pred) for box_truth, boxes in SWITCHES]
    return [ious[0][0], *(by_boxes for _, by_boxes in ious)]


def _counts(scores: MapScores) -> dict[str, int]:
    rates = scores.rates()
    return {name: round(rates[name] * rates["items"] / 100) for name in COLUMNS}


def _switch(variant: Mapping[str, Any]) -> str:
    return f"box_truth: {str(variant['box_truth']).lower()}" + (
        f", boxes: {variant['boxes']}" if variant["box_truth"] else ""
    )


def _verdict(mine: Mapping[str, Any], wanted: Mapping[str, int], fitting: Sequence[str]) -> str:
    """One sentence: whether the protocol is the published one, and if not, what would make it so."""
    if mine["counts"] == wanted:
        return f"The protocol is the published one: all four counts are met, with {_switch(mine)}."
    if fitting:
        return f"The protocol is NOT the published one; this is, in params `score`: {' or '.join(fitting)}."
    if any(mine["counts"][name] != wanted[name] for name in COLUMNS[:2]):
        cause = "counts by pixels differ, which no switch changes: labels or split are not the published ones"
    else:
        cause = "counts by pixels are met, those by boxes by no switch: they were boxed in another way"
    return f"The protocol is NOT the published one: {cause}."


def protocol_text(found: Mapping[str, Any]) -> str:
    """What `check_protocol` found, for people."""
    published = found["published"]
    others = [variant for variant in found["variants"] if _switch(variant) != found["protocol"]]
    lines = [
        f"entire artwork, {found['data']}: how many of {found['items']} items it gets right",
        f"{'':>44}  " + "  ".join(f"{name:>8}" for name in COLUMNS),
        _line(f"published (of {published['items']})", published["counts"]),
        _line(f"these params ({found['protocol']})", found["counts"]),
        *(_line(_switch(variant), variant["counts"]) for variant in others),
        found["verdict"],
    ]
    return "\n".join(lines + [f"- {problem}" for problem in found["problems"]])


def _line(title: str, counts: Mapping[str, int]) -> str:
    return f"{title:>44}  " + "  ".join(f"{counts[name]:>8}" for name in COLUMNS)
