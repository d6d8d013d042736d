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
from collections import Counter
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
    for name in ("pipeline", "model", "stages", "weights", "reviews"):
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
    "threshold": ("score.threshold=0.9", "score"),
    "words": ("++alignment.epochs=30", "score"),
}
WIDTH = 120
"""Columns of a terminal."""


def numbers(folder: Path) -> dict[str, float]:
    """Those of metrics/summary.json, by their columns in `dvc exp show`."""
    found: dict[str, float] = json.loads((folder / "metrics" / "summary.json").read_text())
    return found


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
        {k.partition(".")[2] for k in found[name] if found[name][k] != found["main"][k]}
        for name in EXPERIMENTS
    )
    assert threshold and threshold <= {"pr25", "pr50"}
    assert words == {"ea"}
    assert run(second, "dvc", "metrics", "diff") == ""
    every = run(second, "dvc", "metrics", "diff", "main", "threshold", "--targets", "metrics/methods.json")
    assert "clip+vinvl.seg_pr50" in every


def test_what_dvc_shows_fits_a_terminal(second: Path) -> None:
    """After the experiments above; with the flags of docs/paper.md."""
    dropped = ".*/|Created|.*pr25"
    show = ("exp", "show", "--only-changed", "--drop", dropped, "--no-pager")
    for command in (("metrics", "show"), ("metrics", "diff", "main", "threshold"), show):
        lines = run(second, "dvc", *command, stderr=False).splitlines()
        assert len(lines) >= 2 and max(map(len, lines)) <= WIDTH, lines
    assert f"--only-changed --drop '{dropped}'" in (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")


def plot_points(second: Path) -> dict[str, list[dict[str, str]]]:
    """Plot -> the points that its page draws."""
    plots = json.loads(run(second, "dvc", "plots", "show", "--json", stderr=False))
    plots = plots.get("data", plots)
    return {
        name: [point for graph in graphs for point in graph["content"]["data"]["values"]]
        for name, graphs in plots.items()
    }


def test_scores_are_plots(second: Path) -> None:
    plots = plot_points(second)
    folder = second / "metrics" / "plots"

    def rows_of(file: Path) -> Counter[tuple[str, ...]]:
        return Counter(tuple(row.values()) for row in csv.DictReader(io.StringIO(file.read_text())))

    for variant in ("single", "multi", "no-prefix"):
        points = plots[f"emotions of {variant}, asked and read"]
        drawn = Counter((point["asked"], point["read"]) for point in points)
        assert drawn and drawn == rows_of(folder / "emotions" / f"{variant}.csv")
    points = plots["mean IoU by threshold, val items"]
    for file in (folder / "thresholds").iterdir():
        own = [point for point in points if Path(point["filename"]).name == file.name]
        columns = ("threshold", "mean_iou", "seg_pr25", "seg_pr50")
        assert Counter(tuple(point[c] for c in columns) for point in own) == rows_of(file)
        assert len(own) == 100


def test_curves_are_plots(second: Path) -> None:
    plots = {
        name: points for name, points in plot_points(second).items() if name.startswith(("train", "val"))
    }
    curves = list((second / "runs").rglob("plots/metrics/*/*.tsv"))
    assert len(curves) == 3 * len(plots)  # variants
    for tsv in curves:
        group, value = tsv.parent.name, tsv.stem
        drawn = {
            (point["step"], point[value])
            for plot, points in plots.items()
            if plot.startswith(group)
            for point in points
            if value in point and str(tsv).endswith(point["filename"])
        }
        assert drawn == {tuple(line.split("\t")) for line in tsv.read_text().splitlines()[1:]}, tsv
