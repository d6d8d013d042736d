"""The factory's steps with backbones of true size and random weights: pictures in files to shards on disk.

``end_to_end`` rows run the step itself: decode, resize, encode, write, hash. ``device`` rows give the encoder
what it needs and time it alone; these are held against the roofline.
"""

import dataclasses
import functools
import time
from typing import Any

import numpy as np
import torch

from model.bench import true_size_weights
from model.bench.gpu_parts.pictures import paths_in
from model.bench.gpu_parts.timing import (
    Arithmetic,
    bytes_of,
    flops,
    peak_memory,
    rate,
    roofline,
    seconds_each,
)
from model.bench.gpu_parts.worker import Job, Rows
from model.bench.true_size_weights import SamArch
from pipeline.backbones.clip import load_clip
from pipeline.backbones.decode_ahead import WAITED
from pipeline.backbones.params import BackbonesParams, ClipPrecision
from pipeline.backbones.sam import load_sam
from pipeline.common.params import Paths
from pipeline.common.tables import open_artworks, read_artworks, read_regions
from pipeline.features.params import FeaturesParams
from pipeline.features.step import encode_shard
from pipeline.parallel.map_shards import ParallelParams, map_shards
from pipeline.parallel.shard_result import Process
from pipeline.regions.params import RegionsParams
from pipeline.regions.sources.vinvl import detector_config
from pipeline.regions.step import propose_shard
from pipeline.regions.vinvl.detector import load_vinvl
from pipeline.releases.wikiart import read_image
from pipeline.similarity.params import SimilarityParams
from pipeline.similarity.step import compare_shard

BATCH = 16
CROPS = 256
VINVL_SHARDS = 2
"""Timed: the detector takes a tenth of a second for an artwork."""


def sam_vit_b(job: Job, rows: Rows) -> None:
    """SAM ViT-B beside CLIP ViT-B/16, as `features` runs them by default: eager, then compiled."""
    _sam(job, rows, "vit_b", compiled=(False, True))


def sam_vit_l(job: Job, rows: Rows) -> None:
    """SAM ViT-L alone, eager: compiling it takes longer than it is measured."""
    _sam(job, rows, "vit_l", compiled=(False,))


def sam_vit_h(job: Job, rows: Rows) -> None:
    """SAM ViT-H alone, eager."""
    _sam(job, rows, "vit_h", compiled=(False,))


def _sam(job: Job, rows: Rows, arch: SamArch, compiled: tuple[bool, ...]) -> None:
    """Rows ``device.eager`` (bf16), ``end_to_end.eager``, and the same of ``compiled``."""
    paths, backbones = _settings(job)
    if not job.tiny:
        backbones = true_size_weights.write_sam(job.own / "weights", backbones, arch)
        if arch == "vit_b":
            backbones = true_size_weights.write_clip(job.own / "weights", backbones)
    batch = job.size(BATCH, 2)
    for fused in compiled:
        params = FeaturesParams(
            precision="bf16",
            compile=fused,
            batch=batch,
            clip_dtype="float16" if arch == "vit_b" else "none",
        )
        how = "compiled" if fused else "eager"
        rows.measure(f"device.{how}", functools.partial(_encode, job, paths, params, backbones))
        process = functools.partial(encode_shard, paths=paths, params=params, backbones=backbones)
        rows.measure(f"end_to_end.{how}", functools.partial(_step, job, paths, "features", process))


def _encode(job: Job, paths: Paths, params: FeaturesParams, backbones: BackbonesParams) -> dict[str, Any]:
    """SAM alone on a batch of resized pictures in memory, normalising and padding included."""
    encoder = load_sam(
        backbones.sam.arch,
        backbones.sam.checkpoint,
        job.device,
        precision=params.precision,
        compiled=params.compile,
    )
    images = [encoder.resize(image) for image in _images(paths, params.batch)]
    with peak_memory(encoder.device) as memory:
        seconds = seconds_each(lambda: encoder.encode(images), job, warm_up=3)
    if params.compile:
        return {"batch": len(images), **rate(seconds, len(images)), **memory}
    # weights once, the padded float32 pictures in, the grids out
    pixels = len(images) * 3 * encoder.img_size**2
    moved = bytes_of(encoder.encoder) + 4 * pixels + encoder.encode(images).nbytes
    encoder.precision = "float32"  # as many operations, and a count that autocast does not disturb
    against = roofline(job, seconds, flops(lambda: encoder.encode(images)), moved, "bf16")
    return {"batch": len(images), **rate(seconds, len(images)), **against, **memory}


def crops(job: Job, rows: Rows) -> None:
    """CLIP ViT-B/16 over every region: rows ``device.*``, ``cut``, ``end_to_end.*`` in crops a second."""
    paths, backbones = _settings(job)
    if not job.tiny:
        backbones = true_size_weights.write_clip(job.own / "weights", backbones)
    kinds: dict[ClipPrecision, Arithmetic] = {"fp16": "fp16", "float32": "fp32"}
    for precision, arithmetic in kinds.items():
        clip = dataclasses.replace(backbones.clip, precision=precision)
        here = dataclasses.replace(backbones, clip=clip)
        rows.measure(f"device.{precision}", functools.partial(_encode_crops, job, here, arithmetic))
        process = functools.partial(compare_shard, paths=paths, params=SimilarityParams(), backbones=here)
        rows.measure(f"end_to_end.{precision}", functools.partial(_step, job, paths, "similarity", process))
    rows.measure("cut", functools.partial(_cut, job, paths, backbones))


