"""Step `masks`: pseudo emotion masks from regions and their similarities (Sec. 4.1); CPU only.

The map of one (artwork, emotion) is, at every pixel, the sum of the similarities of the boxes that cover it,
scaled to [0, 1] by its own extremes. It is constant between neighbouring box edges, so it is computed once on
the grid of those edges (at most 73 x 73 cells for 36 boxes) by a two-dimensional difference array: one pass
over the boxes for all emotions, whatever the picture's size. From the grid follow the map at full size, by
repetition, and the stored one (long side 256, SAM's low-resolution frame), whose pixels are the exact area
averages of the full-size map: what cv2's INTER_AREA makes of it, without the full-size map.
"""

import dataclasses
import functools
import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import pyarrow.parquet as pq
import pydantic
from pydantic import Field

from pipeline import geometry, storage, tables
from pipeline.geometry import frame_size, pixel_ranges
from pipeline.parallel import ParallelParams, ShardOutcome, map_shards
from pipeline.params import STRICT, Paths, fingerprint
from pipeline.schema import SIMILARITY, shard_stem
from pipeline.tables import shard_file

Aggregate = Literal["sum", "mean", "max"]

AREA_THRESHOLD = 0.35
"""Foreground threshold of the APOLO protocol; `area` in KEY.json is the share of pixels above it."""
PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)
"""Maps repeat from row to row; this is five times faster than trying every filter, and as small."""
FIXED_POINT_BITS = 61
"""Of 63: one for the sign of partial sums to spare."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class MasksParams:
    """From region similarities to a pseudo-mask."""

    aggregate: Aggregate = "sum"
    """What a pixel gets from the boxes that cover it; 0 where there are none. The paper's, by APOLO: sum."""
    negatives: Literal["clip", "keep"] = "clip"
    """A region less similar than 0 counts as 0, or lowers the map. The paper does not say."""
    center: bool = False
    """Subtract the mean over the artwork's regions first, so that only regions that fit better than most
    count (with negatives: clip). Off in the paper."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Above 0, similarities s become exp(s / temperature) relative to the artwork's best region: sharper maps
    for encoders whose cosines lie close together. 0, the paper's: the cosines themselves."""
    long_side: Annotated[int, Field(gt=0)] = 256
    """Long side of the stored mask, pixels."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """Maps that are constant between box edges."""

    values: np.ndarray
    """float64 (E, R, C): one map per emotion."""
    rows: np.ndarray
    """int64 (R + 1): edges from 0 to the height, pixels."""
    columns: np.ndarray
    """int64 (C + 1): edges from 0 to the width, pixels."""

    def full(self) -> np.ndarray:
        """The maps at the picture's size, float32 (E, H, W)."""
        tall = np.repeat(self.values.astype(np.float32), np.diff(self.rows), axis=1)
        return np.repeat(tall, np.diff(self.columns), axis=2)

    def resized(self, height: int, width: int) -> np.ndarray:
        """The maps at another size by exact area averaging, float64 (E, height, width)."""
        down, across = _overlaps(self.rows, height), _overlaps(self.columns, width)
        return (down @ self.values) @ across.T

    def unit(self) -> "Grid":
        """Each map scaled to [0, 1] by its extremes; a constant map, in which nothing stands out, to 0."""
        low = self.values.min((1, 2), keepdims=True)
        span = self.values.max((1, 2), keepdims=True) - low
        scaled = (self.values - low) / np.where(span > 0, span, 1.0)
        return dataclasses.replace(self, values=scaled)


def similarity_map(
    boxes: np.ndarray, scores: np.ndarray, height: int, width: int, aggregate: Aggregate = "sum"
) -> np.ndarray:
    """What every pixel of a picture gets from the boxes that cover it.

    Sums are exact (fixed point), so they depend neither on the order of the boxes nor on the method: the
    result equals adding up the covering boxes pixel by pixel, rounded once. (Exact for float32 scores; of one
    smaller than 2e-11 of the sum of all, the digits beyond 2e-18 of that sum are lost.)

    Args:
        boxes: (N, 4) xyxy, pixels of the picture; `geometry.pixel_ranges` says which pixels a box covers.
        scores: (N,) one per box.
        height, width: of the picture, pixels.
        aggregate: sum, mean or max over the covering boxes; 0 where there are none.

    Returns:
        float32 (height, width), not rescaled.

    Raises:
        ValueError: sizes that do not match, or values that are not finite.
    """
    return rasterise(boxes, np.asarray(scores)[None], height, width, aggregate).full()[0]


