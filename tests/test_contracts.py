"""House rules that a reviewer would otherwise have to remember: import directions, DVC dependencies."""

from pathlib import Path

import pytest
import yaml

from tests.imports import ROOT, closure, direct_imports

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())
TRUNK = {
    f"pipeline.{name}"
    for name in (
        "schema",
        "emotions",
        "shards",
        "shard_index",
        "remote_index",
        "storage",
        "params",
        "machine",
    )
} | {"pipeline"}
# Where a model file may meet raw pictures and frozen encoders (design, Sec. 2).
RAW_PICTURES = {
    "model/predict_images.py",
    "model/predictor.py",
    "model/metrics/clipscore.py",
    "model/score.py",
    "model/score_folder.py",
    "model/score_masks.py",
    "model/score_params.py",
    "model/calibration.py",
    "model/label_card.py",
    "model/label_sweep.py",
    "model/methods.py",
    "model/report.py",
    "model/look.py",
    "model/predict.py",
}


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("file", files("pipeline"), ids=lambda f: f.relative_to(ROOT).as_posix())
def test_pipeline_knows_nothing_of_training(file: Path) -> None:
    assert not {name for name in direct_imports(file) if name.split(".")[0] in ("model", "stages")}


@pytest.mark.parametrize("file", files("model"), ids=lambda f: f.relative_to(ROOT).as_posix())
def test_model_reads_shards_and_not_pictures(file: Path) -> None:
    name = file.relative_to(ROOT).as_posix()
    imported = {module for module in direct_imports(file) if module.split(".")[0] in ("pipeline", "stages")}
    assert not {module for module in imported if module.startswith("stages")}
    if name in RAW_PICTURES or name.startswith(("model/pretrain/", "model/baselines/", "model/bench/")):
        return
    outside = {
        module
        for module in imported
        if not any(module == t or module.startswith(f"{t}.") for t in TRUNK - {"pipeline"})
    }
    assert outside <= {"pipeline"}


def test_only_cluster_knows_dask() -> None:
    for package in ("pipeline", "model", "stages"):
        for file in files(package):
            text = file.read_text(encoding="utf-8")
            if file != ROOT / "pipeline" / "cluster.py":
                assert (
                    "import dask" not in text and "from dask" not in text and "distributed import" not in text
                ), file


def stage_bodies() -> dict[str, dict]:
    return dict(DVC["stages"])


@pytest.mark.parametrize("name", stage_bodies())
def test_each_stage_lists_the_modules_it_reaches(name: str) -> None:
    """DVC does not follow imports: a module left out of `deps` could change without a rerun."""
    body = stage_bodies()[name]
    listed = [ROOT / dep for dep in body["deps"] if not dep.startswith("$")]
    reached = {f for f in closure(ROOT / "stages" / f"{name}.py") if f.read_text().strip()}
    missing = {
        file.relative_to(ROOT).as_posix()
        for file in reached
        if not any(file == dep or dep in file.parents for dep in listed)
    }
    assert not missing


@pytest.mark.parametrize("name", stage_bodies())
def test_each_stage_names_its_params_sections(name: str) -> None:
    import importlib

    stage = importlib.import_module(f"stages.{name}").STAGE
    listed = {param.split(".")[0] for param in stage_bodies()[name]["params"]}
    wanted = {stage.step, *(section for section, _ in stage.sections)} - {"parallel"}  # speed, never a result
    assert wanted <= listed


def test_one_word_one_step() -> None:
    for name in stage_bodies():
        assert (ROOT / "stages" / f"{name}.py").is_file()
        assert (ROOT / "tests" / f"test_{name}.py").is_file() or name == "gallery"
        module = [ROOT / base / name for base in ("pipeline", "model")]
        assert any(path.with_suffix(".py").is_file() or path.is_dir() for path in module), name
