"""How fast training is on this machine: the loader alone, and a step's parts, in one run.

Needs the shards and backbones of a params file, or of them only the tokenizer for the paper's sizes; trains a
model in memory and keeps nothing.
"""

import dataclasses
import itertools
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.bench.loader import bench_loader
from model.bench.rounding import significant
from model.data.batch import Batch
from model.data.loader import load_batches
from model.data.resident_features import ResidentFeatures
from model.data.samples import Samples
from model.emosem.network import EmoSEM
from model.train.objective import new_objective
from model.train.params import TrainParams
from model.train.schedule import Epochs, new_optimisation
from model.train.train import initial_model, new_accelerator, new_samples
from pipeline.backbones.language_model import load_tokenizer
from pipeline.backbones.params import BackbonesParams
from pipeline.common.machine import device_name
from pipeline.common.params import ParamsFile, Paths, load_params
from pipeline.common.progress import waiting
from pipeline.common.threads import cores
from pipeline.reader.index import Index

STEPS = 10
"""Micro-batches measured, after one that warms up."""
ENCODED_STEPS = 1
"""Those measured with the encoders in the loop: each takes as long as tens of others."""
LOADED = 24
"""Batches read by the loader alone."""
PAPER_ARTWORKS = 64
"""Artworks of true size, 154 MB."""


def run(params_file: ParamsFile, true_size: bool = False) -> dict[str, Any]:
    """Samples per second, and milliseconds of a micro-batch by part, for each variant of a params file.

    Args:
        params_file: as every command takes it.
        true_size: measure the paper's sizes instead, see `bench_true_size`.
    """
    paths = load_params(params_file, "paths", Paths)
    params = load_params(params_file, "train", TrainParams)
    backbones = load_params(params_file, "backbones", BackbonesParams)
    if true_size:
        return bench_true_size(params, backbones)
    found = {}
    for name in params.variants:
        with waiting("bench train", f"timing {STEPS} steps of {name}"):
            found[name] = bench_variant(paths, params.of(name), backbones)
    index = Index.load(paths.step("shards"))
    model = initial_model(index, params, backbones.sam.checkpoint, backbones.language_model)
    with waiting("bench train", "timing the loader"):
        return found | {"loader": _loader(new_samples(index, "train", model, params), params)}


def bench_variant(
    paths: Paths, params: TrainParams, backbones: BackbonesParams, steps: int = STEPS
) -> dict[str, Any]:
    """One variant, see `measure_steps`.

    Also ``written``, the bytes that a run of it leaves: the model and its checkpoints.
    """
    index = Index.load(paths.step("shards"))
    model = initial_model(index, params, backbones.sam.checkpoint, backbones.language_model)
    samples = new_samples(index, "train", model, params)
    saved = sum(t.numel() for t in model.state_dict().values())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found = measure_steps(model, samples, params, backbones.torch_device(), steps)
    # float32: the model; of what is trained last.pt has three copies, best.safetensors one
    return found | {"written": 4 * (saved + 4 * trained)}


def bench_true_size(params: TrainParams, backbones: BackbonesParams) -> dict[str, Any]:
    """Single-Mask of the paper's sizes with random weights: cached features against encoders in the loop.

    On a processor a batch is one sample, or it would take an hour.

    Returns:
        ``cached`` and ``encoders_in_loop``, see `measure_steps`; ``ratio`` of their samples a second;
        ``loader``: batches of 16, without and with workers, see `bench_loader`.
    """
    from model.bench import true_size_shards  # brings in the encoders

    device = backbones.torch_device()
    if not device.startswith("cuda"):
        params = dataclasses.replace(params, batch_size=1, resident=False)
    model = true_size_shards.random_emosem(params.seed)
    model.tokenizer = load_tokenizer(backbones.language_model)
    with tempfile.TemporaryDirectory() as folder:
        index = true_size_shards.write_shards(Path(folder), PAPER_ARTWORKS)
        samples = new_samples(index, "train", model, params)
        loader = _loader(samples, dataclasses.replace(params, batch_size=16))
        cached = measure_steps(model, samples, params, device, STEPS)
        encoders = true_size_shards.Encoders().to(device)

        def encode(batch: Batch) -> Batch:
            sam, clip = encoders(len(batch.artworks), batch.sam.device)
            return dataclasses.replace(batch, sam=sam, clip=clip)

        looped = measure_steps(model, samples, params, device, ENCODED_STEPS, encode)
    return {
        "cached": cached,
        "encoders_in_loop": looped,
        "ratio": significant(cached["samples_per_second"] / looped["samples_per_second"]),
        "loader": loader,
    }


