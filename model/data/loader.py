"""Batches ahead of time, read by threads: what reading takes (copies, PNG, tokens) runs beside Python."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from model.data.batch import Batch
from model.data.resident_features import ResidentFeatures
from model.data.samples import Samples

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

    def read(chosen: np.ndarray) -> Batch:
        batch = samples[chosen]
        return batch.pin_memory() if device.type == "cuda" else batch

    batches = map(read, numbers) if workers == 0 else _ahead(read, numbers, workers, device)
    for batch in batches:
        there = batch.moved(device)
        yield there if resident is None else resident.gather(there)


def _ahead(
    read: Callable[[np.ndarray], Batch], numbers: Iterable[np.ndarray], workers: int, device: torch.device
) -> Generator[Batch, None, None]:
    own = torch.cuda.current_device() if device.type == "cuda" else None

    def start() -> None:
        if own is not None:
            torch.cuda.set_device(own)  # or pinning would take memory on the first GPU, for every process

    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="loader", initializer=start) as pool:
        try:
            for chosen in numbers:
                waiting.append(pool.submit(read, chosen))
                if len(waiting) > AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
