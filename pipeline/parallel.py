"""Shard k in, shard k out: runs a step's unfinished shards here or on Dask. The only module that knows Dask.

Finished shards (`sidecars`) are kept, so a killed run resumes where it was and a grown dataset costs only the
shards that changed. Workers get shard numbers and return counts: tensors and models never travel. One shard
at a time goes to each worker, by name, so that a worker's death is always the fault of a known shard.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import logging
import os
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from pipeline import progress, sidecars, storage, worker
from pipeline.params import STRICT, RunFailed, UserError
from pipeline.progress import Progress
from pipeline.schema import shard_stem
from pipeline.shard_loop import Outcomes, Run, do_shards, end_on_sigterm
from pipeline.sidecars import ShardOutcome, read_sidecar
from pipeline.worker import Failed, Process, Ticket

__all__ = ["ParallelParams", "ShardOutcome", "map_shards", "read_sidecar"]

POLL = 1.0
"""Seconds after which a dead or a new worker is noticed."""
CONNECT = 10.0
"""Seconds that a scheduler has for its first answer."""
LOCALHOST = "127.0.0.1"


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ParallelParams:
    """How the shard loop runs. Changes speed, and results by float noise only (with the threads of torch)."""

    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = 1
    """Worker processes on this machine, each with a GPU of its own where there are any; auto: one per visible
    GPU. 1 runs in this process, where torch already uses every core."""
    scheduler: str | None = None
    """Address of a running Dask cluster that shares this folder, e.g. tcp://host:8786; --scheduler on the
    command line."""
    retries: Annotated[int, Field(ge=0)] = 2
    """Times a shard is tried again after its worker died."""
    failure_budget: Annotated[int, Field(ge=0)] = 3
    """Shards that may fail before the run gives up on the rest. With any failed shard it ends with exit code
    1, and the same command tries those again."""
    worker_timeout: Annotated[float, Field(gt=0)] = 300.0
    """Seconds to wait while a cluster has no worker at all. Jobs in a SLURM queue may need hours."""
    retry_failed: bool = False
    """Also redo finished shards that had to leave artworks out; --retry-failed on the command line."""


def map_shards(
    step: str,
    out: Path,
    jobs: Mapping[int, str],
    process: Process,
    params: ParallelParams,
    sizes: Mapping[int, int] | None = None,
) -> dict[str, Any]:
    """Run `process` on every shard that is not done.

    A shard whose worker dies is tried again, one that raises is noted as failed (its traceback goes to
    ``data/logs/STEP-SHARD.log``) and the others go on, within `ParallelParams.failure_budget`.

    Args:
        step: name shown with the progress.
        out: the step's folder; `process` writes its shard there atomically.
        jobs: shard number -> fingerprint.
        process: shard number -> outcome; picklable, and free of side effects outside its own shard. It may
            say `progress.tick()` after each artwork.
        params: where to run.
        sizes: shard number -> artworks, for the time left.

    Returns:
        Counts over all shards, finished earlier or now: shards, done, skipped, kept, rejected, reasons,
        counts (the sums of `ShardOutcome.counts`).

    Raises:
        UserError: the folder cannot be written to or is in use, the cluster is not fit, or a shard said so.
        RunFailed: shards failed, or the disk is full. Finished shards are kept.
    """
    storage.check_writable(out)
    with storage.only_writer(out), end_on_sigterm():
        sidecars.sweep(out, jobs)
        todo = [shard for shard in sorted(jobs) if not sidecars.is_done(out, shard, jobs[shard])]
        if params.retry_failed:
            todo = sorted({*todo, *(shard for shard in jobs if sidecars.has_rejects(out, shard))})
        artworks = sum(sizes.get(shard, 0) for shard in todo) if sizes is not None else None
        meter = Progress(step, len(todo), artworks, skipped=len(jobs) - len(todo))
        try:
            with _runner(out, process, params, len(todo), meter) as run:
                do_shards(out, jobs, todo, run, params.failure_budget, meter)
        finally:
            storage.remove_stale(out)  # of workers that died; one that still writes can then do no harm
        return sidecars.totals(out, jobs, done=len(todo))


@contextlib.contextmanager
def _runner(
    out: Path, process: Process, params: ParallelParams, shards: int, meter: Progress
) -> Iterator[Run]:
    """What maps shards to outcomes: this process, or a Dask cluster that is ready."""
    if shards == 0 or (params.scheduler is None and count_workers(params) == 1):
        progress.listen(meter.update)
        try:
            yield functools.partial(_run_here, process)
        finally:
            progress.listen(None)
        return
    with contextlib.ExitStack() as stack:
        if params.scheduler is None:
            client = stack.enter_context(_local_client(min(count_workers(params), shards)))
        else:
            client = stack.enter_context(_foreign_client(params.scheduler))
        hint = "" if importlib.util.find_spec("bokeh") else " (which needs bokeh: pip install bokeh)"
        print(f"{meter.step}: Dask dashboard at {client.dashboard_link}{hint}", file=sys.stderr)
        probe = stack.enter_context(storage.probe_file(out))
        ticket = Ticket(str(Path.cwd()), str(out), str(probe), worker.CODE if params.scheduler else None)
        if params.scheduler is not None:
            _check_cluster(client, ticket, params, meter.step)
        yield functools.partial(
            _run_on_workers, client, functools.partial(ticket.run, process), params, meter
        )


def _run_here(process: Process, todo: Sequence[int], begin: Callable[[int], None]) -> Outcomes:
    for shard in todo:
        begin(shard)
        yield shard, worker.attempt(process, shard)


def count_workers(params: ParallelParams) -> int:
    """Worker processes on this machine; auto is one per visible GPU, or 1."""
    return params.workers if params.workers != "auto" else max(1, len(visible_gpus()))


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may name, in this process's order."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


@contextlib.contextmanager
def _local_client(workers: int) -> Iterator[Any]:
    """A client of so many worker processes on this machine, which end with it.

    Each sees one GPU, the way dask-cuda does it, or has its share of the cores; a user's own OMP_NUM_THREADS
    stands. Memory has no limit of Dask's: it would stop a worker for the size of its model.
    """
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    gpus = visible_gpus()
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    settings = {
        # torch cannot share a forked process with its thread pool
        "distributed.worker.multiprocessing-method": "spawn",
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(names, threads),
    }
    options: dict[str, Any] = {"nthreads": 1, "host": LOCALHOST, "memory_limit": 0}
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
            SpecCluster(workers=spec, scheduler=scheduler, silence_logs=logging.ERROR) as cluster,
            Client(cluster) as client,
        ):
            yield client
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _foreign_client(address: str) -> Iterator[Any]:
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


def _check_cluster(client: Any, ticket: Ticket, params: ParallelParams, step: str) -> None:
    """Wait for workers and ask each whether it is fit. Raises `UserError` with everyone's objections."""
    if not client.nthreads():
        print(f"{step}: waiting for a first worker", file=sys.stderr)
    try:
        client.wait_for_workers(1, timeout=params.worker_timeout)
    except TimeoutError:
        raise UserError(
            f"the cluster at {params.scheduler} has had no worker for {params.worker_timeout:g} s; start "
            "some (docs/cluster.md), or raise parallel.worker_timeout"
        ) from None

    def version() -> str:
        return ".".join(str(part) for part in sys.version_info[:2])

    def ask(fields: dict[str, Any]) -> str | None:
        # a nested function is pickled by value, so it also runs where our package cannot be imported
        try:
            from pipeline.worker import Ticket

            return Ticket(**fields).objection()
        except Exception as error:
            return f"cannot use this repository's `pipeline` package ({type(error).__name__}: {error})"

    problems = {
        address: f"runs Python {theirs}, and this is {version()}"
        for address, theirs in client.run(version).items()
        if theirs != version()
    }
    if not problems:
        answers = client.run(ask, dataclasses.asdict(ticket))
        problems = {address: answer for address, answer in answers.items() if answer}
    if problems:
        raise UserError(
            f"{len(problems)} worker(s) of the cluster at {params.scheduler} cannot be used:\n"
            + "\n".join(f"  {address} {problem}" for address, problem in sorted(problems.items()))
        )
    while any(client.run(ticket.is_being_served, on_error="ignore").values()):
        print(f"{step}: waiting for workers that are still at a shard of a run that ended", file=sys.stderr)
        time.sleep(POLL)


