"""How fast batches are read, against reading the same bytes and doing nothing with them."""

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.bench.rounding import significant
from model.data.loader import load_batches
from model.data.samples import Samples
from pipeline.common.emotions import EMOTIONS

TURNS = 3
"""Times each is measured; the fastest counts, as the others were disturbed."""


def bench_loader(
    samples: Samples, numbers: Sequence[np.ndarray], workers: int, from_disk: bool
) -> dict[str, Any]:
    """Read batches, alone.

    Args:
        samples: with features, on this machine's disk.
        numbers: of the samples of each batch.
        workers: as in training.
        from_disk: the kernel is asked to forget the shards before each reading, as ArtEmis's features are
            larger than most memories. Otherwise they come from its page cache.

    Returns:
        ``gigabytes_per_second`` of stored bytes turned into batches, ``raw_gigabytes_per_second`` of the same
        bytes read from their files, one member after another, by one thread; ``share_of_raw``. Of several
        turns the fastest. From the page cache that is an epoch after the first, and
        ``first_gigabytes_per_second`` are those of the first: each artwork is compared with the index, its
        cards are read and its masks decoded.
    """
    places = [[samples.index.place(*member) for member in _members(samples, chosen)] for chosen in numbers]
    size = sum(count for batch in places for *_, count in batch)
    tars = {tar for batch in places for tar, *_ in batch}
    raw, ready, first = [], [], []
    for _ in range(TURNS):  # in turns, so that what disturbs the machine disturbs all
        if from_disk:
            forget(tars)
        raw.append(_raw_seconds(places))
        fresh = samples.unread()
        if from_disk:
            forget(tars)
        first.append(_batch_seconds(fresh, numbers, workers))
        if not from_disk:
            ready.append(_batch_seconds(fresh, numbers, workers))
        del fresh  # what is mapped stays in memory
    if from_disk:
        ready, first = first, []
    return {
        "from": "disk" if from_disk else "page cache",
        "workers": workers,
        "gigabytes_per_second": significant(size / min(ready) / 1e9),
        "raw_gigabytes_per_second": significant(size / min(raw) / 1e9),
        "share_of_raw": significant(min(raw) / min(ready)),
        **({"first_gigabytes_per_second": significant(size / min(first) / 1e9)} if first else {}),
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


def forget(tars: Iterable[Path]) -> None:
    """Ask the kernel to drop files, none of which is mapped, from its page cache (Linux)."""
    for tar in tars:
        with tar.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _raw_seconds(places: Sequence[Sequence[tuple[Path, int, int]]]) -> float:
    with ExitStack() as stack:
        tars = {tar for batch in places for tar, *_ in batch}
        files = {tar: stack.enter_context(tar.open("rb", buffering=0)) for tar in tars}
        start = time.perf_counter()
        for batch in places:
            kept = [os.pread(files[tar].fileno(), size, offset) for tar, offset, size in batch]
            del kept  # a batch's memory at once, as a loader's
        return time.perf_counter() - start


def _batch_seconds(samples: Samples, numbers: Sequence[np.ndarray], workers: int) -> float:
    start = time.perf_counter()
    with closing(load_batches(samples, numbers, torch.device("cpu"), workers=workers)) as batches:
        for _ in batches:
            pass
        return time.perf_counter() - start
