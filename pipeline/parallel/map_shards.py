"""Maps a function over shards, on this machine or on a Dask cluster."""

import contextlib
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import pydantic
from pydantic import Field

from pipeline.common.errors import RunFailed, UserError
from pipeline.common.files import probe_file
from pipeline.common.params import STRICT
from pipeline.common.progress import ShardMeter, ShardProgress
from pipeline.common.schema import shard_stem
from pipeline.parallel import dask_cluster
from pipeline.parallel.cluster_check import check_workers
from pipeline.parallel.shard_folder import ShardFolder
from pipeline.parallel.shard_result import FailedShard, Process, Results
from pipeline.parallel.worker import CODE, Ticket, attempt


def host_and_port(address: str) -> tuple[str, int]:
    """Of a Dask scheduler's address, as tcp://HOST:PORT. Raises `ValueError` for anything else."""
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    if parts.scheme not in ("tcp", "tls", "ws", "wss", "ucx") or not parts.hostname or not parts.port:
        raise ValueError("no address of a Dask scheduler; write tcp://HOST:PORT")
    return parts.hostname, parts.port


def _checked(address: str) -> str:
    """The address: a wrong one is told at once, not when there is work for a cluster."""
    host_and_port(address)
    return address


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ParallelParams:
    """How the shard loop runs. Changes speed, and results by float noise only (with the threads of torch)."""

    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = 1
    """Worker processes on this machine, each with a GPU of its own where there are any; auto: one per visible
    GPU. 1 runs in this process, where torch already uses every core."""
    scheduler: Annotated[str, pydantic.AfterValidator(_checked)] | None = None
    """Address of a running Dask cluster that shares this folder, e.g. tcp://host:8786; --scheduler on the
    command line."""
    retries: Annotated[int, Field(ge=0)] = 2
    """Times a shard is tried again after its worker died."""
    failure_budget: Annotated[int, Field(ge=0)] = 3
    """Shards that may fail before the run gives up on the rest. With any failed shard it ends with exit code
    1, and the same command tries those again."""
    worker_timeout: Annotated[float, Field(gt=0)] = 300.0
    """Seconds to wait while a cluster has no worker at all. Jobs in a SLURM queue may need hours."""
    worker_silence: Annotated[float, Field(gt=0)] = 60.0
    """Seconds without a sign of life after which a worker counts as dead and its shard goes to another. They
    give one every few seconds, at work too. A scheduler that is silent for as long ends the run."""
    retry_failed: bool = False
    """Also redo finished shards that had to leave artworks out; --retry-failed on the command line."""


def map_shards(
    step: str,
    out: Path,
    wanted: Mapping[int, str],
    process: Process,
    params: ParallelParams,
    sizes: Mapping[int, int] | None = None,
    recipe: str = "",
) -> dict[str, Any]:
    """Run `process` on every shard that is not done.

    A shard whose worker dies is tried again, one that raises is noted as failed (its traceback goes to
    ``data/logs/STEP-SHARD.log``) and the others go on, within `ParallelParams.failure_budget`.

    Args:
        step: name shown with the progress.
        out: the step's folder; `process` writes its shard there atomically.
        wanted: shard number -> fingerprint.
        process: (shard number, progress) -> result; picklable, and free of side effects outside its own
            shard. It calls ``progress.add()`` after each artwork.
        params: where to run.
        sizes: shard number -> artworks, for the time left.
        recipe: what all shards share (params, weights, code), as a fingerprint: noted with each, so that
            who reads the folder sees whether they are of one kind.

    Returns:
        Counts over all shards, finished earlier or now: shards, done, skipped, kept, rejected, reasons,
        counts (the sums of `ShardResult.counts`).

    Raises:
        UserError: the folder cannot be written to or is in use, the cluster is not fit, or a shard raised it.
        RunFailed: shards failed, or the disk is full. Finished shards are kept.
    """
    folder = ShardFolder(out, wanted, recipe)
    with folder.held(), end_on_sigterm():
        todo = folder.to_do(params.retry_failed)
        artworks = sum(sizes.get(shard, 0) for shard in todo) if sizes is not None else None
        meter = ShardMeter(step, len(todo), artworks, skipped=len(wanted) - len(todo))
        _make(folder, todo, _results(folder, process, params, todo, meter), params.failure_budget, meter)
        return folder.totals(done=len(todo))


