"""The shard loop: resume, redo, failures, and the same result on Dask workers, some of which die."""

import functools
import os
import signal
import time
import uuid
from pathlib import Path

import pytest

from pipeline.common.digests import read_sidecar
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.files import write_bytes
from pipeline.common.lock import only_writer
from pipeline.common.progress import ShardMeter, ShardProgress
from pipeline.parallel import map_shards as map_shards_module
from pipeline.parallel.map_shards import ParallelParams, map_shards
from pipeline.parallel.shard_result import ShardResult

JOBS = {0: "a", 1: "b", 2: "c"}
HERE = ParallelParams()


def write_shard(out: Path, log: Path, shard: int, progress: ShardProgress) -> ShardResult:
    """Write one shard and leave a mark, so that a test sees what ran."""
    (log / f"{shard}-{uuid.uuid4().hex}").touch()
    write_bytes(out / f"{shard:06d}.tar", b"shard %d" % shard)
    rejects = [("k", "truncated")] if shard == 1 else []
    return ShardResult(kept=2, rejects=rejects, counts={"tokens": shard})


def raise_on_two(error: Exception, out: Path, log: Path, shard: int, progress: ShardProgress) -> ShardResult:
    if shard == 2:
        raise error
    return write_shard(out, log, shard, progress)


class Unpicklable(Exception):  # noqa: N818
    """As a library may raise it: pickles, and cannot be read back."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def raise_unpicklable(out: Path, log: Path, shard: int, progress: ShardProgress) -> ShardResult:
    if shard == 2:
        raise Unpicklable("no", "way")
    return write_shard(out, log, shard, progress)


def die(out: Path, log: Path, poison: int, unlucky: int, shard: int, progress: ShardProgress) -> ShardResult:
    """SIGKILL to the own worker: always at `poison`, once at `unlucky`; what a GPU's death says, too."""
    before = sum(shard == done for done in ran(log))
    outcome = write_shard(out, log, shard, progress)
    if shard == poison:
        os.kill(os.getpid(), signal.SIGKILL)
    if shard == unlucky and not before:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return outcome


def tell_surroundings(out: Path, log: Path, shard: int, progress: ShardProgress) -> ShardResult:
    """Write the environment, and stay until the other shard has begun, so that two workers are needed."""
    said = f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {os.environ.get('OMP_NUM_THREADS')}"
    write_bytes(out / f"{shard:06d}.txt", said.encode())
    deadline = time.monotonic() + 60
    while not (out / f"{1 - shard:06d}.txt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return ShardResult(1)


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "log").mkdir()
    return tmp_path / "out", tmp_path / "log"


def ran(log: Path) -> list[int]:
    return sorted(int(path.name.partition("-")[0]) for path in log.iterdir())


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_counts_reconcile_and_a_second_run_does_nothing(world: tuple[Path, Path]) -> None:
    out, log = world
    process = functools.partial(write_shard, out, log)
    first = map_shards("x", out, JOBS, process, HERE)
    assert first == {
        "shards": 3,
        "done": 3,
        "skipped": 0,
        "kept": 6,
        "rejected": 1,
        "reasons": {"truncated": 1},
        "counts": {"tokens": 3},
    }
    second = map_shards("x", out, JOBS, process, HERE)
    assert second == {**first, "done": 0, "skipped": 3}
    assert ran(log) == [0, 1, 2]


def test_a_new_fingerprint_redoes_only_its_shard_and_old_shards_go(world: tuple[Path, Path]) -> None:
    out, log = world
    process = functools.partial(write_shard, out, log)
    map_shards("x", out, {**JOBS, 7: "z"}, process, HERE)
    write_bytes(out / ".000001.tar.abcdefgh.tmp", b"half")
    map_shards("x", out, {**JOBS, 1: "changed"}, process, HERE)
    assert ran(log) == [0, 1, 1, 2, 7]
    assert sorted(contents(out)) == [f"{shard:06d}.{ext}" for shard in range(3) for ext in ("json", "tar")]


