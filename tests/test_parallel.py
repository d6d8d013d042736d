"""The shard loop: resume, redo, removal, and the same result on a Dask cluster."""

import functools
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.parallel import ParallelParams, ShardOutcome, map_shards, read_sidecar


def write_shard(out: Path, log: Path, shard: int) -> ShardOutcome:
    """Write one shard and leave a mark, so that a test sees what ran."""
    storage.write_bytes(out / f"{shard:06d}.tar", b"shard %d" % shard)
    storage.write_bytes(log / f"{shard}-{len(list(log.iterdir()))}", b"")
    return ShardOutcome(kept=2, rejects=[("k", "truncated")] if shard == 1 else [])


def fail_on_two(out: Path, log: Path, shard: int) -> ShardOutcome:
    if shard == 2:
        raise RuntimeError("killed")
    return write_shard(out, log, shard)


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "log").mkdir()
    return tmp_path / "out", tmp_path / "log"


def ran(log: Path) -> list[int]:
    return sorted(int(path.name.partition("-")[0]) for path in log.iterdir())


JOBS = {0: "a", 1: "b", 2: "c"}


def test_counts_reconcile_and_a_second_run_does_nothing(world: tuple[Path, Path]) -> None:
    out, log = world
    process = functools.partial(write_shard, out, log)
    first = map_shards("x", out, JOBS, process, ParallelParams())
    assert first == {
        "shards": 3,
        "done": 3,
        "skipped": 0,
        "kept": 6,
        "rejected": 1,
        "reasons": {"truncated": 1},
    }
    second = map_shards("x", out, JOBS, process, ParallelParams())
    assert second == {**first, "done": 0, "skipped": 3}
    assert ran(log) == [0, 1, 2]


def test_a_killed_run_resumes_at_the_shard_in_flight(world: tuple[Path, Path]) -> None:
    out, log = world
    with pytest.raises(RuntimeError):
        map_shards("x", out, JOBS, functools.partial(fail_on_two, out, log), ParallelParams())
    assert read_sidecar(out, 1) is not None and read_sidecar(out, 2) is None
    map_shards("x", out, JOBS, functools.partial(write_shard, out, log), ParallelParams())
    assert ran(log) == [0, 1, 2]


def test_a_new_fingerprint_redoes_only_its_shard_and_old_shards_go(world: tuple[Path, Path]) -> None:
    out, log = world
    process = functools.partial(write_shard, out, log)
    map_shards("x", out, {**JOBS, 7: "z"}, process, ParallelParams())
    storage.write_bytes(out / ".000001.tar.abc.tmp", b"half")
    map_shards("x", out, {**JOBS, 1: "changed"}, process, ParallelParams())
    assert ran(log) == [0, 1, 1, 2, 7]
    assert sorted(path.name for path in out.iterdir()) == [
        f"{shard:06d}.{ext}" for shard in range(3) for ext in ("json", "tar")
    ]


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_broken_sidecar_never_counts_as_done(world: tuple[Path, Path], broken: bytes) -> None:
    out, log = world
    process = functools.partial(write_shard, out, log)
    map_shards("x", out, JOBS, process, ParallelParams())
    (out / "000002.json").write_bytes(broken)
    assert map_shards("x", out, JOBS, process, ParallelParams())["done"] == 1


def test_dask_workers_give_the_same_files(world: tuple[Path, Path], tmp_path: Path) -> None:
    out, log = world
    other = tmp_path / "dask"
    here = map_shards("x", out, JOBS, functools.partial(write_shard, out, log), ParallelParams())
    there = map_shards(
        "x", other, JOBS, functools.partial(write_shard, other, log), ParallelParams(workers=2)
    )
    assert here == there
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {
        p.name: p.read_bytes() for p in other.iterdir()
    }