def rasterise(boxes: np.ndarray, scores: np.ndarray, height: int, width: int, aggregate: Aggregate) -> Grid:
    """As `similarity_map`, for several sets of scores (E, N) of the same boxes, on the grid of box edges."""
    boxes = np.asarray(boxes, np.float64)
    scores = np.asarray(scores, np.float64)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape[1:] != (len(boxes),):
        raise ValueError(f"boxes {boxes.shape} and scores {scores.shape} must be (N, 4) and (..., N)")
    if height < 1 or width < 1:
        raise ValueError(f"a picture of {height}x{width} pixels has no map")
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError("boxes and scores must be finite")
    ranges = pixel_ranges(boxes, height, width)
    columns = np.unique(np.concatenate([ranges[:, 0], ranges[:, 2], [0, width]]))
    rows = np.unique(np.concatenate([ranges[:, 1], ranges[:, 3], [0, height]]))
    x1, x2 = np.searchsorted(columns, ranges[:, 0]), np.searchsorted(columns, ranges[:, 2])
    y1, y2 = np.searchsorted(rows, ranges[:, 1]), np.searchsorted(rows, ranges[:, 3])
    cells = (np.stack([x1, y1, x2, y2], 1), len(rows) - 1, len(columns) - 1)
    if aggregate == "max":
        values = _largest(*cells, scores)
    else:
        values = _summed(*cells, scores)
        if aggregate == "mean":
            values = values / np.maximum(_summed(*cells, np.ones_like(scores[:1])), 1.0)
    return Grid(values, rows, columns)


def _summed(cells: np.ndarray, height: int, width: int, scores: np.ndarray) -> np.ndarray:
    """float64 (E, height, width): sums of scores (E, N) over the cell ranges (N, 4) that hold a cell.

    Each box writes its four corners into a difference array; two running sums fill it in. In fixed point,
    because floating-point differences would leave dust where boxes end.
    """
    exponents = FIXED_POINT_BITS - np.frexp(np.abs(scores).sum(1))[1]
    fixed = np.rint(np.ldexp(scores, exponents[:, None])).astype(np.int64).T
    x1, y1, x2, y2 = cells.T
    corners = np.zeros((height + 1, width + 1, len(scores)), np.int64)
    np.add.at(corners, (np.concatenate([y1, y2]), np.concatenate([x1, x2])), np.concatenate([fixed, fixed]))
    np.add.at(corners, (np.concatenate([y1, y2]), np.concatenate([x2, x1])), -np.concatenate([fixed, fixed]))
    sums = np.ascontiguousarray(corners.cumsum(0).cumsum(1)[:-1, :-1].transpose(2, 0, 1)).astype(np.float64)
    return np.ldexp(sums, -exponents[:, None, None])


def _largest(cells: np.ndarray, height: int, width: int, scores: np.ndarray) -> np.ndarray:
    """float64 (E, height, width): the largest score (E, N) over each cell, 0 where no range holds it."""
    values = np.full((len(scores), height, width), -np.inf)
    for (x1, y1, x2, y2), score in zip(cells.tolist(), scores.T, strict=True):
        covered = values[:, y1:y2, x1:x2]
        np.maximum(covered, score[:, None, None], out=covered)
    return np.where(np.isneginf(values), 0.0, values)


def _overlaps(edges: np.ndarray, count: int) -> np.ndarray:
    """float64 (count, cells): the share of each of `count` equal intervals that lies in each cell."""
    bounds = np.arange(count + 1) * (edges[-1] / count)
    high = np.minimum(bounds[1:, None], edges[None, 1:])
    low = np.maximum(bounds[:-1, None], edges[None, :-1])
    return np.maximum(high - low, 0.0) * (count / edges[-1])


def weigh(scores: np.ndarray, params: MasksParams) -> np.ndarray:
    """Cosines (E, N) to what the boxes of each emotion's map weigh, float64 (E, N)."""
    weights = np.asarray(scores, np.float64)
    if weights.shape[1] == 0:
        return weights
    if params.center:
        weights = weights - weights.mean(1, keepdims=True)
    if params.temperature > 0:
        return np.exp((weights - weights.max(1, keepdims=True)) / params.temperature)
    return np.maximum(weights, 0.0) if params.negatives == "clip" else weights


