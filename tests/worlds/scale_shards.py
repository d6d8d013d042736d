"""Shards past one machine: what 100,000 of them cost where the work in each is nothing.

    python -m tests.worlds.scale_shards                                # 1,000, 10,000 and 100,000: a table
    python -m tests.worlds.scale_shards --shards 1000 2000 --parts make again

The loop, the sidecars, the Dask scheduler and the tables are the real ones; a shard is a file of 64 bytes
that vouches for 200 artworks. Each part runs in a process of its own. `--limit` ends one that takes too long.
"""

import argparse
import contextlib
import functools
import io
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.common.digests import check_finished
from pipeline.common.params import Paths
from pipeline.common.progress import ShardProgress
from pipeline.common.schema import ARTWORKS, shard_stem
from pipeline.common.sums import write_sums
from pipeline.common.tables import open_artworks, read_artworks, rows_by_shard
from pipeline.parallel.map_shards import ParallelParams, map_shards
from pipeline.parallel.shard_folder import ShardFolder
from pipeline.parallel.shard_result import ShardResult
from tests.worlds.scale_steps import peak_mib

SIZES = (1_000, 10_000, 100_000)
PER_SHARD = 200
COLUMNS = ("shard", "key", "path", "width", "height", "sha256")
"""Of the artworks, that `features` groups by shard; its module would bring torch in."""
DASK_WORKERS = 2
LOOKED_AT = 20
"""Shards whose rows are read, spread over the table."""
STEP = "idle"


def idle_shard(shard: int, progress: ShardProgress, out: Path) -> ShardResult:
    """A shard of 200 artworks that takes no time; its tar is 64 bytes."""
    (out / f"{shard_stem(shard)}.tar").write_bytes(shard.to_bytes(8, "big") * 8)
    progress.add(PER_SHARD)
    return ShardResult(PER_SHARD)


def jobs(shards: int) -> dict[int, str]:
    return {shard: f"{shard:064x}" for shard in range(shards)}


def run_loop(root: Path, shards: int, workers: int = 1) -> int:
    """The shard loop over shards that are not done yet; how many it made."""
    out = root / f"{STEP}-{workers}"
    process = functools.partial(idle_shard, out=out)
    with contextlib.redirect_stderr(io.StringIO()):
        counts = map_shards(STEP, out, jobs(shards), process, ParallelParams(workers=workers), recipe="r")
    if (counts["shards"], counts["kept"]) != (shards, shards * PER_SHARD):
        raise AssertionError(counts)
    return int(counts["done"])


def make(root: Path, shards: int) -> int:
    """Every shard made in this process."""
    return run_loop(root, shards)


def again(root: Path, shards: int) -> int:
    """The same command when all is done, twice what `plan` asks of a step."""
    if run_loop(root, shards):
        raise AssertionError("a finished shard was made again")
    return shards


def planned(root: Path, shards: int) -> int:
    """What `plan` asks of each shard of a step: is it done?"""
    folder = ShardFolder(root / f"{STEP}-1", jobs(shards))
    return sum(folder.is_done(shard) for shard in folder.wanted)


def checked(root: Path, shards: int) -> int:
    """What the `shards` step asks first of a folder: all finished, of one recipe?"""
    check_finished(root / f"{STEP}-1", range(shards))
    return shards


def dask(root: Path, shards: int) -> int:
    """Every shard made by two Dask workers of this machine."""
    return run_loop(root, shards, DASK_WORKERS)


def write_artworks(root: Path, shards: int) -> Path:
    """``artworks.parquet`` of one artwork a shard, one row group a shard, as `utterances` writes it."""
    folder = Paths(data=root).step("utterances")
    folder.mkdir(parents=True, exist_ok=True)
    columns = {name: _column(field, shards) for name, field in zip(ARTWORKS.names, ARTWORKS, strict=True)}
    pq.write_table(pa.table(columns, ARTWORKS), folder / "artworks.parquet", row_group_size=1)
    write_sums(folder, ["artworks.parquet"])
    return folder / "artworks.parquet"


