"""The folder of wheels for a machine without a network: complete, one version each, small enough."""

import ast
import importlib.util
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.imports import PACKAGES, ROOT, closure


@pytest.fixture(scope="module")
def wheels() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_wheels", ROOT / ".ci" / "gpu_wheels.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def imported_at_once(file: Path) -> set[str]:
    """Packages of others that a file needs to be imported at all."""
    names: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names} - {*PACKAGES, *sys.stdlib_module_names}


def test_all_that_the_parts_import_is_there_or_a_wheel(wheels: ModuleType) -> None:
    started = [ROOT / "model/bench/gpu.py", *(ROOT / "model/bench/gpu_parts").glob("*.py")]
    commands = [ROOT / "cli.py", *(ROOT / "stages/commands").glob("*.py")]
    files = {*commands, *(file for start in started for file in closure(start))}
    distributions = packages_distributions()
    needed = {canonicalize_name(distributions[name][0]) for f in files for name in imported_at_once(f)}
    assert {"torch", "pydantic", "open-clip-torch", "segment-anything"} <= needed
    assert needed <= {*wheels.NEEDED, *wheels.EXPECTED}
    assert not set(wheels.NEEDED) & set(wheels.EXPECTED)


def test_what_the_wheels_need_themselves_is_there_too(wheels: ModuleType) -> None:
    there = {*wheels.NEEDED, *wheels.EXPECTED, "timm", "typing-extensions"}
    for name in wheels.NEEDED:
        found = [Requirement(line) for line in requires(name) or []]
        wanted = {
            canonicalize_name(r.name) for r in found if r.marker is None or r.marker.evaluate({"extra": ""})
        }
        assert wanted <= there, name


def test_versions_are_those_of_the_lock(wheels: ModuleType) -> None:
    lock = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert all(line in lock.splitlines() for line in wheels.pinned(wheels.NEEDED, lock))
    assert wheels.pinned(["b"], "# a==1\na==1\nb==2.0\n") == ["b==2.0"]
    with pytest.raises(KeyError):
        wheels.pinned(["nowhere"], lock)


def test_sizes_are_added_up(wheels: ModuleType) -> None:
    limit = 64 * 1024 * 1024
    assert wheels.problem({"a-1-x.whl": limit - 1, "b-1-x.whl": 1}) == ""
    assert "64 MiB" in wheels.problem({"a-1-x.whl": limit, "b-1-x.whl": 1})
    assert "several versions of a:" in wheels.problem({"a-1-x.whl": 1, "a-2-x.whl": 1})
