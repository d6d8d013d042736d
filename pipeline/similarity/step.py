"""Step `similarity`: how well each region of an artwork fits what people wrote about it (Sec. 4.1).

For every artwork and each of the eight emotions it was given: CLIP(region crop) · CLIP(utterance), one cosine
per region. This is the pseudo-mask in factored form; `masks` turns it into pictures, and new mask settings
never need CLIP again. "something else" is left out (FACTS: the paper's emotion set has eight).
"""

import functools
import itertools
import json
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pipeline.backbones import clip, decode_ahead
from pipeline.backbones.clip import Clip
from pipeline.backbones.params import BackbonesParams, ClipParams
from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common.code import code_fingerprint
from pipeline.common.digests import check_finished
from pipeline.common.emotions import EMOTIONS
from pipeline.common.files import write_parquet
from pipeline.common.fingerprint import fingerprint
from pipeline.common.params import Paths
from pipeline.common.progress import ShardProgress
from pipeline.common.schema import SIMILARITY, shard_stem
from pipeline.common.tables import (
    Groups,
    open_artworks,
    open_utterances,
    read_artworks,
    read_groups,
    read_regions,
)
from pipeline.parallel.input_digests import columns_digest, input_digests
from pipeline.parallel.map_shards import ParallelParams, map_shards
from pipeline.parallel.shard_result import ShardResult
from pipeline.releases.wikiart import BadImage
from pipeline.similarity.params import SimilarityParams
from pipeline.similarity.peers import Peers

DECODERS = 8
"""Threads that decode for a GPU, which takes dozens of pictures a second. A CPU's own pace needs one."""

Regions = Iterator[tuple[str, torch.Tensor]]
"""Key of each readable artwork with the features (N, D) of its regions."""


@functools.lru_cache(maxsize=1)
def _load_clip(params: ClipParams, device: str) -> Clip:
    """One CLIP per process, however many shards it works on."""
    return clip.load_clip(params.name, params.checkpoint, device, precision=params.precision)


def build_similarity(
    paths: Paths, params: SimilarityParams, backbones: BackbonesParams, parallel: ParallelParams
) -> dict[str, Any]:
    """Write ``data/similarity/000000.parquet`` (`schema.SIMILARITY`) per shard; returns counts.

    Among them ``crops`` (regions), ``texts`` (distinct sentences of each shard) and ``texts_truncated``. An
    artwork whose picture cannot be read, or that has no regions, is rejected with its reason. Raises
    `UserError` when an earlier step has not run, or the weights are not what they should be.
    """
    artworks = open_artworks(paths)
    check_finished(paths.step("regions"), set(artworks["shard"].to_pylist()), by_hand=True)
    wanted = similarity_jobs(artworks, paths, params, backbones)
    process = functools.partial(compare_shard, paths=paths, params=params, backbones=backbones)
    recipe = _recipe(params, backbones)
    return map_shards("similarity", paths.step("similarity"), wanted, process, parallel, recipe=recipe)


def similarity_jobs(
    artworks: pa.Table,
    paths: Paths,
    params: SimilarityParams,
    backbones: BackbonesParams,
    shards: Collection[int] | None = None,
) -> dict[int, str]:
    """Shard -> fingerprint of all that decides its table, and of nothing else.

    Of the regions that is their keys and boxes: masks or names that a new run of that step adds leave CLIP's
    work as it is. `artworks`: as of `tables.open_artworks`. `shards`: only these. Raises `UserError` as
    `build_similarity` does.
    """
    recipe = _recipe(params, backbones)
    utterances, columns = open_utterances(paths), ("key", "path", "width", "height", "sha256")
    inputs = input_digests(artworks, utterances, columns, paths.wikiart, shards)
    return {
        shard: fingerprint(recipe, digest, columns_digest(paths, "regions", shard, ("key", "boxes")))
        for shard, digest in inputs.items()
    }


def _recipe(params: SimilarityParams, backbones: BackbonesParams) -> str:
    """What all shards share."""
    model = (backbones.clip.name, verify_weights(backbones.clip.checkpoint), backbones.clip.precision)
    settings = (params.utterances, params.regions, params.fit, params.peers)
    return fingerprint(model, settings, code_fingerprint(__name__))