def _column(field: pa.Field, shards: int) -> pa.Array:
    if field.name == "key":
        return pa.array([f"{number:016x}" for number in range(shards)])
    if field.name == "shard":
        return pa.array(np.arange(shards), field.type)
    if pa.types.is_string(field.type):
        return pa.array([f"{field.name} {number % 97}" for number in range(shards)])
    return pa.array(np.zeros(shards), field.type)


def table(root: Path, shards: int) -> int:
    """The artworks table opened and grouped by shard: what every step does once."""
    write_artworks(root, shards)
    return len(rows_by_shard(open_artworks(Paths(data=root)), COLUMNS))


def rows(root: Path, shards: int) -> int:
    """One shard's rows read from it: what every worker does for every shard."""
    paths = Paths(data=root)
    read_artworks(paths, 0)  # hashes the table, once in a process
    start = time.process_time()
    for shard in np.linspace(0, shards - 1, LOOKED_AT).astype(int).tolist():
        (row,) = read_artworks(paths, shard)
        if row["shard"] != shard:
            raise AssertionError(row)
    OWN["cpu_seconds"] = time.process_time() - start
    return LOOKED_AT


PARTS: dict[str, Callable[[Path, int], int]] = {
    "make": make,
    "again": again,
    "planned": planned,
    "checked": checked,
    "dask": dask,
    "table": table,
    "rows": rows,
}
OWN: dict[str, float] = {}
"""Numbers that a part measured itself, in place of those of the whole process."""


def run_part(part: str, root: Path, shards: int) -> dict[str, Any]:
    """One part in this process: items, seconds, CPU seconds (workers included), peak memory."""
    root.mkdir(parents=True, exist_ok=True)
    OWN.clear()
    start, busy = time.monotonic(), _cpu()
    items = PARTS[part](root, shards)
    found = {"items": items, "seconds": time.monotonic() - start, "cpu_seconds": _cpu() - busy}
    return {**found, **OWN, "peak_mib": peak_mib()}


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(part: str, root: Path, shards: int, limit: float) -> dict[str, Any] | None:
    """`run_part` in a new process; None when it took longer than `limit` seconds."""
    command = [sys.executable, "-m", "tests.worlds.scale_shards", "--one", part, str(root), str(shards)]
    try:
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def markdown(found: dict[tuple[str, int], dict[str, Any] | None]) -> str:
    """A line a part: milliseconds of a core per shard, and peak memory, at each size."""
    sizes = sorted({size for _, size in found})
    head = " | ".join(f"{size:,}: CPU s | ms a shard | peak MiB" for size in sizes)
    lines = [f"| part | {head} |", "| --- |" + " ---: |" * (3 * len(sizes))]
    for part in dict.fromkeys(part for part, _ in found):
        cells = []
        for size in sizes:
            one = found.get((part, size))
            cells.append("over the limit | | |" if one is None else f"{_cells(one)} |")
        lines.append(f"| {part} | {' '.join(cells)}")
    return "\n".join(lines)


def _cells(one: dict[str, Any]) -> str:
    each = 1000 * one["cpu_seconds"] / one["items"]
    return f"{one['cpu_seconds']:.1f} | {each:.3g} | {one['peak_mib']:,}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every part at every size; progress on stderr, the table on stdout."""
    parser = argparse.ArgumentParser(prog="python -m tests.worlds.scale_shards", description=__doc__)
    parser.add_argument("--shards", type=int, nargs="+", default=SIZES)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds for one part at one size")
    parser.add_argument("--one", nargs=3, metavar=("PART", "ROOT", "SHARDS"), help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.one:
        part, root, shards = asked.one
        print(json.dumps(run_part(part, Path(root), int(shards))))
        return
    found: dict[tuple[str, int], dict[str, Any] | None] = {}
    for shards in asked.shards:
        root = Path(tempfile.mkdtemp(prefix="scale-shards-"))
        try:
            for part in asked.parts:
                found[part, shards] = measure(part, root, shards, asked.limit)
                print(part, shards, found[part, shards], file=sys.stderr, flush=True)
        finally:
            shutil.rmtree(root)
    print(markdown(found))


if __name__ == "__main__":
    main()
