"""Step `features`: the frozen encoders' grids, once per artwork; no encoder runs in training.

``data/features/000000.tar`` holds per artwork, sorted by key like the masks (docs/features.md):

    KEY.sam.npy        SAM's image embedding (256, 64, 64), which the mask decoder reads: float16, or int8
    KEY.sam_scale.npy  with int8 only: float32 (256,), one scale per channel; the embedding is codes * scale
    KEY.clip.npy       float16 (P, width): CLIP's patch tokens (196 x 768), which the language model reads
    KEY.json           sizes of the picture and of its part of SAM's padded square, encoders and weight hashes

The artworks and their order are those of `masks`; one whose picture cannot be read is rejected here as in
`similarity`, and the `shards` step checks that both agree.
"""

import dataclasses
import functools
import itertools
import json
import os
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pydantic
import torch
from pydantic import Field

from pipeline import artworks, geometry, progress, sidecars, storage, tables
from pipeline.artworks import BadImage
from pipeline.backbones import BackbonesParams, clip, pictures, sam, verify
from pipeline.backbones.clip import Clip, Normalisation
from pipeline.backbones.sam import Precision, SamEncoder
from pipeline.feature_bytes import announce, bytes_per_artwork
from pipeline.parallel import ParallelParams, ShardOutcome, map_shards
from pipeline.params import STRICT, Paths, UserError, fingerprint
from pipeline.schema import shard_stem

__all__ = ["Encoders", "FeaturesParams", "build", "bytes_per_artwork", "jobs", "process_shard", "quantise"]

DECODERS = 8
"""Threads that decode and resize; Pillow lets other threads run meanwhile."""
MEASURE_FROM = 64
"""Artworks below which the run is over before a measured forecast would pay."""
PATIENCE = 5.0
"""Seconds of a first batch on a CPU after which it is not measured again."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class FeaturesParams:
    """The cached encoder outputs. docs/features.md has the bytes and the drift of every choice."""

    sam_dtype: Literal["float16", "int8", "none"] = "float16"
    """How SAM's grid is stored; int8 halves the bytes. none leaves the grid out (and training needs it)."""
    clip_dtype: Literal["float16", "none"] = "float16"
    """How CLIP's grid is stored; none leaves it out (and training needs it)."""
    clip_normalisation: Normalisation = "clip"
    """Of the pixels that CLIP's grid is made of. imagenet is what SEVLM does, which EmoSEM's language model
    comes from; clip is what CLIP was trained with."""
    precision: Precision = "float32"
    """Arithmetic of SAM's transformer; bf16 is several times faster on a GPU. CLIP's is
    ``backbones.clip.precision``."""
    compile: bool = False
    """Let torch.compile fuse SAM's transformer: a slow start and then faster on a GPU; ignored on a CPU.
    Changes results by float noise only."""
    batch: Annotated[int, Field(gt=0)] = 1
    """Pictures encoded at once; 1 is fastest on a CPU, 16 or more fill a GPU. Changes speed, and results by
    float noise only."""

    def __post_init__(self) -> None:
        if self.sam_dtype == self.clip_dtype == "none":
            raise ValueError("sam_dtype and clip_dtype are both none: there would be nothing to cache")

    @property
    def results(self) -> "FeaturesParams":
        """With the defaults for what changes speed alone, or is of an encoder that is left out: this belongs
        in a fingerprint."""
        idle = ["compile", "batch"]
        idle += ["precision"] * (self.sam_dtype == "none")
        idle += ["clip_normalisation"] * (self.clip_dtype == "none")
        return dataclasses.replace(self, **{name: getattr(FeaturesParams, name) for name in idle})

    @property
    def dtypes(self) -> str:
        """How both grids are stored, for people."""
        parts = (("SAM", self.sam_dtype), ("CLIP", self.clip_dtype))
        return " + ".join(f"{name} {dtype}" for name, dtype in parts if dtype != "none")


