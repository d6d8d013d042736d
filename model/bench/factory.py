"""How fast the factory is on this machine: every step on the first artworks of a params file, in one run."""

import dataclasses
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic
import torch
from open_clip.transform import image_transform
from PIL import Image
from pydantic import Field

from model.bench.rounding import significant
from pipeline.backbones.clip import load_clip
from pipeline.backbones.crops import crop, to_device, windows
from pipeline.backbones.decode_ahead import pictures
from pipeline.common.errors import UserError
from pipeline.common.machine import device_name
from pipeline.common.params import STRICT, ParamsFile, Paths, load_params
from pipeline.common.tables import read_artworks, read_regions
from pipeline.plan.timing import Settings, Timing, measure
from pipeline.plan.workload import count
from pipeline.releases.wikiart import BadImage

CROP_PICTURES = 8
"""Pictures whose regions are cut in both ways."""
CROP_TURNS = 3
"""Times each picture is cut."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class BenchParams:
    """How much is measured."""

    artworks: Annotated[int, Field(ge=1)] = 32
    """Artworks that go through the factory, as far as `seconds` go; hundreds to fill a GPU's batches."""
    seconds: Annotated[float, Field(gt=0)] = 120.0
    """How long that may take; the first two artworks, which load the weights, come on top."""


def run(params_file: ParamsFile, true_size: bool = False) -> dict[str, Any]:
    """Artworks a second of every step, its waiting for decode, and device crops against Pillow's.

    ``waiting_for_decode`` is the share of a step's time in which no decoded picture was ready.

    Args:
        params_file: as every command takes it. Its data is read; results go to a temporary folder.
        true_size: take random weights of the paper's sizes, and the detector as the source of regions.

    Raises:
        UserError: no csv or no picture, or bad params. Missing weights end only the steps that need them.
    """
    settings = Settings.load(params_file)
    params = load_params(params_file, "bench", BenchParams)
    counts = count(settings.paths, settings.utterances, params.artworks + 1)
    if not counts.sample:
        raise UserError(f"no artwork of {settings.paths.artemis} has a picture in {settings.paths.wikiart}")
    with tempfile.TemporaryDirectory(prefix="emosem-bench-") as folder:
        if true_size:
            settings = _at_true_size(settings, Path(folder) / "weights")
        timings, sample = measure(
            settings, counts.sample, Path(folder) / "data", params.artworks, params.seconds, "bench factory"
        )
        device = settings.backbones.torch_device()
        found: dict[str, Any] = {
            "device": device_name(device),
            "torch": torch.__version__,
            "weights": "random, of true size" if true_size else "of the params file",
            "backbones": {
                "sam": settings.backbones.sam.arch,
                "clip": settings.backbones.clip.name,
                "regions": settings.regions.source,
            },
            "artworks": timings["utterances"].artworks,
            "steps": {step: _row(timing) for step, timing in timings.items()},
        }
        if timings["similarity"].rate is not None:
            crops = sum(len(boxes) for boxes, _ in read_regions(sample, 0).values())
            found["steps"]["similarity"]["crops_per_second"] = significant(
                crops / timings["similarity"].seconds
            )
            found["crops"] = _crops(settings, sample)
    found["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    if torch.cuda.is_available():
        found["peak_device_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return found


def _at_true_size(settings: Settings, folder: Path) -> Settings:
    from model.bench import true_size_weights

    print("writing 1.6 GB of random weights", file=sys.stderr)
    return dataclasses.replace(
        settings,
        backbones=true_size_weights.write(folder, settings.backbones),
        regions=dataclasses.replace(settings.regions, source="vinvl"),
    )


def _row(timing: Timing) -> dict[str, Any]:
    if timing.rate is None:
        return {"problem": timing.problem}
    return {
        "artworks_per_second": significant(timing.rate),
        "seconds": significant(timing.seconds),
        "waiting_for_decode": round(timing.waited / timing.seconds, 3),
        "bytes_per_artwork": timing.written // timing.artworks,
    }


def _crops(settings: Settings, sample: Paths) -> dict[str, Any]:
    """The same boxes of the same pictures cut in both ways, taking turns; the first picture warms up.

    ``device``: one transfer a picture, then all its crops there. ``pillow``: open_clip's own preprocessing of
    each crop on this processor, without the transfer.
    """
    params, device = settings.backbones.clip, torch.device(settings.backbones.torch_device())
    size = load_clip(params.name, params.checkpoint, str(device)).size
    fit = settings.similarity.fit
    by_pillow = image_transform(
        size, is_train=False, resize_mode="squash" if fit == "squash" else "shortest", interpolation="bicubic"
    )

    def on_device(image: np.ndarray, boxes: np.ndarray) -> None:
        crop(to_device(image, device), boxes, size, fit)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def through_pillow(image: np.ndarray, boxes: np.ndarray) -> None:
        picture = Image.fromarray(image)
        for (x, w, *_), (y, h, *_) in windows(boxes, picture.height, picture.width, size, fit).tolist():
            by_pillow(picture.crop((x, y, x + w, y + h)))

    regions = read_regions(sample, 0)
    works = [work for work in read_artworks(sample, 0) if work["key"] in regions]
    loaded = [
        (image, regions[work["key"]][0])
        for work, image in pictures(sample.wikiart, works[:CROP_PICTURES])
        if not isinstance(image, BadImage)
    ]
    seconds = {"device": 0.0, "pillow": 0.0}
    for turn in range(-1, CROP_TURNS * len(loaded)):
        for name, way in (("device", on_device), ("pillow", through_pillow)):
            start = time.perf_counter()
            way(*loaded[turn % len(loaded)])
            if turn >= 0:
                seconds[name] += time.perf_counter() - start
    crops = CROP_TURNS * sum(len(boxes) for _, boxes in loaded)
    return {
        "boxes": crops // CROP_TURNS,
        "pictures": len(loaded),
        "device_per_second": significant(crops / seconds["device"]),
        "pillow_per_second": significant(crops / seconds["pillow"]),
        "ratio": significant(seconds["pillow"] / seconds["device"]),
    }