def pseudo_masks(
    boxes: np.ndarray, scores: np.ndarray, height: int, width: int, params: MasksParams
) -> np.ndarray:
    """The stored masks of one artwork's emotions.

    Args:
        boxes: (N, 4) xyxy, pixels of the upright picture.
        scores: (E, N) cosines, one row per emotion.
        height, width: of the picture, pixels.
        params: the recipe.

    Returns:
        uint8 (E, h, w), 0 to 255 for [0, 1]: the picture's aspect with `params.long_side`.
    """
    grid = rasterise(boxes, weigh(scores, params), height, width, params.aggregate).unit()
    levels = dataclasses.replace(grid, values=grid.values * 255.0 + 0.5)  # averaging keeps the offset
    return levels.resized(*frame_size(height, width, params.long_side)).astype(np.uint8)


def build(paths: Paths, params: MasksParams, parallel: ParallelParams) -> dict[str, Any]:
    """Write ``data/masks/000000.tar`` per shard, KEY.EMOTION.png and KEY.json; returns counts.

    Every artwork that `similarity` came through is there, sorted by key; one that was only given "something
    else" has its KEY.json alone. Raises `UserError` when an earlier step has not run.
    """
    code = storage.code_version(sys.modules[__name__], geometry, tables)
    jobs = {
        shard: fingerprint(
            params,
            code,
            digest,
            *(storage.sha256_file(shard_file(paths, step, shard)) for step in ("regions", "similarity")),
        )
        for shard, digest in tables.input_digests(paths, pictures=False).items()
    }
    process = functools.partial(process_shard, paths=paths, params=params)
    return map_shards("masks", paths.step("masks"), jobs, process, parallel)


def process_shard(shard: int, paths: Paths, params: MasksParams) -> ShardOutcome:
    """One shard: a tar sample per artwork."""
    works = tables.read_artworks(paths, shard)
    rejects: list[tuple[str, str]] = []
    samples = _samples(shard, works, paths, params, rejects)
    storage.write_tar(paths.step("masks") / f"{shard_stem(shard)}.tar", samples)
    return ShardOutcome(len(works) - len(rejects), rejects)


def _samples(
    shard: int, works: list[dict[str, Any]], paths: Paths, params: MasksParams, rejects: list[tuple[str, str]]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, members) per artwork; those without what they need are noted in `rejects`."""
    groups = tables.read_groups(paths, shard)
    said: dict[str, dict[str, dict[str, list[Any]]]] = {}
    for (key, emotion), group in groups.items():
        said.setdefault(key, {})[emotion] = group
    regions = tables.read_regions(paths, shard)
    table = pq.read_table(shard_file(paths, "similarity", shard))
    similar: dict[str, dict[str, list[float]]] = {}
    for row in table.select(SIMILARITY.names).to_pylist():
        similar.setdefault(row["key"], {})[row["emotion"]] = row["scores"]
    origin = json.loads((table.schema.metadata or {}).get(b"lineage", b"{}"))
    lineage = {
        "similarity": origin,
        "masks": dataclasses.asdict(params),
        "fingerprint": fingerprint(params, origin),
    }
    for work in works:
        key = work["key"]
        emotions = said.get(key, {})
        if key not in regions:
            rejects.append((key, "no-regions"))
        elif not emotions.keys() <= similar.get(key, {}).keys():
            rejects.append((key, "no-similarity"))
        else:
            boxes, detector = regions[key]
            scores = np.array([similar[key][emotion] for emotion in emotions], np.float64)
            scores = scores.reshape(len(emotions), len(boxes))
            maps = pseudo_masks(boxes, scores, work["height"], work["width"], params)
            yield key, _members(work, emotions, maps, {"detector": detector, **lineage})


def _members(
    work: dict[str, Any], emotions: dict[str, dict[str, list[Any]]], maps: np.ndarray, lineage: dict[str, Any]
) -> dict[str, bytes]:
    """Tar members of one artwork: a PNG per emotion, in `EMOTIONS`' order, then the card."""
    members = {}
    card: dict[str, Any] = {}
    for emotion, values in zip(emotions, maps, strict=True):
        members[f"{emotion}.png"] = cv2.imencode(".png", values, PNG_OPTIONS)[1].tobytes()
        card[emotion] = {
            "utterances": emotions[emotion]["utterance"],
            "artemis_ids": emotions[emotion]["artemis_id"],
            "area": round(float((values > AREA_THRESHOLD * 255).mean()), 6),
        }
    described = {name: work[name] for name in ("art_style", "painting", "split", "height", "width")}
    text = json.dumps({**described, "emotions": card, "lineage": lineage}, sort_keys=True, ensure_ascii=False)
    return {**members, "json": text.encode()}
