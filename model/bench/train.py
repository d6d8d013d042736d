"""How fast training is on this machine: the loader alone, and a step's parts, in one run.

Needs the shards and backbones of a params file; trains a model in memory and writes nothing.
"""

import functools
import itertools
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from model.data import Batch
from model.schedule import Epochs
from model.train import answer, losses_of, new_model, new_samples
from model.train_params import TrainParams
from pipeline.backbones import BackbonesParams
from pipeline.params import Paths, load_params
from pipeline.shard_index import Index

STEPS = 10
"""Micro-batches measured, after one that warms up."""


def run(params_file: Path) -> dict[str, Any]:
    """Samples per second, and milliseconds of a micro-batch by part, for each variant of a params file."""
    paths = load_params(params_file, "paths", Paths)
    params = load_params(params_file, "train", TrainParams)
    backbones = load_params(params_file, "backbones", BackbonesParams)
    return {name: bench_variant(paths, params.of(name), backbones) for name in params.variants}


def bench_variant(
    paths: Paths, params: TrainParams, backbones: BackbonesParams, steps: int = STEPS
) -> dict[str, Any]:
    """One variant: ``wait`` for the batch, ``forward``, ``backward``, ``optimiser``; means over `steps`.

    Also ``written``, the bytes that a run of it leaves: the model and its checkpoints.
    """
    device = torch.device(backbones.torch_device())
    precision = "bf16" if params.precision == "bf16" else "no"
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=precision)
    index = Index.load(paths.step("shards"))
    model = new_model(index, params, backbones.sam.checkpoint, backbones.language_model).to(device).train()
    samples = new_samples(index, "train", model, params)
    accelerator.prepare_model(model)  # autocast, as in training
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, params.learning_rate, fused=True)
    numbers = [batch.samples for step in Epochs(samples.table, params)(0) for batch in step]

    seconds: dict[str, float] = defaultdict(float)

    def timed(part: str, function: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds[part] += time.perf_counter() - start
        return result

    def read(chosen: np.ndarray) -> Batch:
        return samples[chosen.tolist()].to(device)

    def forward(batch: Batch) -> dict[str, Tensor]:
        return losses_of(*answer(model, batch), batch)

    count = 0
    for step, chosen in enumerate(itertools.islice(itertools.cycle(numbers), steps + 1)):
        if step == 1:  # the first one warmed up
            seconds.clear()
            count = 0
        batch = timed("wait", functools.partial(read, chosen))
        losses = timed("forward", functools.partial(forward, batch))
        timed("backward", functools.partial(accelerator.backward, sum(losses.values())))
        timed("optimiser", optimizer.step)
        optimizer.zero_grad(set_to_none=True)
        count += len(chosen)
    total = sum(seconds.values())
    saved = sum(t.numel() for t in model.state_dict().values()) + 4 * sum(p.numel() for p in trained)
    return {
        "device": str(device),
        "samples_per_second": round(count / total, 1),
        "loader_samples_per_second": round(count / seconds["wait"], 1),
        "milliseconds": {part: round(1000 * spent / steps, 2) for part, spent in seconds.items()},
        "written": 4 * saved,  # float32: the model; of what is trained last.pt has three copies, best has one
    }
