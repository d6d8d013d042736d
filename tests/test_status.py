"""`emosem` alone: what stands in the folder and what to do next, and how the program is entered."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

from pipeline.common.errors import UserError
from stages._status import status_text
from tests.imports import ROOT


def run(*arguments: str, cwd: Path, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    command = [python, str(ROOT / "cli.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    params = {
        "paths": {"artemis": "a/artemis/a.csv", "wikiart": "a/wikiart", "apolo": "a/apolo"},
        "utterances": {"num_shards": 3},
        "train": {"variants": {"single": {}}},
    }
    Path("params.yaml").write_text(yaml.safe_dump(params))
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def states(text: str) -> dict[str, str]:
    """Step -> its mark."""
    rows = [
        line for line in text.splitlines() if line[:2] == "  " and line[2:3] in "+~! " and line[3:4] == " "
    ]
    return {line[4:].split()[0]: line[2] for line in rows if line[4:].strip()}


def test_without_params_it_says_where_to_get_them(tmp_path: Path) -> None:
    done = run(cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert "no params file params.yaml" in done.stdout and "--params FILE" in done.stdout


def test_another_params_file_is_looked_at_and_goes_after_a_command(folder: Path) -> None:
    Path("params.yaml").rename("mine.yaml")
    done = run("--params", "mine.yaml", cwd=folder)
    assert done.returncode == 0 and "`emosem doctor --params mine.yaml`" in done.stdout
    done = run("--params", "mine.yaml", "plan", cwd=folder)
    assert done.returncode == 2 and "belongs after plan" in done.stderr


def test_missing_data_leads_to_the_doctor(folder: Path) -> None:
    text = status_text(Path("params.yaml"))
    assert "a/artemis/a.csv  (missing)" in text and "`emosem doctor`" in text
    assert set(states(text).values()) == {" "}


def test_ablations_lead_to_their_own_command(folder: Path) -> None:
    Path("mine.yaml").write_text("ablations: {data: null, seeds: [0, 1]}")
    assert "Next: `emosem ablations --params mine.yaml`" in status_text(Path("mine.yaml"))


def test_each_step_is_as_far_as_its_files_are(folder: Path) -> None:
    touch("a/artemis/a.csv", "a/gallery.json", "data/utterances/artworks.parquet")
    touch(*(f"data/regions/{shard:06d}.json" for shard in range(3)), "data/similarity/000000.json")
    touch("runs/single/checkpoint/last.pt", "metrics/score.json")
    text = status_text(Path("params.yaml"))
    found = states(text)
    assert {step for step, mark in found.items() if mark == "+"} == {"utterances", "regions", "score"}
    assert {step for step, mark in found.items() if mark == "~"} == {"similarity", "train@single"}
    assert "1 of 3 shards" in text and "`python -m stages.similarity`" in text
    assert "not the paper's" in text


def test_params_that_changed_since_dvc_ran_make_a_step_stale(folder: Path) -> None:
    touch("data/utterances/artworks.parquet", "runs/single/config.json", "dvc.yaml")
    lock = {
        "stages": {
            "utterances": {"params": {"params.yaml": {"utterances": {"num_shards": 3}}}},
            "train@single": {"params": {"params.yaml": {"backbones.sam": {"arch": "tiny"}, "train": {}}}},
        }
    }
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    text = status_text(Path("params.yaml"))
    found = states(text)
    assert (found["utterances"], found["train@single"]) == ("+", "!")
    assert "backbones.sam, train changed in the params since it ran" in text
    Path("dvc.lock").write_text("stages: [")
    assert states(status_text(Path("params.yaml")))["train@single"] == "+"


def test_when_all_is_done_it_points_to_the_report(folder: Path) -> None:
    for step in ("regions", "similarity", "masks", "features"):
        touch(*(f"data/{step}/{shard:06d}.json" for shard in range(3)))
    touch("data/utterances/artworks.parquet", "data/shards/index.parquet", "runs/single/config.json")
    touch("data/predict/single/predictions.parquet", "data/alignment/model.safetensors")
    touch("data/baselines/rows.json", "metrics/score.json", "report/index.html")
    text = status_text(Path("params.yaml"))
    assert set(states(text).values()) == {"+"}
    assert "Next: open report/index.html" in text


@pytest.mark.parametrize("content", ["train: [", "paths: {data: 3}", "utterances: 7\ntrain: x\n"])
def test_broken_params_are_one_message_or_are_left_to_the_steps(content: str, folder: Path) -> None:
    Path("params.yaml").write_text(content)
    try:
        assert "to do" in status_text(Path("params.yaml"))
    except UserError as error:
        assert "params.yaml" in str(error)


def test_versions_are_those_of_the_packages(tmp_path: Path) -> None:
    import torch

    done = run("--version", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("emosem 0.") and torch.__version__.split("+")[0] in done.stdout


def test_an_interpreter_without_the_packages_is_one_line(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    bare = str(tmp_path / "bare" / "bin" / "python")
    done = run("train", cwd=tmp_path, python=bare)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert bare in done.stderr and "typer" in done.stderr and "activate" in done.stderr


def test_a_package_that_is_missing_later_is_one_line(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['yaml_of_nobody'] = None\n"
        "from pipeline.common import command\n"
        "command.main(lambda: __import__('nobody_has_this'), 'train')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "train: " in done.stderr and "nobody_has_this" in done.stderr


def test_completion_knows_the_commands(tmp_path: Path) -> None:
    environment = os.environ | {
        "_EMOSEM_COMPLETE": "complete_bash",
        "COMP_WORDS": "emosem pre",
        "COMP_CWORD": "1",
    }
    code = "import sys, cli; sys.argv = ['emosem']; cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert {"predict", "pretrain-tiny"} <= set(done.stdout.split())
