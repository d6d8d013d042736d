"""`bench`: rates follow from counts and times of one run; weights of true size have the official formats."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator

from model.bench import factory, score
from model.bench.plan import plan_training
from model.bench.train import bench_variant
from model.train.params import TrainParams
from pipeline.backbones.params import BackbonesParams, SamParams
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.plan.timing import STEPS
from pipeline.plan.workload import Counts
from tests.imports import ROOT
from tests.worlds import trained_shards
from tests.worlds.backbones import write_backbones


@pytest.fixture(scope="module")
def params_file(tiny_gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench")
    backbones = write_backbones(root / "weights")
    sections = {
        "paths": {
            "artemis": str(next(tiny_gallery.rglob("*.csv"))),
            "wikiart": str(tiny_gallery / "wikiart"),
            "data": str(root / "data"),
        },
        "backbones": {
            "sam": {"arch": "tiny", "checkpoint": str(backbones.sam.checkpoint)},
            "clip": {"name": "tiny", "checkpoint": str(backbones.clip.checkpoint)},
            "vinvl": {"checkpoint": str(ROOT / "weights/tiny/vinvl.safetensors")},
            "device": "cpu",
        },
        "regions": {"source": "vinvl", "min_detections": 4, "max_detections": 4},
        "bench": {"artworks": 3},
    }
    file = root / "params.yaml"
    file.write_text(yaml.safe_dump(sections))
    return file


def test_the_factory_is_measured_step_by_step_in_one_run(params_file: Path) -> None:
    found = json.loads(json.dumps(factory.run(params_file)))
    assert found["artworks"] == 3
    assert list(found["steps"]) == list(STEPS)
    for row in found["steps"].values():
        assert row["artworks_per_second"] == pytest.approx(3 / row["seconds"], rel=0.005)
        assert 0 <= row["waiting_for_decode"] <= 1
    similarity = found["steps"]["similarity"]
    assert similarity["crops_per_second"] == pytest.approx(4 * similarity["artworks_per_second"], rel=0.005)
    crops = found["crops"]
    assert (crops["boxes"], crops["pictures"]) == (12, 3)
    assert crops["ratio"] == pytest.approx(crops["device_per_second"] / crops["pillow_per_second"], rel=0.005)
    assert found["device"] and found["torch"] == torch.__version__
    sections = yaml.safe_load(params_file.read_text())
    assert not Path(sections["paths"]["data"]).exists()  # nothing but the temporary folder is written to


def test_missing_weights_end_only_their_steps(params_file: Path, tmp_path: Path) -> None:
    sections = yaml.safe_load(params_file.read_text())
    sections["backbones"]["clip"]["checkpoint"] = "nowhere.pt"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(sections))
    steps = factory.run(tmp_path / "params.yaml")["steps"]
    assert {name for name, row in steps.items() if "problem" in row} == {"similarity", "features", "shards"}
    assert "nowhere.pt" in steps["similarity"]["problem"]


def test_no_picture_at_all_is_a_users_mistake(params_file: Path, tmp_path: Path) -> None:
    sections = yaml.safe_load(params_file.read_text())
    sections["paths"]["wikiart"] = str(tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(sections))
    with pytest.raises(UserError, match="has a picture"):
        factory.run(tmp_path / "params.yaml")


def test_training_is_planned_by_the_samples_of_all_epochs(tmp_path: Path) -> None:
    """8 epochs x 1,000 utterances (pair: 300 masks) of 100 artworks of 5 kB."""
    sam, language_model = trained_shards.backbones(tmp_path)
    sample = trained_shards.shards(tmp_path, {"train": 4})
    file = tmp_path / "params.yaml"
    sections = {
        "backbones": {
            "sam": {"arch": "tiny", "checkpoint": str(sam)},
            "language_model": str(language_model),
            "device": "cpu",
        },
        "train": {"epochs": 8, "batch_size": 4, "variants": {"single": {"paradigm": "single"}}},
    }
    file.write_text(yaml.safe_dump(sections))
    counts = Counts(
        rows=0, rows_rejected=0, csv_bytes=0, csv_seconds=0, artworks=120, missing_pictures=0,
        picture_bytes=0, utterances=0, pairs=0, train_artworks=100, train_pairs=300, train_utterances=1000,
    )  # fmt: skip
    (row,) = plan_training(file, counts, sample, feature_bytes=5000)
    assert (row.items, row.read_bytes) == (8000, 8 * 100 * 5000)
    assert row.rate and row.hours == pytest.approx(8000 / row.rate / 3600)
    assert row.write_bytes and row.write_bytes > 0
    sections["train"]["visit"] = "pair"  # type: ignore[index]
    file.write_text(yaml.safe_dump(sections))
    (row,) = plan_training(file, counts, None, feature_bytes=5000)
    assert (row.items, row.rate, row.hours) == (2400, None, None)
    assert "features" in row.problem


ONE = Counts(
    rows=0, rows_rejected=0, csv_bytes=0, csv_seconds=0, artworks=1, missing_pictures=0,
    picture_bytes=0, utterances=0, pairs=0, train_artworks=1, train_pairs=1, train_utterances=1,
)  # fmt: skip


def test_a_plan_that_measures_no_training_does_not_import_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transformers take seconds to import, and a finished run's plan needs none."""
    file = tmp_path / "params.yaml"
    file.write_text("train: {variants: {single: {}, multi: {}}}")
    found = importlib.util.find_spec("model.bench.plan")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, "model.bench.train", None)  # importing it now fails
    found.loader.exec_module(module)
    rows = module.plan_training(file, ONE, None, feature_bytes=1)
    assert [row.step for row in rows] == ["train@single", "train@multi"]
    with pytest.raises(ModuleNotFoundError):  # a module of ours: no row, a mistake
        module.plan_training(file, ONE, Paths(), feature_bytes=1)


