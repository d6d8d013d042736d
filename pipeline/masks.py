"""Step `masks`: pseudo emotion masks from regions and their similarities (Sec. 4.1); CPU only.

The map of one (artwork, emotion) is, at every pixel, the sum of the similarities of the regions that cover
it, scaled to [0, 1] by its own extremes (`raster`). It is stored with long side 256, SAM's low-resolution
frame.

A region covers its box, as in the paper, or (`support: sam`) the pixels of SAM's mask of it, where the
regions table holds one. The map is that of the picture's own pixels either way, averaged by area at the end.
"""

import dataclasses
import functools
import json
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pydantic
from pydantic import Field

from pipeline import geometry, raster, rle, storage, tables
from pipeline.geometry import frame_size
from pipeline.parallel import ParallelParams, ShardOutcome, map_shards
from pipeline.params import STRICT, Paths, UserError, fingerprint
from pipeline.raster import Aggregate, similarity_map
from pipeline.schema import REGIONS, SIMILARITY, shard_stem
from pipeline.tables import shard_file

__all__ = ["MasksParams", "build", "jobs", "process_shard", "pseudo_masks", "similarity_map", "weigh"]

AREA_THRESHOLD = 0.35
"""Foreground threshold of the APOLO protocol; `area` in KEY.json is the share of pixels above it."""
DESCRIBED = ("art_style", "painting", "split", "height", "width")
"""Columns of `schema.ARTWORKS` that KEY.json repeats."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class MasksParams:
    """From region similarities to a pseudo-mask."""

    support: Literal["box", "sam"] = "box"
    """Where a region's similarity falls: on its whole rectangle, the paper's way, or on SAM's own mask of it
    (`regions.sam_support: true`, or `regions.source: sam`). A region without a usable mask keeps its
    rectangle, and is counted."""
    aggregate: Aggregate = "sum"
    """What a pixel gets from the regions that cover it; 0 where there are none. By APOLO, the paper's is
    sum."""
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
    boxes: np.ndarray,
    scores: np.ndarray,
    height: int,
    width: int,
    params: MasksParams,
    runs: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """The stored masks of one artwork's emotions.

    Args:
        boxes: (N, 4) xyxy, pixels of the upright picture.
        scores: (E, N) cosines, one row per emotion.
        height, width: of the picture, pixels.
        params: the recipe.
        runs: per region the pixels that it covers, see `raster.rasterise_runs`; None: those of its box.

    Returns:
        uint8 (E, h, w), 0 to 255 for [0, 1]: the picture's aspect with `params.long_side`.
    """
    weights = weigh(scores, params)
    maps = (
        raster.rasterise(boxes, weights, height, width, params.aggregate)
        if runs is None
        else raster.rasterise_runs(runs, weights, height, width, params.aggregate)
    )
    return raster.levels(maps, *frame_size(height, width, params.long_side))


def region_runs(
    boxes: np.ndarray, texts: Sequence[str | None] | None, height: int, width: int
) -> tuple[list[np.ndarray], Counter[str]]:
    """The pixels that each region covers by its mask, or by its box where it has no usable one.

    Args:
        boxes: (N, 4) xyxy, pixels of the upright picture.
        texts: the regions' masks (`rle`), None for a region, or for all, without.
        height, width: of the picture, pixels.

    Returns:
        Runs as `raster.rasterise_runs` takes them, and counts: regions `on_masks` and `on_boxes`, and of the
        latter those whose mask was `broken_masks` (no mask of this picture) or `empty_masks` (no pixel).
    """
    counts: Counter[str] = Counter(on_masks=0, on_boxes=0, broken_masks=0, empty_masks=0)
    runs = raster.box_runs(boxes, height, width)
    if texts is not None and len(texts) != len(runs):
        counts["broken_masks"] += len(runs)
        texts = None
    for index, text in enumerate(texts or ()):
        if text is None:
            continue
        try:
            own = rle.decode(text, height, width)
        except rle.BadMask:
            counts["broken_masks"] += 1
            continue
        if len(own):
            counts["on_masks"] += 1
            runs[index] = own
        else:
            counts["empty_masks"] += 1
    counts["on_boxes"] = len(runs) - counts["on_masks"]
    return runs, counts


def build(paths: Paths, params: MasksParams, parallel: ParallelParams) -> dict[str, Any]:
    """Write ``data/masks/000000.tar`` per shard, KEY.EMOTION.png and KEY.json; returns counts.

    Every artwork that `similarity` came through is there, sorted by key; one that was only given "something
    else" has its KEY.json alone. With `support: sam` the counts tell how many regions fell on masks and how
    many on boxes, see `region_runs`. Raises `UserError` when an earlier step has not run, or no region of any
    artwork has the mask that `support: sam` asks for.
    """
    wanted = jobs(paths, params)
    if params.support == "sam":
        _check_masks(paths, sorted(wanted))
    process = functools.partial(process_shard, paths=paths, params=params)
    return map_shards("masks", paths.step("masks"), wanted, process, parallel)


def jobs(paths: Paths, params: MasksParams, shards: Collection[int] | None = None) -> dict[int, str]:
    """Shard -> fingerprint of all that decides its tar, and of nothing else; SAM's masks with `support: sam`.

    `shards`: only these. Raises `UserError` when an earlier step has not run.
    """
    code = storage.code_version(sys.modules[__name__], geometry, raster, rle, tables)
    regions = ("key", "boxes", "source", *(("masks",) if params.support == "sam" else ()))
    return {
        shard: fingerprint(
            params,
            code,
            digest,
            tables.columns_digest(paths, "regions", shard, regions),
            tables.columns_digest(paths, "similarity", shard, ("key", "emotion", "scores"), lineage=True),
        )
        for shard, digest in tables.input_digests(paths, False, ("key", *DESCRIBED), shards).items()
    }


def _check_masks(paths: Paths, shards: Sequence[int]) -> None:
    """Raise `UserError` when no region of these shards has a mask."""
    for shard in shards:
        column = pq.read_table(shard_file(paths, "regions", shard), columns=["masks"])["masks"]
        texts = pc.list_flatten(column)
        if texts.null_count < len(texts):
            return
    raise UserError(
        f"masks.support is sam, but no region in {paths.step('regions')} has a mask; set "
        "regions.sam_support: true (or regions.source: sam) and run the regions step again, or set "
        "masks.support: box"
    )


def process_shard(shard: int, paths: Paths, params: MasksParams) -> ShardOutcome:
    """One shard: a tar sample per artwork."""
    works = tables.read_artworks(paths, shard)
    rejects: list[tuple[str, str]] = []
    counts: Counter[str] = Counter()
    samples = _samples(shard, works, paths, params, rejects, counts)
    storage.write_tar(paths.step("masks") / f"{shard_stem(shard)}.tar", samples)
    return ShardOutcome(len(works) - len(rejects), rejects, dict(counts))


def _samples(
    shard: int,
    works: list[dict[str, Any]],
    paths: Paths,
    params: MasksParams,
    rejects: list[tuple[str, str]],
    counts: Counter[str],
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, members) per artwork; those without what they need are noted in `rejects`."""
    groups = tables.read_groups(paths, shard)
    said: dict[str, dict[str, dict[str, list[Any]]]] = {}
    for (key, emotion), group in groups.items():
        said.setdefault(key, {})[emotion] = group
    regions = tables.read_regions(paths, shard)
    texts = _read_masks(paths, shard) if params.support == "sam" else {}
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
            runs = None
            if params.support == "sam":
                runs, found = region_runs(boxes, texts[key], work["height"], work["width"])
                counts.update(found)
            maps = pseudo_masks(boxes, scores, work["height"], work["width"], params, runs)
            yield key, _members(work, emotions, maps, {"detector": detector, **lineage})


