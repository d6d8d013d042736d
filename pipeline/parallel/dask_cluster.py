"""Shards on the workers of a Dask cluster, here or elsewhere. The only module that knows Dask.

Workers get shard numbers and return counts: tensors and models never travel. One shard at a time goes to each
worker, by name, so that a worker's death is always the fault of a known shard. Dask's own queue
(`as_completed` with `retries`) blames every shard that waits on a dead worker, makes finished shards again
whose results died there, and counts deaths by a setting of the scheduler, which only its owner can change.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipeline.common.errors import RunFailed, UserError
from pipeline.common.progress import INTERVAL, ShardMeter
from pipeline.common.schema import shard_stem
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

    threads = str(max(1, (os.cpu_count() or 1) // workers))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    settings = {
        # torch cannot share a forked process with its thread pool
        "distributed.worker.multiprocessing-method": "spawn",
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(names, threads),
    }
    quiet = {"silence_logs": logging.ERROR}
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
    before = {name: os.environ.get(name) for name in names}  # nannies write theirs into this process too
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
        client = Client(address, timeout=CONNECT)
    except (OSError, ValueError, ImportError) as error:  # no answer, no such host, no such protocol
        raise UserError(
            f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler`, and give "
            "its address as tcp://HOST:8786"
        ) from None
    with client:
        yield client


def check_workers(client: Any, ticket: Ticket, address: str, timeout: float, step: str) -> None:
    """Wait for workers and ask each whether it is fit.

    Args:
        client: of the cluster at `address`.
        ticket: the run that they are to join.
        address: of the scheduler, for messages.
        timeout: seconds to wait for a first worker.
        step: name shown with the messages.

    Raises:
        UserError: no worker came, or everyone's objections.
    """
    if not client.nthreads():
        print(f"{step}: waiting for a first worker", file=sys.stderr)
    try:
        client.wait_for_workers(1, timeout=timeout)
    except TimeoutError:
        raise UserError(
            f"the cluster at {address} has had no worker for {timeout:g} s; start "
            "some (docs/cluster.md), or raise parallel.worker_timeout"
        ) from None

    def version() -> str:
        return ".".join(str(part) for part in sys.version_info[:2])

    def ask(fields: dict[str, Any]) -> str | None:
        # a nested function is pickled by value, so it also runs where our package cannot be imported
        try:
            from pipeline.parallel.worker import Ticket

            return Ticket(**fields).objection()
        except Exception as error:
            return f"cannot use this repository's `pipeline` package ({type(error).__name__}: {error})"

    problems = {
        name: f"runs Python {theirs}, and this is {version()}"
        for name, theirs in client.run(version).items()
        if theirs != version()
    }
    if not problems:
        answers = client.run(ask, dataclasses.asdict(ticket))
        problems = {name: answer for name, answer in answers.items() if answer}
    if problems:
        raise UserError(
            f"{len(problems)} worker(s) of the cluster at {address} cannot be used:\n"
            + "\n".join(f"  {name} {problem}" for name, problem in sorted(problems.items()))
        )
    while any(client.run(ticket.progress, on_error="ignore").values()):
        print(f"{step}: waiting for workers that are still at a shard of a run that ended", file=sys.stderr)
        time.sleep(POLL)


def run_on_workers(
    client: Any,
    ticket: Ticket,
    process: Process,
    retries: int,
    timeout: float,
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
        meter: shown how far the workers are.
        todo: shards to do.
        begin: called before each.

    Raises:
        UserError: a worker could not even begin.
        RunFailed: no worker is left, or the scheduler is gone.
    """
    crew = _Crew(client, meter.step, functools.partial(ticket.run, process))
    waiting = deque(todo)
    deaths: Counter[int] = Counter()
    last_seen = last_asked = time.monotonic()
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
                f"{meter.step}: the worker of shard {shard_stem(shard)} died, trying again", file=sys.stderr
            )
            waiting.append(shard)  # at the end: should it be poison, the others are safe by then
        for address in sorted(alive - crew.busy()):
            if waiting:
                begin(waiting[0])
                crew.send(address, waiting.popleft())
        yield from crew.collect()
        if crew.at_work and now - last_asked > INTERVAL / 2:
            last_asked = now
            answers = client.run(ticket.progress, workers=sorted(crew.busy()), on_error="ignore").values()
            at_work = [answer for answer in answers if answer is not None]
            device = next((device for _, device in at_work if device), "")
            meter.update(sum(artworks for artworks, _ in at_work), device)


def _killed(times: int) -> FailedShard:
    return FailedShard(
        f"its worker process died {times} time(s), most often because the machine ran out of memory (`dmesg` "
        "tells): use fewer workers or smaller batches"
    )


class _Crew:
    """The workers of a cluster, and the shard that each of them has, at most one."""

    def __init__(self, client: Any, step: str, task: Callable[[int], ShardResult | FailedShard]) -> None:
        self.client, self.step, self.task = client, step, task
        self.at_work: dict[Any, tuple[int, str]] = {}

    def alive(self) -> set[str]:
        """Addresses of today's workers."""
        try:
            return set(self.client.nthreads())
        except OSError as error:  # CommClosedError is one
            raise RunFailed(f"{self.step}: the Dask scheduler is gone ({error})") from None

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
            if future.status != "finished" and (address not in alive or future.status != "pending"):
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
            shard, _ = self.at_work.pop(future)
            yield shard, future.result()