def build(
    paths: Paths, params: FeaturesParams, backbones: BackbonesParams, parallel: ParallelParams
) -> dict[str, Any]:
    """Write ``data/features/000000.tar`` per shard; returns counts.

    Says beforehand how many bytes and how much time it takes. An artwork whose picture cannot be read is
    rejected with its reason. Raises `UserError` when the utterances step has not run, the weights are not
    what they should be, or the disk is too small.
    """
    wanted = jobs(paths, params, backbones)
    works = _artworks_by_shard(paths)
    out = paths.step("features")
    todo = [shard for shard in wanted if not sidecars.is_done(out, shard, wanted[shard])]
    if todo:
        rows = [row for shard in todo for row in works[shard]]
        here = parallel.workers == 1 and parallel.scheduler is None
        rate = None
        if here and len(rows) >= MEASURE_FROM:
            rate = _measure(load_encoders(params, backbones), paths.wikiart, rows)
        old = [out / f"{shard_stem(shard)}.tar" for shard in todo]
        replaced = sum(tar.stat().st_size for tar in old if tar.is_file())
        each = bytes_per_artwork(params, backbones)
        announce(out, len(rows), each, params.dtypes, replaced, rate)
    process = functools.partial(process_shard, paths=paths, params=params, backbones=backbones)
    sizes = {shard: len(rows) for shard, rows in works.items()}
    return map_shards("features", out, wanted, process, parallel, sizes)


def jobs(
    paths: Paths, params: FeaturesParams, backbones: BackbonesParams, shards: Collection[int] | None = None
) -> dict[int, str]:
    """Shard -> fingerprint of all that decides its tar, and of nothing else.

    `shards`: only these. Raises `UserError` when the utterances step has not run, or the weights are not what
    they should be.
    """
    encoders: list[tuple[str, ...]] = []
    if params.sam_dtype != "none":
        encoders.append((backbones.sam.arch, verify(backbones.sam.checkpoint)))
    if params.clip_dtype != "none":
        with_precision = (backbones.clip.name, backbones.clip.precision)
        encoders.append((*with_precision, verify(backbones.clip.checkpoint)))
    modules = (sys.modules[__name__], sam, clip, *clip.SOURCES, pictures, artworks, geometry)
    code = storage.code_version(*modules)
    return {
        shard: fingerprint(encoders, params.results, code, _inputs(paths.wikiart, rows))
        for shard, rows in _artworks_by_shard(paths).items()
        if shards is None or shard in shards
    }


