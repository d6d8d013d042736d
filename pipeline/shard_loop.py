"""From shards to do to sidecars written: what is kept, what is noted as failed, and when a run gives up."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline import sidecars, storage
from pipeline.params import RunFailed, UserError
from pipeline.progress import Progress
from pipeline.schema import shard_stem
from pipeline.sidecars import ShardOutcome
from pipeline.worker import Failed

Outcomes = Generator[tuple[int, ShardOutcome | Failed], None, None]
Run = Callable[[Sequence[int], Callable[[int], None]], Outcomes]
"""Shards to do, and what to call before each -> their outcomes, in any order."""


def do_shards(
    out: Path, jobs: Mapping[int, str], todo: Sequence[int], run: Run, budget: int, meter: Progress
) -> None:
    """Make shards and write their sidecars.

    Args:
        out: the step's folder.
        jobs: shard number -> fingerprint, of all shards.
        todo: those that are not done.
        run: where they are made.
        budget: `ParallelParams.failure_budget`.
        meter: told of every shard that is done.

    Raises:
        UserError: a shard said so.
        RunFailed: some shards failed, or one said that none can go on.
    """
    failures: dict[int, Failed] = {}

    def begin(shard: int) -> None:
        # an old sidecar must not vouch for a half-replaced shard; those not yet begun keep theirs
        sidecars.sidecar_path(out, shard).unlink(missing_ok=True)

    try:
        with contextlib.closing(run(todo, begin)) as outcomes:
            for shard, outcome in outcomes:
                if isinstance(outcome, ShardOutcome):
                    sidecars.write_sidecar(out, shard, jobs[shard], outcome)
                    _log_file(out, shard).unlink(missing_ok=True)
                    meter.finish(outcome.artworks)
                    continue
                failures[shard] = outcome
                _note(out, shard, outcome)
                if outcome.fatal or len(failures) > budget:
                    break
    except (KeyboardInterrupt, SystemExit):
        left = len(todo) - meter.shards_done
        kept = f"{len(jobs) - left} of {len(jobs)} shards are done and kept"
        print(f"{out.name}: stopped; {kept}, the same command goes on", file=sys.stderr)
        raise
    if failures:
        _fail(out, failures, len(jobs), len(todo) - meter.shards_done, budget)


def _log_file(out: Path, shard: int) -> Path:
    """Where a shard's traceback goes: beside the step's folder, which DVC tracks."""
    return out.parent / "logs" / f"{out.name}-{shard_stem(shard)}.log"


def _note(out: Path, shard: int, failed: Failed) -> None:
    if failed.details:
        storage.write_bytes(_log_file(out, shard), failed.details.encode())
    if not failed.fatal:
        print(f"{out.name}: shard {shard_stem(shard)} failed: {failed.reason}", file=sys.stderr)


def _fail(out: Path, failures: Mapping[int, Failed], shards: int, left: int, budget: int) -> None:
    """Raise what the run ends with: how much is done, and why each failed shard failed."""
    for failed in failures.values():
        if failed.fatal:
            raise (UserError if failed.fatal == "user" else RunFailed)(failed.reason)
    lines = [f"{out.name}: {len(failures)} shard(s) failed, {shards - left} of {shards} are done and kept"]
    if len(failures) > budget:
        lines[0] += f"; gave up on the other {left - len(failures)} (parallel.failure_budget is {budget})"
    for shard, failed in sorted(failures.items()):
        log = f" (traceback: {_log_file(out, shard)})" if failed.details else ""
        lines.append(f"  shard {shard_stem(shard)}: {failed.reason}{log}")
    raise RunFailed("\n".join([*lines, "  The same command tries them again and leaves the others alone"]))


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
