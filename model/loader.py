"""Batches ahead of time: one torch loader for a whole run, whose workers live as long as it."""

import signal
from collections.abc import Generator, Iterable
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from model.data import Batch, Samples
from model.resident import Resident


def load(
    samples: Samples,
    numbers: Iterable[np.ndarray],
    device: torch.device,
    *,
    workers: int = 0,
    resident: Resident | None = None,
    start_method: str = "spawn",
) -> Generator[Batch, None, None]:
    """Batches of these samples, in order, on the device, with grids of float32.

    Close the iterator to end its workers (``contextlib.closing``). They hold no named shared memory and
    survive Ctrl-C and SIGTERM, which reach a whole process group: the run at hand still needs batches to
    finish its step, and ends them itself. Workers whose run is killed end within seconds.

    Args:
        numbers: of the samples of each batch; read as far ahead as workers prefetch.
        workers: processes that read; 0 reads when asked. Never changes a batch.
        resident: where the features are, for `samples` without.
        start_method: of the workers. spawn takes seconds, once a run; fork is faster, and may hang where a
            library's threads held a lock.
    """
    if workers:
        cv2.setNumThreads(1)  # its threads are not there after a fork, and it would wait for them
    loader: DataLoader[Batch] = DataLoader(
        samples,
        batch_size=None,
        sampler=numbers,
        collate_fn=_as_it_is,  # batches are made by the samples themselves
        num_workers=workers,
        worker_init_fn=_start_worker,
        multiprocessing_context=start_method if workers else None,
        generator=torch.Generator(),  # a loader draws from it; the global one belongs to dropout
        pin_memory=device.type == "cuda",
    )
    for batch in loader:
        there = batch.moved(device)
        yield (there if resident is None else resident.gather(there)).widened()


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(_: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)  # workers are the parallelism
