"""Clusters: one that is not ours, and what signals leave behind of our own."""

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from pipeline.common.digests import read_sidecar
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.files import probe_file, write_bytes
from pipeline.common.fingerprint import package_version, sha256_text
from pipeline.common.progress import ShardProgress
from pipeline.parallel import map_shards as map_shards_module
from pipeline.parallel.map_shards import ParallelParams, map_shards
from pipeline.parallel.shard_result import ShardResult
from pipeline.parallel.worker import CODE, Ticket
from tests.imports import ROOT
from tests.pipeline.parallel.test_faults import finished, hashes, write_params

DASK = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
WORKER = [sys.executable, "-m", "distributed.cli.dask_worker"]

SLOW_RUN = """
import os, signal, time
from pathlib import Path
from pipeline.common.tars import write_tar
from pipeline.parallel.map_shards import ParallelParams, map_shards
from pipeline.parallel.shard_result import ShardResult

def process(shard, progress):
    Path("pids", str(os.getpid())).touch()
    def samples():
        for number in range(20):
            time.sleep(0.05 if shard < 2 else 1)
            yield str(number), {"bin": bytes(1000)}
    write_tar(Path("data/x") / f"{shard:06d}.tar", samples())
    return ShardResult(20)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
    jobs = {shard: str(shard) for shard in range(4)}
    map_shards("x", Path("data/x"), jobs, process, ParallelParams(workers=WORKERS))
"""


