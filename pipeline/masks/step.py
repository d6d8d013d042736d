"""Step `masks`: pseudo emotion masks from regions and their similarities (Sec. 4.1); CPU only.

The map of one (artwork, emotion) is, at every pixel, the sum of the similarities of the regions that cover
it, scaled to [0, 1] by its own extremes (`raster`). It is stored with long side 256, that of SAM's
low-resolution frame; the short side may differ from the frame's by a pixel, because SAM rounds at 1024 first.

A region covers its box, as in the paper, or (`support: sam`) the pixels of SAM's mask of it, where the
regions table holds one. The map is that of the picture's own pixels either way, averaged by area at the end.
"""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.common.code import code_fingerprint
from pipeline.common.digests import check_finished
from pipeline.common.errors import UserError
from pipeline.common.fingerprint import fingerprint
from pipeline.common.params import Paths
from pipeline.common.progress import ShardProgress
from pipeline.common.protocol import THRESHOLD
from pipeline.common.schema import REGIONS, SIMILARITY, shard_stem
from pipeline.common.tables import (
    open_artworks,
    open_utterances,
    read_artworks,
    read_groups,
    read_regions,
    whole_shard_file,
)
from pipeline.common.tars import write_tar
from pipeline.masks import raster
from pipeline.masks.recipe import MasksParams, pseudo_masks, region_runs
from pipeline.parallel.input_digests import columns_digest, input_digests
from pipeline.parallel.map_shards import ParallelParams, map_shards
from pipeline.parallel.shard_result import ShardResult

DESCRIBED = ("art_style", "painting", "split", "height", "width")
"""Columns of `schema.ARTWORKS` that KEY.json repeats."""


def build_masks(paths: Paths, params: MasksParams, parallel: ParallelParams) -> dict[str, Any]:
    """Write ``data/masks/000000.tar`` per shard, KEY.EMOTION.png and KEY.json; returns counts.

    Every artwork that `similarity` came through is there, sorted by key; one that was only given "something
    else" has its KEY.json alone. With `support: sam` the counts tell how many regions fell on masks and how
    many on boxes, see `region_runs`. Raises `UserError` when an earlier step has not run, or no region of any
    artwork has the mask that `support: sam` asks for.
    """
    artworks = open_artworks(paths)
    for step in ("regions", "similarity"):
        check_finished(paths.step(step), set(artworks["shard"].to_pylist()), by_hand=True)
    wanted = mask_jobs(artworks, paths, params)
    if params.support == "sam":
        _check_masks(paths, sorted(wanted))
    process = functools.partial(paint_shard, paths=paths, params=params)
    return map_shards("masks", paths.step("masks"), wanted, process, parallel, recipe=_recipe(params))


def mask_jobs(
    artworks: pa.Table, paths: Paths, params: MasksParams, shards: Collection[int] | None = None
) -> dict[int, str]:
    """Shard -> fingerprint of all that decides its tar, and of nothing else; SAM's masks with `support: sam`.

    `artworks`: as of `tables.open_artworks`. `shards`: only these. Raises `UserError` when an earlier step
    has not run.
    """
    recipe = _recipe(params)
    inputs = input_digests(artworks, open_utterances(paths), ("key", *DESCRIBED), shards=shards)
    regions = ("key", "boxes", "source", *(("masks",) if params.support == "sam" else ()))
    return {
        shard: fingerprint(
            recipe,
            digest,
            columns_digest(paths, "regions", shard, regions),
            columns_digest(paths, "similarity", shard, ("key", "emotion", "scores"), lineage=True),
        )
        for shard, digest in inputs.items()
    }


def _recipe(params: MasksParams) -> str:
    """What all shards share."""
    return fingerprint(params, code_fingerprint(__name__))


def _check_masks(paths: Paths, shards: Sequence[int]) -> None:
    """Raise `UserError` when no region of these shards has a mask."""
    for shard in shards:
        column = pq.read_table(whole_shard_file(paths, "regions", shard), columns=["masks"])["masks"]
        texts = pc.list_flatten(column)
        if texts.null_count < len(texts):
            return
    raise UserError(
        f"masks.support is sam, but no region in {paths.step('regions')} has a mask; set "
        "regions.sam_support: true (or regions.source: sam) and run the regions step again, or set "
        "masks.support: box"
    )


def paint_shard(shard: int, progress: ShardProgress, paths: Paths, params: MasksParams) -> ShardResult:
    """One shard: a tar sample per artwork."""
    works = read_artworks(paths, shard)
    rejects: list[tuple[str, str]] = []
    counts: Counter[str] = Counter()
    samples = _samples(shard, works, paths, params, rejects, counts)
    write_tar(paths.step("masks") / f"{shard_stem(shard)}.tar", samples)
    progress.add(len(works))
    return ShardResult(len(works) - len(rejects), rejects, dict(counts))


def _samples(
    shard: int,
    works: list[dict[str, Any]],
    paths: Paths,
    params: MasksParams,
    rejects: list[tuple[str, str]],
    counts: Counter[str],
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, members) per artwork; those without what they need are noted in `rejects`."""
    groups = read_groups(paths, shard)
    by_key: dict[str, dict[str, dict[str, list[Any]]]] = {}
    for (key, emotion), group in groups.items():
        by_key.setdefault(key, {})[emotion] = group
    regions = read_regions(paths, shard)
    texts = _read_masks(paths, shard) if params.support == "sam" else {}
    table = pq.read_table(whole_shard_file(paths, "similarity", shard))
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
        emotions = by_key.get(key, {})
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
    table = pq.read_table(whole_shard_file(paths, "regions", shard), schema=REGIONS, columns=["key", "masks"])
    return dict(zip(table["key"].to_pylist(), table["masks"].to_pylist(), strict=True))


def _members(
    work: dict[str, Any], emotions: dict[str, dict[str, list[Any]]], maps: np.ndarray, lineage: dict[str, Any]
) -> dict[str, bytes]:
    """Tar members of one artwork: a PNG per emotion, in `EMOTIONS`' order, then the card."""
    members = {}
    card: dict[str, Any] = {}
    for emotion, values in zip(emotions, maps, strict=True):
        members[f"{emotion}.png"] = raster.png_bytes(values)
        above = values > int(THRESHOLD * 255)  # whole numbers, compared as such
        card[emotion] = {
            "utterances": emotions[emotion]["utterance"],
            "artemis_ids": emotions[emotion]["artemis_id"],
            "area": round(np.count_nonzero(above) / values.size, 6),
        }
    described = {name: work[name] for name in DESCRIBED}
    text = json.dumps({**described, "emotions": card, "lineage": lineage}, sort_keys=True, ensure_ascii=False)
    return {**members, "json": text.encode()}
