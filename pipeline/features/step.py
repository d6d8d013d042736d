"""Step `features`: the frozen encoders' features, once per artwork; no encoder runs in training.

``data/features/000000.tar`` holds per artwork, sorted by key like the masks (docs/features.md):

    KEY.sam.npy        SAM's image embedding (256, 64, 64), which the mask decoder reads: float16, or int8
    KEY.sam_scale.npy  with int8 only: float32 (256,), one scale per channel; the embedding is codes * scale
    KEY.clip.npy       float16 (P, width): CLIP's patch tokens (196 x 768), which the language model reads
    KEY.json           sizes of the picture and of its part of SAM's padded square, encoders and weight hashes

The artworks and their order are those of `masks`; one whose picture cannot be read is rejected here as in
`similarity`, and the `shards` step checks that both agree.
"""

import functools
import itertools
import json
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.backbones import decode_ahead
from pipeline.backbones.params import BackbonesParams
from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common.code import code_fingerprint
from pipeline.common.fingerprint import fingerprint
from pipeline.common.params import Paths
from pipeline.common.progress import ShardProgress
from pipeline.common.read_ahead import read_ahead
from pipeline.common.schema import shard_stem
from pipeline.common.tables import file_size, open_artworks, read_artworks, rows_by_shard
from pipeline.common.tars import npy_bytes, write_tar
from pipeline.common.threads import cores
from pipeline.features.encoders import Encoders, Prepared, load_encoders
from pipeline.features.params import FeaturesParams
from pipeline.features.size_estimate import announce_size, bytes_per_artwork
from pipeline.parallel.map_shards import ParallelParams, map_shards
from pipeline.parallel.shard_folder import ShardFolder
from pipeline.parallel.shard_result import ShardResult
from pipeline.releases.wikiart import BadImage

DECODERS = 8
"""Threads that decode and resize; Pillow lets other threads run meanwhile."""
DEPENDS_ON = ("shard", "key", "path", "width", "height", "sha256")
"""Columns of `schema.ARTWORKS` that features depend on: not the split, nor what people wrote."""
MEASURE_FROM = 64
"""Artworks below which the run is over before a measured forecast would pay."""
PATIENCE = 5.0
"""Seconds of a first batch on a CPU after which it is not measured again."""


def build_features(
    paths: Paths, params: FeaturesParams, backbones: BackbonesParams, parallel: ParallelParams
) -> dict[str, Any]:
    """Write ``data/features/000000.tar`` per shard; returns counts.

    Says beforehand how many bytes and how much time it takes. An artwork whose picture cannot be read is
    rejected with its reason. Raises `UserError` when the utterances step has not run, the weights are not
    what they should be, or the disk is too small.
    """
    artworks = open_artworks(paths)
    wanted = feature_jobs(artworks, paths, params, backbones)
    works = rows_by_shard(artworks, DEPENDS_ON)
    out = paths.step("features")
    todo = ShardFolder(out, wanted).to_do()
    if todo:
        rows = [row for shard in todo for row in works[shard]]
        here = parallel.workers == 1 and parallel.scheduler is None
        rate = None
        if here and len(rows) >= MEASURE_FROM:
            rate = _measure(load_encoders(params, backbones), paths.wikiart, rows)
        old = [out / f"{shard_stem(shard)}.tar" for shard in todo]
        replaced = sum(tar.stat().st_size for tar in old if tar.is_file())
        each = bytes_per_artwork(params, backbones)
        announce_size(out, len(rows), each, params.dtypes, replaced, rate)
    process = functools.partial(encode_shard, paths=paths, params=params, backbones=backbones)
    sizes = {shard: len(rows) for shard, rows in works.items()}
    return map_shards("features", out, wanted, process, parallel, sizes, recipe=_recipe(params, backbones))


def feature_jobs(
    artworks: pa.Table,
    paths: Paths,
    params: FeaturesParams,
    backbones: BackbonesParams,
    shards: Collection[int] | None = None,
) -> dict[int, str]:
    """Shard -> fingerprint of all that decides its tar, and of nothing else.

    `artworks`: as of `tables.open_artworks`. `shards`: only these. Raises `UserError` when the weights are
    not what they should be.
    """
    recipe = _recipe(params, backbones)
    return {
        shard: fingerprint(recipe, _inputs(paths.wikiart, rows))
        for shard, rows in rows_by_shard(artworks, DEPENDS_ON).items()
        if shards is None or shard in shards
    }


def _recipe(params: FeaturesParams, backbones: BackbonesParams) -> str:
    """What all shards share."""
    encoders: list[tuple[str, ...]] = []
    if params.sam_dtype != "none":
        encoders.append((backbones.sam.arch, verify_weights(backbones.sam.checkpoint)))
    if params.clip_dtype != "none":
        with_precision = (backbones.clip.name, backbones.clip.precision)
        encoders.append((*with_precision, verify_weights(backbones.clip.checkpoint)))
    return fingerprint(encoders, params.results, code_fingerprint(__name__))


def _inputs(wikiart: Path, rows: Sequence[dict[str, Any]]) -> str:
    """Digest of a shard's artworks, with their pictures' SHA-256 and size on disk, see `input_digests`."""
    return fingerprint([(row, file_size(wikiart / row["path"])) for row in rows])


def encode_shard(
    shard: int, progress: ShardProgress, paths: Paths, params: FeaturesParams, backbones: BackbonesParams
) -> ShardResult:
    """One shard: its pictures are decoded on threads, encoded in batches and streamed into the tar, each
    while the next is on its way."""
    encoders = load_encoders(params, backbones)
    progress.running_on(encoders.device)
    works = read_artworks(paths, shard)
    rejects: list[tuple[str, str]] = []

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        readable = _readable(encoders, paths.wikiart, works, rejects)
        batches = iter(lambda: list(itertools.islice(readable, params.batch)), [])
        for encoded in read_ahead(encoders.encode, batches, threads=1, depth=1):
            for key, arrays, card in encoded:
                members = {f"{name}.npy": npy_bytes(array) for name, array in arrays.items()}
                yield key, members | {"json": json.dumps(card, sort_keys=True).encode()}
                progress.add()

    write_tar(paths.step("features") / f"{shard_stem(shard)}.tar", samples())
    return ShardResult(len(works) - len(rejects), rejects)


def _readable(
    encoders: Encoders, wikiart: Path, rows: Sequence[dict[str, Any]], rejects: list[tuple[str, str]]
) -> Iterator[tuple[dict[str, Any], Prepared]]:
    """Prepared pictures in the order of the rows; what cannot be read goes to `rejects`."""
    depth = max(decode_ahead.AHEAD, 2 * encoders.params.batch)
    threads = min(DECODERS, cores())
    for row, picture in decode_ahead.prepared(wikiart, rows, encoders.prepare, threads, depth):
        if isinstance(picture, BadImage):
            rejects.append((row["key"], picture.reason))
        else:
            yield row, picture


def _measure(encoders: Encoders, wikiart: Path, rows: Sequence[dict[str, Any]]) -> float | None:
    """Artworks per second of the encoders, from the first pictures; None when there is no readable one.

    The second batch counts, for the first one warms up; on a slow CPU the first must do.
    """
    batch = list(itertools.islice(_readable(encoders, wikiart, rows, []), encoders.params.batch))
    if not batch:
        return None
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        encoders.encode(batch)
        seconds = time.perf_counter() - start
        if seconds > PATIENCE and encoders.device == "cpu":
            break
    return len(batch) / seconds
