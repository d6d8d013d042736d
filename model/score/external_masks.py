"""Masks of methods from elsewhere: read by name, scored, and what was odd about them noted by item."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from model.maps.method import MapReader, Method
from model.metrics.segmentation import scaled
from model.metrics.thresholds import Sweep
from model.score.external_rows import Submission, explained
from model.score.items import ReleasedItems, item_name
from model.score.named_maps import NamedMaps
from model.score.params import ScoreParams
from model.score.score_masks import MapTable, score_masks, sweep_masks
from pipeline.common.errors import UserError
from pipeline.common.progress import Meter
from pipeline.releases.apolo import ApoloItem


@dataclass
class MapNotes:
    """What was noted of one method's maps, by the name of their item."""

    flagged: dict[str, str] = field(default_factory=dict)
    """Maps whose shape is the label's, transposed; they are scored as they are."""
    broken: dict[str, str] = field(default_factory=dict)
    """Maps that cannot be used, those of val items among them."""


def score_submitted_maps(
    entries: Sequence[Submission], released: ReleasedItems, params: ScoreParams, allow_missing: bool
) -> tuple[MapTable, list[Sweep | None], list[MapNotes]]:
    """(IoUs of the split's items, NaN for a method without maps; sweeps over val items; notes)."""
    notes = [MapNotes() for _ in entries]
    meter, lock = Meter("score", None, unit="map"), threading.Lock()

    def metered(read: MapReader) -> MapReader:
        def answer(item: ApoloItem, height: int, width: int) -> np.ndarray | None:
            with lock:
                meter.add()
            return read(item, height, width)

        return answer

    methods = [
        Method(
            entry.title,
            metered(_reader(entry.maps, params, noted)),
            explanations=explained(entry, released.items),
        )
        for entry, noted in zip(entries, notes, strict=True)
    ]
    val = [item for item in released.every if item.split == "val"]
    sweeps = [
        sweep_masks([item for item in val if entry.maps and entry.maps.has(item)], [method], params)[0]
        for entry, method in zip(entries, methods, strict=True)
    ]
    chosen = [None if sweep is None else sweep.best(params.threshold) for sweep in sweeps]
    table = score_masks(released.items, methods, params, chosen, np.nan if allow_missing else 0.0)
    for m, entry in enumerate(entries):
        if entry.maps is None:
            for ious in (table.iou_seg, table.iou_box, table.iou_seg_val, table.iou_box_val):
                ious[m] = np.nan
            table.problems[m][:] = [None] * len(released.items)
    return table, sweeps, notes


def _reader(named: NamedMaps | None, params: ScoreParams, noted: MapNotes) -> MapReader:
    """As `method.scaled_maps`, with notes."""

    def read(item: ApoloItem, height: int, width: int) -> np.ndarray | None:
        try:
            return usable(item, height, width)
        except ValueError as error:
            noted.broken[item_name(item)] = str(error)
            raise

    def usable(item: ApoloItem, height: int, width: int) -> np.ndarray | None:
        map_ = None if named is None else named.read(item)
        if map_ is None:
            return None
        if height != width and map_.shape == (width, height):
            noted.flagged[item_name(item)] = (
                f"the map has shape {map_.shape} and the label {(height, width)}: transposed? "
                "It was scored as it is, resized"
            )
        return scaled(map_, height, width, params.scaling)

    return read


def kept_items(
    entries: Sequence[Submission], items: Sequence[ApoloItem], masks: MapTable, allow_missing: bool
) -> np.ndarray:
    """bool (N,): the items that every method is scored on. `UserError` without any."""
    kept = masks.counted
    if allow_missing:
        for entry in entries:
            kept &= np.array([entry.answers(item) for item in items], dtype=np.bool_)
    if not kept.any():
        why = next(filter(None, masks.labels), "none has both a label and an answer")
        raise UserError(f"none of the {len(items)} {items[0].split} items can be scored: {why}")
    return kept


def part_of(masks: MapTable, kept: np.ndarray) -> MapTable:
    """The table over some of its items, bool (N,)."""
    rows = np.flatnonzero(kept).tolist()
    return MapTable(
        masks.iou_seg[:, kept],
        masks.iou_box[:, kept],
        masks.iou_seg_val[:, kept],
        masks.iou_box_val[:, kept],
        masks.thresholds,
        [[problems[i] for i in rows] for problems in masks.problems],
        [masks.labels[i] for i in rows],
    )