def _make(folder: ShardFolder, todo: Sequence[int], results: Results, budget: int, meter: ShardMeter) -> None:
    """Take in results until all shards are done or more than `budget` failed. Raises as `map_shards`."""
    failures: dict[int, FailedShard] = {}
    name, shards = folder.out.name, len(folder.wanted)
    try:
        with contextlib.closing(results):
            for shard, result in results:
                if not isinstance(result, FailedShard):
                    folder.finish(shard, result)
                    meter.finish(result.artworks)
                    continue
                failures[shard] = result
                folder.fail(shard, result)
                if not result.fatal:
                    print(f"{name}: shard {shard_stem(shard)} failed: {result.reason}", file=sys.stderr)
                if result.fatal or len(failures) > budget:
                    break
    except (KeyboardInterrupt, SystemExit):
        kept = f"{shards - len(todo) + meter.shards_done} of {shards} shards are done and kept"
        print(f"{name}: stopped; {kept}, the same command goes on", file=sys.stderr)
        raise
    if failures:
        raise _failure(folder, failures, len(todo) - meter.shards_done, budget)


def _failure(
    folder: ShardFolder, failures: Mapping[int, FailedShard], left: int, budget: int
) -> UserError | RunFailed:
    """What the run ends with: how much is done, and why each failed shard failed."""
    for failed in failures.values():
        if failed.fatal:
            return (UserError if failed.fatal == "user" else RunFailed)(failed.reason)
    shards = len(folder.wanted)
    lines = [
        f"{folder.out.name}: {len(failures)} shard(s) failed, {shards - left} of {shards} are done and kept"
    ]
    if len(failures) > budget:
        lines[0] += f"; gave up on the other {left - len(failures)} (parallel.failure_budget is {budget})"
    for shard, failed in sorted(failures.items()):
        log = f" (traceback: {folder.log_file(shard)})" if failed.details else ""
        lines.append(f"  shard {shard_stem(shard)}: {failed.reason}{log}")
    if any(failed.again for failed in failures.values()):
        lines.append("  The same command tries them again and leaves the others alone")
    else:
        lines.append("  Run what is named there; then the same command goes on, and leaves the others alone")
    return RunFailed("\n".join(lines))


def _results(
    folder: ShardFolder, process: Process, params: ParallelParams, todo: Sequence[int], meter: ShardMeter
) -> Results:
    """Make the shards in this process, or on a Dask cluster that lasts as long as this generator."""
    if not todo or (params.scheduler is None and count_workers(params) == 1):
        for shard in todo:
            folder.begin(shard)
            yield shard, attempt(process, shard, ShardProgress(meter.update), folder.out)
        return
    with contextlib.ExitStack() as stack:
        if params.scheduler is None:
            workers = min(count_workers(params), len(todo))
            client = stack.enter_context(dask_cluster.local_client(workers, visible_gpus()))
        else:
            client = stack.enter_context(dask_cluster.foreign_client(params.scheduler))
        hint = "" if importlib.util.find_spec("bokeh") else " (which needs bokeh: pip install bokeh)"
        print(f"{meter.step}: Dask dashboard at {client.dashboard_link}{hint}", file=sys.stderr)
        probe = stack.enter_context(probe_file(folder.out))
        ticket = Ticket(str(Path.cwd()), str(folder.out), str(probe), CODE if params.scheduler else None)
        if params.scheduler is not None:
            limits = params.worker_timeout, params.worker_silence
            check_workers(client, ticket, params.scheduler, *limits, meter.step)
        yield from dask_cluster.run_on_workers(
            client,
            ticket,
            process,
            params.retries,
            params.worker_timeout,
            params.worker_silence,
            meter,
            todo,
            folder.begin,
        )


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
