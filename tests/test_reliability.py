"""Killed, out of disk, rotten: every step ends with the same bytes, or with one message that names the file.

Minutes long, and printed as a table: ``pytest -m slow tests/test_reliability.py -s``.
"""

import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.imports import ROOT
from tests.worlds.whole_run import STEPS, StepDriver, contents, differences, write_params

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

KILLS = {"train single": 28}
KILLS_ELSEWHERE = 6
FLIPS = 5
VERIFY = "cli.py shard-stats --verify"


@dataclass(frozen=True)
class Calm:
    """A run in which nothing went wrong."""

    before: dict[str, Path]
    """Per step, a copy of the folder as the step found it."""
    after: dict[str, dict[str, str]]
    """Per step, what the folder held when it had ended."""
    seconds: dict[str, float]
    finished: Path


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StepDriver]:
    running = StepDriver(tmp_path_factory.mktemp("driver"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def calm(driver: StepDriver, tmp_path_factory: pytest.TempPathFactory) -> Calm:
    root = tmp_path_factory.mktemp("calm")
    folder = root / "run"
    write_params(folder)
    before, after, seconds = {}, {}, {}
    for number, step in enumerate(STEPS):
        before[step] = Path(shutil.copytree(folder, root / f"before-{number}"))
        done = driver.run(folder, step)
        assert done["status"] == 0, done["output"]
        after[step], seconds[step] = contents(folder), done["seconds"]
    return Calm(before, after, seconds, folder)


def fresh(source: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(source, folder))


def show(title: str, rows: list[tuple[object, ...]]) -> None:
    print(f"\n{title}")
    for row in rows:
        print("  " + "  ".join(f"{cell!s:<24}" for cell in row))


def test_a_hundred_random_kills_change_nothing(driver: StepDriver, calm: Calm, tmp_path: Path) -> None:
    rng = random.Random(20261129)
    rows: list[tuple[object, ...]] = [("step", "kills", "resumed", "wrong")]
    total, wrong = 0, []
    for step in STEPS:
        folder = fresh(calm.before[step], tmp_path / "run")
        kills = resumed = 0
        bad: list[str] = []
        while kills < KILLS.get(step, KILLS_ELSEWHERE):
            how = {"kill_after": rng.uniform(0, calm.seconds[step])}
            if rng.random() < 0.3:
                how = {"crash_at": rng.randrange(1, 400)}
            killed = driver.run(folder, step, **how)["killed"]
            kills += killed
            if killed and rng.random() < 0.5:
                continue  # and is killed once more, where it stands now
            ended = driver.run(folder, step)
            resumed += killed
            found = differences(contents(folder), calm.after[step])
            if ended["status"] or found:
                bad.append(f"{step}: {how}: status {ended['status']}: {ended['output'][-300:]} {found}")
            folder = fresh(calm.before[step], tmp_path / "run")
        rows.append((step, kills, resumed, len(bad)))
        total, wrong = total + kills, wrong + bad
    show("kill -9 at a random moment or file operation", rows)
    assert not wrong, "\n".join(wrong)
    assert total >= 100


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs more rights")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """A file that takes all of the disk but `leave` bytes."""
    filler = disk / "filler"
    left = os.statvfs(disk)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(left.f_bavail * left.f_frsize - leave, 1))
    return filler


def test_a_full_disk_is_one_message_and_the_same_command_goes_on(
    driver: StepDriver, calm: Calm, small_disk: Path
) -> None:
    rows: list[tuple[object, ...]] = [("step", "left on the disk", "exit", "last line")]
    wrong = []
    for step in STEPS:
        for leave in (0, 16_384, 200_000):
            folder = fresh(calm.before[step], small_disk / "run")
            filler = fill(small_disk, leave)
            met = driver.run(folder, step)
            last = met["output"].strip().splitlines()[-1][-160:] if met["output"].strip() else ""
            filler.unlink()
            ended = driver.run(folder, step)
            found = differences(contents(folder), calm.after[step])
            rows.append((step, leave, met["status"], last))
            said = met["status"] == 0 or "is full" in met["output"] or "has room for" in met["output"]
            if "Traceback" in met["output"] or not said or ended["status"] or found:
                then = f"then {ended['status']} {ended['output'][-500:]} {found}"
                wrong.append(f"{step}, {leave} B: {met['output'][-1500:]}\n  {then}")
    show("a full disk", rows)
    assert not wrong, "\n\n".join(wrong)


@dataclass(frozen=True)
class Kind:
    """A kind of artifact: its files, the step that makes it, and the steps that read it."""

    files: str
    maker: str
    readers: tuple[str, ...]
    clear: str = ""
    """Folder to remove first, so that the readers have to read."""


RUN = "runs/single"
KINDS = (
    Kind("data/utterances/artworks.parquet", "utterances", ("regions", "masks", "shards")),
    Kind("data/utterances/utterances.parquet", "utterances", ("similarity", "masks", "shards")),
    Kind("data/regions/*.parquet", "regions", ("similarity", "masks"), "data/similarity"),
    Kind("data/regions/*.json", "regions", ("similarity",)),
    Kind("data/similarity/*.parquet", "similarity", ("masks",), "data/masks"),
    Kind("data/similarity/*.json", "similarity", ("masks",)),
    Kind("data/features/*.tar", "features", ("shards", VERIFY), "data/cache"),
    Kind("data/features/*.tar", "features", ("train single", VERIFY), RUN),
    Kind("data/masks/*.tar", "masks", ("shards", VERIFY), "data/cache"),
    Kind("data/masks/*.tar", "masks", ("train single", VERIFY), RUN),
    Kind("data/masks/*.json", "masks", ("shards",)),
    Kind("data/cache/shards/*.parquet", "shards", ("shards",)),
    Kind("data/shards/index.parquet", "shards", ("train single", VERIFY), RUN),
    Kind("data/shards/stats.json", "shards", ("report", VERIFY)),
    Kind("data/shards/croissant.json", "shards", (VERIFY,)),
    Kind("data/shards/README.md", "shards", (VERIFY,)),
    Kind("data/shards/rejects.parquet", "shards", (VERIFY,)),
    Kind("runs/single/checkpoint/last.pt", "train single", ("train single",)),
    Kind("runs/single/model.safetensors", "train single", ("predict single",)),
    Kind("runs/single/config.json", "train single", ("predict single",)),
    Kind("runs/single/dvclive/plots/metrics/train/dice.tsv", "train single", ("train single",)),
    Kind("data/predict/single/*", "predict single", ("score",), "data/score"),
    Kind("data/alignment/*", "alignment", ("score",), "data/score"),
    Kind("data/baselines/*/*", "baselines", ("score",), "data/score"),
    Kind("data/score/*.parquet", "score", ("report",), "report"),
    Kind("metrics/score.json", "score", ("report",), "report"),
    Kind("metrics/statistics.json", "score", ("report",), "report"),
)


def flip_a_bit(path: Path, rng: random.Random) -> str:
    """Rot: one bit, with size and times as they were. Returns where."""
    data, times = bytearray(path.read_bytes()), path.stat()
    place, bit = rng.randrange(len(data)), rng.randrange(8)
    data[place] ^= 1 << bit
    path.write_bytes(bytes(data))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return f"{path.name} byte {place} of {len(data)} bit {bit}"


def names(output: str, file: Path) -> bool:
    """Whether a message names a file, or the shard that it is of."""
    return file.name in output or f"{file.parent.name} shard {file.stem}" in output


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.files}-{kind.readers[0]}")
def test_a_flipped_bit_is_named_or_healed(kind: Kind, driver: StepDriver, calm: Calm, tmp_path: Path) -> None:
    rng = random.Random(kind.files)
    wanted = calm.after[STEPS[-1]]
    rows: list[tuple[object, ...]] = [("where", "readers", "then, from its maker on")]
    wrong = []
    for _ in range(FLIPS):
        folder = fresh(calm.finished, tmp_path / "run")
        if kind.clear:
            shutil.rmtree(folder / kind.clear)
        file = rng.choice(sorted(path for path in folder.glob(kind.files) if path.is_file()))
        rotten, name = flip_a_bit(file, rng), file.relative_to(folder).as_posix()
        named, log = False, ""
        for step in kind.readers:
            done = driver.run(folder, step)
            log += f"[{step}: {done['status']}] {done['output'][-600:]}\n"
            if "Traceback" in done["output"]:
                wrong.append(f"{rotten}: {log}")
            named |= names(done["output"], file) and done["status"] != 0
        found = [line for line in differences(contents(folder), wanted) if line != f"changed {name}"]
        harmed = [line for line in found if line.startswith("changed")]
        if harmed and not named:
            wrong.append(f"{rotten}: nothing was said, and other bytes came of it: {harmed}\n{log}")
        if VERIFY in kind.readers and not named:
            wrong.append(f"{rotten}: --verify did not name it\n{log}")
        for step in (kind.maker, *kind.readers):
            done = driver.run(folder, step)
        found = [line for line in differences(contents(folder), wanted) if line.startswith("changed")]
        healed = not found and not done["status"]
        if not healed and not (done["status"] and names(done["output"], file)):
            wrong.append(f"{rotten}: neither healed nor named: {done['output'][-600:]} {found}")
        rows.append((rotten, "named" if named else "as calm", "healed" if healed else "named"))
    show(kind.files, rows)
    assert not wrong, "\n\n".join(wrong)


MISHAPS = {
    "a killed worker": "test_map_shards.py::test_a_dead_worker_costs_its_shard_alone",
    "a worker killed in a foreign cluster": (
        "test_dask_cluster.py::test_a_cluster_of_others_is_checked_used_and_left_running"
    ),
    "a hung worker": "test_dask_cluster.py::test_a_worker_that_falls_silent_costs_its_shard_alone",
    "a killed and a stopped scheduler": (
        "test_dask_cluster.py::test_a_scheduler_that_is_lost_is_one_message_and_finished_shards_stay"
    ),
}


def test_workers_and_schedulers_that_are_killed_or_hang() -> None:
    """The tests of the Dask workers, which every run of the suite has too, as rows of this table."""
    rows: list[tuple[object, ...]] = [("what", "passed", "seconds")]
    wrong = []
    for what, name in MISHAPS.items():
        start = time.monotonic()
        command = [sys.executable, "-m", "pytest", f"tests/pipeline/parallel/{name}", "-o", "addopts="]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        found = re.search(r"(\d+) passed", done.stdout)
        rows.append((what, found[1] if found else 0, f"{time.monotonic() - start:.0f}"))
        if done.returncode:
            wrong.append(f"{what}: {done.stdout[-1500:]}")
    show("Dask workers and schedulers", rows)
    assert not wrong, "\n\n".join(wrong)