def _read_masks(paths: Paths, shard: int) -> dict[str, list[str | None] | None]:
    """Key -> the masks of its regions, as stored."""
    table = pq.read_table(shard_file(paths, "regions", shard), schema=REGIONS, columns=["key", "masks"])
    return dict(zip(table["key"].to_pylist(), table["masks"].to_pylist(), strict=True))


def _members(
    work: dict[str, Any], emotions: dict[str, dict[str, list[Any]]], maps: np.ndarray, lineage: dict[str, Any]
) -> dict[str, bytes]:
    """Tar members of one artwork: a PNG per emotion, in `EMOTIONS`' order, then the card."""
    members = {}
    card: dict[str, Any] = {}
    for emotion, values in zip(emotions, maps, strict=True):
        members[f"{emotion}.png"] = raster.png_bytes(values)
        above = values > int(AREA_THRESHOLD * 255)  # whole numbers, compared as such
        card[emotion] = {
            "utterances": emotions[emotion]["utterance"],
            "artemis_ids": emotions[emotion]["artemis_id"],
            "area": round(np.count_nonzero(above) / values.size, 6),
        }
    described = {name: work[name] for name in DESCRIBED}
    text = json.dumps({**described, "emotions": card, "lineage": lineage}, sort_keys=True, ensure_ascii=False)
    return {**members, "json": text.encode()}
