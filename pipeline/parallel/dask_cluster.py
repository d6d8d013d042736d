"""Shards on the workers of a Dask cluster, here or elsewhere. The only module that knows Dask.

Workers get shard numbers and return counts: tensors and models never travel. One shard at a time goes to each
worker, by name, so that a worker's death is always the fault of a known shard. Dask's own queue
(`as_completed` with `retries`) blames every shard that waits on a dead worker, makes finished shards again
whose results died there, and counts deaths by a setting of the scheduler, which only its owner can change.
"""

import contextlib
import functools
import logging
import os
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

from pipeline.common import threads
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.progress import INTERVAL, ShardMeter
from pipeline.common.schema import shard_stem
from pipeline.parallel.patience import Question, within
from pipeline.parallel.shard_result import FailedShard, Process, Results, ShardResult
from pipeline.parallel.worker import Ticket

POLL = 1.0
"""Seconds after which a dead or a new worker is noticed."""
CONNECT = 10.0
"""Seconds that a scheduler has for its first answer."""
LOCALHOST = "127.0.0.1"


@contextlib.contextmanager
def local_client(workers: int, gpus: Sequence[str]) -> Iterator[Any]:
    """A client of so many worker processes on this machine, which end with it.

    Each sees one of `gpus` (names for CUDA_VISIBLE_DEVICES), the way dask-cuda does it, or has its share of
    the cores; a user's own OMP_NUM_THREADS stands. Memory has no limit of Dask's: it would stop a worker for
    the size of its model.
    """
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    share = threads.for_workers(workers)
    settings = {
        # torch cannot share a forked process with its thread pool
        "distributed.worker.multiprocessing-method": "spawn",
        "distributed.nanny.pre-spawn-environ": share,
    }
    quiet = {"silence_logs": logging.CRITICAL}
    options: dict[str, Any] = {"nthreads": 1, "host": LOCALHOST, "memory_limit": 0, **quiet}
    spec = {
        number: {
            "cls": Nanny,
            "options": options
            | ({"env": {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]}} if gpus else {}),
        }
        for number in range(workers)
    }
    scheduler = {"cls": Scheduler, "options": {"host": LOCALHOST, "dashboard_address": f"{LOCALHOST}:0"}}
    before = {name: os.environ.get(name) for name in share}  # nannies write theirs into this process too
    os.environ.update(share)  # what stands here has the last word with a nanny
    try:
        with (
            dask.config.set(settings),
            SpecCluster(workers=spec, scheduler=scheduler, **quiet) as cluster,
            Client(cluster) as client,
        ):
            yield client
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def foreign_client(address: str) -> Iterator[Any]:
    """A client of a cluster that is not ours, which is left as it was found. Raises `UserError`."""
    from distributed import Client

    try:
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # a lost scheduler is ours to tell
        client = Client(address, timeout=CONNECT)
    except (OSError, ValueError, ImportError) as error:  # no answer, no such host, no such protocol
        raise UserError(
            f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler`, and give "
            "its address as tcp://HOST:8786"
        ) from None
    with client:
        yield client


def run_on_workers(
    client: Any,
    ticket: Ticket,
    process: Process,
    retries: int,
    timeout: float,
    silence: float,
    meter: ShardMeter,
    todo: Sequence[int],
    begin: Callable[[int], None],
) -> Results:
    """Give every idle worker a shard and yield what comes back, until nothing is left to do.

    Args:
        client: of a cluster that is fit.
        ticket: the run that the workers were found fit for.
        process: what makes a shard; picklable.
        retries: times a shard is tried again after its worker died; then it has failed.
        timeout: seconds to wait while there is no worker at all.
        silence: seconds without a sign of life after which a worker counts as dead, the scheduler as gone.
        meter: shown how far the workers are.
        todo: shards to do.
        begin: called before each.

    Raises:
        UserError: a worker could not even begin.
        RunFailed: no worker is left, or the scheduler is gone.
    """
    crew = _Crew(client, meter.step, functools.partial(ticket.run, process), silence)
    try:
        yield from _hand_out(crew, ticket, retries, timeout, meter, todo, begin)
    except (OSError, CancelledError, TimeoutError) as error:  # CommClosedError is an OSError
        why = str(error).partition("\n")[0] or type(error).__name__
        raise RunFailed(
            f"{meter.step}: the Dask scheduler is gone, or does not answer any more ({why}). Finished shards "
            "are kept: start it again, or name another one, and run the same command"
        ) from None


def _hand_out(
    crew: "_Crew",
    ticket: Ticket,
    retries: int,
    timeout: float,
    meter: ShardMeter,
    todo: Sequence[int],
    begin: Callable[[int], None],
) -> Results:
    """The loop of `run_on_workers`. Nothing in it waits for a worker, and for the scheduler not for ever."""
    waiting = deque(todo)
    deaths: Counter[int] = Counter()
    last_seen = last_asked = time.monotonic()
    progress: Question[Any] | None = None
    while waiting or crew.at_work:
        now = time.monotonic()
        alive = crew.alive()
        last_seen = now if alive else last_seen
        if now - last_seen > timeout:
            raise RunFailed(f"{meter.step}: no worker has been left for {timeout:g} s")
        for shard in crew.drop_dead(alive):
            deaths[shard] += 1
            if deaths[shard] > retries:
                yield shard, _killed(deaths[shard])
                continue
            print(
                f"{meter.step}: the worker of shard {shard_stem(shard)} died or fell silent, trying again",
                file=sys.stderr,
            )
            waiting.append(shard)  # at the end: should it be poison, the others are safe by then
        for address in sorted(alive - crew.busy()):
            if waiting:
                begin(waiting[0])
                crew.send(address, waiting.popleft())
        yield from crew.collect()
        if progress is not None and (answer := progress.answer()) is not None:
            progress = None
            at_work = [each for each in answer[0].values() if each is not None]
            device = next((device for _, device in at_work if device), "")
            meter.update(sum(artworks for artworks, _ in at_work), device)
        if progress is None and crew.at_work and now - last_asked > INTERVAL / 2:
            last_asked = now
            progress = Question(functools.partial(crew.progress, ticket))  # a hung worker never answers


def _killed(times: int) -> FailedShard:
    return FailedShard(
        f"its worker process died or fell silent {times} time(s), most often because the machine ran out of "
        "memory (`dmesg` tells): use fewer workers or smaller batches"
    )


class _Crew:
    """The workers of a cluster, and the shard that each of them has, at most one."""

    def __init__(
        self, client: Any, step: str, task: Callable[[int], ShardResult | FailedShard], silence: float
    ) -> None:
        self.client, self.step, self.task, self.silence = client, step, task, silence
        self.at_work: dict[Any, tuple[int, str]] = {}
        self._heard: dict[str, tuple[float, float]] = {}

    def alive(self) -> set[str]:
        """Addresses of today's workers that the scheduler hears. Raises `OSError`, `TimeoutError`."""
        within(self.silence, self.client.nthreads)  # fails where the next line would repeat an old answer
        workers = within(self.silence, functools.partial(self.client.scheduler_info, n_workers=-1))["workers"]
        now, before = time.monotonic(), self._heard
        # by changes, not by age: the clock is the scheduler's
        self._heard = {
            address: before[address]
            if address in before and before[address][0] == worker["last_seen"]
            else (worker["last_seen"], now)
            for address, worker in workers.items()
        }
        return {address for address, (_, heard) in self._heard.items() if now - heard <= self.silence}

    def progress(self, ticket: Ticket) -> dict[str, tuple[int, str] | None]:
        """How far each worker is with its shard."""
        answers: dict[str, tuple[int, str] | None] = self.client.run(
            ticket.progress, workers=sorted(self.busy()), on_error="ignore"
        )
        return answers

    def busy(self) -> set[str]:
        """Those that have a shard."""
        return {address for _, address in self.at_work.values()}

    def send(self, address: str, shard: int) -> None:
        """Give a worker a shard, which no other worker may take: a death could not be told from a move."""
        key = f"{self.step}-{shard_stem(shard)}-{uuid.uuid4().hex[:8]}"
        future = self.client.submit(self.task, shard, key=key, workers=[address], pure=False)
        self.at_work[future] = (shard, address)

    def drop_dead(self, alive: set[str]) -> list[int]:
        """Take back the shards whose worker is gone. Raises `UserError` where one could not even begin."""
        gone = []
        for future, (shard, address) in list(self.at_work.items()):
            error = future.exception() if future.status == "error" else None
            if error is not None and type(error).__name__ != "KilledWorker":
                raise UserError(
                    f"the worker {address} cannot start a shard ({type(error).__name__}: {error}); it needs "
                    "this repository and its environment (docs/cluster.md)"
                )
            if address not in alive or future.status not in ("pending", "finished"):
                future.cancel()
                del self.at_work[future]
                gone.append(shard)
        return gone

    def collect(self) -> Results:
        """Shards that are through, after waiting a moment for the first."""
        from distributed import wait

        if not self.at_work:
            time.sleep(POLL)
            return
        with contextlib.suppress(TimeoutError):
            wait(list(self.at_work), timeout=POLL, return_when="FIRST_COMPLETED")
        for future in [future for future in self.at_work if future.status == "finished"]:
            with contextlib.suppress(TimeoutError):  # its worker may hang since; then the shard is dropped
                result = future.result(timeout=CONNECT)
                shard, _ = self.at_work.pop(future)
                yield shard, result
