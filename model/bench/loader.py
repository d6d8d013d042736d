"""How fast batches are read, against reading the same bytes and doing nothing with them."""

import itertools
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import torch

from model.bench import significant
from model.data import Samples
from model.loader import AHEAD, load
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
        bytes read from their files, one member after another, by one thread; ``share_of_raw``.
    """
    places = [[samples.index.place(*member) for member in _members(samples, chosen)] for chosen in numbers]
    size = sum(count for batch in places for *_, count in batch)
    raw, ready = [], []
    for _ in range(TURNS):  # in turns, so that what disturbs the machine disturbs both
        raw.append(_raw_seconds(places))
        ready.append(_batch_seconds(samples, numbers, workers))
    return {
        "workers": workers,
        "gigabytes_per_second": significant(size / min(ready) / 1e9),
        "raw_gigabytes_per_second": significant(size / min(raw) / 1e9),
        "share_of_raw": significant(min(raw) / min(ready)),
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


def _raw_seconds(places: Sequence[Sequence[tuple[Path, int, int]]]) -> float:
    with ExitStack() as stack:
        files = {tar: stack.enter_context(tar.open("rb", buffering=0)) for b in places for tar, *_ in b}
        start = time.perf_counter()
        for batch in places:
            kept = [os.pread(files[tar].fileno(), size, offset) for tar, offset, size in batch]
            del kept  # a batch's memory at once, as a loader's
        return time.perf_counter() - start


def _batch_seconds(samples: Samples, numbers: Sequence[np.ndarray], workers: int) -> float:
    """Of all batches, after enough others for the workers to be at full pace, and with as many read ahead."""
    ahead = AHEAD * workers
    turning = itertools.islice(itertools.cycle(numbers), len(numbers) + 2 * ahead)
    with closing(load(samples, turning, torch.device("cpu"), workers=workers)) as batches:
        for _ in range(ahead):
            next(batches)
        start = time.perf_counter()
        for _ in numbers:
            next(batches)
        return time.perf_counter() - start