@pytest.mark.parametrize("broken", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_broken_sidecar_never_counts_as_done(world: tuple[Path, Path], broken: bytes) -> None:
    out, log = world
    process = functools.partial(write_shard, out, log)
    map_shards("x", out, JOBS, process, HERE)
    (out / "000002.json").write_bytes(broken)
    assert map_shards("x", out, JOBS, process, HERE)["done"] == 1


@pytest.mark.parametrize("damage", ["truncated", "gone", "longer"])
def test_a_damaged_file_under_its_final_name_is_not_done(world: tuple[Path, Path], damage: str) -> None:
    out, log = world
    process = functools.partial(write_shard, out, log)
    map_shards("x", out, JOBS, process, HERE)
    before = contents(out)
    tar = out / "000001.tar"
    if damage == "gone":
        tar.unlink()
    else:
        tar.write_bytes(before[tar.name][:3] if damage == "truncated" else before[tar.name] * 2)
    assert map_shards("x", out, JOBS, process, HERE)["done"] == 1
    assert contents(out) == before and ran(log) == [0, 1, 1, 2]


def test_an_exception_fails_its_shard_alone_and_is_explained(world: tuple[Path, Path]) -> None:
    out, log = world
    process = functools.partial(raise_on_two, KeyError("no such box"), out, log)
    with pytest.raises(RunFailed) as failed:
        map_shards("out", out, {**JOBS, 3: "d"}, process, HERE)
    traceback = out.parent / "logs" / "out-000002.log"
    assert "1 shard(s) failed, 3 of 4 are done" in str(failed.value)
    assert "shard 000002: KeyError: 'no such box'" in str(failed.value) and str(traceback) in str(
        failed.value
    )
    assert "raise_on_two" in traceback.read_text()
    assert read_sidecar(out, 3) is not None and read_sidecar(out, 2) is None
    map_shards("out", out, {**JOBS, 3: "d"}, functools.partial(write_shard, out, log), HERE)
    assert ran(log) == [0, 1, 2, 3] and not traceback.exists()


def test_the_failure_budget_ends_a_run_and_spares_what_was_not_begun(world: tuple[Path, Path]) -> None:
    out, log = world
    jobs = {**JOBS, 3: "d", 4: "e"}
    map_shards("x", out, jobs, functools.partial(write_shard, out, log), HERE)
    other = {shard: f"other {name}" for shard, name in jobs.items()}
    process = functools.partial(raise_on_two, RuntimeError("boom"), out, log)
    with pytest.raises(RunFailed, match=r"2 of 5 are done and kept; gave up on the other 2 \("):
        map_shards("x", out, other, process, ParallelParams(failure_budget=0))
    assert ran(log) == [0, 0, 1, 1, 2, 3, 4]
    kept = [shard for shard in jobs if (read_sidecar(out, shard) or {}).get("fingerprint") == jobs[shard]]
    assert kept == [3, 4]


@pytest.mark.parametrize(
    ("error", "workers"), [(UserError("draw it"), 1), (RunFailed("disk full"), 1), (UserError("draw it"), 2)]
)
def test_what_no_shard_can_survive_ends_the_run_as_itself(
    world: tuple[Path, Path], error: Exception, workers: int
) -> None:
    out, log = world
    process = functools.partial(raise_on_two, error, out, log)
    with pytest.raises(type(error), match=str(error)):
        map_shards("x", out, JOBS, process, ParallelParams(workers=workers))


def test_retry_failed_redoes_shards_with_rejects_only(world: tuple[Path, Path]) -> None:
    out, log = world
    process = functools.partial(write_shard, out, log)
    map_shards("x", out, JOBS, process, HERE)
    before = contents(out)
    counts = map_shards("x", out, JOBS, process, ParallelParams(retry_failed=True))
    assert (counts["done"], counts["skipped"]) == (1, 2)
    assert ran(log) == [0, 1, 1, 2] and contents(out) == before


def test_two_runs_never_share_a_folder(world: tuple[Path, Path]) -> None:
    out, log = world
    out.mkdir()
    with only_writer(out), pytest.raises(UserError, match="another run is writing"):
        map_shards("x", out, JOBS, functools.partial(write_shard, out, log), HERE)
    assert map_shards("x", out, JOBS, functools.partial(write_shard, out, log), HERE)["done"] == 3


def test_a_folder_that_cannot_be_written_is_said_before_any_work(world: tuple[Path, Path]) -> None:
    out, log = world
    out.write_bytes(b"a file where the folder should be")
    with pytest.raises(UserError, match="cannot write to the folder"):
        map_shards("x", out, JOBS, functools.partial(write_shard, out, log), HERE)
    assert ran(log) == []


def test_dask_workers_give_the_same_files_and_go_on_where_one_process_was(
    world: tuple[Path, Path], tmp_path: Path
) -> None:
    out, log = world
    other = tmp_path / "dask"
    here = map_shards("x", out, JOBS, functools.partial(write_shard, out, log), HERE)
    map_shards("x", other, {0: "a"}, functools.partial(write_shard, other, log), HERE)
    process = functools.partial(write_shard, other, log)
    there = map_shards("x", other, JOBS, process, ParallelParams(workers=8))
    assert there == {**here, "done": 2, "skipped": 1}
    assert contents(out) == contents(other)
    assert map_shards("x", other, JOBS, process, ParallelParams(workers=2))["done"] == 0
    assert ran(log) == [0, 0, 1, 1, 2, 2]


def test_a_dead_worker_costs_its_shard_alone(world: tuple[Path, Path], capfd: pytest.CaptureFixture) -> None:
    out, log = world
    jobs = {shard: str(shard) for shard in range(8)}
    process = functools.partial(die, out, log, 3, 5)
    with pytest.raises(RunFailed) as failed:
        map_shards("x", out, jobs, process, ParallelParams(workers=2, retries=1))
    assert "1 shard(s) failed, 7 of 8 are done and kept" in str(failed.value)
    assert "shard 000003: its worker process died or fell silent 2 time(s)" in str(failed.value)
    assert ran(log) == [0, 1, 2, 3, 3, 4, 5, 5, 6, 7]
    assert {path.name for path in out.iterdir() if path.suffix == ".tmp"} == set()
    said = capfd.readouterr().err
    assert "dashboard at http://127.0.0.1" in said and "distributed.worker" not in said


def test_exceptions_that_do_not_pickle_fail_their_shard(world: tuple[Path, Path]) -> None:
    out, log = world
    process = functools.partial(raise_unpicklable, out, log)
    with pytest.raises(RunFailed, match="shard 000002: Unpicklable: no way"):
        map_shards("x", out, JOBS, process, ParallelParams(workers=2))
    assert ran(log) == [0, 1]


def test_each_worker_sees_a_gpu_of_its_own(world: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    out, log = world
    monkeypatch.setattr(map_shards_module, "visible_gpus", lambda: ["4", "GPU-7"])
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    process = functools.partial(tell_surroundings, out, log)
    map_shards("x", out, {0: "a", 1: "b"}, process, ParallelParams(workers="auto"))
    assert {(out / f"{shard:06d}.txt").read_text() for shard in (0, 1)} == {"4 3", "GPU-7 3"}
    assert os.environ["OMP_NUM_THREADS"] == "3" and "MKL_NUM_THREADS" not in os.environ


def test_gpus_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert map_shards_module.visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,2")
    assert map_shards_module.visible_gpus() == ["6", "2"]
    assert map_shards_module.count_workers(ParallelParams(workers="auto")) == 2
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert map_shards_module.count_workers(ParallelParams(workers="auto")) == 1


def test_ticks_show_within_a_shard(world: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = world
    seen: list[tuple[int, str]] = []
    monkeypatch.setattr(ShardMeter, "update", lambda self, count, device: seen.append((count, device)))

    def process(shard: int, progress: ShardProgress) -> ShardResult:
        progress.running_on("cpu")
        for _ in range(shard + 1):
            progress.add()
        return ShardResult(shard + 1)

    map_shards("x", out, {0: "a", 1: "b"}, process, HERE)
    assert seen == [(1, "cpu"), (1, "cpu"), (2, "cpu")]
