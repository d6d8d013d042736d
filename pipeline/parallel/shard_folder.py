"""A step's folder of shards: which are to do, which are done, and the sidecar that says so."""

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.common.errors import RunFailed, UserError
from pipeline.common.files import remove_stale, write_bytes, write_json
from pipeline.common.progress import Progress
from pipeline.common.schema import shard_stem
from pipeline.parallel.outcome import FailedShard, Run, ShardOutcome


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
    failures: dict[int, FailedShard] = {}

    def begin(shard: int) -> None:
        # an old sidecar must not vouch for a half-replaced shard; those not yet begun keep theirs
        sidecar_path(out, shard).unlink(missing_ok=True)

    try:
        with contextlib.closing(run(todo, begin)) as outcomes:
            for shard, outcome in outcomes:
                if isinstance(outcome, ShardOutcome):
                    write_sidecar(out, shard, jobs[shard], outcome)
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


def _note(out: Path, shard: int, failed: FailedShard) -> None:
    if failed.details:
        write_bytes(_log_file(out, shard), failed.details.encode())
    if not failed.fatal:
        print(f"{out.name}: shard {shard_stem(shard)} failed: {failed.reason}", file=sys.stderr)


def _fail(out: Path, failures: Mapping[int, FailedShard], shards: int, left: int, budget: int) -> None:
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


def sidecar_path(out: Path, shard: int) -> Path:
    """Where a shard's sidecar lies."""
    return out / f"{shard_stem(shard)}.json"


def read_sidecar(out: Path, shard: int) -> dict[str, Any] | None:
    """The sidecar of a shard, or None when it is absent or not readable as JSON."""
    try:
        sidecar = json.loads(sidecar_path(out, shard).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return sidecar if isinstance(sidecar, dict) else None


def write_sidecar(out: Path, shard: int, fingerprint: str, outcome: ShardOutcome) -> None:
    """Declare a shard finished; its files must be in place."""
    write_json(
        sidecar_path(out, shard),
        {
            "fingerprint": fingerprint,
            "files": _file_sizes(out, shard),
            "kept": outcome.kept,
            "rejects": [{"key": key, "reason": reason} for key, reason in outcome.rejects],
            "counts": outcome.counts,
        },
    )


def is_done(out: Path, shard: int, fingerprint: str) -> bool:
    """Whether a shard is finished, for today's fingerprint, and its files are as long as they were then."""
    sidecar = read_sidecar(out, shard) or {}
    return sidecar.get("fingerprint") == fingerprint and sidecar.get("files") == _file_sizes(out, shard)


def has_rejects(out: Path, shard: int) -> bool:
    """Whether a finished shard had to leave artworks out."""
    return bool((read_sidecar(out, shard) or {}).get("rejects"))


def sweep(out: Path, shards: Iterable[int]) -> None:
    """Remove what no shard of today owns: shards of an older map, and files of a killed writer."""
    known = {shard_stem(shard) for shard in shards}
    remove_stale(out)
    for path in out.iterdir():
        stem = path.name.partition(".")[0]
        if path.is_file() and stem.isdigit() and stem not in known:
            path.unlink()


def totals(out: Path, jobs: Mapping[int, str], done: int) -> dict[str, Any]:
    """Counts over all shards, `done` of which this run made: what goes into the step's metrics."""
    sidecars = [read_sidecar(out, shard) or {} for shard in jobs]
    reasons = Counter(reject["reason"] for sidecar in sidecars for reject in sidecar.get("rejects", ()))
    counts: Counter[str] = Counter()
    for sidecar in sidecars:
        counts.update(sidecar.get("counts", {}))
    return {
        "shards": len(jobs),
        "done": done,
        "skipped": len(jobs) - done,
        "kept": sum(sidecar.get("kept", 0) for sidecar in sidecars),
        "rejected": sum(reasons.values()),
        "reasons": dict(sorted(reasons.items())),
        "counts": dict(sorted(counts.items())),
    }


def _file_sizes(out: Path, shard: int) -> dict[str, int]:
    """Name -> bytes of a shard's files, the sidecar itself left out."""
    sidecar = sidecar_path(out, shard)
    files = [path for path in out.glob(f"{shard_stem(shard)}.*") if path != sidecar]
    return {path.name: path.stat().st_size for path in sorted(files)}