def compare_shard(
    shard: int, progress: ShardProgress, paths: Paths, params: SimilarityParams, backbones: BackbonesParams
) -> ShardResult:
    """One shard: encode its distinct texts once and its crops in full batches, write the table."""
    device = backbones.torch_device()
    progress.running_on(device)
    model = _load_clip(backbones.clip, device)
    truncated = model.truncated
    groups = read_groups(paths, shard)
    sentences = _sentences(groups, params.utterances)
    texts = _encode_texts(model, sentences)
    boxes = {key: boxes for key, (boxes, _) in read_regions(paths, shard).items()}
    rejects: list[tuple[str, str]] = []
    works = read_artworks(paths, shard)
    images = _readable(paths.wikiart, works, boxes, model.device, rejects)
    encode = _encode_crops if params.regions == "crop" else _pool
    scores: dict[tuple[str, str], torch.Tensor] = {}
    crops, peers = 0, Peers(params.peers)
    for key, features in encode(model, images, boxes, params):
        crops += len(features)
        peers.add(key, features)
        for emotion in EMOTIONS:
            if (key, emotion) in texts:
                scores[key, emotion] = (features @ texts[key, emotion].T).mean(1)
        progress.add()
    asked = {pair: (texts[pair].mean(0), found.max()) for pair, found in scores.items() if len(found)}
    ranks = peers.own_ranks(asked)
    rows = [
        {
            "key": key,
            "emotion": emotion,
            "artemis_ids": group["artemis_id"],
            "scores": scores[key, emotion].cpu().numpy(),
            "own_rank": ranks.get((key, emotion)),
        }
        for (key, emotion), group in groups.items()
        if (key, emotion) in scores
    ]
    lineage = {
        "clip": {"name": model.name, "sha256": model.sha256, "precision": model.precision},
        "utterances": params.utterances,
        "regions": params.regions,
        "fit": params.fit,
    }
    table = pa.Table.from_pylist(rows, schema=SIMILARITY.with_metadata({"lineage": json.dumps(lineage)}))
    write_parquet(paths.step("similarity") / f"{shard_stem(shard)}.parquet", table)
    distinct = len({text for group in sentences.values() for text in group})
    counts = {"crops": crops, "texts": distinct, "texts_truncated": model.truncated - truncated}
    return ShardResult(len(works) - len(rejects), rejects, counts)


def _sentences(groups: Groups, how: str) -> dict[tuple[str, str], list[str]]:
    """(key, emotion) -> the sentences that stand for it."""
    return {
        pair: group["utterance"] if how == "average" else [" ".join(group["utterance"])]
        for pair, group in groups.items()
    }


def _encode_texts(
    model: Clip, sentences: dict[tuple[str, str], list[str]]
) -> dict[tuple[str, str], torch.Tensor]:
    """(key, emotion) -> text features (T, D); each distinct sentence goes through CLIP once.

    Once a shard, that is: few sentences come again in another one, and text is a fortieth of CLIP's work.
    """
    distinct = {text: i for i, text in enumerate(sorted({t for group in sentences.values() for t in group}))}
    features = model.encode_text(list(distinct))
    return {pair: features[[distinct[text] for text in group]] for pair, group in sentences.items()}


def _readable(
    wikiart: Path,
    works: Iterable[dict[str, Any]],
    boxes: dict[str, np.ndarray],
    device: torch.device,
    rejects: list[tuple[str, str]],
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (key, picture) of the artworks that have regions and can be read; the others go to `rejects`."""
    known = []
    for row in works:
        if row["key"] in boxes:
            known.append(row)
        else:
            rejects.append((row["key"], "no-regions"))
    threads = 1 if device.type == "cpu" else DECODERS
    for row, image in decode_ahead.prepared(wikiart, known, lambda image: image, threads):
        if isinstance(image, BadImage):
            rejects.append((row["key"], image.reason))
        else:
            yield row["key"], image


def _encode_crops(
    model: Clip,
    images: Iterator[tuple[str, np.ndarray]],
    boxes: dict[str, np.ndarray],
    params: SimilarityParams,
) -> Regions:
    """Features (N, D) of each artwork's crops. All batches are full but the last."""
    owners: deque[tuple[str, int]] = deque()
    waiting = torch.empty((0, 3, model.size, model.size), dtype=torch.uint8, device=model.device)
    done = model.encode_text([])
    for item in itertools.chain(images, [None]):
        if item is not None:
            key, image = item
            cut = model.crop(image, boxes[key], params.fit)
            owners.append((key, len(cut)))
            waiting = torch.cat([waiting, cut])
        while len(waiting) >= params.batch or (item is None and len(waiting) > 0):
            done = torch.cat([done, model.encode_pixels(waiting[: params.batch])])
            waiting = waiting[params.batch :]
        while owners and len(done) >= owners[0][1]:
            key, count = owners.popleft()
            yield key, done[:count]
            done = done[count:]


def _pool(
    model: Clip,
    images: Iterator[tuple[str, np.ndarray]],
    boxes: dict[str, np.ndarray],
    params: SimilarityParams,
) -> Regions:
    """Features (N, D) of each artwork's regions, pooled from one encoding of it."""
    for some in iter(lambda: list(itertools.islice(images, params.batch)), []):
        keys, pixels = zip(*some, strict=True)
        yield from zip(keys, model.pool_regions(pixels, [boxes[key] for key in keys]), strict=True)
