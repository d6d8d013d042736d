"""`bench busy`: its arithmetic by hand, and its processes on a step that takes milliseconds."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from model.bench import busy
from model.bench.busy_crew import Crew, Pace, Probe, busy_loops, made
from model.bench.busy_probe import Stint
from pipeline.common import threads
from pipeline.common.errors import RunFailed, UserError
from tests.imports import ROOT

SERVE = """
import sys, time
from model.bench.busy_probe import serve
def make(progress, name):
    for _ in range(3):
        time.sleep(0.01)
        print("noise of a library", name)
        progress.add(1)
        progress.add(1)  # a batch of two
    if name == "broken" and progress.artworks and len(sys.argv) > 1:
        raise ValueError("out of paint")
serve({n: (lambda progress, n=n: make(progress, n)) for n in ("quick", "broken")}, {"threads": 3})
"""
PLAIN = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def probes(tmp_path: Path) -> Iterator[list[Probe]]:
    command = [sys.executable, "-c", SERVE]
    with Probe(command, PLAIN, tmp_path / "1") as one, Probe(command, PLAIN, tmp_path / "2") as two:
        yield [one, two]


def test_artworks_count_by_their_part_in_the_window() -> None:
    stint = Stint(10.0, [11.0, 13.0, 13.0, 17.0], cpu=0.0)
    assert made(stint, 10.0, 17.0) == 4
    assert made(stint, 10.5, 12.0) == pytest.approx(0.5 + 1.0)  # half of the first, half of the two at once
    assert made(stint, 14.0, 16.0) == pytest.approx(0.5)
    edges = [10.0, 10.3, 12.9, 13.0, 15.5, 17.0]
    parts = [made(stint, *window) for window in itertools.pairwise(edges)]
    assert sum(parts) == pytest.approx(4)


@pytest.mark.parametrize(
    ("computing", "loops", "cores", "share"),
    [
        (2, 2, 2, 1 / 2),
        (1, 2, 2, 2 / 3),  # one thread has one core alone, and two thirds of one beside two loops
        (4, 2, 2, 2 / 3),  # four have half a core each alone, and a third
        (2, 4, 8, 1),
        (16, 16, 16, 1 / 2),
    ],
)
def test_a_fair_share_is_that_of_equal_threads(computing: int, loops: int, cores: int, share: float) -> None:
    assert busy.fair_share(computing, loops, cores) == pytest.approx(share)


def test_processes_take_turns_at_steps(probes: list[Probe]) -> None:
    assert [probe.about for probe in probes] == [{"threads": 3}] * 2
    for step in ("quick", "broken", "quick"):
        begin = time.monotonic()
        for probe in probes:
            probe.ask(step, begin + 0.05)
        for stint in [Stint(**probe.answer()) for probe in probes]:
            assert stint.start >= begin and stint.ready == sorted(stint.ready)
            assert stint.ready[-1] >= begin + 0.05 > max([begin, *stint.ready[:-1]])
            assert stint.ready[0] - stint.start > 0.005  # no rest of the batch before
    crew = Crew([[probe] for probe in probes])
    assert crew.threads == 3
    assert crew.turn("quick", 0.1, copies=2, loops=1).rate > 0
    assert "noise of a library" in probes[0].log.read_text()


def test_a_process_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    # its first shard, to be warm, is made before anything is asked of it
    with (
        pytest.raises(RunFailed, match="was to be measured ended: ValueError: out of paint"),
        Probe([sys.executable, "-c", SERVE, "fail"], PLAIN, tmp_path / "log"),
    ):
        pass


def test_busy_loops_end_with_the_block_and_with_their_parent() -> None:
    def running() -> set[str]:
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        if not children.is_file():
            pytest.skip("needs Linux's list of children")
        return set(children.read_text().split())

    before = running()
    with busy_loops(3, 1.0):
        assert len(running() - before) == 3
    assert running() <= before
    code = (
        "import os, sys\nfrom model.bench.busy_crew import busy_loops\n"
        "with busy_loops(1, 60.0):\n"
        "    print(open(f'/proc/self/task/{os.getpid()}/children').read(), flush=True)\n"
        "    os._exit(1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=PLAIN, capture_output=True, text=True, check=False
    )
    loop = Path("/proc", done.stdout.strip())
    end = time.monotonic() + 60
    while loop.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert done.stdout.strip().isdecimal() and not loop.exists()


class Scripted:
    """A crew whose rates are given."""

    def __init__(self, rates: dict[tuple[int, int, str], list[float]], threads: int) -> None:
        self.rates, self.threads = rates, threads

    def turn(self, step: str, _seconds: float, copies: int = 1, loops: int = 0) -> Pace:
        return Pace(self.rates[copies, loops, step].pop(0), cpu=float(self.threads))


def test_ratios_are_of_one_round_and_their_median_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy, "ROUNDS", 3)

    def crew(alone: Sequence[float], two: float, beside: Sequence[float], computing: int = 2) -> Scripted:
        rates = {(1, 0, "regions"): [*alone], (2, 0, "regions"): [two] * 3, (1, 2, "regions"): [*beside]}
        return Scripted({**rates, (1, 0, "features"): [6.0, 4.0, 5.0]}, computing)

    crews = {
        "one_worker": crew([10, 20, 40], 18, [5, 5, 8]),
        "one_worker_defaults": crew([10, 25, 40], 1.8, [0, 0.5, 1]),
        "workers": crew([12, 12, 12], 12, [6, 6, 6]),
        "workers_defaults": crew([12, 12, 12], 12, [3, 3, 3], computing=4),
    }
    found = json.loads(json.dumps(busy.measure(crews, "regions", ["regions", "features"], cores=2)))
    one = found["ratios"]["one_worker"]
    assert one["two_at_once"] == {
        "median": 0.9, "lowest": 0.45, "highest": 1.8, "rounds": 3, "goal": 0.8, "reached": True,
    }  # fmt: skip
    assert one["fair_share"]["median"] == 0.5 and not one["fair_share"]["reached"]  # 5/5, 5/10, 8/20
    assert one["alone_against_defaults"]["median"] == 1.0 and one["alone_against_defaults"]["lowest"] == 0.8
    beside = one["beside_busy_loops_against_defaults"]
    assert beside == {"median": 9.0, "lowest": 8.0, "highest": 10.0, "rounds": 2}  # the first made nothing
    assert found["ratios"]["workers"]["fair_share"]["median"] == 1.0
    assert found["ratios"]["workers_defaults"]["fair_share"]["median"] == pytest.approx(
        3 / 12 / (2 / 3), abs=0.001
    )
    assert found["workers_against_threads"]["regions"]["throughput"]["median"] == 0.6
    assert found["workers_against_threads"]["features"]["throughput"]["median"] == 1.0
    assert found["artworks_per_second"]["one_worker"]["alone"]["median"] == 20


@pytest.fixture
def params_file(tiny_gallery: Path, tmp_path: Path) -> Path:
    weights = ROOT / "weights" / "tiny"
    sections = {
        "paths": {
            "artemis": str(next(tiny_gallery.rglob("*.csv"))),
            "wikiart": str(tiny_gallery / "wikiart"),
            "data": str(tmp_path / "data"),
        },
        "backbones": {
            "sam": {"arch": "tiny", "checkpoint": str(weights / "sam.safetensors")},
            "clip": {"name": "tiny", "checkpoint": str(weights / "clip.safetensors")},
            "vinvl": {"checkpoint": str(weights / "vinvl.safetensors")},
            "device": "cpu",
        },
        "regions": {"source": "vinvl", "min_detections": 4, "max_detections": 4},
    }
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(sections))
    return file


def test_the_real_step_is_measured_by_our_settings_whatever_the_shell_says(
    params_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenMP itself says how its threads wait."""
    monkeypatch.setattr(busy, "ARTWORKS", 1)
    monkeypatch.setattr(busy, "COPIES", 1)
    monkeypatch.setattr(busy, "SETTINGS", {"one_worker": busy.SETTINGS["one_worker"]})
    for name, value in {
        "OMP_DISPLAY_ENV": "VERBOSE",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "ACTIVE",
    }.items():
        monkeypatch.setenv(name, value)
    said: list[str] = []

    def measure(crews: dict[str, Crew], step: str, steps: list[str], cores: int) -> dict[str, Any]:
        assert (step, steps, cores) == ("regions", list(busy.SPLIT_STEPS), threads.cores())
        for name in steps:
            assert crews["one_worker"].turn(name, 0.1).rate > 0
        said.append(crews["one_worker"].copies[0][0].log.read_text())
        return {"threads": crews["one_worker"].threads}

    monkeypatch.setattr(busy, "measure", measure)
    assert busy.run(params_file)["threads"] <= threads.cores()
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in said[0]
    assert not (tmp_path / "data").exists()


