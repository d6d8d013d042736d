"""The whole DAG on a tiny world: it runs, a second run does nothing, a rerun gives the same bytes.

And it is shared: a second clone pulls all of it, experiments are compared, and main's numbers come back.
"""

import csv
import io
import json
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


def run(folder: Path, *command: str, stderr: bool = True) -> str:
    """Run a program of this environment in `folder`; its output, or its error as the failure."""
    bin_dir = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    environment |= {"DVC_NO_ANALYTICS": "1", "COLUMNS": "10000"}
    for who in ("GIT_AUTHOR", "GIT_COMMITTER"):
        environment |= {f"{who}_NAME": "a", f"{who}_EMAIL": "a@b.c"}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # Python's caches must not look like changed code
    environment.pop("PYTHONPATH", None)  # the copy's own code, not this checkout's
    done = subprocess.run(
        [command[0] if command[0] == "git" else f"{bin_dir}/{command[0]}", *command[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + (done.stderr if stderr else "")


def world(folder: Path) -> Path:
    """A checkout with params so small that the DAG takes a minute or two."""
    for name in ("pipeline", "model", "stages", "weights"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["gallery"]["artworks"] = 24
    params["utterances"]["num_shards"] = 2
    params["train"]["epochs"] = 1
    params["train"]["log_every"] = 1
    params["alignment"]["epochs"] = 2
    params["report"]["items"] = 3
    params["predict"]["seeds"] = [0]
    params["score"]["statistics"] = {"resamples": 200}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


def data_hashes(folder: Path) -> dict[str, str]:
    files = [path for step in STEPS for path in sorted((folder / "data" / step).rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = world(tmp_path_factory.mktemp("dag"))
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    run(folder, "dvc", "init", "--quiet")
    commit(folder, "code")
    run(folder, "dvc", "repro")
    commit(folder, "results")
    return folder


def commit(folder: Path, message: str) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", message)


def results(folder: Path) -> dict[str, str]:
    """Hash of every file that the stages keep."""
    rooms = ("data", "runs", "metrics", "report")
    files = [path for room in rooms for path in sorted((folder / room).rglob("*")) if path.is_file()]
    by_product = folder / "data" / "cache"
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in files
        if by_product not in path.parents
    }


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


@pytest.fixture(scope="module")
def second(done: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another person's checkout: what git and DVC's remote hold of `done`."""
    remote, folder = (tmp_path_factory.mktemp("shared") / name for name in ("remote", "second"))
    run(done, "dvc", "remote", "add", "--local", "--default", "there", str(remote))
    run(done, "dvc", "push", "--quiet")
    run(done, "git", "clone", "--quiet", str(done), str(folder))
    run(folder, "dvc", "remote", "add", "--local", "--default", "there", str(remote))
    run(folder, "dvc", "pull", "--quiet")
    return folder


def test_git_and_dvc_hold_everything(done: Path, second: Path) -> None:
    """Pushed, cloned and pulled: the second clone has every file, and nothing to do."""
    assert run(done, "git", "status", "--porcelain", "--untracked-files=all") == ""
    assert results(second) == results(done)
    assert "Running stage" not in run(second, "dvc", "repro")
    assert results(second) == results(done)
    assert run(second, "git", "status", "--porcelain", "--untracked-files=all") == ""


EXPERIMENTS = {
    "threshold": ("score.threshold=0.8", "score"),
    "words": ("++alignment.min_count=1", "alignment"),
}


def numbers(folder: Path) -> dict[str, float]:
    """One that each experiment changes, by its column in `dvc exp show`."""
    methods = json.loads((folder / "metrics" / "methods.json").read_text())
    alignment = json.loads((folder / "metrics" / "alignment.json").read_text())
    return {
        "clip+vinvl.seg_pr25": methods["clip+vinvl"]["seg_pr25"],
        "words": alignment["words"],
    }


def test_experiments_are_compared_and_main_comes_back(done: Path, second: Path) -> None:
    found = {"main": numbers(done)}
    for name, (change, stage) in EXPERIMENTS.items():
        run(second, "dvc", "exp", "run", "--name", name, "-S", change, stage)
        found[name] = numbers(second)
        changes = json.loads(run(second, "dvc", "metrics", "diff", "--json", stderr=False))
        assert changes
        run(second, "git", "checkout", "--quiet", "params.yaml", "dvc.lock")
        run(second, "dvc", "checkout", "--quiet")
        assert results(second) == results(done)

    table = csv.DictReader(io.StringIO(run(second, "dvc", "exp", "show", "--csv", stderr=False)))
    shown = {row["Experiment"] or row["rev"]: row for row in table}
    assert shown.keys() == {"workspace", *found}
    for name, row in shown.items():
        assert "!" not in row.values()
        expected = found["main" if name == "workspace" else name]
        assert {column: float(row[column]) for column in expected} == expected
    threshold, words = (
        {k for k in found[name] if found[name][k] != found["main"][k]} for name in EXPERIMENTS
    )
    assert (threshold, words) == ({"clip+vinvl.seg_pr25"}, {"words"})
    assert run(second, "dvc", "metrics", "diff") == ""


def test_curves_are_plots(second: Path) -> None:
    plots = json.loads(run(second, "dvc", "plots", "show", "--json", stderr=False))
    plots = plots.get("data", plots)
    curves = list((second / "runs").rglob("plots/metrics/*/*.tsv"))
    assert len(curves) == 3 * len(plots)  # variants
    for tsv in curves:
        group, value = tsv.parent.name, tsv.stem
        drawn = {
            (point["step"], point[value])
            for plot, graphs in plots.items()
            if plot.startswith(group)
            for graph in graphs
            for point in graph["content"]["data"]["values"]
            if value in point and str(tsv).endswith(point["filename"])
        }
        assert drawn == {tuple(line.split("\t")) for line in tsv.read_text().splitlines()[1:]}, tsv
