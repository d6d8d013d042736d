"""The network, its batches and its training on the device against the processor."""

import copy
import dataclasses
import functools
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch

from model.bench.gpu_parts import networks
from model.bench.gpu_parts.parity import (
    EXACT,
    FLOAT32,
    HALF,
    gradients_differ,
    largest,
    relative,
    unequal,
    within,
)
from model.bench.gpu_parts.worker import Job, Rows
from model.data.batch import Batch
from model.data.loader import load_batches
from model.data.resident_features import ResidentFeatures
from model.data.samples import Samples
from model.emosem.config import EmoSEMConfig
from model.emosem.network import EmoSEM
from model.train.objective import Objective, new_objective
from model.train.params import TrainParams
from model.train.schedule import Epochs, new_optimisation
from model.train.train import new_accelerator, new_samples

BATCH = 8
REPLAYS = 3
"""Times a compiled step sees each batch: as itself, recorded, and replayed."""
WORDS = 12
GRADIENTS = 2e-2
"""Relative, of float32 steps: sums over the batch in another order, TF32 in the upscaling convolutions."""


def network(job: Job, rows: Rows) -> None:
    """Rows ``forward.*``, ``gradients.*``, ``bf16.*``, ``three_steps``, ``texts.*``, ``batches.*``."""
    for paradigm, config in _configs().items():
        rows.measure(f"forward.{paradigm}", functools.partial(_forward, job, config))
        rows.measure(f"gradients.{paradigm}", functools.partial(_gradients, job, config))
    rows.measure("bf16", lambda: _bf16(job))
    rows.measure("three_steps", lambda: _three_steps(job))
    rows.measure("texts", lambda: _texts(job))
    for int8 in (False, True):
        rows.measure(f"batches.{'int8' if int8 else 'float16'}", functools.partial(_batches, job, int8))


def compiled(job: Job, rows: Rows) -> None:
    """Compiled steps, replayed as CUDA graphs at several shapes: rows ``single``, ``multi``, ``graphs``."""
    for paradigm, config in _configs().items():
        rows.measure(paradigm, functools.partial(_compiled, job, config))
    rows.measure("graphs", lambda: _graphs(job))


def _configs() -> dict[str, EmoSEMConfig]:
    multi = dataclasses.replace(networks.TINY, paradigm="multi", prefix="mask")
    return {"single": networks.TINY, "multi": multi}


def _pair(job: Job, config: EmoSEMConfig = networks.TINY) -> tuple[EmoSEM, EmoSEM, Samples, list[np.ndarray]]:
    """A network here and there, in eval mode (dropout draws other numbers), samples, batches of several
    sizes."""
    here = networks.new_model(job, config).eval()
    there = copy.deepcopy(here).to(job.device)
    name = f"shards-{len(list(job.own.glob('shards-*')))}"
    tiny = dataclasses.replace(job, tiny=True)
    params = networks.train_params(BATCH, paradigm=config.paradigm, prefix=config.prefix)
    samples = new_samples(networks.new_shards(tiny, name, config), "train", here, params)
    numbers = [micro.samples for step in Epochs(samples.table, params)(0) for micro in step]
    return here, there, samples, [*numbers, numbers[0][:3], numbers[0][:1]]


def _losses(
    model: EmoSEM, batch: Batch, params: TrainParams, objective: Objective | None = None
) -> list[float]:
    """A batch's losses, with their gradients left in the model."""
    model.zero_grad(set_to_none=False)
    parts = (objective or new_objective(model, params))(batch)
    sum(parts.values(), torch.zeros((), device=batch.sam.device)).backward()
    return [float(value.detach()) for value in parts.values()]


def _params(config: EmoSEMConfig, **changed: Any) -> TrainParams:
    return networks.train_params(BATCH, paradigm=config.paradigm, prefix=config.prefix, **changed)


def _forward(job: Job, config: EmoSEMConfig) -> dict[str, Any]:
    here, there, samples, numbers = _pair(job, config)
    worst = [0.0, 0.0]
    for chosen in numbers:
        with torch.no_grad():
            answers = [
                model(b.sam, b.clip, rows_Q=b.rows, emotion_Q=b.emotion, query_T=b.query, tokens_TL=b.tokens)
                for model, b in _placed(job, here, there, samples[chosen])
            ]
        worst = [max(w, relative(a, b)) for w, a, b in zip(worst, answers[1], answers[0], strict=True)]
    return within(max(worst), FLOAT32, masks=worst[0], words=worst[1])


def _placed(job: Job, here: EmoSEM, there: EmoSEM, batch: Batch) -> list[tuple[EmoSEM, Batch]]:
    return [(here, batch.to(torch.device("cpu"))), (there, batch.to(torch.device(job.device)))]


def _gradients(job: Job, config: EmoSEMConfig) -> dict[str, Any]:
    here, there, samples, numbers = _pair(job, config)
    losses = [_losses(m, b, _params(config)) for m, b in _placed(job, here, there, samples[numbers[0]])]
    loss = float(np.abs(np.subtract(losses[0], losses[1])).max())
    return within(gradients_differ(there, here), GRADIENTS, losses=loss)


