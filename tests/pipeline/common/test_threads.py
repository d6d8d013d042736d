"""Waiting policy and thread counts of the libraries, set before they are imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.common import threads
from tests.imports import ROOT

THREADS = (*threads.WAITING, *threads.COUNTS, *threads.BLAS)
LIMITS = (threads.CORES, *threads.ALLOTTED, threads.TOGETHER)
PLAIN = {name: value for name, value in os.environ.items() if name not in (*THREADS, *LIMITS)} | {
    "PYTHONPATH": str(ROOT)
}
SHOW = f"import json, os; print(json.dumps({{n: os.environ.get(n) for n in {THREADS!r}}}))"


def shown(code: str, **environment: str) -> dict[str, str | None]:
    done = subprocess.run(
        [sys.executable, "-c", code], env=PLAIN | environment, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("first", ["import pipeline", "import model", "import cli", "import stages._run"])
def test_whatever_of_ours_comes_first_sets_how_threads_wait(first: str) -> None:
    found = shown(f"{first}; {SHOW}")
    assert (found["OMP_WAIT_POLICY"], found["OPENBLAS_NUM_THREADS"]) == ("PASSIVE", "1")


def test_what_the_user_set_stays_and_the_others_follow_it() -> None:
    found = shown(f"import pipeline; {SHOW}", OMP_NUM_THREADS="3", OMP_WAIT_POLICY="ACTIVE")
    assert found == {
        "OMP_WAIT_POLICY": "ACTIVE",
        "GOMP_SPINCOUNT": None,
        "KMP_BLOCKTIME": None,
        "OMP_NUM_THREADS": "3",
        "MKL_NUM_THREADS": "3",
        "OPENCV_FOR_THREADS_NUM": "3",
        "RAYON_NUM_THREADS": "3",
        "OPENBLAS_NUM_THREADS": "1",
        "BLIS_NUM_THREADS": "1",
        "VECLIB_MAXIMUM_THREADS": "1",
    }


def test_torch_has_as_many_threads_as_without_us() -> None:
    """Another number would round differently, and change every artifact."""
    count = "import json, torch; print(json.dumps(torch.get_num_threads()))"
    assert shown(f"import model; {count}") == shown(count)


def test_the_libraries_themselves_say_that_they_heed_it() -> None:
    """OpenMP prints its settings when it is loaded; two libraries have functions that say theirs."""
    code = "import pipeline, torch, cv2, json; import pyarrow as pa\nfrom pipeline.common import threads\n"
    code += (
        "print(json.dumps([torch.get_num_threads(), cv2.getNumThreads(), pa.cpu_count(), threads.cores()]))"
    )
    environment = PLAIN | {"OMP_DISPLAY_ENV": "VERBOSE", threads.CORES: "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == [1, 1, 1, 1]
    if "GOMP_SPINCOUNT" in done.stderr:  # GNU's, not another build's
        assert "GOMP_SPINCOUNT = '1000'" in done.stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 8 processors on 8 cores without limits; files of it are below the folder."""
    for name in (*THREADS, *LIMITS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(threads, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(threads, "PROCESSORS", tmp_path / "processors")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return tmp_path


V2, V1 = "0::/slurm/job_7/step_0\n", "4:memory:/elsewhere\n3:cpu,cpuacct:/docker/abc\n0::/\n"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"groups/cpu.max": "150000 100000\n"}, 2),
        ({"groups/cpu.max": "max 100000\n"}, 8),
        ({"groups/cpu.max": "10000 100000\n"}, 1),
        ({"groups/cpu/cpu.cfs_quota_us": "300000\n", "groups/cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"groups/cpu/cpu.cfs_quota_us": "-1\n", "groups/cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"groups/cpu.max": "nonsense\n"}, 8),
        ({}, 8),
        ({"own": V2, "groups/slurm/job_7/step_0/cpu.max": "400000 100000\n"}, 4),
        (  # the step may have 4 of the job's 3
            {
                "own": V2,
                "groups/slurm/job_7/step_0/cpu.max": "400000 100000\n",
                "groups/slurm/job_7/cpu.max": "300000 100000\n",
            },
            3,
        ),
        ({"own": V2, "groups/slurm/job_8/cpu.max": "100000 100000\n"}, 8),
        (
            {
                "own": V1,
                "groups/cpu/docker/abc/cpu.cfs_quota_us": "250000\n",
                "groups/cpu/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        ({"own": "0::/../../other\n", "cpu.max": "100000 100000\n"}, 8),  # outside what can be seen
        ({"own": "nonsense\n", "groups/cpu.max": "200000 100000\n"}, 2),
    ],
)
def test_a_quota_counts(files: dict[str, str], cores: int, machine: Path) -> None:
    for name, text in files.items():
        (machine / name).parent.mkdir(exist_ok=True, parents=True)
        (machine / name).write_text(text)
    assert threads.cores() == cores
    assert threads.settings({}).get("OMP_NUM_THREADS") == (None if cores == 8 else str(cores))


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("environment", "cores"),
    [
        ({"SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "8"}, 4),
        ({"SLURM_CPUS_ON_NODE": "2"}, 2),
        ({"SLURM_CPUS_PER_TASK": "64"}, 8),  # more than it may have is not to be had
        ({"SLURM_CPUS_PER_TASK": "nonsense"}, 8),
        ({"EMOSEM_CORES": "3", "SLURM_CPUS_PER_TASK": "2"}, 3),
        ({"EMOSEM_CORES": "0"}, 8),
        ({"LOCAL_WORLD_SIZE": "4"}, 2),
        ({"LOCAL_WORLD_SIZE": "4", "SLURM_CPUS_PER_TASK": "2"}, 1),
    ],
)
def test_what_a_job_or_the_user_allots_counts(environment: dict[str, str], cores: int) -> None:
    assert threads.cores(environment) == cores
    assert threads.settings(environment).get("OMP_NUM_THREADS") == (None if cores == 8 else str(cores))
    assert "OMP_NUM_THREADS" not in threads.settings(environment | {"OMP_NUM_THREADS": "5"})


def test_second_threads_of_cores_do_not_compute(machine: Path) -> None:
    """Eight processors of four cores: workers count them as MKL does in one process."""
    for number in range(8):
        folder = machine / "processors" / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{number % 4},{number % 4 + 4}\n")
    assert threads.cores() == 8
    assert threads.settings({}).get("OMP_NUM_THREADS") is None  # torch chooses 4 by itself
    assert threads.for_workers(1)["OMP_NUM_THREADS"] == "4"
    assert threads.for_workers(4)["OMP_NUM_THREADS"] == "1"


@pytest.mark.usefixtures("machine")
def test_workers_divide_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {threads.for_workers(3)[name] for name in threads.COUNTS} == {"2"}
    assert {threads.for_workers(99)[name] for name in threads.COUNTS} == {"1"}
    assert threads.cores(threads.for_workers(3)) == 2  # for what a worker starts itself
    monkeypatch.setattr(threads, "_set_here", {"OMP_NUM_THREADS": "8"})
    monkeypatch.setenv("OMP_NUM_THREADS", "8")  # ours, so it is divided
    assert threads.for_workers(2)["OMP_NUM_THREADS"] == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # the user's
    found = threads.for_workers(2)
    assert "OMP_NUM_THREADS" not in found and found["MKL_NUM_THREADS"] == "5"
    monkeypatch.setenv("EMOSEM_CORES", "6")
    assert threads.for_workers(2)["EMOSEM_CORES"] == "3"


@pytest.mark.parametrize("count", ["0", "all", "", "-2"])
def test_a_count_that_is_none_is_not_handed_on(count: str) -> None:
    assert threads.COUNTS[1] not in threads.settings({"OMP_NUM_THREADS": count})


def test_the_outer_level_of_nested_counts_is_the_one() -> None:
    assert threads.settings({"OMP_NUM_THREADS": "4,2"})["OPENCV_FOR_THREADS_NUM"] == "4"
