"""What tells a finished shard from all others: ``000000.json`` beside it, written last.

A sidecar holds the fingerprint of the params, inputs and code that made the shard, the sizes of its files and
what it came to. A shard counts as done when the fingerprint is today's and the files still have those sizes:
a killed writer, a truncated copy and a deleted tar are all simply not done.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.schema import shard_stem


@dataclasses.dataclass(frozen=True)
class ShardOutcome:
    """What one shard came to: artworks written, (key, reason) of each that could not be, and other counts."""

    kept: int
    rejects: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    """Whatever else the step counts, e.g. truncated texts; summed over shards into the step's metrics."""

    @property
    def artworks(self) -> int:
        """Artworks looked at."""
        return self.kept + len(self.rejects)


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
    storage.write_json(
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
    storage.remove_stale(out)
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
