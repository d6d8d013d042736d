"""The package without its checkout: what the wheel holds, and, slowly, commands of a real installation."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from setuptools import Distribution

from model.emosem.export import export
from tests.imports import ROOT
from tests.worlds.own_pictures import new_run, provenance_of, write_pictures, write_weights

PACKAGES = ("pipeline", "model", "stages")


def wheel_files(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Paths in the wheel, as setuptools would fill it by pyproject.toml; nothing is built."""
    monkeypatch.chdir(ROOT)
    distribution = Distribution({"script_name": "setup.py"})
    distribution.parse_config_files(["pyproject.toml"])
    command = distribution.get_command_obj("build_py")
    command.ensure_finalized()
    modules = {Path(module[2]).as_posix() for module in command.find_all_modules()}
    data = {(Path(source) / name).as_posix() for _, source, _, names in command.data_files for name in names}
    return modules | data


def test_the_wheel_holds_every_module_and_every_file_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies in a package is there because code opens it: templates, tables, markers."""
    listed = {
        file.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for file in (ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")
    }
    assert listed | {"cli.py"} == wheel_files(monkeypatch)


@pytest.mark.slow
def test_installed_elsewhere_it_draws_and_predicts(tmp_path: Path) -> None:
    """`pip install .` into an environment of its own, which sees the other packages of this one alone."""
    source = tmp_path / "source"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("cli.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    backbones = write_weights(tmp_path / "weights")
    run = new_run(backbones, tmp_path / "run", provenance_of(backbones))
    home = tmp_path / "elsewhere"
    export(run, home / "model", tmp_path, backbones=backbones)
    write_pictures(home / "pictures")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    (packages,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", packages]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *options, source], check=True)
    shutil.rmtree(source)
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "EMOSEM_WEIGHTS")}

    def emosem(*words: str) -> str:
        command = [python, "-c", "import cli; cli.main()", *words]
        done = subprocess.run(command, cwd=home, env=kept, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    found = subprocess.run(
        [python, "-c", "import cli, model, pipeline; print(cli.__file__)"],
        cwd=home, env=kept, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert Path(found.strip()).parent == packages
    assert json.loads(emosem("gallery", "gallery", "--artworks", "3", "--json"))
    rows = json.loads(emosem("predict", "model", "pictures", "--emotion", "awe", "--page", "--json"))
    assert sum("map" in row for row in rows) == 4
    assert (home / "predictions" / "index.html").is_file()
    assert "page: predictions/index.html" in emosem(
        "predict", "model", "pictures", "--emotion", "awe", "--page"
    )
    templates = (
        "from model.report.templates import environment\n"
        "from model.metrics.text import Meteor\n"
        "from model.score.paper_tables.tables import published\n"
        "published(), Meteor\n"
        "[environment().get_template(n) for n in environment().list_templates() if n.endswith('.html')]\n"
    )
    subprocess.run([python, "-c", templates], cwd=home, env=kept, check=True)
