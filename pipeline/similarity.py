"""Step `similarity`: how well each region of an artwork fits what people said about it (Sec. 4.1).

For every artwork and each of the eight emotions it was given: CLIP(region crop) · CLIP(utterance), one cosine
per region. This is the pseudo-mask in factored form; `masks` turns it into pictures, and new mask settings
never need CLIP again. "something else" is left out (FACTS: the paper's emotion set has eight).
"""

import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pydantic
import torch
from pydantic import Field

from pipeline import artworks, geometry, storage, tables
from pipeline.artworks import BadImage
from pipeline.backbones import BackbonesParams, ClipParams, clip, pictures, verify
from pipeline.backbones.clip import Clip
from pipeline.parallel import ParallelParams, ShardOutcome, map_shards
from pipeline.params import STRICT, Paths, fingerprint
from pipeline.schema import SIMILARITY, shard_stem
from pipeline.tables import Groups, shard_file


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class SimilarityParams:
    """Region-utterance similarity."""

    utterances: Literal["average", "concatenate"] = "average"
    """Several utterances of one (artwork, emotion): average their cosines, or encode them as one text, as
    WESD's data joins them. The paper does not say."""
    fit: Literal["center", "squash"] = "squash"
    """How a region becomes CLIP's square: `squash` keeps all of it; `center` is CLIP's own preprocessing,
    which cuts the ends off long regions. The paper does not say."""
    batch: Annotated[int, Field(gt=0)] = 256
    """Crops encoded at once, across artworks. Changes speed, and results by float noise only."""


@functools.lru_cache(maxsize=1)
def _load_clip(params: ClipParams, device: str) -> Clip:
    """One CLIP per process, however many shards it works on."""
    return clip.load_clip(params.name, params.checkpoint, device)


def build(
    paths: Paths, params: SimilarityParams, backbones: BackbonesParams, parallel: ParallelParams
) -> dict[str, Any]:
    """Write ``data/similarity/000000.parquet`` (`schema.SIMILARITY`) per shard; returns counts.

    An artwork whose picture cannot be read, or that has no regions, is rejected with its reason. Raises
    `UserError` when an earlier step has not run, or the weights are not what they should be.
    """
    weights = verify(backbones.clip.checkpoint)
    settings = (params.utterances, params.fit, backbones.clip.name, weights)
    code = storage.code_version(sys.modules[__name__], clip, pictures, artworks, geometry, tables)
    jobs = {
        shard: fingerprint(settings, code, digest, storage.sha256_file(shard_file(paths, "regions", shard)))
        for shard, digest in tables.input_digests(paths, pictures=True).items()
    }
    process = functools.partial(process_shard, paths=paths, params=params, backbones=backbones)
    return map_shards("similarity", paths.step("similarity"), jobs, process, parallel)


def process_shard(
    shard: int, paths: Paths, params: SimilarityParams, backbones: BackbonesParams
) -> ShardOutcome:
    """One shard: encode its distinct texts once and its crops in full batches, write the table."""
    model = _load_clip(backbones.clip, backbones.torch_device())
    groups = tables.read_groups(paths, shard)
    regions = {key: boxes for key, (boxes, _) in tables.read_regions(paths, shard).items()}
    texts = _encode_texts(model, groups, params.utterances)
    rejects: list[tuple[str, str]] = []
    crop = functools.partial(model.crop, fit=params.fit)
    crops = _crops(paths.wikiart, tables.read_artworks(paths, shard), regions, crop, rejects)
    features = dict(_encode_in_batches(model, crops, params.batch))
    rows = [
        {
            "key": key,
            "emotion": emotion,
            "artemis_ids": groups[key, emotion]["artemis_id"],
            "scores": (features[key] @ texts[key, emotion].T).mean(1).cpu().numpy(),
        }
        for key, emotion in groups
        if key in features
    ]
    lineage = {
        "clip": {"name": model.name, "sha256": model.sha256},
        "utterances": params.utterances,
        "fit": params.fit,
    }
    table = pa.Table.from_pylist(rows, schema=SIMILARITY.with_metadata({"lineage": json.dumps(lineage)}))
    storage.write_parquet(paths.step("similarity") / f"{shard_stem(shard)}.parquet", table)
    return ShardOutcome(len(features), rejects)


def _encode_texts(model: Clip, groups: Groups, how: str) -> dict[tuple[str, str], torch.Tensor]:
    """(key, emotion) -> text features (T, D); each distinct sentence goes through CLIP once."""
    sentences = {
        pair: group["utterance"] if how == "average" else [" ".join(group["utterance"])]
        for pair, group in groups.items()
    }
    distinct = {text: i for i, text in enumerate(sorted({t for group in sentences.values() for t in group}))}
    before = model.truncated
    features = model.encode_text(list(distinct))
    if model.truncated > before:
        print(
            f"similarity: {model.truncated - before} of {len(distinct)} texts are longer than CLIP's "
            f"{model.model.context_length} tokens and lost their end",
            file=sys.stderr,
        )
    return {pair: features[[distinct[text] for text in group]] for pair, group in sentences.items()}


def _crops(
    wikiart: Path,
    works: Sequence[dict[str, Any]],
    regions: dict[str, np.ndarray],
    crop: Callable[[np.ndarray, np.ndarray], torch.Tensor],
    rejects: list[tuple[str, str]],
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (key, uint8 crops (N, 3, size, size)) per artwork; those without are noted in `rejects`."""
    known = [row for row in works if row["key"] in regions]
    rejects.extend((row["key"], "no-regions") for row in works if row["key"] not in regions)
    for row, image in pictures.pictures(wikiart, known):
        if isinstance(image, BadImage):
            rejects.append((row["key"], image.reason))
        else:
            yield row["key"], crop(image, regions[row["key"]])


def _encode_in_batches(
    model: Clip, crops: Iterator[tuple[str, torch.Tensor]], batch: int
) -> Iterator[tuple[str, torch.Tensor]]:
    """Features (N, D) of each artwork's crops, encoded in batches that run across artworks."""
    waiting: list[tuple[str, torch.Tensor]] = []
    for item in crops:
        waiting.append(item)
        if sum(len(pixels) for _, pixels in waiting) >= batch:
            yield from _encode_all(model, waiting, batch)
            waiting = []
    yield from _encode_all(model, waiting, batch)


def _encode_all(
    model: Clip, waiting: list[tuple[str, torch.Tensor]], batch: int
) -> Iterator[tuple[str, torch.Tensor]]:
    if waiting:
        pixels = torch.cat([crops for _, crops in waiting])
        features = torch.cat([model.encode_pixels(part) for part in pixels.split(batch)])
        counts = [len(crops) for _, crops in waiting]
        yield from zip((key for key, _ in waiting), features.split(counts), strict=True)
