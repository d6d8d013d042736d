"""What a training run does when: learning rates, and which samples make up which optimiser step."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from model.emosem.network import EmoSEM
from model.train.params import TrainParams, Visit


@dataclass(frozen=True)
class MicroBatch:
    """What one process works on at a time."""

    samples: np.ndarray
    """int64 numbers in `Samples.table`."""
    share: float
    """Of the optimiser step's loss; 0 for work that only keeps a process in step with the others."""
    seed: int
    """Of dropout: a micro-batch's own, so that neither interruptions nor the number of processes matter."""


@dataclass(frozen=True)
class Epochs:
    """The optimiser steps of each epoch, for one of several processes.

    A step is `accumulate` micro-batches on each process; together the processes take those that one process
    with as many more would. Every process takes the same number of steps and micro-batches.
    """

    table: np.ndarray
    params: TrainParams
    rank: int = 0
    processes: int = 1

    def __call__(self, epoch: int) -> list[list[MicroBatch]]:
        """This process's micro-batches of each optimiser step: a function of (seed, epoch) alone."""
        p = self.params
        batches = epoch_batches(
            self.table, p.batch_size, seed=p.seed, epoch=epoch, window=p.window, visit=p.visit
        )
        together = p.accumulate * self.processes
        return [
            self._mine(batches[start : start + together], epoch, start)
            for start in range(0, len(batches), together)
        ]

    def _mine(self, batches: list[np.ndarray], epoch: int, first: int) -> list[MicroBatch]:
        samples = sum(map(len, batches))
        places = math.ceil(len(batches) / self.processes) * self.processes
        mine = []
        for place in range(self.rank, places, self.processes):
            real = place < len(batches)
            chosen = batches[place if real else 0]
            seed = np.random.SeedSequence([self.params.seed, epoch, first + place]).generate_state(1)[0]
            mine.append(MicroBatch(chosen, len(chosen) / samples if real else 0.0, int(seed)))
        return mine


def epoch_batches(
    table: np.ndarray, batch_size: int, *, seed: int, epoch: int, window: int, visit: Visit
) -> list[np.ndarray]:
    """Sample numbers of every batch of an epoch: a function of (seed, epoch) alone, so seeking is free.

    Args:
        table: (samples, 3) of `Samples`, sorted by artwork.
        batch_size: samples in a batch; the last may be smaller.
        window: artworks whose samples are mixed. 1 keeps an artwork's samples together, so that its features
            are read and mixed once; more artworks in a batch make its gradient less of one picture.
        visit: utterance: each sample once. pair: each (artwork, emotion) once, with the next of its
            utterances in every epoch.

    Returns:
        Arrays of int64; together exactly the samples that the epoch visits, each once.
    """
    rng = np.random.default_rng([seed, epoch])
    numbers = np.arange(len(table))
    if visit == "pair":
        _, pair, counts = np.unique(table[:, :2], axis=0, return_inverse=True, return_counts=True)
        numbers = numbers[table[:, 2] == epoch % counts[pair.ravel()]]
    artworks = np.unique(table[:, 0])
    place = np.empty(artworks.max() + 1, dtype=np.int64)
    place[artworks] = rng.permutation(len(artworks)) // window
    order = np.lexsort((rng.permutation(len(numbers)), place[table[numbers, 0]]))
    ordered = numbers[order]
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def new_optimisation(
    model: EmoSEM, params: TrainParams, total: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW with the paper's two learning rates (Sec. 4.1), and how they change over `total` steps.

    They rise over the warm-up, then follow the schedule.
    """
    groups = model.parameter_groups()
    optimizer = torch.optim.AdamW(
        [
            {"params": groups["segmenter"], "lr": params.learning_rate},
            {"params": groups["language_model"], "lr": params.language_learning_rate},
        ],
        weight_decay=params.weight_decay,
        fused=True,
    )
    warmup = math.ceil(params.warmup * total)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        left = (total - step) / max(total - warmup, 1)  # a run of a step or two may be all warm-up
        falling = {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "constant": 1.0}
        return falling[params.schedule]

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