def _encode_crops(job: Job, backbones: BackbonesParams, arithmetic: Arithmetic) -> dict[str, Any]:
    """Crops that lie on the device as bytes, normalised and encoded."""
    p = backbones.clip
    clip = load_clip(p.name, p.checkpoint, job.device, precision=p.precision)
    count = job.size(CROPS, 4)
    pixels = torch.randint(0, 256, (count, 3, clip.size, clip.size), dtype=torch.uint8, device=clip.device)
    with peak_memory(clip.device) as memory:
        seconds = seconds_each(lambda: clip.encode_pixels(pixels), job)
    moved = bytes_of(clip.model.visual) + pixels.nbytes + clip.encode_pixels(pixels).nbytes
    clip.precision = "float32"  # as many operations, and a count that autocast does not disturb
    against = roofline(job, seconds, flops(lambda: clip.encode_pixels(pixels)), moved, arithmetic)
    return {"batch": count, **rate(seconds, count), **against, **memory}


def _cut(job: Job, paths: Paths, backbones: BackbonesParams) -> dict[str, Any]:
    """All regions of a picture in memory, sent, cut and resized."""
    clip = load_clip(backbones.clip.name, backbones.clip.checkpoint, job.device)
    shard = _shards(paths)[0]
    work = read_artworks(paths, shard)[0]
    boxes, _ = read_regions(paths, shard)[work["key"]]
    image = read_image(paths.wikiart / work["path"])
    return rate(seconds_each(lambda: clip.crop(image, boxes), job), len(boxes))


def vinvl(job: Job, rows: Rows) -> None:
    """The VinVL detector: rows ``device`` (a picture at a time), ``end_to_end.batch_N``."""
    paths, backbones = _settings(job, regions=False)
    if not job.tiny:
        backbones = true_size_weights.write_vinvl(job.own / "weights", backbones)
    params = RegionsParams(source="vinvl")
    rows.measure("device", functools.partial(_detect, job, paths, params, backbones))
    for batch in (4, 1):
        several = dataclasses.replace(params, batch=batch)
        process = functools.partial(propose_shard, paths=paths, params=several, backbones=backbones)
        run = functools.partial(_step, job, paths, "regions", process, VINVL_SHARDS)
        rows.measure(f"end_to_end.batch_{batch}", run)


def _detect(job: Job, paths: Paths, params: RegionsParams, backbones: BackbonesParams) -> dict[str, Any]:
    """A picture in memory to its regions, resizing and attributes included."""
    checkpoint = backbones.vinvl.checkpoint
    model = load_vinvl(checkpoint, config=detector_config(checkpoint, params), device=job.device)
    (image,) = _images(paths, 1)
    with peak_memory(torch.device(job.device)) as memory:
        seconds = seconds_each(lambda: model.propose([image]), job)
    # torch lets cuDNN take TF32 for float32 convolutions, which are nearly all of it
    arithmetic: Arithmetic = "tf32" if torch.backends.cudnn.allow_tf32 else "fp32"
    against = roofline(job, seconds, flops(lambda: model.propose([image])), bytes_of(model), arithmetic)
    return {**rate(seconds, 1), **against, **memory}


def _settings(job: Job, regions: bool = True) -> tuple[Paths, BackbonesParams]:
    """The release with a data folder of the part's own, whose tables are those of `pictures`."""
    shared = paths_in(job.folder)
    paths = dataclasses.replace(shared, data=job.own / "data")
    paths.data.mkdir(parents=True)
    for step in ("utterances", "regions") if regions else ("utterances",):
        paths.step(step).symlink_to(shared.step(step).absolute(), target_is_directory=True)
    return paths, BackbonesParams(device=job.device)


def _shards(paths: Paths) -> list[int]:
    return sorted(set(open_artworks(paths)["shard"].to_pylist()))


def _images(paths: Paths, count: int) -> list[np.ndarray]:
    works = open_artworks(paths)["path"].to_pylist()[:count]
    return [read_image(paths.wikiart / path) for path in works]


def _step(job: Job, paths: Paths, step: str, process: Process, shards: int | None = None) -> dict[str, Any]:
    """A step over its shards after the first, which loads weights, chooses kernels and compiles; in this
    process, by its own loop.

    `shards`: most to time. Items are crops for `similarity`, else artworks.
    """
    device = torch.device(job.device)
    first, *numbers = _shards(paths)
    numbers = numbers[:shards]
    _map(step, paths, process, [first], "warm-up")
    waited = WAITED.seconds
    with peak_memory(device) as memory:
        start = time.perf_counter()
        counts = _map(step, paths, process, numbers, "timed")  # its files are closed: the device is done
        seconds = time.perf_counter() - start
    items = counts["counts"]["crops"] if step == "similarity" else counts["kept"]
    return {
        **rate([seconds], items),
        "items": items,
        "rejected": counts["rejected"],
        "waiting_for_decode": round((WAITED.seconds - waited) / seconds, 3),
        **memory,
    }


def _map(step: str, paths: Paths, process: Process, shards: list[int], turn: str) -> dict[str, Any]:
    """The shard loop; a turn of its own, so that nothing counts as done."""
    return map_shards(step, paths.step(step), dict.fromkeys(shards, turn), process, ParallelParams())