def _run_on_workers(
    client: Any,
    task: Callable[[int], ShardOutcome | Failed],
    params: ParallelParams,
    meter: Progress,
    todo: Sequence[int],
    begin: Callable[[int], None],
) -> Outcomes:
    """Give every idle worker a shard and yield what comes back, until nothing is left to do."""
    crew = _Crew(client, meter.step, task)
    waiting = deque(todo)
    deaths: Counter[int] = Counter()
    last_seen = last_asked = time.monotonic()
    while waiting or crew.at_work:
        now = time.monotonic()
        alive = crew.alive()
        last_seen = now if alive else last_seen
        if now - last_seen > params.worker_timeout:
            raise RunFailed(f"{meter.step}: no worker has been left for {params.worker_timeout:g} s")
        for shard in crew.drop_dead(alive):
            deaths[shard] += 1
            if deaths[shard] > params.retries:
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
        if crew.at_work and now - last_asked > progress.INTERVAL / 2:
            last_asked = now
            seen = client.run(progress.seen, workers=sorted(crew.busy()), on_error="ignore").values()
            meter.update(sum(ticks for ticks, _ in seen), next((device for _, device in seen if device), ""))


def _killed(times: int) -> Failed:
    return Failed(
        f"its worker process died {times} time(s), most often because the machine ran out of memory (`dmesg` "
        "tells): use fewer workers or smaller batches"
    )


class _Crew:
    """The workers of a cluster, and the shard that each of them has, at most one."""

    def __init__(self, client: Any, step: str, task: Callable[[int], ShardOutcome | Failed]) -> None:
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

    def collect(self) -> Outcomes:
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
