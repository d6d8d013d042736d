"""kill -9 at any moment: one resume, and the data is as if nothing had happened."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.common.digests import read_sidecar
from pipeline.common.fingerprint import sha256_file
from tests.imports import ROOT
from tests.worlds.whole_run import StepDriver

STEPS = ("utterances", "regions", "similarity", "masks", "features", "shards")
KILLS = 6
"""Per step, at most."""


def write_params(folder: Path, gallery: Path) -> None:
    """Params of a world of 12 artworks in 6 shards, on the gallery's pictures and the small backbones."""
    weights = ROOT / "weights" / "tiny"
    params = {
        "paths": {
            "artemis": str(gallery / "artemis" / "artemis_dataset_release_v0.csv"),
            "wikiart": str(gallery / "wikiart"),
            "apolo": str(gallery / "apolo"),
        },
        "backbones": {
            "sam": {"arch": "tiny", "checkpoint": str(weights / "sam.safetensors")},
            "clip": {"name": "tiny", "checkpoint": str(weights / "clip.safetensors")},
            "vinvl": {"checkpoint": str(weights / "vinvl.safetensors")},
            "device": "cpu",
        },
        "utterances": {"num_shards": 6},
        "regions": {"source": "vinvl", "min_detections": 5, "max_detections": 6},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def hashes(folder: Path) -> dict[str, str]:
    """Every file under data/, hidden ones too; but data/cache, which remembers the files' times."""
    files = sorted(path for path in (folder / "data").rglob("*") if path.is_file())
    names = {path.relative_to(folder / "data").as_posix(): path for path in files}
    return {name: sha256_file(path) for name, path in names.items() if not name.startswith("cache/")}


def finished(folder: Path, step: str) -> dict[str, tuple[int, int]]:
    """Inode and time of the files of every finished shard: a shard made again gets new ones."""
    out = folder / "data" / step
    files = [path for path in out.glob("[0-9]*") if read_sidecar(out, int(path.name[:6])) is not None]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


class Driver(StepDriver):
    """Fails the test when a step fails that was not killed."""

    def run(self, folder: Path, step: str, **how: Any) -> dict[str, Any]:
        """See `StepDriver.run`."""
        result = super().run(folder, step, **how)
        if result["status"] > 0:
            pytest.fail(result["output"])
        return result


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    running = Driver(tmp_path_factory.mktemp("driver"), STEPS)
    yield running
    running.close()


@pytest.fixture(scope="module")
def undisturbed(
    driver: Driver, tiny_gallery: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, float]]:
    """A world in which nothing went wrong, and how long each step took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_params(folder, tiny_gallery)
    return folder, {step: driver.run(folder, step)["seconds"] for step in STEPS}


def test_twenty_random_kills_across_the_steps_change_nothing(
    driver: Driver, undisturbed: tuple[Path, dict[str, float]], tiny_gallery: Path, tmp_path: Path
) -> None:
    calm, seconds = undisturbed
    write_params(tmp_path, tiny_gallery)
    rng = random.Random(20260901)
    kills = 0
    for step in STEPS:
        done: dict[str, tuple[int, int]] = {}
        for _ in range(KILLS):
            killed = driver.run(tmp_path, step, kill_after=rng.uniform(0, 0.4) * seconds[step])["killed"]
            kills += killed
            after = finished(tmp_path, step)
            assert done.items() <= after.items(), f"{step} made a finished shard again"
            done = after
            if not killed:
                break
        driver.run(tmp_path, step)
        assert done.items() <= finished(tmp_path, step).items()
    print(f"{kills} kills")
    assert kills >= 20
    assert hashes(tmp_path) == hashes(calm)


def test_every_file_operation_is_a_safe_moment_to_die(driver: Driver, tmp_path: Path) -> None:
    calm = tmp_path / "calm"
    calm.mkdir()
    driver.run(calm, "stand-in")
    moments = 0
    for number in range(1, 1000):
        folder = tmp_path / str(number)
        folder.mkdir()
        if not driver.run(folder, "stand-in", crash_at=number)["killed"]:
            break
        moments += 1
        done = finished(folder, "stand-in") if (folder / "data" / "stand-in").exists() else {}
        driver.run(folder, "stand-in")
        assert done.items() <= finished(folder, "stand-in").items()
        assert hashes(folder) == hashes(calm)
    assert moments >= 3 * (
        3 + 2 * 4
    )  # per shard: its samples; for each of its two files make, open, mode, name


@pytest.mark.parametrize(
    ("command", "step"), [("build-pseudo-masks", "regions"), ("cache-features", "features")]
)
def test_the_commands_themselves_go_on_after_a_kill(
    command: str, step: str, undisturbed: tuple[Path, dict[str, float]], tiny_gallery: Path, tmp_path: Path
) -> None:
    calm, _ = undisturbed
    write_params(tmp_path, tiny_gallery)
    shutil.copytree(calm / "data" / "utterances", tmp_path / "data" / "utterances")
    run = [sys.executable, str(ROOT / "cli.py"), command]
    process = subprocess.Popen(run, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)
    while not (tmp_path / "data" / step / "000001.json").exists():
        assert process.poll() is None
        time.sleep(0.002)
    time.sleep(random.Random(command).uniform(0, 0.2))
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = finished(tmp_path, step)
    assert len(done) >= 4
    subprocess.run(run, cwd=tmp_path, check=True, capture_output=True)
    assert done.items() <= finished(tmp_path, step).items()
    there, wanted = hashes(tmp_path), hashes(calm)
    assert {name for name in wanted if name.startswith(f"{step}/")} <= there.keys()
    assert there.items() <= wanted.items()
