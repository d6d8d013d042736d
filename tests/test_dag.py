"""The whole DAG on a tiny world: it runs, a second run does nothing, a rerun gives the same bytes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.common.fingerprint import sha256_file
from tests.imports import ROOT

STEPS = ("gallery", "utterances", "regions", "similarity", "masks", "features", "shards")


def run(folder: Path, *command: str) -> str:
    """Run a program of this environment in `folder`; its output, or its error as the failure."""
    bin_dir = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # Python's caches must not look like changed code
    done = subprocess.run(
        [f"{bin_dir}/{command[0]}", *command[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def world(folder: Path) -> Path:
    """A checkout with params so small that the DAG takes a minute or two."""
    for name in ("pipeline", "model", "stages", "weights"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["gallery"]["artworks"] = 24
    params["utterances"]["num_shards"] = 2
    params["train"]["epochs"] = 1
    params["alignment"]["epochs"] = 2
    params["report"]["items"] = 3
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


def data_hashes(folder: Path) -> dict[str, str]:
    files = [path for step in STEPS for path in sorted((folder / "data" / step).rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = world(tmp_path_factory.mktemp("dag"))
    run(folder, "dvc", "init", "--no-scm", "--quiet")
    run(folder, "dvc", "repro")
    return folder


def test_the_pipeline_ends_with_a_report_and_scores(done: Path) -> None:
    assert (done / "report" / "index.html").stat().st_size > 10_000
    methods = {row["method"] for row in yaml.safe_load((done / "metrics" / "score.json").read_text())["rows"]}
    assert methods >= {
        "entire-artwork",
        "clip+vinvl",
        "emosem-single",
        "emosem-multi",
        "emosem-single:other-emotion",
        "emosem-single:no-prefix",
    }


def test_a_second_repro_does_nothing_and_says_so(done: Path) -> None:
    assert list((done / "pipeline").rglob("*.pyc")), "Python wrote no caches, so this test shows nothing"
    for _ in range(2):
        output = run(done, "dvc", "repro")
        assert "Data and pipelines are up to date" in output
        assert "Running stage" not in output


def test_a_step_called_by_hand_leaves_nothing_to_do(done: Path) -> None:
    for step in ("utterances", "regions", "masks", "shards", "train single", "report"):
        run(done, "python", "-m", *f"stages.{step}".split())
    assert "Data and pipelines are up to date" in run(done, "dvc", "status")


def test_a_masks_param_reruns_masks_and_what_follows_it(done: Path) -> None:
    params = yaml.safe_load((done / "params.yaml").read_text())
    before = (done / "params.yaml").read_text()
    params["masks"]["aggregate"] = "mean"
    (done / "params.yaml").write_text(yaml.safe_dump(params))
    status = run(done, "dvc", "status", "masks", "regions", "similarity", "features", "utterances")
    (done / "params.yaml").write_text(before)
    changed = {line.rstrip(":") for line in status.splitlines() if line and not line[0].isspace()}
    assert changed == {"masks"}
    run(done, "dvc", "repro", "--dry")


def test_a_rerun_from_nothing_gives_the_same_bytes(done: Path, tmp_path: Path) -> None:
    again = world(tmp_path)
    for step in STEPS:
        run(again, "python", "-m", f"stages.{step}")
    assert data_hashes(again) == data_hashes(done)
