"""Step `features`: the frozen encoders' grids, once per artwork; no encoder runs in training.

``data/features/000000.tar`` holds per artwork, sorted by key like the masks:

    KEY.sam.npy    float16 (C, h, w): SAM's image embedding (256 x 64 x 64), which the mask decoder reads
    KEY.clip.npy   float16 (P, width): CLIP's patch tokens (196 x 768), which the language model reads
    KEY.json       sizes of the picture and of its part of SAM's padded square, encoders and weight hashes

The artworks and their order are those of `masks`; one whose picture cannot be read is rejected here as in
`similarity`, and the `shards` step checks that both agree.
"""

import functools
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import pydantic
from pydantic import Field

from pipeline import artworks, geometry, storage, tables
from pipeline.artworks import BadImage
from pipeline.backbones import BackbonesParams, ClipParams, SamParams, clip, pictures, sam, verify
from pipeline.backbones.clip import Clip
from pipeline.backbones.sam import SamEncoder
from pipeline.parallel import ParallelParams, ShardOutcome, map_shards
from pipeline.params import STRICT, Paths, fingerprint
from pipeline.schema import shard_stem


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class FeaturesParams:
    """The cached encoder outputs."""

    batch: Annotated[int, Field(gt=0)] = 1
    """Pictures encoded at once; 1 is fastest on a CPU, 16 or more fill a GPU. Changes speed, and results by
    float noise only."""


@functools.lru_cache(maxsize=1)
def _load_encoders(sam_params: SamParams, clip_params: ClipParams, device: str) -> tuple[SamEncoder, Clip]:
    """One pair of encoders per process, however many shards it works on."""
    return (
        sam.load_sam(sam_params.arch, sam_params.checkpoint, device),
        clip.load_clip(clip_params.name, clip_params.checkpoint, device),
    )


def build(
    paths: Paths, params: FeaturesParams, backbones: BackbonesParams, parallel: ParallelParams
) -> dict[str, Any]:
    """Write ``data/features/000000.tar`` per shard; returns counts.

    An artwork whose picture cannot be read is rejected with its reason. Raises `UserError` when the
    utterances step has not run, or the weights are not what they should be.
    """
    weights = (
        (backbones.sam.arch, verify(backbones.sam.checkpoint)),
        (backbones.clip.name, verify(backbones.clip.checkpoint)),
    )
    code = storage.code_version(sys.modules[__name__], sam, clip, pictures, artworks, geometry, tables)
    digests = tables.input_digests(paths, pictures=True)
    jobs = {shard: fingerprint(weights, code, digest) for shard, digest in digests.items()}
    process = functools.partial(process_shard, paths=paths, params=params, backbones=backbones)
    return map_shards("features", paths.step("features"), jobs, process, parallel)


def process_shard(
    shard: int, paths: Paths, params: FeaturesParams, backbones: BackbonesParams
) -> ShardOutcome:
    """One shard: encode its pictures in batches, streaming them into the tar."""
    encoders = _load_encoders(backbones.sam, backbones.clip, backbones.torch_device())
    works = tables.read_artworks(paths, shard)
    rejects: list[tuple[str, str]] = []

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        batch: list[tuple[dict[str, Any], np.ndarray]] = []
        for work, image in pictures.pictures(paths.wikiart, works):
            if isinstance(image, BadImage):
                rejects.append((work["key"], image.reason))
                continue
            batch.append((work, image))
            if len(batch) == params.batch:
                yield from _encode(*encoders, batch)
                batch = []
        yield from _encode(*encoders, batch)

    storage.write_tar(paths.step("features") / f"{shard_stem(shard)}.tar", samples())
    return ShardOutcome(len(works) - len(rejects), rejects)


def _encode(
    sam_encoder: SamEncoder, clip_encoder: Clip, batch: Sequence[tuple[dict[str, Any], np.ndarray]]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, members) of a batch of artworks."""
    if not batch:
        return
    images = [image for _, image in batch]
    grids = sam_encoder.encode(images).half().cpu().numpy()
    tokens = clip_encoder.patch_tokens(images).half().cpu().numpy()
    for (work, _), grid, patches in zip(batch, grids, tokens, strict=True):
        size = sam_encoder.input_size(work["height"], work["width"])
        card = {
            "height": work["height"],
            "width": work["width"],
            "sam": {
                "arch": sam_encoder.arch,
                "sha256": sam_encoder.sha256,
                "img_size": sam_encoder.img_size,
                "input_size": size,  # (height, width) of the picture in the padded square
            },
            "clip": {"name": clip_encoder.name, "sha256": clip_encoder.sha256},
        }
        yield (
            work["key"],
            {
                "sam.npy": storage.npy_bytes(grid),
                "clip.npy": storage.npy_bytes(patches),
                "json": json.dumps(card, sort_keys=True).encode(),
            },
        )
