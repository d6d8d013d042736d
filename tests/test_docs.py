"""What the documentation names exists: paths, functions, commands, modules; and the lock fits pyproject."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.imports import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TEXT = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)
pages = pytest.mark.parametrize("page", TEXT)


def names_in(file: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }


@pages
def test_paths_of_the_repository_exist(page: str) -> None:
    named = re.findall(r"(?<![\w/.-])(?:pipeline|model|stages|tests|docs|params)/[\w./-]*[\w/]", TEXT[page])
    assert not [path for path in named if "X" not in path and not (ROOT / path).exists()]


@pages
def test_functions_named_with_their_file_exist(page: str) -> None:
    for path, name in re.findall(r"`((?:pipeline|model)/[\w/]+\.py):(\w+)`", TEXT[page]):
        assert name in names_in(ROOT / path), f"{path}:{name}"


@pages
def test_commands_and_modules_exist(page: str) -> None:
    from typer.main import get_command

    import cli

    known = set(get_command(cli.app).commands)  # type: ignore[attr-defined]
    assert (
        set(re.findall(r"(?:python cli\.py|^emosem|`emosem) ([a-z][\w-]*)", TEXT[page], re.MULTILINE))
        <= known
    )
    for module in re.findall(r"python -m ((?:stages|tests)[\w.]*\w)", TEXT[page]):
        path = ROOT.joinpath(*module.split("."))
        assert module.endswith(".X") or path.with_suffix(".py").is_file(), module


def test_the_map_names_every_room() -> None:
    for package in ("pipeline", "model"):
        for room in (ROOT / package).iterdir():
            if (room / "__init__.py").is_file():
                assert re.search(rf"\b{room.name}\b", TEXT["architecture.md"]), room


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page, text in TEXT.items():
        assert set(re.findall(r"(?:`|^ *)make ([a-z][\w-]*)", text, re.MULTILINE)) <= targets, page


def test_what_make_runs_side_by_side_does_not_need_each_other() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    lines = [re.findall(r"only\.([a-z][\w@+\\-]*)", line) for line in text.splitlines()]
    several = [[set(re.findall(r"[a-z]+", chain)) for chain in line] for line in lines if len(line) > 1]
    assert len(several) == 2
    for chains in several:
        outs = [set(_names(stages, chain, "outs")) for chain in chains]
        for chain, made in zip(chains, outs, strict=True):
            needed = set(_names(stages, chain, "deps")) - made
            assert not needed & set().union(*outs), chain


def _names(stages: dict[str, Any], chain: set[str], key: str) -> Iterator[str]:
    """Paths in a list of dvc.yaml, whether plain or with options."""
    for stage in chain:
        yield from (next(iter(path)) if isinstance(path, dict) else path for path in stages[stage][key])


def test_the_lock_pins_every_dependency_within_its_range() -> None:
    extras = [extra for name, extra in PYPROJECT["optional-dependencies"].items() if name != "peers"]
    for text in [*PYPROJECT["dependencies"], *(line for extra in extras for line in extra)]:
        wanted = Requirement(text)
        pinned = LOCK.get(canonicalize_name(wanted.name))
        assert pinned is not None and wanted.specifier.contains(pinned, prereleases=True), text


def test_the_lock_fits_every_build_of_torch() -> None:
    assert not [name for name in LOCK if re.match(r"(nvidia-(?!ml-py)|cuda-|triton)", name)]
    assert Requirement(f"torch=={LOCK['torch']}").specifier.contains(f"{LOCK['torch']}+cpu")
