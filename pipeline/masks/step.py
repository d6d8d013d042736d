"""Step `masks`: pseudo emotion masks from regions and their similarities (Sec. 4.1); CPU only.

The map of one (artwork, emotion) is, at every pixel, the sum of the similarities of the regions that cover
it, scaled to [0, 1] by its own extremes (`raster`). It is stored with long side 256, that of SAM's
low-resolution frame; the short side may differ from the frame's by a pixel, because SAM rounds at 1024 first.

A region covers its box, as in the paper, or (`support: sam`) the pixels of SAM's mask of it, where the
regions table holds one. The map is that of the picture's own pixels either way, averaged by area at the end.

Where people judged masks (`paths.reviews`), `masks.reviews` says what is done with theirs; other masks, and
all bytes of the shards that hold none of them, are the same with and without reviews.
"""

import functools
import json
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.common.code import code_fingerprint
from pipeline.common.digests import check_finished
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.fingerprint import fingerprint
from pipeline.common.params import Paths
from pipeline.common.progress import ShardProgress
from pipeline.common.protocol import THRESHOLD
from pipeline.common.schema import shard_stem
from pipeline.common.tables import (
    open_artworks,
    open_utterances,
    whole_shard_file,
)
from pipeline.common.tars import write_tar
from pipeline.masks.inputs import Group, read_boxes, read_masks, read_scores, read_utterances, read_works
from pipeline.masks.recipe import MasksParams, pseudo_masks, region_runs
from pipeline.masks.reviewed import Editor, EditsByShard, edits_by_shard, edits_digest
from pipeline.parallel.input_digests import columns_digest, input_digests
from pipeline.parallel.map_shards import ParallelParams, map_shards
from pipeline.parallel.shard_result import ShardResult
from pipeline.reviews.edits import Edit

DESCRIBED = ("art_style", "painting", "split", "height", "width")
"""Columns of `schema.ARTWORKS` that KEY.json repeats."""


def build_masks(paths: Paths, params: MasksParams, parallel: ParallelParams) -> dict[str, Any]:
    """Write ``data/masks/000000.tar`` per shard, KEY.EMOTION.png and KEY.json; returns counts.

    Every artwork that `similarity` came through is there, sorted by key; one that was only given "something
    else" has its KEY.json alone. With `support: sam` the counts tell how many regions fell on masks and how
    many on boxes, see `region_runs`; with `reviews` what the verdicts are and what became of each edit, see
    `describe_reviews` and `Editor.counts`. Raises `UserError` when an earlier step has not run, or no region
    of any artwork has the mask that `support: sam` asks for; `RunFailed` when verdicts came in meanwhile that
    this run did not use.
    """
    artworks = open_artworks(paths)
    for step in ("regions", "similarity"):
        check_finished(paths.step(step), set(artworks["shard"].to_pylist()), by_hand=True)
    edits, about = edits_by_shard(artworks, paths, params.reviews)
    wanted = mask_jobs(artworks, paths, params, edits=edits)
    if params.support == "sam":
        _check_masks(paths, sorted(wanted))
    process = functools.partial(paint_shard, paths=paths, params=params, edits=edits)
    counts = map_shards("masks", paths.step("masks"), wanted, process, parallel, recipe=_recipe(params))
    if not params.reviews.used:
        return counts
    if edits_by_shard(artworks, paths, params.reviews)[0] != edits:
        raise RunFailed(
            f"verdicts were added to {paths.reviews} while this ran, and the masks are those of the verdicts "
            "before. Run it again; it only makes the shards with the new ones"
        )
    _tell(about, counts["counts"], paths)
    return {**counts, "reviews": about}


def _tell(about: dict[str, Any], counts: Mapping[str, int], paths: Paths) -> None:
    """What became of the verdicts, for the screen."""
    done = [
        f"{counts[name]} {name.removeprefix('reviews_').replace('_', '-')}"
        for name in sorted(counts)
        if name.startswith("reviews_")
    ]
    bad = sum(about["bad_lines"].values())
    print(
        f"masks: {about['verdicts']} verdicts of {about['reviewers']} reviewers on {about['judged']} masks, "
        f"{about['edits']} of them to change: {', '.join(done) or 'none changed'}"
        + (f"; {bad} lines of {paths.reviews} are no verdicts ({about['bad_lines']})" if bad else ""),
        file=sys.stderr,
    )