def _loader(samples: Samples, params: TrainParams) -> list[dict[str, float]]:
    """Reading from disk and from memory; when asked, by the workers of the params, by one for every core."""
    numbers = list(itertools.islice(itertools.cycle(_micro_batches(samples, params)), LOADED))
    counts = sorted({0, params.workers, min(cores(), 16)})
    places = (True, False) if hasattr(os, "posix_fadvise") else (False,)
    return [bench_loader(samples, numbers, workers, disk) for disk in places for workers in counts]


def _micro_batches(samples: Samples, params: TrainParams) -> list[np.ndarray]:
    return [micro.samples for step in Epochs(samples.table, params)(0) for micro in step]


def measure_steps(
    model: EmoSEM,
    samples: Samples,
    params: TrainParams,
    device: str,
    steps: int,
    encode: Callable[[Batch], Batch] | None = None,
) -> dict[str, Any]:
    """Train a model for some steps of one micro-batch.

    Args:
        model, samples, params: as in `model.train`.
        device: a torch device.
        steps: measured, after one that warms up (three where steps are compiled).
        encode: fills in the features that it computes.

    Returns:
        ``samples_per_second``; ``milliseconds`` of a step's parts ``wait`` for the batch, ``encode``,
        ``forward``, ``backward``, ``optimiser``, means; ``wait_share`` of the first; on a GPU
        ``peak_memory``, bytes.
    """
    accelerator = new_accelerator(device, params)
    network = accelerator.prepare_model(model.to(device).train())
    objective = new_objective(network, params)
    optimizer, _ = new_optimisation(model, params, steps)
    resident = ResidentFeatures.load(samples, torch.device(device)) if params.resident else None
    samples.features = resident is None
    timed = _Stopwatch(device)

    def step(batches: Iterator[Batch]) -> int:
        batch = timed("wait", lambda: next(batches))
        if encode is not None:
            found = batch
            batch = timed("encode", lambda: encode(found))
        losses = timed("forward", lambda: objective(batch.widened()))
        timed("backward", lambda: accelerator.backward(sum(losses.values())))
        timed("optimiser", optimizer.step)
        optimizer.zero_grad(set_to_none=not params.compile)
        return int(batch.weight.sum())

    warm_up = 3 if params.compile else 1
    numbers = itertools.cycle(_micro_batches(samples, params))
    ahead = itertools.islice(numbers, warm_up + steps + 2 * params.workers)
    loading = load_batches(samples, ahead, torch.device(device), workers=params.workers, resident=resident)
    with closing(loading) as batches:
        for _ in range(warm_up):
            step(batches)
        timed.seconds.clear()
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(device)
        count = sum(step(batches) for _ in range(steps))
    return _figures(params, device, steps, count, timed.seconds)


class _Stopwatch:
    """Seconds of each part of a step; waits for the GPU, so that each part pays for its own work."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    def __call__(self, part: str, function: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = function()
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        self.seconds[part] += time.perf_counter() - start
        return result


def _figures(
    params: TrainParams, device: str, steps: int, samples: int, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """What `measure_steps` returns."""
    total = sum(seconds.values())
    found: dict[str, Any] = {
        "device": device_name(device),
        "precision": params.precision,
        "batch_size": params.batch_size,
        "samples_per_second": significant(samples / total),
        "milliseconds": {part: significant(1000 * spent / steps) for part, spent in seconds.items()},
        "wait_share": round(seconds["wait"] / total, 4),
    }
    if device.startswith("cuda"):
        found["peak_memory"] = torch.cuda.max_memory_allocated(device)
    return found