def _bf16(job: Job) -> dict[str, Any]:
    """Autocast there against float32 here."""
    here, there, samples, numbers = _pair(job)
    params = _params(networks.TINY)
    wrapped = new_accelerator(job.device, params).prepare_model(there)
    (_, ours), (_, theirs) = _placed(job, here, there, samples[numbers[0]])
    losses = _losses(here, ours, params)
    found = _losses(there, theirs, params, new_objective(wrapped, params))
    difference = float(np.max(np.abs(np.subtract(found, losses)) / np.abs(losses)))
    return within(difference, HALF, gradients=gradients_differ(there, here))


def _three_steps(job: Job) -> dict[str, Any]:
    """The losses of three optimiser steps."""
    here, there, samples, numbers = _pair(job)
    params = _params(networks.TINY)
    found: list[list[float]] = []
    for place, model in enumerate((here, there)):
        optimizer, _ = new_optimisation(model, params, 100)
        losses: list[float] = []
        for chosen in numbers[:3]:
            losses += _losses(model, _placed(job, here, there, samples[chosen])[place][1], params)
            optimizer.step()
        found.append(losses)
    return within(float(np.max(np.abs(np.subtract(found[0], found[1])) / np.abs(found[0]))), GRADIENTS)


def _texts(job: Job) -> dict[str, Any]:
    """Share of generated texts that differ: there from here, and alone from in a batch."""
    here, there, _, _ = _pair(job)
    generator = torch.Generator().manual_seed(0)
    width = networks.TINY.visual_dim
    prefix = torch.randn(BATCH, 5, width, generator=generator)
    mask = torch.arange(5)[None] < torch.tensor([5, 4, 3, 5, 5, 2, 5, 1])[:, None]
    visual = torch.randn(BATCH, 9, width, generator=generator)

    def texts(model: EmoSEM, rows: Sequence[int], look_every: int | None = None) -> list[list[int]]:
        place = next(model.parameters()).device
        chosen = torch.tensor(rows)
        starts, masks, seen = (t[chosen].to(place) for t in (prefix, mask, visual))
        how: dict[str, Any] = {"max_new_tokens": WORDS, "top_p": 0.9, "temperature": 1.0}
        return model.captioner.generate(starts, masks, seen, list(rows), look_every=look_every, **how)

    every = range(BATCH)
    ours, theirs = texts(here, every), texts(there, every)
    alone = [texts(there, [row])[0] for row in every]
    looks = unequal(texts(there, every, 1), theirs)
    return within(max(unequal(theirs, ours), unequal(alone, theirs), looks), 0.125, looked_at_each=looks)


def _batches(job: Job, int8: bool) -> dict[str, Any]:
    """Batches of loaders and of resident features are those of `Samples`, value by value."""
    place = torch.device(job.device)
    model = networks.new_model(job, networks.TINY)
    index = networks.new_shards(
        dataclasses.replace(job, tiny=True), f"batches-{int8}", networks.TINY, int8=int8
    )
    samples = new_samples(index, "train", model, networks.train_params(BATCH))
    numbers = [np.arange(start, start + BATCH) for start in range(0, len(samples), BATCH)]
    wanted = [samples[chosen] for chosen in numbers]
    if place.type == "cuda" and not wanted[0].pin_memory().sam.is_pinned():
        raise AssertionError("pin_memory gave memory that is not page-locked")
    resident = ResidentFeatures.load(samples, place)
    found: list[list[Batch]] = []
    for workers in (0, 2):
        for source in (None, resident):
            samples.features = source is None
            with closing(load_batches(samples, numbers, place, workers=workers, resident=source)) as batches:
                found.append(list(batches))
    worst = max(_difference(a, b) for some in found for a, b in zip(some, wanted, strict=True))
    widened = max(largest(a.widened().sam, b.widened().sam) for a, b in zip(found[-1], wanted, strict=True))
    return within(worst, EXACT, widened=widened)


def _difference(found: Batch, wanted: Batch) -> float:
    """The largest of any field; infinite where one lacks a field, or has another type or shape."""
    worst = 0.0
    for field in dataclasses.fields(Batch):
        a, b = getattr(found, field.name), getattr(wanted, field.name)
        if a is None and b is None:
            continue
        if a is None or b is None or (a.dtype, a.shape) != (b.dtype, b.shape):
            return float("inf")
        worst = max(worst, largest(a, b))
    return worst


def _compiled(job: Job, config: EmoSEMConfig) -> dict[str, Any]:
    """Compiled losses and gradients against plain ones on the same device, every batch several times."""
    _, plain, samples, numbers = _pair(job, config)
    fast = copy.deepcopy(plain)
    params = _params(config, compile=True)
    objective = new_objective(fast, params, networks.backend(job))
    loss = gradient = 0.0
    for chosen in numbers * REPLAYS:
        batch = samples[chosen].to(torch.device(job.device))
        found = _losses(fast, batch, params, objective)
        wanted = _losses(plain, batch, dataclasses.replace(params, compile=False))
        loss = max(loss, float(np.max(np.abs(np.subtract(found, wanted)) / np.abs(wanted))))
        gradient = max(gradient, gradients_differ(fast, plain))
    return within(gradient, GRADIENTS, losses=loss, steps=REPLAYS * len(numbers))


def _graphs(job: Job) -> dict[str, Any]:
    """Whether inductor gave up on CUDA graphs anywhere in this process."""
    from torch._dynamo.utils import counters

    skipped = int(counters["inductor"].get("cudagraph_skips", 0))
    return within(float(skipped), EXACT, graph_breaks=sum(counters["graph_break"].values()))