def until(condition: Callable[[], object], what: str, seconds: float = 300) -> None:
    """Wait; fails the test after a time that no working machine needs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 2), (signal.SIGKILL, 2)]
)
def test_signals_leave_no_worker_and_nothing_half_written(
    number: signal.Signals, workers: int, tmp_path: Path
) -> None:
    (tmp_path / "pids").mkdir()
    (tmp_path / "run.py").write_text(SLOW_RUN.replace("WORKERS", str(workers)))
    process = subprocess.Popen(
        [sys.executable, "run.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: len(list((tmp_path / "data" / "x").glob("[0-9]*.json"))) == 2, "shards")
    time.sleep(0.3)
    send = os.killpg if number == signal.SIGINT else os.kill  # Ctrl-C reaches every process of a terminal
    send(process.pid, number)
    _, errors = process.communicate(timeout=120)
    pids = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    until(lambda: not any(is_alive(pid) for pid in pids), "workers to end")
    assert sorted(finished(tmp_path, "x")) == ["000000.json", "000000.tar", "000001.json", "000001.tar"]
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        return
    assert process.returncode == (128 + signal.SIGTERM if number == signal.SIGTERM else -signal.SIGINT)
    assert "x: stopped; 2 of 4 shards are done and kept, the same command goes on" in errors
    assert not list((tmp_path / "data" / "x").glob(".*.tmp"))


def copy_of_code(folder: Path) -> Path:
    """The code as on another machine, which an edit here does not reach."""
    for name in ("pipeline", "stages", "model"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "cli.py", folder)
    return folder


class Cluster:
    """A scheduler and workers of their own, as a person starts them."""

    def __init__(self, code: Path, log: Path) -> None:
        self.code, self.log = code, log
        self.processes: list[subprocess.Popen] = []
        self.start([*DASK, "--host", "127.0.0.1", "--port", "0", "--no-dashboard"], code)
        until(lambda: re.search(r"Scheduler at:\s*(tcp://\S+)", self.log.read_text()), "a scheduler")
        found = re.search(r"Scheduler at:\s*(tcp://\S+)", self.log.read_text())
        assert found
        self.address = found[1]

    def start(self, command: list[str], code: Path) -> subprocess.Popen:
        with self.log.open("a") as log:
            process = subprocess.Popen(
                command, cwd="/", env={**os.environ, "PYTHONPATH": str(code)}, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def worker(self, code: Path) -> subprocess.Popen:
        options = ["--nthreads", "1", "--memory-limit", "0", "--no-dashboard", "--host", "127.0.0.1"]
        return self.start([*WORKER, self.address, *options], code)

    def stop(self, process: subprocess.Popen) -> None:
        process.terminate()
        process.wait(timeout=120)

    def run(self, folder: Path, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, str(self.code / "cli.py"), *arguments, "--scheduler", self.address]
        environment = {**os.environ, "PYTHONPATH": str(self.code)}
        return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    running = Cluster(copy_of_code(tmp_path / "code"), tmp_path / "dask.log")
    yield running
    for process in reversed(running.processes):
        running.stop(process)


def test_a_cluster_of_others_is_checked_used_and_left_running(
    cluster: Cluster, tiny_gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client

    from stages import features, utterances

    # the copy is what the workers run, should the checkout be edited meanwhile
    monkeypatch.setattr(map_shards_module, "CODE", package_version(cluster.code / "pipeline"))
    here, there = tmp_path / "here", tmp_path / "there"
    write_params(here, tiny_gallery)
    monkeypatch.chdir(here)
    utterances.STAGE.run(Path("params.yaml"))
    shutil.copytree(here, there)
    torch.set_num_threads(1)  # as Dask gives its workers: another number rounds differently
    features.STAGE.run(Path("params.yaml"))

    older = copy_of_code(tmp_path / "older")
    with (older / "pipeline" / "geometry.py").open("a") as file:
        file.write("# another version\n")
    stranger = cluster.worker(older)
    with Client(cluster.address) as client:
        client.wait_for_workers(1, timeout=300)
        cluster.worker(cluster.code)
        cluster.worker(cluster.code)
        client.wait_for_workers(3, timeout=300)
        params = ParallelParams(scheduler=cluster.address)
        with pytest.raises(UserError, match=r"1 worker\(s\) of the cluster .*\n.* another version of this"):
            map_shards("x", tmp_path / "out", {0: "a"}, nothing, params)
        cluster.stop(stranger)
        until(lambda: len(client.nthreads()) == 2, "the stranger to leave")

        run = cluster.run(there, "cache-features")
        until(lambda: run.poll() is not None or len(finished(there, "features")) >= 2, "a first shard")
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
        errors = run.communicate(timeout=300)[1]
        assert run.returncode == 0, errors
        client.wait_for_workers(2, timeout=300)
    assert hashes(there) == hashes(here)
    assert len(finished(there, "features")) > 6


def nothing(shard: int, _progress: ShardProgress) -> ShardResult:
    return ShardResult(shard)


def hang_once(out: Path, shard: int, progress: ShardProgress) -> ShardResult:
    """Shard 1 stops its own process the first time, as a dead network file system or a debugger would."""
    mark = out.parent / "hung"
    if shard == 1 and not mark.exists():
        mark.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)
    write_bytes(out / f"{shard:06d}.bin", bytes([shard]))
    return ShardResult(1)


def test_a_worker_that_falls_silent_costs_its_shard_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.parallel.dask_cluster.INTERVAL", 0.2)  # it is asked how far it is meanwhile
    out = tmp_path / "x"
    process = functools.partial(hang_once, out)
    params = ParallelParams(workers=2, worker_silence=3)
    try:
        assert map_shards("x", out, {n: str(n) for n in range(6)}, process, params)["kept"] == 6
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int((tmp_path / "hung").read_text()), signal.SIGKILL)
    assert "the worker of shard 000001 died or fell silent, trying again" in capsys.readouterr().err
    assert all((out / f"{n:06d}.bin").read_bytes() == bytes([n]) for n in range(6))
    assert all(read_sidecar(out, n) for n in range(6))
    assert sorted(path.name[6:] for path in out.iterdir()) == [".bin"] * 6 + [".json"] * 6


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_scheduler_that_is_lost_is_one_message_and_finished_shards_stay(
    number: signal.Signals, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_shards_module, "CODE", package_version(cluster.code / "pipeline"))
    for _ in range(2):
        cluster.worker(cluster.code)
    out = tmp_path / "x"
    scheduler = cluster.processes[0]

    def process(shard: int, progress: ShardProgress) -> ShardResult:  # within, for workers lack the tests
        if shard > 1:
            (out.parent / f"at-{shard}").touch()
            time.sleep(60)
        (out / f"{shard:06d}.bin").touch()
        return ShardResult(1)

    def strike() -> None:
        until(lambda: (tmp_path / "at-2").exists() and (tmp_path / "at-3").exists(), "shards at work", 60)
        scheduler.send_signal(number)

    thread = threading.Thread(target=strike)
    thread.start()
    params = ParallelParams(scheduler=cluster.address, worker_silence=4)
    try:
        with pytest.raises(RunFailed, match="x: the Dask scheduler is gone, or does not answer any more"):
            map_shards("x", out, {n: str(n) for n in range(4)}, process, params)
    finally:
        scheduler.send_signal(signal.SIGCONT)
        thread.join()
        for process in cluster.processes[1:]:
            process.kill()
    assert [n for n in range(4) if read_sidecar(out, n)] == [0, 1]
    assert not list(out.glob(".*"))


def test_a_cluster_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.parallel.dask_cluster.CONNECT", 0.5)
    with pytest.raises(UserError, match="no Dask scheduler answers at"):
        map_shards("x", tmp_path / "out", {0: "a"}, nothing, ParallelParams(scheduler="tcp://127.0.0.1:9"))


@pytest.mark.parametrize("address", ["nonsense", "http://x:1", "tcp://x", "tcp://x:99999", "tcp://x:y", ""])
def test_no_address_is_refused_even_when_nothing_is_to_do(address: str) -> None:
    with pytest.raises(ValueError, match="scheduler"):
        ParallelParams(scheduler=address)


def test_a_cluster_without_workers_is_said(cluster: Cluster, tmp_path: Path) -> None:
    params = ParallelParams(scheduler=cluster.address, worker_timeout=0.5)
    with pytest.raises(UserError, match=r"has had no worker for 0\.5 s"):
        map_shards("x", tmp_path / "out", {0: "a"}, nothing, params)


def test_objections_name_what_is_wrong(tmp_path: Path) -> None:
    out = tmp_path / "data"
    with probe_file(out) as probe:
        fit = Ticket(str(tmp_path), "data", str(probe.relative_to(tmp_path)), CODE)
        assert fit.objection() is None and fit.progress() is None
        elsewhere = Ticket("/nowhere", "data", "data/probe", CODE).objection()
        assert elsewhere and elsewhere.startswith("does not see /nowhere/data")
        old = Ticket(fit.cwd, fit.out, fit.probe, "another").objection()
        assert old and "another version" in old
    assert fit.objection() is not None


def test_a_worker_knows_which_folder_it_writes_and_works_in_that_of_the_command(tmp_path: Path) -> None:
    def process(shard: int, progress: ShardProgress) -> ShardResult:
        write_bytes(Path("data/000000.tar"), b"relative to the command's folder")
        progress.add(3)
        return ShardResult(sum(n for n, _ in [ticket.progress() or (0, "")]))

    before = Path.cwd()
    with probe_file(tmp_path / "data") as probe:
        ticket = Ticket(str(tmp_path), "data", str(probe), None)
        files = {"000000.tar": {"bytes": 32, "sha256": sha256_text("relative to the command's folder")}}
        assert ticket.run(process, 0) == ShardResult(3, files=files)
    assert (tmp_path / "data" / "000000.tar").exists()
    assert ticket.progress() is None and Path.cwd() == before


def test_the_slurm_script_of_the_docs_submits_what_the_docs_say(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    text = (ROOT / "docs" / "cluster.md").read_text()
    script = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    said = re.search(r"```\n(#!/usr/bin/env bash\n.*?)```", text, re.DOTALL)
    assert script and said
    (tmp_path / "submit.py").write_text(script[1].replace('if __name__ == "__main__":', "if False:"))
    run = [sys.executable, "submit.py"]
    printed = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    printed = re.sub(r"tcp://\S+", "SCHEDULER", printed).replace(sys.executable, "PYTHON")
    assert [line.rstrip() for line in printed.split("\n") if line] == [
        line.rstrip() for line in said[1].split("\n") if line
    ]
