"""How fast batches are read, against reading the same bytes and doing nothing with them."""

import time
from collections.abc import Sequence
from contextlib import closing

import numpy as np
import torch

from model.bench import significant
from model.data import Samples
from model.loader import load
from pipeline.emotions import EMOTIONS

TURNS = 3
"""Times each is measured; the fastest counts, as the others were disturbed."""


def bench_loader(samples: Samples, numbers: Sequence[np.ndarray], workers: int) -> dict[str, float]:
    """Read batches from the page cache, alone.

    Args:
        samples: with features.
        numbers: of the samples of each batch.
        workers: as in training. They start before time is taken.

    Returns:
        ``gigabytes_per_second`` of stored bytes turned into batches, ``raw_gigabytes_per_second`` of the same
        bytes copied by one process, ``share_of_raw``.
    """
    members = [_members(samples, chosen) for chosen in numbers]
    size = sum(len(samples.index.view(*member)) for batch in members for member in batch)
    raw = min(_raw_seconds(samples, members) for _ in range(TURNS + 1))
    ready = min(_batch_seconds(samples, numbers, workers) for _ in range(1 if workers else TURNS))
    return {
        "workers": workers,
        "gigabytes_per_second": significant(size / ready / 1e9),
        "raw_gigabytes_per_second": significant(size / raw / 1e9),
        "share_of_raw": significant(raw / ready),
    }


def _members(samples: Samples, chosen: np.ndarray) -> list[tuple[str, str]]:
    """(key, member) of all that a batch reads."""
    rows = samples.table[chosen]
    pairs = sorted({(int(a), int(e)) for a, e, _ in rows})
    found = [(samples.keys[a], f"{EMOTIONS[e]}.png") for a, e in pairs]
    for artwork in sorted({a for a, _ in pairs}):
        key = samples.keys[artwork]
        grids = [m for m in samples.index.members(key) if m.startswith("features/")]
        found += [(key, member) for member in (*grids, "masks/json")]
    return found


def _raw_seconds(samples: Samples, members: list[list[tuple[str, str]]]) -> float:
    start = time.perf_counter()
    for batch in members:
        kept = [samples.index.read(*member) for member in batch]  # a batch's memory at once, as a loader's
        del kept
    return time.perf_counter() - start


def _batch_seconds(samples: Samples, numbers: Sequence[np.ndarray], workers: int) -> float:
    """Of all batches but the first `2 * workers`, scaled up to all: the first ones wait for the workers."""
    if not workers:
        start = time.perf_counter()
        for chosen in numbers:
            batch = samples[chosen.tolist()]
        del batch
        return time.perf_counter() - start
    skipped = 2 * workers
    cycled = [*numbers[:skipped], *numbers]
    with closing(load(samples, cycled, torch.device("cpu"), workers=workers)) as batches:
        for _ in range(skipped):
            next(batches)
        start = time.perf_counter()
        for _ in batches:
            pass
        return time.perf_counter() - start