def test_a_package_that_training_lacks_costs_its_row_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "params.yaml"
    file.write_text("train: {variants: {single: {}}}")

    def broken(*_arguments: object, **_options: object) -> None:
        raise ModuleNotFoundError("No module named 'accelerate'", name="accelerate")

    monkeypatch.setattr("model.bench.train.bench_variant", broken)
    (row,) = plan_training(file, ONE, Paths(), feature_bytes=1)
    assert (row.rate, row.hours) == (None, None)
    assert "has no package accelerate; run the Python that" in row.problem


def test_planned_bytes_of_training_are_those_of_its_files(tmp_path: Path) -> None:
    from model.emosem.pretrained import build_pretrained
    from model.train.checkpoint import Checkpoints

    sam, language_model = trained_shards.backbones(tmp_path)
    paths = trained_shards.shards(tmp_path, {"train": 4})
    params = TrainParams(batch_size=4)
    backbones = BackbonesParams(sam=SamParams("tiny", sam), language_model=language_model, device="cpu")
    planned = bench_variant(paths, params, backbones, steps=1)["written"]
    model = build_pretrained(
        sam, language_model, paradigm="single", prefix="mask+prompt", finetune="mask-head",
        detach_prompt=False, max_tokens=25, visual_dim=trained_shards.WIDTH,
    )  # fmt: skip
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    sum(p.sum() for p in trained).backward()  # type: ignore[union-attr]
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    Checkpoints(tmp_path, "", model, optimizer, scheduler, Accelerator(cpu=True)).end_epoch({})
    model.save_pretrained(tmp_path / "saved")
    files = ("last.pt", "best.safetensors", "saved/model.safetensors")
    assert planned == pytest.approx(sum((tmp_path / file).stat().st_size for file in files), rel=0.15)


def test_true_size_is_not_for_every_bench() -> None:
    command = [sys.executable, str(ROOT / "cli.py"), "bench", "model", "--true-size"]
    assert subprocess.run(command, capture_output=True, check=False, cwd=ROOT).returncode == 2


@pytest.mark.slow
def test_weights_of_true_size_load_as_the_official_ones_do(tmp_path: Path) -> None:
    from model.bench import true_size_weights
    from pipeline.backbones.clip import load_clip
    from pipeline.backbones.sam import load_sam
    from pipeline.regions.vinvl.detector import load_vinvl

    backbones = true_size_weights.write(tmp_path, BackbonesParams(device="cpu"))
    assert load_sam(backbones.sam.arch, backbones.sam.checkpoint, "cpu").img_size == 1024
    assert load_clip(backbones.clip.name, backbones.clip.checkpoint, "cpu").size == 224
    assert len(load_vinvl(backbones.vinvl.checkpoint).state_dict()) == 841


def test_the_protocol_is_measured_on_every_kind_of_map(
    params_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, count in (("TEST_ITEMS", 30), ("VAL_ITEMS", 5), ("SPECKLED_ITEMS", 2)):
        monkeypatch.setattr(score, name, count)
    monkeypatch.setattr(score, "SIZES", ((40, 60), (30, 20)))
    found = json.loads(json.dumps(score.run(params_file)))
    assert {kind: row["items"] for kind, row in found["score"].items()} == {
        "7x7": 30,
        "side_256": 30,
        "of_the_label": 30,
        "noise": 2,
    }
    assert found["sweep"]["items"] == 5
    for row in (*found["score"].values(), found["sweep"]):
        assert row["items_per_second"] > 0
