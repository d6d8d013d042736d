"""A step's folder of shards on disk, and the sidecar of each shard that vouches for it."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.common.digests import digests, has_its_files, read_sidecar, sidecar_path, write_sidecar
from pipeline.common.files import check_writable, write_bytes
from pipeline.common.fingerprint import sha256_file
from pipeline.common.lock import only_writer, sweep
from pipeline.common.schema import shard_stem
from pipeline.parallel.shard_result import FailedShard, ShardResult

SUFFIXES = (".parquet", ".tar")
"""Of the files that steps write for a shard."""


class ShardFolder:
    """The shards that a step wants in its folder: which are done, which are to do, and what they count.

    A shard's files are ``000000.parquet`` or ``000000.tar``; beside them lies its sidecar ``000000.json``
    with the fingerprint that it was made for, its recipe, its files' sizes and digests, and its counts. The
    sidecar is written last and removed first, so it never vouches for a shard that is half written. Asking
    changes nothing; write only while the folder is `held`.

    Args:
        out: the step's folder.
        wanted: shard number -> today's fingerprint, of all shards.
        recipe: what all shards share, see `digests.check_finished`.
    """

    def __init__(self, out: Path, wanted: Mapping[int, str], recipe: str = "") -> None:
        self.out, self.wanted, self.recipe = out, wanted, recipe

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder as its only writer; what no shard of today owns is removed.

        That is shards of an older number of shards, and temporary files: before, those of a killed run, and
        after, those of workers that died; a worker that still writes then cannot rename its file any more.
        Raises `UserError` when the folder cannot be written to or another run holds it.
        """
        check_writable(self.out)
        with only_writer(self.out):
            known = {shard_stem(shard) for shard in self.wanted}
            for path in self.out.iterdir():
                stem = path.name.partition(".")[0]
                if path.is_file() and stem.isdigit() and stem not in known:
                    path.unlink()
            try:
                yield
            finally:
                sweep(self.out)

    def is_done(self, shard: int) -> bool:
        """Whether a shard is there for today's fingerprint, and its files are those of then.

        That is: all are as long, and tables, but not tars, have the same bytes.
        """
        sidecar = read_sidecar(self.out, shard)
        if sidecar is None or sidecar.get("fingerprint") != self.wanted[shard]:
            return False
        here = shard_files(self.out, shard)
        if {path.name for path in here} != sidecar["files"].keys() or not has_its_files(self.out, sidecar):
            return False
        tables = [path for path in here if path.suffix != ".tar"]
        return all(sha256_file(path) == sidecar["files"][path.name]["sha256"] for path in tables)

    def to_do(self, retry_failed: bool = False) -> list[int]:
        """Shards that are not done, in order; `retry_failed`: and those that had to reject artworks."""
        return [
            shard
            for shard in sorted(self.wanted)
            if not self.is_done(shard)
            or (retry_failed and (read_sidecar(self.out, shard) or {}).get("rejects"))
        ]

    def begin(self, shard: int) -> None:
        """Take away the sidecar of a shard that is about to be replaced; the others keep theirs."""
        sidecar_path(self.out, shard).unlink(missing_ok=True)

    def finish(self, shard: int, result: ShardResult) -> None:
        """Declare a shard done; its files must be in place."""
        write_sidecar(
            self.out,
            shard,
            {
                "fingerprint": self.wanted[shard],
                "recipe": self.recipe,
                "files": result.files or digests(shard_files(self.out, shard)),
                "kept": result.kept,
                "rejects": [{"key": key, "reason": reason} for key, reason in result.rejects],
                "counts": result.counts,
                **({} if result.threads is None else {"threads": result.threads}),
            },
        )
        self.log_file(shard).unlink(missing_ok=True)

    def fail(self, shard: int, failed: FailedShard) -> None:
        """Keep the traceback of a shard that failed."""
        if failed.details:
            write_bytes(self.log_file(shard), failed.details.encode())

    def log_file(self, shard: int) -> Path:
        """Where a shard's traceback goes: beside the step's folder, which DVC tracks."""
        return self.out.parent / "logs" / f"{self.out.name}-{shard_stem(shard)}.log"

    def totals(self, done: int) -> dict[str, Any]:
        """Counts over all shards, `done` of which this run made: what goes into the step's metrics."""
        sidecars = [read_sidecar(self.out, shard) or {} for shard in self.wanted]
        reasons = Counter(reject["reason"] for sidecar in sidecars for reject in sidecar.get("rejects", ()))
        counts: Counter[str] = Counter()
        for sidecar in sidecars:
            counts.update(sidecar.get("counts", {}))
        return {
            "shards": len(self.wanted),
            "done": done,
            "skipped": len(self.wanted) - done,
            "kept": sum(sidecar.get("kept", 0) for sidecar in sidecars),
            "rejected": sum(reasons.values()),
            "reasons": dict(sorted(reasons.items())),
            "counts": dict(sorted(counts.items())),
        }


def shard_files(out: Path, shard: int) -> list[Path]:
    """A shard's files in their order, the sidecar left out.

    They are asked for by name: to list the folder for each shard is hours at 100,000 of them.
    """
    paths = (out / f"{shard_stem(shard)}{suffix}" for suffix in SUFFIXES)
    return [path for path in paths if path.is_file()]
