"""Maps a function over shards, on this machine or on a Dask cluster."""

import contextlib
import functools
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from pipeline.common import progress
from pipeline.common.files import check_writable, only_writer, probe_file, remove_stale
from pipeline.common.params import STRICT
from pipeline.common.progress import Progress
from pipeline.parallel import dask_cluster
from pipeline.parallel.outcome import Outcomes, Process, Run, ShardOutcome
from pipeline.parallel.shard_folder import do_shards, has_rejects, is_done, read_sidecar, sweep, totals
from pipeline.parallel.worker import CODE, Ticket, attempt

__all__ = ["ParallelParams", "ShardOutcome", "map_shards", "read_sidecar"]


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
    check_writable(out)
    with only_writer(out), end_on_sigterm():
        sweep(out, jobs)
        todo = [shard for shard in sorted(jobs) if not is_done(out, shard, jobs[shard])]
        if params.retry_failed:
            todo = sorted({*todo, *(shard for shard in jobs if has_rejects(out, shard))})
        artworks = sum(sizes.get(shard, 0) for shard in todo) if sizes is not None else None
        meter = Progress(step, len(todo), artworks, skipped=len(jobs) - len(todo))
        try:
            with _runner(out, process, params, len(todo), meter) as run:
                do_shards(out, jobs, todo, run, params.failure_budget, meter)
        finally:
            remove_stale(out)  # of workers that died; one that still writes can then do no harm
        return totals(out, jobs, done=len(todo))


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
            workers = min(count_workers(params), shards)
            client = stack.enter_context(dask_cluster.local_client(workers, visible_gpus()))
        else:
            client = stack.enter_context(dask_cluster.foreign_client(params.scheduler))
        hint = "" if importlib.util.find_spec("bokeh") else " (which needs bokeh: pip install bokeh)"
        print(f"{meter.step}: Dask dashboard at {client.dashboard_link}{hint}", file=sys.stderr)
        probe = stack.enter_context(probe_file(out))
        ticket = Ticket(str(Path.cwd()), str(out), str(probe), CODE if params.scheduler else None)
        if params.scheduler is not None:
            dask_cluster.check_workers(client, ticket, params.scheduler, params.worker_timeout, meter.step)
        task = functools.partial(ticket.run, process)
        yield functools.partial(
            dask_cluster.run_on_workers, client, task, params.retries, params.worker_timeout, meter
        )


def _run_here(process: Process, todo: Sequence[int], begin: Callable[[int], None]) -> Outcomes:
    for shard in todo:
        begin(shard)
        yield shard, attempt(process, shard)


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
def end_on_sigterm() -> Iterator[None]:
    """Let SIGTERM, which a job queue sends, unwind like Ctrl-C: temporary files go, workers end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
