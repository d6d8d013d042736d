"""Oscar's features.tsv as a source of regions: the boxes at the end of VinVL's region features.

Rows are ``picture <TAB> num_boxes <TAB> base64`` or ``picture <TAB> {"num_boxes": n, "features": base64}``,
the base64 being float32 or float16 (n, 2054): 2048 numbers of the box head, then x1/W y1/H x2/W y2/H w/W h/H.
That order is what readers of the release assume; each row is checked for it (w = x2 - x1, h = y2 - y1), which
tells every other order except x and y in each other's place. Boxes have no scores and no labels.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from pipeline.backbones.params import BackbonesParams
from pipeline.common.code import code_fingerprint
from pipeline.common.errors import UserError
from pipeline.common.fingerprint import fingerprint
from pipeline.common.params import Paths
from pipeline.regions.region_row import Found, Rejected
from pipeline.regions.sources import tsv_file
from pipeline.regions.sources.source import Answers, Artwork, RegionSource, no_file
from pipeline.regions.sources.tsv_file import BadRow, Tsv
from pipeline.releases import apolo_arrays

if TYPE_CHECKING:
    from pipeline.regions.params import RegionsParams

WIDTH = 2054
"""Numbers per region: the feature and six of the box."""
WITHOUT_BOXES = 2048
LAYOUTS = {WIDTH * 4: "<f4", WIDTH * 2: "<f2", WITHOUT_BOXES * 4: "<f4", WITHOUT_BOXES * 2: "<f2"}
"""Bytes per region -> type; users report the captioning release as 1027 float32, which are 2054 float16."""
ROUNDING = 0.02
"""By how much w/W may differ from x2/W - x1/W: the original adds one pixel to widths."""
PROBED = 20
"""Artworks whose rows are read before the run, so that a file in another layout ends it at once."""
SCORE = 1.0
"""Score of every box: the file has none."""


def regions(
    works: Sequence[Artwork], paths: Paths, params: RegionsParams, _backbones: BackbonesParams
) -> Answers:
    """Yield every artwork with the boxes of its row, all of them.

    Rejects: not-in-source, malformed-row, wrong-width, wrong-order, wrong-values.
    """
    index = tsv_file.open_tsv(params.tsv, "tsv", paths)
    with index.path.open("rb") as file:
        for artwork in works:
            yield artwork, _found(index, file, artwork)


def _found(index: Tsv, file: IO[bytes], artwork: Artwork) -> Found | Rejected:
    try:
        shares = read_boxes(index.columns_of(file, artwork))
    except BadRow as error:
        return Rejected(error.reason, f"{index.path}, {artwork['painting']}: {error.detail}")
    boxes = shares * np.array([artwork["width"], artwork["height"]] * 2)
    return Found(boxes, np.full(len(boxes), SCORE), [""] * len(boxes), None)


def read_boxes(columns: Sequence[str]) -> np.ndarray:
    """Boxes of a row, float64 (n, 4) x1 y1 x2 y2 as shares of the picture's sides. Raises `BadRow`."""
    features = _features(columns)
    count, width = features.shape
    if count == 0:
        return np.zeros((0, 4))
    if width == WITHOUT_BOXES:
        raise BadRow(
            "wrong-width", f"features of {width} numbers hold no boxes; read predictions.tsv instead"
        )
    numbers = features[:, -6:].astype(np.float64)
    if not apolo_arrays.are_normalised(numbers[:, :4]):
        raise BadRow("wrong-values", f"boxes such as {numbers[0, :4]} are no shares of the picture's sides")
    finite = numbers[np.isfinite(numbers).all(axis=1)]
    sides = finite[:, 2:4] - finite[:, :2]
    fits = (sides > 0).all(axis=1) & (np.abs(sides - finite[:, 4:]) <= ROUNDING).all(axis=1)
    if len(finite) and fits.mean() < 0.5:
        raise BadRow(
            "wrong-order",
            f"the last six numbers are not x1 y1 x2 y2 w h as shares, e.g. {finite[0].round(3)}",
        )
    return numbers[:, :4]


def _features(columns: Sequence[str]) -> np.ndarray:
    """The numbers of a row, (n, 2054 or 2048). Raises `BadRow`."""
    text = tsv_file.unwrapped(columns[-1])
    if not text.startswith(("{", "[")):
        return _matrix(text, columns[-2] if len(columns) > 1 else None)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRow("malformed-row", f"the last column is no JSON: {error}") from None
    if isinstance(value, dict) and "features" in value:
        return _matrix(value["features"], value.get("num_boxes"))
    objects = value.get("objects") if isinstance(value, dict) else value
    if not isinstance(objects, list) or not all(isinstance(o, dict) and "feature" in o for o in objects):
        raise BadRow("malformed-row", "expected 'features', or a list of objects with a 'feature' each")
    rows = [_matrix(o["feature"], 1) for o in objects]
    if len({row.shape[1] for row in rows}) > 1:
        raise BadRow("malformed-row", "features of one row differ in length")
    return np.concatenate(rows) if rows else np.zeros((0, WIDTH), np.float32)


def _matrix(features: Any, count: Any) -> np.ndarray:
    """Base64 as (count, width), float16 or float32 by its length. Without a count, the first that fits."""
    try:
        data = base64.b64decode(tsv_file.unwrapped(features), validate=True)
        number = None if count is None else int(tsv_file.unwrapped(str(count)))
    except (ValueError, AttributeError, TypeError) as error:
        raise BadRow("malformed-row", f"features are no base64, or num_boxes no number: {error}") from None
    if number is None:
        size = next((size for size in LAYOUTS if len(data) % size == 0), 0)
        number = len(data) // size if size else -1
    if number < 0 or (number == 0) != (not data) or (number and len(data) % number):
        raise BadRow("malformed-row", f"{len(data)} bytes are not those of {count} boxes")
    if number == 0:
        return np.zeros((0, WIDTH), np.float32)
    if len(data) // number not in LAYOUTS:
        raise BadRow(
            "wrong-width", f"features have {len(data) // number} bytes, expected {WIDTH} float32 or float16"
        )
    return np.frombuffer(data, LAYOUTS[len(data) // number]).reshape(number, -1)


def identity(paths: Paths, params: RegionsParams, _backbones: BackbonesParams) -> str:
    """The file's contents and the code; there are no settings."""
    code = code_fingerprint(__name__)
    return fingerprint("features_tsv", tsv_file.open_tsv(params.tsv, "tsv", paths).sha256, code)


def counts(
    works: Sequence[Artwork], paths: Paths, params: RegionsParams, _backbones: BackbonesParams
) -> dict[str, int]:
    """Rows of the file: all, without an artwork, malformed.

    Raises `UserError` when no artwork is in the file, or none of the first has boxes as expected.
    """
    index = tsv_file.open_tsv(params.tsv, "tsv", paths)
    counted = index.counts(works)
    known = [work for work in works if index.find(work) is not None][:PROBED]
    with index.path.open("rb") as file:
        answers = [_found(index, file, work) for work in known]
    bad = [answer for answer in answers if isinstance(answer, Rejected)]
    if bad and len(bad) == len(answers):
        raise UserError(f"none of the first {len(bad)} rows can be used; {bad[0].reason}: {bad[0].detail}")
    return counted


SOURCE = RegionSource(regions, identity, no_file, counts=counts)
