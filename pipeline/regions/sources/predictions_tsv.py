"""scene_graph_benchmark's predictions.tsv as a source of regions: what VinVL's own code detected.

Rows are ``picture <TAB> {"objects": [...]}``; an object has ``rect`` (x1 y1 x2 y2, pixels of the picture
that the detector was given), ``class``, ``conf``, perhaps ``attributes`` with ``attr_scores``, and much that
is not read here (``feature``, ``scores_all``, ``boxes_all``). Layout after microsoft/scene_graph_benchmark's
tools/test_sg_net.py and its data loaders.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from pipeline.backbones.params import BackbonesParams
from pipeline.common.code import code_fingerprint
from pipeline.common.fingerprint import fingerprint
from pipeline.common.params import Paths
from pipeline.regions.region_row import Found, Rejected, strongest
from pipeline.regions.sources import tsv_file
from pipeline.regions.sources.source import Answers, Artwork, RegionSource, no_file
from pipeline.regions.sources.tsv_file import BadRow, Tsv

if TYPE_CHECKING:
    from pipeline.regions.params import RegionsParams

LONGEST = 200
"""Characters of a class or attribute name that are kept."""


def regions(
    works: Sequence[Artwork], paths: Paths, params: RegionsParams, _backbones: BackbonesParams
) -> Answers:
    """Yield every artwork with the objects of its row.

    Of these the strongest stay, by score_threshold, min_detections and max_detections as if the detector
    ran here. Rejects: not-in-source, malformed-row, and with tsv_sizes no-size.
    """
    index = tsv_file.open_tsv(params.tsv, "tsv", paths)
    sizes = None if params.tsv_sizes is None else tsv_file.open_tsv(params.tsv_sizes, "tsv_sizes", paths)
    with index.path.open("rb") as file, (sizes or index).path.open("rb") as size_file:
        for artwork in works:
            try:
                objects = read_objects(index.columns_of(file, artwork))
                scale = np.ones(4) if sizes is None else _scale(sizes, size_file, artwork)
            except BadRow as error:
                yield artwork, Rejected(error.reason, f"{index.path}, {artwork['painting']}: {error.detail}")
                continue
            found = from_objects(objects, params.attributes)
            with np.errstate(over="ignore"):  # a box beyond all numbers is broken, and dropped as such
                answer = select(found, scale, params)
            yield artwork, answer


def read_objects(columns: Sequence[str]) -> list[Any]:
    """The objects in the last column: a JSON list, or an object with "objects". Raises `BadRow`."""
    try:
        value = json.loads(tsv_file.unwrapped(columns[-1]))
    except (ValueError, RecursionError, IndexError) as error:
        raise BadRow("malformed-row", f"the last column is no JSON: {error}") from None
    if isinstance(value, dict):
        value = value.get("objects")
    if not isinstance(value, list):
        raise BadRow("malformed-row", "the last column holds neither a list nor an object with 'objects'")
    return value


def from_objects(objects: Sequence[Any], attributes: bool) -> Found:
    """What a list of objects says, boxes in the pixels of their `rect`.

    An object without four numbers as `rect` is counted as dropped; a missing `conf` is 1, one that is no
    number 0. attributes: also read the names of attributes whose score is above 0 (the original fills up
    with arbitrary ones of score 0).
    """
    known = [(o, box) for o in objects if isinstance(o, dict) and (box := _numbers(o.get("rect"), 4))]
    named = attributes and any("attributes" in o for o, _ in known)
    return Found(
        boxes=np.array([box for _, box in known], np.float64).reshape(-1, 4),
        scores=np.array([_confidence(o) for o, _ in known], np.float64),
        labels=[_text(o.get("class", "")) for o, _ in known],
        attributes=[list(_attributes(o)) for o, _ in known] if named else None,
        dropped=len(objects) - len(known),
    )


def _numbers(value: Any, count: int) -> list[float] | None:
    """A list of exactly `count` numbers (perhaps written as text), or None."""
    if not isinstance(value, list) or len(value) != count:
        return None
    try:
        return [float(number) for number in value]
    except (TypeError, ValueError, OverflowError):
        return None


def _text(value: Any) -> str:
    """A name as text that can be stored: JSON allows halves of characters, Parquet does not."""
    return str(value)[:LONGEST].encode("utf-8", "replace").decode()


def _confidence(entry: dict[str, Any]) -> float:
    number = _numbers([entry.get("conf", 1.0)], 1)
    return number[0] if number and math.isfinite(number[0]) else 0.0


def _attributes(entry: dict[str, Any]) -> Iterator[str]:
    names, scores = entry.get("attributes"), entry.get("attr_scores")
    if not isinstance(names, list):
        return
    if not isinstance(scores, list) or len(scores) != len(names):
        scores = [1.0] * len(names)
    for name, score in zip(names, scores, strict=True):
        if isinstance(name, str) and isinstance(score, int | float) and score > 0:
            yield _text(name)


def select(found: Found, scale: np.ndarray, params: RegionsParams) -> Found:
    """The strongest regions, their boxes times `scale` (4,). Broken boxes do not take a place of the best."""
    finite = np.isfinite(found.boxes).all(axis=1)
    sound = np.flatnonzero(finite & (found.boxes[:, 2:] > found.boxes[:, :2]).all(axis=1))
    limits = (params.score_threshold, params.min_detections, params.max_detections)
    index = sound[strongest(found.scores[sound], *limits)]
    return Found(
        boxes=found.boxes[index] * scale,
        scores=found.scores[index],
        labels=[found.labels[i] for i in index],
        attributes=None if found.attributes is None else [found.attributes[i] for i in index],
        dropped=found.dropped + len(found.boxes) - len(sound),
        weak=len(sound) - len(index),
    )


def _scale(sizes: Tsv, file: IO[bytes], artwork: Artwork) -> np.ndarray:
    """From pixels of the picture that the detector saw to pixels of ours, (4,). Raises `BadRow`."""
    size = None if sizes.find(artwork) is None else _size(sizes.columns_of(file, artwork))
    if size is None:
        raise BadRow("no-size", f"no usable height and width in {sizes.path}")
    height, width = size
    return np.array([artwork["width"] / width, artwork["height"] / height] * 2)


def _size(columns: Sequence[str]) -> tuple[float, float] | None:
    """(height, width) of a row of hw.tsv: ``[{"height": h, "width": w}]``, that object alone, or ``h w``."""
    text = tsv_file.unwrapped(columns[-1])
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text.replace(",", " ").split()
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = [value.get("height"), value.get("width")]
    size = _numbers(value, 2)
    if size is None or not all(0 < side < math.inf for side in size):
        return None
    return size[0], size[1]


def identity(paths: Paths, params: RegionsParams, _backbones: BackbonesParams) -> str:
    """The files' contents, the settings that choose among objects, code."""
    files = [tsv_file.open_tsv(params.tsv, "tsv", paths).sha256]
    if params.tsv_sizes is not None:
        files.append(tsv_file.open_tsv(params.tsv_sizes, "tsv_sizes", paths).sha256)
    settings = [params.score_threshold, params.min_detections, params.max_detections, params.attributes]
    code = code_fingerprint(__name__)
    return fingerprint("predictions_tsv", files, settings, code)


def counts(
    works: Sequence[Artwork], paths: Paths, params: RegionsParams, _backbones: BackbonesParams
) -> dict[str, int]:
    """Rows of the file: all, without an artwork, malformed. Raises `UserError` when no artwork is in it."""
    return tsv_file.open_tsv(params.tsv, "tsv", paths).counts(works)


SOURCE = RegionSource(regions, identity, no_file, counts=counts)