def mask_jobs(
    artworks: pa.Table,
    paths: Paths,
    params: MasksParams,
    shards: Collection[int] | None = None,
    edits: EditsByShard | None = None,
) -> dict[int, str]:
    """Shard -> fingerprint of all that decides its tar, and of nothing else; SAM's masks with `support: sam`.

    A shard without edits has the fingerprint that it has without reviews.

    `artworks`: as of `tables.open_artworks`. `shards`: only these. `edits`: what reviewers want changed;
    None: read now. Raises `UserError` when an earlier step has not run.
    """
    recipe = _recipe(params)
    if edits is None:
        edits = edits_by_shard(artworks, paths, params.reviews, shards)[0]
    inputs = input_digests(artworks, open_utterances(paths), ("key", *DESCRIBED), shards=shards)
    regions = ("key", "boxes", "source", *(("masks",) if params.support == "sam" else ()))
    return {
        shard: fingerprint(
            recipe,
            digest,
            columns_digest(paths, "regions", shard, regions),
            columns_digest(paths, "similarity", shard, ("key", "emotion", "scores"), lineage=True),
            *([edits_digest(edits[shard])] if shard in edits else []),
        )
        for shard, digest in inputs.items()
    }


def _recipe(params: MasksParams) -> str:
    """What all shards share."""
    return fingerprint(params.recipe(), code_fingerprint(__name__))


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


def paint_shard(
    shard: int,
    progress: ShardProgress,
    paths: Paths,
    params: MasksParams,
    edits: Mapping[int, Sequence[Edit]] | None = None,
) -> ShardResult:
    """One shard: a tar sample per artwork."""
    works = read_works(paths, shard, DESCRIBED)
    rejects: list[tuple[str, str]] = []
    counts: Counter[str] = Counter()
    editor = Editor((edits or {}).get(shard, ()))
    samples = _samples(shard, works, paths, params, rejects, counts, editor)
    write_tar(paths.step("masks") / f"{shard_stem(shard)}.tar", samples)
    progress.add(len(works))
    return ShardResult(len(works) - len(rejects), rejects, {**counts, **editor.counts()})


def _samples(
    shard: int,
    works: list[dict[str, Any]],
    paths: Paths,
    params: MasksParams,
    rejects: list[tuple[str, str]],
    counts: Counter[str],
    editor: Editor,
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, members) per artwork; those without what they need are noted in `rejects`."""
    groups = read_utterances(paths, [work["key"] for work in works])
    regions = read_boxes(paths, shard)
    texts = read_masks(paths, shard) if params.support == "sam" else {}
    similar, origin = read_scores(paths, shard)
    lineage = {
        "similarity": origin,
        "masks": params.recipe(),
        "fingerprint": fingerprint(params.recipe(), origin),
    }
    for work in works:
        key = work["key"]
        emotions = groups[key]
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
            yield key, _members(work, emotions, maps, {"detector": detector, **lineage}, editor)


def _members(
    work: dict[str, Any],
    emotions: dict[str, Group],
    maps: np.ndarray,
    lineage: dict[str, Any],
    editor: Editor,
) -> dict[str, bytes]:
    """Tar members of one artwork: a PNG per emotion, in `EMOTIONS`' order, then the card."""
    members = {}
    card: dict[str, Any] = {}
    for emotion, values in zip(emotions, maps, strict=True):
        painted = editor.apply(work["key"], emotion, values, work["height"], work["width"])
        if painted is None:
            continue
        members[f"{emotion}.png"] = painted.png
        above = painted.levels > int(THRESHOLD * 255)  # whole numbers, compared as such
        card[emotion] = {
            "utterances": emotions[emotion]["utterance"],
            "artemis_ids": emotions[emotion]["artemis_id"],
            "area": round(np.count_nonzero(above) / values.size, 6),
            **painted.about,
        }
    described = {name: work[name] for name in DESCRIBED}
    text = json.dumps({**described, "emotions": card, "lineage": lineage}, sort_keys=True, ensure_ascii=False)
    return {**members, "json": text.encode()}
