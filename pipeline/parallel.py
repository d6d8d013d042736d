"""Shard k in, shard k out: runs a step's unfinished shards here or on Dask. The only module that knows Dask.

A shard is done when its sidecar ``000000.json``, written last, holds the fingerprint of today's params,
inputs and code. Everything else in the folder is redone or removed, so a killed run resumes where it was
and a grown dataset costs only the shards that changed. Workers get shard numbers and return counts:
tensors and models never travel.
"""

import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from pipeline import storage
from pipeline.params import STRICT
from pipeline.schema import shard_stem


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ParallelParams:
    """How the shard loop runs. Changes speed, never a result."""

    workers: Annotated[int, Field(ge=1)] = 1
    """Local Dask worker processes; 1 runs in this process, where torch already uses every core."""
    scheduler: str | None = None
    """Address of a running Dask cluster that shares this folder, e.g. tcp://host:8786."""
    retries: Annotated[int, Field(ge=0)] = 2
    """Times a shard is tried again after its worker died."""


@dataclasses.dataclass(frozen=True)
class ShardOutcome:
    """What one shard came to: artworks written, and (key, reason) of each that could not be."""

    kept: int
    rejects: list[tuple[str, str]] = dataclasses.field(default_factory=list)


Process = Callable[[int], ShardOutcome]


def read_sidecar(out: Path, shard: int) -> dict[str, Any] | None:
    """The sidecar of a shard, or None when it is absent or not readable as JSON."""
    try:
        sidecar = json.loads((out / f"{shard_stem(shard)}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return sidecar if isinstance(sidecar, dict) else None


def map_shards(
    step: str, out: Path, jobs: Mapping[int, str], process: Process, params: ParallelParams
) -> dict[str, Any]:
    """Run `process` on every shard whose sidecar does not match its fingerprint.

    Args:
        step: name shown with the progress.
        out: the step's folder; `process` writes its shard there atomically.
        jobs: shard number -> fingerprint.
        process: shard number -> outcome; picklable, and free of side effects outside its own shard.
        params: where to run.

    Returns:
        Counts over all shards, finished earlier or now: shards, done, skipped, kept, rejected, reasons.
    """
    out.mkdir(parents=True, exist_ok=True)
    _sweep(out, jobs)
    todo = [
        shard for shard in sorted(jobs) if (read_sidecar(out, shard) or {}).get("fingerprint") != jobs[shard]
    ]
    for shard in todo:  # an old sidecar must not vouch for a half-replaced shard
        (out / f"{shard_stem(shard)}.json").unlink(missing_ok=True)
    with _runner(process, params) as run:
        meter = _Meter(step, len(todo), len(jobs) - len(todo))
        for shard, outcome in run(todo):
            storage.write_json(
                out / f"{shard_stem(shard)}.json",
                {
                    "fingerprint": jobs[shard],
                    "kept": outcome.kept,
                    "rejects": [{"key": key, "reason": reason} for key, reason in outcome.rejects],
                },
            )
            meter.tick(outcome.kept + len(outcome.rejects))
    return _counts(out, jobs, done=len(todo))


def _sweep(out: Path, jobs: Mapping[int, str]) -> None:
    """Remove what no job of today owns: shards of an older map, and files of a killed writer."""
    known = {shard_stem(shard) for shard in jobs}
    for path in out.iterdir():
        stem = path.name.partition(".")[0]
        if path.is_file() and (path.name.endswith(".tmp") or (stem.isdigit() and stem not in known)):
            path.unlink()


def _counts(out: Path, jobs: Mapping[int, str], done: int) -> dict[str, Any]:
    sidecars = [read_sidecar(out, shard) or {} for shard in jobs]
    reasons = Counter(reject["reason"] for sidecar in sidecars for reject in sidecar.get("rejects", ()))
    return {
        "shards": len(jobs),
        "done": done,
        "skipped": len(jobs) - done,
        "kept": sum(sidecar.get("kept", 0) for sidecar in sidecars),
        "rejected": sum(reasons.values()),
        "reasons": dict(sorted(reasons.items())),
    }


@contextmanager
def _runner(
    process: Process, params: ParallelParams
) -> Iterator[Callable[[list[int]], Iterator[tuple[int, ShardOutcome]]]]:
    """A function that maps shards to outcomes, in this process or on a Dask cluster."""
    if params.scheduler is None and params.workers == 1:
        yield lambda shards: ((shard, process(shard)) for shard in shards)
        return
    import dask
    from distributed import Client, LocalCluster, as_completed

    if params.scheduler is not None:
        client = Client(params.scheduler)
    else:  # torch cannot share a forked process with its thread pool
        dask.config.set({"distributed.worker.multiprocessing-method": "spawn"})
        client = Client(LocalCluster(n_workers=params.workers, threads_per_worker=1))
    print(f"dask dashboard: {client.dashboard_link}", file=sys.stderr)

    def run(shards: list[int]) -> Iterator[tuple[int, ShardOutcome]]:
        futures = client.map(process, shards, retries=params.retries, pure=False)
        owner = {future.key: shard for future, shard in zip(futures, shards, strict=True)}
        for future in as_completed(futures):
            yield owner[future.key], future.result()

    try:
        yield run
    finally:
        client.shutdown() if params.scheduler is None else client.close()


class _Meter:
    """Progress on stderr: shards done, artworks a second, time left."""

    def __init__(self, step: str, total: int, skipped: int) -> None:
        self.step, self.total, self.shards, self.items = step, total, 0, 0
        self.start = time.monotonic()
        if skipped:
            print(f"{step}: {skipped} shard(s) already done, {total} to do", file=sys.stderr)

    def tick(self, items: int) -> None:
        self.shards += 1
        self.items += items
        seconds = max(time.monotonic() - self.start, 1e-9)
        left = seconds / self.shards * (self.total - self.shards)
        print(
            f"{self.step}: shard {self.shards}/{self.total}, {self.items} artworks, "
            f"{self.items / seconds:.1f}/s, {left:.0f} s left",
            file=sys.stderr,
        )
