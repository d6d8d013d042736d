"""Loading: workers, remote shards and resident features change no batch, and Ctrl-C leaves nothing behind."""

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
import yaml

from model.data import resident_features
from model.data.batch import Batch
from model.data.frame import Frame
from model.data.loader import AHEAD, load_batches
from model.data.resident_features import ResidentFeatures, check_room
from model.data.samples import Samples
from model.train import train as train_module
from model.train.params import TrainParams
from model.train.schedule import epoch_batches
from model.train.train import train
from pipeline.backbones.language_model import load_tokenizer
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.reader.remote_index import open_index
from tests.imports import ROOT
from tests.worlds import trained_shards

FRAME = Frame(image_size=32, side=32)
CPU = torch.device("cpu")
World = tuple[Paths, tuple[Path, Path]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("world")
    paths = trained_shards.shards(folder, {"train": 8, "val": 2}, sam_dtype="int8")
    return paths, trained_shards.backbones(folder / "weights")


def samples_of(world: World, where: Path | str | None = None, features: bool = True) -> Samples:
    index = open_index(where or world[0].step("shards"))
    tokenizer = load_tokenizer(world[1][1])
    return Samples(index, "train", tokenizer, FRAME, max_tokens=20, features=features)


def numbers_of(samples: Samples) -> list[np.ndarray]:
    return epoch_batches(samples.table, 4, seed=1, epoch=0, window=2, visit="utterance")


def assert_equal(ours: Batch, theirs: Batch) -> None:
    for field in dataclasses.fields(Batch):
        a, b = getattr(ours, field.name), getattr(theirs, field.name)
        assert (a is None and b is None) or torch.equal(a, b), field.name


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_workers_give_the_batches_that_reading_gives(world: World, workers: int) -> None:
    samples = samples_of(world)
    numbers = 5 * numbers_of(samples)
    with closing(load_batches(samples, numbers, CPU, workers=workers)) as ahead:
        for ours, chosen in itertools.zip_longest(ahead, numbers):
            assert_equal(ours, samples[chosen])


def test_workers_read_no_further_ahead_than_they_should(world: World) -> None:
    samples, asked = samples_of(world), itertools.count()
    numbers = (np.array([0]) for _ in asked)  # without end, as a run of many epochs nearly is
    with closing(load_batches(samples, numbers, CPU, workers=2)) as ahead:
        for _ in range(3):
            next(ahead)
        assert next(asked) == 3 + AHEAD * 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_a_damaged_mask_ends_the_run_with_its_name(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = samples_of(world)
    view = samples.index.view
    broken = f"{EMOTIONS[samples.table[5, 1]]}.png"
    monkeypatch.setattr(
        samples.index, "view", lambda key, name: memoryview(b"no") if name == broken else view(key, name)
    )
    with (
        closing(load_batches(samples, numbers_of(samples), CPU, workers=2)) as ahead,
        pytest.raises(UserError) as told,
    ):
        list(ahead)
    assert f"{broken} is damaged" in str(told.value)


def test_resident_features_give_the_batches_that_reading_gives(world: World) -> None:
    samples, maps = samples_of(world), samples_of(world, features=False)
    resident = ResidentFeatures.load(samples, CPU)
    assert resident.sam.dtype == torch.int8 and len(resident.sam) == 8
    numbers = numbers_of(samples)
    assert maps[numbers[0]].sam.numel() == 0
    for ours, chosen in itertools.zip_longest(load_batches(maps, numbers, CPU, resident=resident), numbers):
        assert_equal(ours, samples[chosen])


def test_features_that_do_not_fit_say_how_large_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident_features, "available_memory", lambda: 100_000_000)
    check_room(8, 10_000_000, CPU)
    with pytest.raises(UserError, match="90 MB for 9 artworks, more than 85% of the 100 MB free on cpu"):
        check_room(9, 10_000_000, CPU)


@pytest.fixture
def bucket(world: World) -> str:
    """The world's shards behind an URL."""
    remote, data = fsspec.filesystem("memory"), world[0].data
    for file in data.rglob("*"):
        if file.is_file():
            remote.pipe_file(f"/bucket/{file.relative_to(data).as_posix()}", file.read_bytes())
    return "memory://bucket/shards"


def test_remote_shards_give_the_batches_of_local_ones(world: World, bucket: str, tmp_path: Path) -> None:
    samples = samples_of(world)
    everything = list(range(len(samples)))
    assert_equal(samples_of(world, bucket)[everything], samples[everything])
    local = world[0].step("shards").as_uri()
    assert_equal(samples_of(world, f"filecache::{local}")[everything], samples[everything])


def test_an_artwork_is_one_request_a_tar(world: World, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = samples_of(world, bucket)
    remote, asked = fsspec.filesystem("memory"), []
    cat = type(remote).cat_file
    monkeypatch.setattr(type(remote), "cat_file", lambda *a, **k: (asked.append(a[1]), cat(*a, **k))[1])
    for _ in range(3):
        samples[[0, 1]]
    assert samples.table[1, 0] == 0 and sorted(name.split("/")[-2] for name in asked) == ["features", "masks"]


def test_remote_damage_and_absence_are_named(world: World, bucket: str) -> None:
    samples = samples_of(world, bucket)
    remote = fsspec.filesystem("memory")
    data = bytearray(remote.cat_file("/bucket/features/000000.tar"))
    place = samples.index.table["members"][0].as_py()[0]
    data[place["offset"]] ^= 1
    remote.pipe_file("/bucket/features/000000.tar", bytes(data))
    with pytest.raises(UserError, match=f"artwork {samples.keys[0]} of memory://bucket/shards is damaged"):
        samples[[0]]
    remote.rm_file("/bucket/features/000000.tar")
    with pytest.raises(UserError, match=r"features/000000\.tar of memory://bucket/shards cannot be read"):
        samples[[5]]
    sums = f"{'0' * 64}  index.parquet\n".encode()
    remote.pipe_file("/bucket/shards/SHA256SUMS", sums)
    with pytest.raises(UserError, match=r"index\.parquet cannot be read.*damaged or half uploaded"):
        open_index(bucket)
    remote.rm_file("/bucket/shards/SHA256SUMS")
    with pytest.raises(UserError, match=r"nowhere/index\.parquet cannot be read"):
        open_index("memory://nowhere")
    with pytest.raises(UserError, match="cannot be opened"):
        open_index("gopher://nowhere")


PARAMS = TrainParams(epochs=2, batch_size=4, accumulate=2, window=2, log_every=1, max_tokens=20)


def run(paths: Paths, parts: tuple[Path, Path], params: TrainParams) -> None:
    train(paths, params, "single", sam_checkpoint=parts[0], language_model=parts[1], device="cpu")


def test_resident_and_streamed_training_is_training(world: World, bucket: str, tmp_path: Path) -> None:
    curves = []
    for name, changes in (("plain", {}), ("resident", {"resident": True}), ("streamed", {"stream": bucket})):
        paths = dataclasses.replace(world[0], runs=tmp_path / name)
        run(paths, world[1], dataclasses.replace(PARAMS, **changes))  # type: ignore[arg-type]
        folder = paths.runs / "single" / "dvclive" / "plots" / "metrics"
        curves.append([(folder / f"{c}.tsv").read_text() for c in ("train/dice", "val/language")])
    assert curves[0] == curves[1] == curves[2]


def test_the_next_batch_after_a_resume_is_the_next_one(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[list[int]]] = []
    step = train_module._step

    def spy(objective: object, network: object, micros: object, batches: object, *rest: object) -> object:
        def noted() -> object:
            for batch in batches:  # type: ignore[attr-defined]
                seen.append(batch.tokens.tolist())
                if len(seen) == 6:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

        return step(objective, network, micros, noted(), *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(train_module, "_step", spy)
    whole = dataclasses.replace(world[0], runs=tmp_path / "whole")
    broken = dataclasses.replace(world[0], runs=tmp_path / "broken")
    with pytest.raises(SystemExit):
        run(broken, world[1], PARAMS)
    run(broken, world[1], PARAMS)
    interrupted, seen[:] = list(seen), [[]] * 6
    run(whole, world[1], PARAMS)
    assert interrupted == seen[6:]


SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (looked at, not written to)


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="needs /dev/shm")
def test_a_run_stopped_by_ctrl_c_saves_and_leaves_no_shared_memory(world: World, tmp_path: Path) -> None:
    paths, (sam, language_model) = world
    sections = {
        "paths": {"data": str(paths.data), "runs": str(tmp_path / "runs"), "metrics": str(tmp_path / "m")},
        "backbones": {
            "sam": {"checkpoint": str(sam)},
            "language_model": str(language_model),
            "device": "cpu",
        },
        "train": {
            "epochs": 100_000,
            "batch_size": 4,
            "workers": 2,
            "log_every": 1,
            "checkpoint_every": 10**6,
        },
    }
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(sections))
    before = set(SHARED_MEMORY.iterdir())
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.train", "single", "--params", str(file)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    curve = tmp_path / "runs" / "single" / "dvclive" / "plots" / "metrics" / "train" / "dice.tsv"
    try:
        wait_for(curve.is_file, 90)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert not [name for name in set(SHARED_MEMORY.iterdir()) - before if str(process.pid) in name.name]
    assert process.returncode == 128 + signal.SIGINT
    assert process.stderr is not None and "Traceback" not in process.stderr.read()
    steps = torch.load(tmp_path / "runs/single/checkpoint/last.pt", weights_only=True)["progress"]
    assert steps["total_steps"] > 0


def wait_for(condition: object, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.2)
