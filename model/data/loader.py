"""Batches ahead of time, read by threads: what reading takes (copies, PNG, tokens) runs beside Python."""

from collections.abc import Generator, Iterable, Iterator

import numpy as np
import torch

from model.data.batch import Batch
from model.data.batch_memory import BatchMemory
from model.data.resident_features import ResidentFeatures
from model.data.samples import Samples
from pipeline.common.read_ahead import read_ahead

AHEAD = 2
"""Batches that wait for the trainer, for each worker."""


def load_batches(
    samples: Samples,
    numbers: Iterable[np.ndarray],
    device: torch.device,
    *,
    workers: int = 0,
    resident: ResidentFeatures | None = None,
) -> Generator[Batch, None, None]:
    """Batches of these samples, in order, on the device, as stored: to be widened there.

    Close the iterator to end its workers (``contextlib.closing``). They are threads, so that a batch is never
    copied between processes, needs no shared memory and ends with the run, however that ends.

    Args:
        numbers: of the samples of each batch; read as far ahead as workers do.
        workers: threads that read; 0 reads when asked. Never changes a batch.
        resident: where the features are, for `samples` without.
    """

    memory = BatchMemory(page_locked=device.type == "cuda")

    def read(chosen: np.ndarray) -> Batch:
        batch = samples.read(chosen, memory)
        return batch.pin_memory() if device.type == "cuda" else batch

    own = torch.cuda.current_device() if device.type == "cuda" else None

    def start_thread() -> None:
        if own is not None:
            torch.cuda.set_device(own)  # or pinning would take memory on the first GPU, for every process

    batches: Iterator[Batch] = map(read, numbers)
    if workers:
        batches = read_ahead(read, numbers, workers, AHEAD * workers, "loader", start_thread)
    for batch in batches:
        there = batch.moved(device)
        yield there if resident is None else resident.gather(there)
