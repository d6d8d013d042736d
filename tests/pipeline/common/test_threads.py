"""Waiting policy and thread counts of the libraries, set before they are imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.common import threads
from tests.imports import ROOT

THREADS = (*threads.WAITING, *threads.COUNTS, threads.OPENBLAS)
PLAIN = {name: value for name, value in os.environ.items() if name not in THREADS} | {"PYTHONPATH": str(ROOT)}
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
        "OMP_NUM_THREADS": "3",
        "MKL_NUM_THREADS": "3",
        "OPENCV_FOR_THREADS_NUM": "3",
        "RAYON_NUM_THREADS": "3",
        "OPENBLAS_NUM_THREADS": "1",
    }


def test_torch_has_as_many_threads_as_without_us() -> None:
    """Another number would round differently, and change every artifact."""
    count = "import json, torch; print(json.dumps(torch.get_num_threads()))"
    assert shown(f"import model; {count}") == shown(count)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu.max": "nonsense\n"}, 8),
        ({}, 8),
    ],
)
def test_a_containers_quota_counts(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "QUOTA", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert threads.cores() == cores
    assert threads.settings({}).get("OMP_NUM_THREADS") == (None if cores == 8 else str(cores))


def test_workers_divide_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 8)
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    assert {threads.for_workers(3)[name] for name in threads.COUNTS} == {"2"}
    assert {threads.for_workers(99)[name] for name in threads.COUNTS} == {"1"}
    monkeypatch.setattr(threads, "_set_here", {"OMP_NUM_THREADS": "8"})
    monkeypatch.setenv("OMP_NUM_THREADS", "8")  # ours, so it is divided
    assert threads.for_workers(2)["OMP_NUM_THREADS"] == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # the user's
    found = threads.for_workers(2)
    assert "OMP_NUM_THREADS" not in found and found["MKL_NUM_THREADS"] == "5"


@pytest.mark.parametrize("count", ["0", "all", "", "-2"])
def test_a_count_that_is_none_is_not_handed_on(count: str) -> None:
    assert threads.COUNTS[1] not in threads.settings({"OMP_NUM_THREADS": count})


def test_the_outer_level_of_nested_counts_is_the_one() -> None:
    assert threads.settings({"OMP_NUM_THREADS": "4,2"})["OPENCV_FOR_THREADS_NUM"] == "4"