def test_the_libraries_own_settings_are_those_without_us() -> None:
    libraries = busy.DEFAULTS.removesuffix(busy.OURS)
    assert libraries != busy.DEFAULTS
    environment = {name: value for name, value in PLAIN.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment["OMP_DISPLAY_ENV"] = "VERBOSE"
    said = []
    for code in (libraries, libraries + "import model.bench.busy_probe"):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        said.append(done.stderr)
    assert said[0] == said[1] and "OMP_NUM_THREADS" in said[0]
    assert "GOMP_SPINCOUNT = '1000'" not in said[0]


def test_missing_weights_are_a_users_mistake(params_file: Path) -> None:
    params_file.write_text(params_file.read_text().replace("vinvl.safetensors", "nowhere.safetensors"))
    with pytest.raises(UserError, match=r"the regions step cannot run: .*nowhere\.safetensors"):
        busy.run(params_file)


@pytest.mark.slow
def test_the_whole_bench_on_a_small_gallery(params_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy, "ROUNDS", 1)
    monkeypatch.setattr(busy, "SECONDS", 0.5)
    found = json.loads(json.dumps(busy.run(params_file)))
    assert set(found["ratios"]) == {"one_worker", "one_worker_defaults", "workers", "workers_defaults"}
    assert list(found["workers_against_threads"]) == list(busy.SPLIT_STEPS)
    for rates in found["artworks_per_second"].values():
        assert all(rate["median"] > 0 for rate in rates.values())
    assert found["threads"]["workers"] <= found["cores"]
