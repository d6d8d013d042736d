"""Training on cached features: samples a second of whole steps, as `model.train.train` takes them."""

import functools
import itertools
from contextlib import closing
from typing import Any

import torch

from model.bench.gpu_parts import networks
from model.bench.gpu_parts.timing import (
    LEAST,
    ROUNDS,
    bytes_of,
    clock,
    flops,
    peak_memory,
    rate,
    roofline,
)
from model.bench.gpu_parts.worker import Job, Rows
from model.bench.train import measure_steps
from model.data.batch import Batch
from model.data.loader import load_batches
from model.data.resident_features import ResidentFeatures
from model.emosem.network import EmoSEM
from model.train.objective import new_objective, total_loss
from model.train.params import TrainParams
from model.train.schedule import Epochs, new_optimisation
from model.train.train import new_accelerator, new_samples
from pipeline.reader.index import Index

WARM_UP = 3
"""Epochs before the clock starts: a compiled step is traced, recorded and replayed at every shape in them."""
STEPS = 20
"""Micro-batches whose parts are timed."""
BATCHES = (16, 64)


def training(job: Job, rows: Rows) -> None:
    """Eager steps: rows ``batch_N.loader``, ``batch_N.resident``, and ``parts``, a step's milliseconds."""
    index = networks.new_shards(job, "training")
    for batch in BATCHES:
        for how in ("loader", "resident"):
            params = networks.train_params(job.size(batch, batch // 4), resident=how == "resident")
            rows.measure(f"batch_{batch}.{how}", functools.partial(throughput, job, index, params))
    params = networks.train_params(job.size(BATCHES[0], 4), resident=True)
    rows.measure("parts", functools.partial(_parts, job, index, params))


def training_compiled(job: Job, rows: Rows) -> None:
    """Compiled steps, replayed as CUDA graphs, features resident: row ``batch_16.resident``."""
    _compiled(job, rows, BATCHES[0])


def training_compiled_64(job: Job, rows: Rows) -> None:
    """The same at batch 64: row ``batch_64.resident``."""
    _compiled(job, rows, BATCHES[1])


def _compiled(job: Job, rows: Rows, batch: int) -> None:
    index = networks.new_shards(job, f"training-compiled-{batch}")
    params = networks.train_params(job.size(batch, batch // 4), resident=True, compile=True)
    rows.measure(f"batch_{batch}.resident", functools.partial(throughput, job, index, params))


def _parts(job: Job, index: Index, params: TrainParams) -> dict[str, Any]:
    model = networks.new_model(job)
    samples = new_samples(index, "train", model, params)
    return measure_steps(model, samples, params, job.device, job.size(STEPS, 1))


def throughput(job: Job, index: Index, params: TrainParams) -> dict[str, Any]:
    """Samples a second over whole epochs; the GPU is only waited for at the end of a round.

    Features lie on the device, or come from the page cache through the loader's threads.
    """
    place = torch.device(job.device)
    model = networks.new_model(job)
    samples = new_samples(index, "train", model, params)
    resident = ResidentFeatures.load(samples, place) if params.resident else None
    samples.features = resident is None
    numbers = [micro.samples for step in Epochs(samples.table, params)(0) for micro in step]
    trainer = _Trainer(job, model, params)

    def run(epochs: int) -> float:
        start = clock(place)
        ahead = itertools.chain.from_iterable(itertools.repeat(numbers, epochs))
        with closing(
            load_batches(samples, ahead, place, workers=params.workers, resident=resident)
        ) as batches:
            for batch in batches:
                trainer.step(batch)
            return clock(place) - start

    with peak_memory(place) as memory:
        run(job.size(WARM_UP, 1))
        once = run(1)
        epochs = 1 if job.tiny else max(1, round(5 * LEAST / once))
        seconds = [run(epochs) / epochs for _ in range(2 if job.tiny else ROUNDS)]
    found: dict[str, Any] = {"batch": params.batch_size, **rate(seconds, len(samples)), **memory}
    if not params.compile:  # torch counts no operations inside a graph
        found |= trainer.roofline(
            next(iter(load_batches(samples, numbers, place, resident=resident))), seconds, len(numbers)
        )
    return found


class _Trainer:
    """One model with what takes its steps."""

    def __init__(self, job: Job, model: EmoSEM, params: TrainParams) -> None:
        self.job, self.params = job, params
        self.accelerator = new_accelerator(job.device, params)
        self.model = model.to(job.device).train()
        self.network = self.accelerator.prepare_model(self.model)
        self.objective = new_objective(self.network, params, networks.backend(job))
        self.optimizer, self.scheduler = new_optimisation(self.model, params, 1_000_000)

    def step(self, batch: Batch) -> None:
        """`model.train.train`'s step of one micro-batch; nothing in it waits for the GPU."""
        batch = batch.widened()
        torch.manual_seed(0)
        losses = self.objective(batch)
        self.accelerator.backward(total_loss(losses, batch, self.params))
        if self.params.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.params.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=not self.params.compile)
        self.scheduler.step()

    def roofline(self, batch: Batch, seconds: list[float], steps: int) -> dict[str, Any]:
        """Of the mean step. Bytes: weights read forward and backward, gradients written; AdamW reads weight,
        gradient and both moments and writes all but the gradient; the batch as it is stored."""
        operations = flops(lambda: self.step(batch))
        trained = sum(p.nbytes for p in self.model.parameters() if p.requires_grad)
        stored = sum(t.nbytes for t in vars(batch).values() if isinstance(t, torch.Tensor))
        moved = 2 * bytes_of(self.model) + trained + 7 * trained + stored
        each = [epoch / steps for epoch in seconds]
        return roofline(self.job, each, operations, moved, "bf16")
