"""The command line: instant help, one clear message for a user's mistake, exit codes 0, 1, 2."""

import ast
import contextlib
import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from typer.main import get_command

import cli
from pipeline.common.errors import UserError
from stages.commands.factory import build_pseudo_masks
from stages.commands.loading import loading_torch
from tests.imports import ROOT


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "cli.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_help_answers_without_the_heavy_imports() -> None:
    code = (
        "import sys, cli\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(cli.app, ['--help']).exit_code == 0\n"
        "heavy = ('torch', 'cv2', 'pandas', 'transformers', 'dask', 'pyarrow')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command",
    [
        "gallery",
        "build-pseudo-masks",
        "cache-features",
        "train",
        "predict",
        "export",
        "score",
        "shard-stats",
        "look",
        "report",
        "bench",
        "plan",
        "doctor",
        "fetch",
        "init",
        "pretrain-tiny",
    ],
)
def test_every_command_explains_itself(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert command in done.stdout


def test_every_function_that_answers_is_a_command() -> None:
    """One that `COMMANDS` does not list would be there, tested, and unreachable."""
    files = sorted((ROOT / "stages" / "commands").glob("*.py"))
    functions = [
        node.name.replace("_", "-")
        for node in (node for file in files for node in ast.parse(file.read_text(encoding="utf-8")).body)
        if isinstance(node, ast.FunctionDef) and node.returns and ast.unparse(node.returns) == "Answer"
    ]
    public = [name for name in functions if not name.startswith("-") and name != "answer-of"]
    assert sorted(public) == sorted(get_command(cli.app).commands)  # type: ignore[attr-defined]


def test_unknown_commands_and_choices_are_wrong_usage() -> None:
    assert run("paint").returncode == 2
    assert run("train", "--paradigm", "triple").returncode == 2


def test_a_missing_params_file_is_one_line_and_exit_2(tmp_path: Path) -> None:
    done = run("build-pseudo-masks", "--params", "nowhere.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "error: params file nowhere.yaml does not exist; name one with --params FILE"
    ]


def test_bad_params_are_named_all_at_once_with_exit_2(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("utterances: {num_shards: 0, colour: red}\n")
    done = run("build-pseudo-masks", cwd=tmp_path)
    assert done.returncode == 2
    assert "utterances.num_shards = 0" in done.stderr
    assert "utterances.colour = 'red'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_later_steps_typo_is_told_before_the_first_step(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("paths: {artemis: nowhere.csv}\nmasks: {agregate: sum}\n")
    with pytest.raises(UserError, match=r"masks\.agregate"):
        build_pseudo_masks(params=params)


@pytest.mark.parametrize("option", ["--allow-missing", "--split=val", "--apolo=apolo"])
def test_options_of_anyones_maps_are_refused_without_them(option: str) -> None:
    done = run("score", option)
    assert done.returncode == 2
    assert option.partition("=")[0] in done.stderr


def test_an_empty_csv_is_one_clear_message_with_exit_2(tmp_path: Path) -> None:
    (tmp_path / "artemis.csv").write_text("")
    (tmp_path / "params.yaml").write_text("paths: {artemis: artemis.csv, wikiart: ., apolo: apolo}\n")
    done = run("build-pseudo-masks", cwd=tmp_path)
    assert done.returncode == 2
    assert "artemis.csv" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("thawed")
@pytest.mark.parametrize("error", [None, ImportError])
def test_the_garbage_collector_is_back_after_the_imports(
    error: type[Exception] | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It leaves what was imported alone, and finds the garbage made later."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    before = gc.get_freeze_count()
    with contextlib.nullcontext() if error is None else pytest.raises(error), loading_torch("plan"):
        assert not gc.isenabled()
        if error is not None:
            raise error
    assert gc.isenabled() and gc.get_freeze_count() > before
    assert capsys.readouterr().err == "plan: loading PyTorch\n"
    circle = type("Circle", (), {})()
    circle.itself, gone = circle, weakref.ref(circle)
    del circle
    gc.collect()
    assert gone() is None


def test_a_process_with_pytorch_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that runs many commands would otherwise never have its garbage collected."""
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    before = gc.get_freeze_count()
    with loading_torch("plan"):
        assert gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() == before
