"""The frozen encoders on the device against the processor: the built-in small ones, which are trained."""

import functools
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.ops import box_iou

from model.bench.gpu_parts.parity import EXACT, FLOAT32, HALF, largest, relative, unequal, within
from model.bench.gpu_parts.worker import Job, Rows
from model.bench.score import blobs
from pipeline.backbones.clip import Clip, load_clip
from pipeline.backbones.crops import resize_all, windows
from pipeline.backbones.params import BackbonesParams, ClipPrecision
from pipeline.backbones.sam import load_sam
from pipeline.features.encoders import quantise
from pipeline.regions.vinvl.detector import load_vinvl

PICTURES = ((90, 60), (64, 64), (200, 333), (17, 80), (300, 257), (500, 120))
"""Heights and widths: wide, tall, small and large ones."""
TEXTS = ("a quiet field", "the dark storm frightens me", "so many colours, I feel awe", "")
REGIONS = 0.1
"""Share: TF32 in a hundred convolutions moves scores, and one of thirty regions may fall to its rival."""
LEVELS = 2.0
"""Of 255: what separates the two ways of resizing crops, see `pipeline.backbones.crops`."""


def encoders(job: Job, rows: Rows) -> None:
    """Rows ``sam.*``, ``int8``, ``crops.*``, ``clip.*``, ``vinvl.*``."""
    images = _images()
    rows.measure("sam.float32", lambda: _sam(job, images, "float32", False, FLOAT32))
    rows.measure("sam.bf16", lambda: _sam(job, images, "bf16", False, HALF))
    rows.measure("int8", lambda: _int8(job, images))
    boxes = [_boxes(image, number) for number, image in enumerate(images)]
    for fit in ("center", "squash"):
        rows.measure(f"crops.{fit}", functools.partial(_crops, job, images, boxes, fit))
    kinds: tuple[tuple[ClipPrecision, float], ...] = (("float32", FLOAT32), ("bf16", HALF), ("fp16", HALF))
    for precision, bound in kinds:
        if precision == "fp16" and not job.device.startswith("cuda"):
            continue  # no kernels of a processor
        rows.measure(f"clip.{precision}", functools.partial(_clip, job, images, boxes, precision, bound))
    rows.measure("vinvl", lambda: _vinvl(job, images))


def encoders_compiled(job: Job, rows: Rows) -> None:
    """SAM's transformer through torch.compile, later batches filled up: row ``sam.compiled``."""
    rows.measure("sam.compiled", lambda: _sam(job, _images(), "bf16", True, HALF))


def _images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    drawn = [np.stack([blobs(rng, *size) for _ in range(3)], axis=2) for size in PICTURES]
    noise = [rng.normal(0, 20, image.shape) for image in drawn]
    return [np.clip(255 * a + b, 0, 255).astype(np.uint8) for a, b in zip(drawn, noise, strict=True)]


def _boxes(image: np.ndarray, seed: int) -> np.ndarray:
    """float (9, 4) xyxy: random ones, the whole picture, one without a pixel."""
    rng = np.random.default_rng(seed)
    height, width = image.shape[:2]
    corners = np.sort(rng.random((7, 2, 2)), axis=1).reshape(7, 4) * np.tile([width, height], 2)
    return np.concatenate([corners, [[0, 0, width, height], [0.2, 0.2, 0.3, 0.3]]])


def _sam(job: Job, images: list[np.ndarray], precision: Any, compiled: bool, bound: float) -> dict[str, Any]:
    params = BackbonesParams().sam
    exact = load_sam(params.arch, params.checkpoint, "cpu").encode(images)
    there = load_sam(params.arch, params.checkpoint, job.device, precision=precision, compiled=compiled)
    counts = (len(images), 2, 1, len(images))
    return within(max(relative(there.encode(images[:n]), exact[:n]) for n in counts), bound)


def _int8(job: Job, images: list[np.ndarray]) -> dict[str, Any]:
    """Codes of the same grids; a quotient that is a half exactly may round either way."""
    params = BackbonesParams().sam
    grids = load_sam(params.arch, params.checkpoint, "cpu").encode(images)
    (codes, scales), (theirs, their_scales) = quantise(grids), quantise(grids.to(job.device))
    share = float((codes != theirs.cpu()).double().mean())
    steps, scale = largest(theirs, codes), relative(their_scales, scales)
    return within(share if steps <= 1 and scale < 1e-6 else 1.0, 1e-4, largest_step=steps, scales=scale)


def _crops(job: Job, images: list[np.ndarray], boxes: list[np.ndarray], fit: Any) -> dict[str, Any]:
    """`resize_all` here and there, and against what a processor takes, in levels of 255."""
    here, there = (_load_clip(device) for device in ("cpu", job.device))
    same, other = [], []
    for image, some in zip(images, boxes, strict=True):
        found = there.crop(image, some, fit)
        axes = windows(some, image.shape[0], image.shape[1], here.size, fit)
        same.append(largest(found, resize_all(here.on_device(image), axes, here.size, 1 << 26)))
        other.append(largest(found, here.crop(image, some, fit)))
    return within(max(same), LEVELS, to_the_other_way=max(other))


def _load_clip(device: str, precision: ClipPrecision = "float32") -> Clip:
    params = BackbonesParams().clip
    return load_clip(params.name, params.checkpoint, device, precision=precision)


def _clip(
    job: Job, images: list[np.ndarray], boxes: list[np.ndarray], precision: ClipPrecision, bound: float
) -> dict[str, Any]:
    """Regions, sentences, patch tokens, pooled regions."""
    here, there = _load_clip("cpu"), _load_clip(job.device, precision)
    pixels = torch.cat([here.crop(image, some) for image, some in zip(images, boxes, strict=True)])
    exact, found = here.encode_pixels(pixels), there.encode_pixels(pixels.to(job.device)).cpu()
    differences = {
        "regions": relative(found, exact),
        "texts": relative(there.encode_text(TEXTS), here.encode_text(TEXTS)),
        "patch_tokens": relative(there.patch_tokens(images), here.patch_tokens(images)),
        "pooled": relative(
            torch.cat(there.pool_regions(images, boxes)), torch.cat(here.pool_regions(images, boxes))
        ),
    }
    cosine = float(F.cosine_similarity(found, exact).min())
    return within(max(differences.values()), bound, **differences, least_cosine=cosine)


def _vinvl(job: Job, images: list[np.ndarray]) -> dict[str, Any]:
    """Share of the processor's regions that have none like them (IoU 0.95, the same name) there."""
    checkpoint = BackbonesParams().vinvl.checkpoint
    exact = load_vinvl(checkpoint).propose(images)
    model = load_vinvl(checkpoint, device=job.device)
    batched, alone = model.propose(images), [model.propose([image])[0] for image in images]
    shares = []
    for found in (batched, alone):
        lost = total = 0
        for theirs, ours in zip(found, exact, strict=True):
            overlap = box_iou(torch.from_numpy(ours.boxes), torch.from_numpy(theirs.boxes)).numpy()
            alike = (overlap > 0.95) & (ours.class_ids[:, None] == theirs.class_ids[None])
            lost, total = lost + int((~alike.any(1)).sum()), total + len(ours.boxes)
        shares.append(lost / max(total, 1))
    counts = unequal([len(a.boxes) for a in batched], [len(a.boxes) for a in exact])
    return within(max(shares), REGIONS, other_counts=counts, exact=max(shares) == EXACT)
