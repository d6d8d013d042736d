"""What `bench train` and `bench model` say, on sizes that a test can pay for."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from model.bench import true_size_shards
from model.bench.flops import Part
from model.bench.loader import TURNS, _members, bench_loader
from model.bench.model import measure_parts
from model.bench.train import measure_steps, run
from model.data.batch import Batch
from model.data.frame import Frame
from model.data.samples import Samples
from model.emosem.config import EmoSEMConfig
from model.train.params import TrainParams
from model.train.train import initial_model, new_samples
from pipeline.backbones.language_model import load_tokenizer
from pipeline.reader.index import Index
from tests.imports import ROOT
from tests.worlds import trained_shards

PARAMS = TrainParams(batch_size=4, max_tokens=20)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, Path, Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("world")
    paths = trained_shards.shards(folder, {"train": 6})
    return Index.load(paths.step("shards")), *trained_shards.backbones(folder / "weights")


def measured(world: tuple[Index, Path, Path], params: TrainParams, **more: Any) -> dict[str, Any]:
    index, sam, language_model = world
    model = initial_model(index, params, sam, language_model)
    samples = new_samples(index, "train", model, params)
    return json.loads(json.dumps(measure_steps(model, samples, params, "cpu", 3, **more)))


def test_parts_of_a_step_add_up_to_its_rate(world: tuple[Index, Path, Path]) -> None:
    seen: list[int] = []

    def encode(batch: Batch) -> Batch:
        seen.append(len(batch.artworks))
        return batch

    for params, more in (
        (PARAMS, {}),
        (PARAMS, {"encode": encode}),
        (dataclasses.replace(PARAMS, resident=True), {}),
    ):
        found = measured(world, params, **more)
        parts = found["milliseconds"]
        assert list(parts) == ["wait", *(["encode"] if more else []), "forward", "backward", "optimiser"]
        assert found["samples_per_second"] == pytest.approx(4 / (sum(parts.values()) / 1000), rel=0.005)
        assert found["wait_share"] == pytest.approx(parts["wait"] / sum(parts.values()), abs=0.001)
    assert len(seen) == 4


def test_the_loader_is_compared_over_the_bytes_it_reads(world: tuple[Index, Path, Path]) -> None:
    samples = Samples(world[0], "train", load_tokenizer(world[2]), Frame(32, 32), max_tokens=20)
    read: set[tuple[str, str]] = set()
    view = samples.index.view
    samples.index.view = lambda *member: (read.add(member), view(*member))[1]  # type: ignore[method-assign]
    samples[[0, 1, 5]]
    asked = {(key, name.removeprefix("features/") if name.endswith("npy") else name) for key, name in read}
    expected = {
        (key, name.removeprefix("features/") if name.endswith("npy") else name)
        for key, name in _members(samples, np.array([0, 1, 5]))
    }
    assert asked == expected
    for from_disk in (False, True) if hasattr(os, "posix_fadvise") else (False,):
        found = bench_loader(samples, [np.array([0, 1, 5])] * 3, 1, from_disk)
        ratio = found["gigabytes_per_second"] / found["raw_gigabytes_per_second"]
        assert found["share_of_raw"] == pytest.approx(ratio, rel=0.005)
        assert ("first_gigabytes_per_second" in found) is not from_disk


def test_a_first_epoch_is_timed_with_its_checks_and_later_ones_without(
    world: tuple[Index, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = Samples(world[0], "train", load_tokenizer(world[2]), Frame(32, 32), max_tokens=20)
    samples[[0, 1, 5]]
    compared: list[str] = []
    compare = Index._compare
    monkeypatch.setattr(Index, "_compare", lambda self, key: (compared.append(key), compare(self, key))[1])
    bench_loader(samples, [np.array([0, 1, 5])] * 2, 0, from_disk=False)
    keys = {samples.keys[artwork] for artwork in samples.table[[0, 1, 5], 0]}
    assert sorted(compared) == sorted(TURNS * list(keys))
    fresh = samples.unread()
    for ours, theirs in zip(
        dataclasses.astuple(fresh[[0, 5]]), dataclasses.astuple(samples[[0, 5]]), strict=True
    ):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)


def test_the_papers_sizes_are_the_papers(tmp_path: Path, world: tuple[Index, Path, Path]) -> None:
    index = true_size_shards.write_shards(tmp_path, 3)
    samples = Samples(index, "train", load_tokenizer(world[2]), Frame(1024, 256), max_tokens=25)
    batch = samples[list(range(len(samples)))]
    assert batch.sam.shape == (3, 256, 64, 64) and batch.clip.shape == (3, 196, 768)
    assert batch.sam.dtype == batch.clip.dtype == torch.float16
    assert len(batch.rows) == 9 and len(batch.tokens) == 18
    with torch.device("meta"):
        encoders = true_size_shards.Encoders()
        sam, clip = encoders(2, torch.device("meta"))
    config = EmoSEMConfig()
    assert sam.shape == (2, config.dim, config.grid, config.grid)
    assert clip.shape == (2, 196, config.visual_dim)
    assert sum(p.numel() for p in encoders.sam.parameters()) == 89_670_912  # of ViT-B in SAM


def test_parts_of_a_model_sum_to_its_totals() -> None:
    inventory = {"encoder": Part(100, 0, 3_000_000_000), "head": Part(20, 15, 500_000)}
    found = measure_parts({"small": inventory})["small"]
    total = {"parameters": 120, "trainable": 15, "frozen": 105, "multiply_adds_G": 3.0}
    assert found["total"] == pytest.approx(total, abs=1e-3)
    assert found["parts"]["head"]["frozen"] == 5


def test_bench_train_reads_a_params_file(tmp_path: Path) -> None:
    sam, words = trained_shards.backbones(tmp_path)
    paths = trained_shards.shards(tmp_path, {"train": 4})
    sections = {
        "paths": {"data": str(paths.data)},
        "backbones": {
            "sam": {"checkpoint": str(sam)},
            "language_model": str(words),
            "device": "cpu",
        },
        "train": {"batch_size": 4, "variants": {"only": {"paradigm": "single"}}},
    }
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(sections))
    found = run(file)
    assert list(found) == ["only", "loader"] and found["loader"][0]["share_of_raw"] > 0
    assert found["only"]["samples_per_second"] > 0


def test_benches_of_the_model_need_few_packages() -> None:
    """A borrowed GPU machine has few packages."""
    absent = (
        "dask",
        "distributed",
        "open_clip",
        "fsspec.implementations",
        "datasets",
        "pycocotools",
    )
    code = (
        f"import sys\nfor name in {absent!r}: sys.modules[name] = None\n"
        "import model.bench.train, model.bench.model, model.bench.true_size_shards\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=ROOT)