def _artworks_by_shard(paths: Paths) -> dict[int, list[dict[str, Any]]]:
    """What features depend on of `schema.ARTWORKS`, sorted by key: not the split, not what people said."""
    path = paths.step("utterances") / "artworks.parquet"
    if not path.is_file():
        raise UserError(f"{path} does not exist; run the utterances step first")
    table = pq.read_table(path, columns=["shard", "key", "path", "width", "height"]).sort_by("key")
    works: dict[int, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        works.setdefault(row["shard"], []).append(row)
    return works


def _inputs(wikiart: Path, rows: Sequence[dict[str, Any]]) -> str:
    """Digest of a shard's artworks; of the pictures by their size on disk, see `tables.input_digests`."""
    return fingerprint([(row, tables.file_size(wikiart / row["path"])) for row in rows])


def process_shard(
    shard: int, paths: Paths, params: FeaturesParams, backbones: BackbonesParams
) -> ShardOutcome:
    """One shard: its pictures are decoded on threads, encoded in batches and streamed into the tar, each
    while the next is on its way."""
    encoders = load_encoders(params, backbones)
    works = tables.read_artworks(paths, shard)
    rejects: list[tuple[str, str]] = []

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        readable = _readable(encoders, paths.wikiart, works, rejects)
        batches = iter(lambda: list(itertools.islice(readable, params.batch)), [])
        for encoded in pictures.ahead(encoders.encode, batches, threads=1, depth=1):
            for key, arrays, card in encoded:
                members = {f"{name}.npy": storage.npy_bytes(array) for name, array in arrays.items()}
                yield key, members | {"json": json.dumps(card, sort_keys=True).encode()}
                progress.tick()

    storage.write_tar(paths.step("features") / f"{shard_stem(shard)}.tar", samples())
    return ShardOutcome(len(works) - len(rejects), rejects)


class Prepared(NamedTuple):
    """What the encoders need of a picture, which may itself be large."""

    sam: np.ndarray | None
    """uint8 RGB at `SamEncoder.input_size`."""
    clip: np.ndarray | None
    """uint8 RGB, squashed to CLIP's square input."""


Encoded = tuple[str, dict[str, np.ndarray], dict[str, Any]]
"""Key, arrays by member name, and the card ``KEY.json``."""


class Encoders:
    """The frozen encoders that the params ask for, on the device."""

    def __init__(self, params: FeaturesParams, backbones: BackbonesParams) -> None:
        self.params = params
        self.device = backbones.torch_device()
        self.sam: SamEncoder | None = None
        self.clip: Clip | None = None
        if params.sam_dtype != "none":
            self.sam = sam.load_sam(
                backbones.sam.arch,
                backbones.sam.checkpoint,
                self.device,
                precision=params.precision,
                compiled=params.compile,
            )
        if params.clip_dtype != "none":
            self.clip = clip.load_clip(
                backbones.clip.name,
                backbones.clip.checkpoint,
                self.device,
                precision=backbones.clip.precision,
            )

    def prepare(self, image: np.ndarray) -> Prepared:
        """Resize a picture for both encoders, on the calling thread; they take it as it is then."""
        squashed = None
        if self.clip is not None:
            pixels = torch.from_numpy(image).permute(2, 0, 1)
            squashed = clip.resize(pixels, self.clip.size, "squash").permute(1, 2, 0).numpy()
        return Prepared(None if self.sam is None else self.sam.resize(image), squashed)

    def encode(self, batch: Sequence[tuple[dict[str, Any], Prepared]]) -> list[Encoded]:
        """Arrays and cards of a batch of artworks: rows of `schema.ARTWORKS` with their pictures."""
        columns: dict[str, np.ndarray] = {}
        if self.sam is not None:
            grids = self.sam.encode([picture.sam for _, picture in batch if picture.sam is not None])
            if self.params.sam_dtype == "int8":
                codes, scales = quantise(grids)
                columns |= {"sam": codes.cpu().numpy(), "sam_scale": scales.cpu().numpy()}
            else:
                columns["sam"] = grids.half().cpu().numpy()
        if self.clip is not None:
            squashed = [picture.clip for _, picture in batch if picture.clip is not None]
            tokens = self.clip.patch_tokens(squashed, self.params.clip_normalisation)
            columns["clip"] = tokens.half().cpu().numpy()
        return [
            (row["key"], {name: values[at] for name, values in columns.items()}, self._card(row))
            for at, (row, _) in enumerate(batch)
        ]

    def _card(self, row: dict[str, Any]) -> dict[str, Any]:
        card: dict[str, Any] = {"height": row["height"], "width": row["width"]}
        if self.sam is not None:
            card["sam"] = {
                "arch": self.sam.arch,
                "sha256": self.sam.sha256,
                "dtype": self.params.sam_dtype,
                "precision": self.sam.precision,
                "img_size": self.sam.img_size,
                # (height, width) of the picture in the padded square
                "input_size": self.sam.input_size(row["height"], row["width"]),
            }
        if self.clip is not None:
            card["clip"] = {
                "name": self.clip.name,
                "sha256": self.clip.sha256,
                "dtype": self.params.clip_dtype,
                "precision": self.clip.precision,
                "normalisation": self.params.clip_normalisation,
            }
        return card


@functools.lru_cache(maxsize=1)
def load_encoders(params: FeaturesParams, backbones: BackbonesParams) -> Encoders:
    """One set of encoders per process, however many shards it works on."""
    encoders = Encoders(params, backbones)
    progress.running_on(encoders.device)
    return encoders


def quantise(grids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric int8 with one scale per picture and channel.

    Args:
        grids: float32 (B, C, h, w).

    Returns:
        int8 codes (B, C, h, w) in [-127, 127] and float32 scales (B, C): ``codes * scale`` is off by at most
        half a scale, a 254th of the channel's largest magnitude.
    """
    largest = grids.abs().amax(dim=(2, 3))
    scales = torch.where(largest > 0, largest / 127, 1.0)
    return (grids / scales[:, :, None, None]).round().to(torch.int8), scales


def _readable(
    encoders: Encoders, wikiart: Path, rows: Sequence[dict[str, Any]], rejects: list[tuple[str, str]]
) -> Iterator[tuple[dict[str, Any], Prepared]]:
    """Prepared pictures in the order of the rows; what cannot be read goes to `rejects`."""
    depth = max(pictures.AHEAD, 2 * encoders.params.batch)
    threads = min(DECODERS, os.cpu_count() or 1)
    for row, picture in pictures.prepared(wikiart, rows, encoders.prepare, threads, depth):
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
