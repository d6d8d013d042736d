"""House rules that a reviewer would otherwise have to remember: layout, imports, DVC's dependencies."""

import ast
import importlib
import importlib.metadata
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from model.bench.peers.rows import ROWS
from tests.imports import ROOT, closure, cycles, direct_imports, edges, module_name

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, dict] = DVC["stages"]

PIPELINE_FLOORS = (
    ("common",),
    ("releases", "parallel", "reviews"),
    ("reader", "masks", "utterances", "gallery", "backbones"),
    ("features", "regions", "similarity", "shards"),
    ("plan", "shard_stats", "export_masks"),
    ("doctor", "review"),
    ("fetch", "init"),
)
MODEL_FLOORS = (
    ("metrics",),
    ("emosem", "maps", "alignment"),
    ("data", "baselines"),
    ("train", "predict", "score", "report", "relabel"),
    ("label_card", "bench", "pretrain"),
)
"""Rooms from the ground up: a room imports from the floors below it, never from its own or a higher one."""
SHARDS_ONLY = ("common", "reader")
MODEL_SEES = {
    "emosem": (*SHARDS_ONLY, "backbones"),
    "data": SHARDS_ONLY,
    "train": SHARDS_ONLY,
    "alignment": SHARDS_ONLY,
    "maps": (*SHARDS_ONLY, "releases"),
    "baselines": (*SHARDS_ONLY, "releases"),
    "score": (*SHARDS_ONLY, "releases", "backbones", "gallery"),
}
"""Rooms of pipeline/ that a room of model/ may use; rooms that are not listed may use all."""
DOORS = {"pipeline/masks", "pipeline/regions/vinvl", "model/emosem"}
"""Packages whose ``__init__.py`` offers what outsiders import, in at most five lines."""
CODE_IN_INIT = {
    "pipeline/__init__.py": "libraries read their threads when they are imported, which this precedes",
    "model/__init__.py": "the same, for whoever imports model first",
}
LONG_MODULES = {
    "pipeline/gallery/motifs/buildings.py": "one drawing after another, no logic",
    "pipeline/gallery/words/lexicon.py": "a table of words",
    "pipeline/gallery/scenes/scene.py": "one draw of random numbers, whose order is the gallery's bytes",
}
LONG_FUNCTIONS = {"model/train/train.py:train": "the whole of training on one page, its docstring included"}


def sources(*packages: str) -> list[Path]:
    return sorted(file for package in packages for file in (ROOT / package).rglob("*.py"))


def room_of(module: str) -> tuple[str, str]:
    """("pipeline", "masks") of ``pipeline.masks.step``."""
    package, _, rest = module.partition(".")
    return package, rest.split(".")[0]


def floor_of(package: str, room: str) -> int:
    floors = PIPELINE_FLOORS if package == "pipeline" else MODEL_FLOORS
    return next(number for number, rooms in enumerate(floors) if room in rooms)


def arrows(file: Path) -> set[tuple[str, str]]:
    """Rooms that a file reaches into, but its own."""
    own = room_of(module_name(file))
    return {room_of(name) for name in direct_imports(file)} - {own, ("pipeline", ""), ("model", "")}


@pytest.mark.parametrize("package", ["pipeline", "model"])
def test_every_room_stands_on_one_floor(package: str) -> None:
    floors = PIPELINE_FLOORS if package == "pipeline" else MODEL_FLOORS
    rooms = {path.name for path in (ROOT / package).iterdir() if (path / "__init__.py").is_file()}
    assert sorted(rooms) == sorted(room for floor in floors for room in floor)


def test_pipeline_imports_only_go_down() -> None:
    wrong = [
        (module_name(file), ".".join(target))
        for file in sources("pipeline")
        if file != ROOT / "pipeline" / "__init__.py"
        for target in arrows(file)
        if target[0] != "pipeline" or floor_of(*target) >= floor_of("pipeline", room_of(module_name(file))[1])
    ]
    assert not wrong


def test_model_imports_only_go_down() -> None:
    wrong = []
    for file in sources("model"):
        room = room_of(module_name(file))[1]
        if room == "predictor":  # a door for outsiders: model.predictor.Predictor
            continue
        for package, target in arrows(file):
            allowed = {
                "pipeline": target in MODEL_SEES.get(room, (target,)),
                "model": package == "model"
                and room != ""
                and floor_of("model", target) < floor_of("model", room),
            }.get(package, False)
            if not allowed:
                wrong.append((module_name(file), f"{package}.{target}"))
    assert not wrong


def test_no_circle_of_imports() -> None:
    graph = {module_name(file): edges(file) for file in sources("pipeline", "model", "stages")}
    assert cycles(graph) == []


def test_cycles_are_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


def test_packages_hold_no_code() -> None:
    wrong = []
    for file in sources("pipeline", "model", "stages"):
        name = file.relative_to(ROOT).as_posix()
        if file.name != "__init__.py" or name in CODE_IN_INIT:
            continue
        statements = ast.parse(file.read_text(encoding="utf-8")).body
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), f"{name} has no docstring"
        lines = sum(len(ast.unparse(node).splitlines()) for node in statements[1:])
        if lines > (6 if name.removesuffix("/__init__.py") in DOORS else 0):  # an import, and five lines
            wrong.append(name)
    assert not wrong


def test_modules_and_functions_are_short() -> None:
    modules, functions = {}, {}
    for file in [*sources("pipeline", "model", "stages"), ROOT / "cli.py"]:
        name = file.relative_to(ROOT).as_posix()
        text = file.read_text(encoding="utf-8")
        if text.count("\n") > 300:
            modules[name] = text.count("\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 60:
                functions[f"{name}:{node.name}"] = (node.end_lineno or 0) - node.lineno + 1
    assert set(modules) == set(LONG_MODULES), modules
    assert set(functions) == set(LONG_FUNCTIONS), functions


def test_only_one_module_knows_dask() -> None:
    for file in sources("pipeline", "model", "stages"):
        imported = {
            name
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
        }
        known = {str(name).split(".")[0] for name in imported} & {"dask", "distributed", "dask_jobqueue"}
        assert not known or file == ROOT / "pipeline" / "parallel" / "dask_cluster.py", file


def test_the_extra_all_brings_all_that_is_imported() -> None:
    """Tests run with the developer's extra, which would hide a package that only it brings.

    What `bench peers` compares with is looked for before it is imported, and left out by name.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["all"]]
    wanted = [Requirement(line) for line in lines]
    declared = {canonicalize_name(name) for one in wanted for name in (one.name, *one.extras)}
    providers = importlib.metadata.packages_distributions()
    undeclared = {}
    for file in [*sources("pipeline", "model", "stages"), ROOT / "cli.py"]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for top in {name.split(".")[0] for name in names} - {"pipeline", "model", "stages"}:
                by = {canonicalize_name(name) for name in providers.get(top, [top])}
                peer = file.parent.name == "peers" and top in {row.module for row in ROWS.values()}
                if top not in sys.stdlib_module_names and not by & declared and not peer:
                    undeclared[top] = module_name(file)
    assert undeclared == {}


def listed_code(name: str) -> list[Path]:
    return [ROOT / dep for dep in STAGES[name]["deps"] if not dep.startswith("$")]


def reached_code(name: str) -> set[Path]:
    """Files with code that a stage can reach."""
    files = closure(ROOT / "stages" / f"{name}.py")
    return {file for file in files if len(ast.parse(file.read_text(encoding="utf-8")).body) > 1}


@pytest.mark.parametrize("name", STAGES)
def test_each_stage_lists_the_code_it_reaches(name: str) -> None:
    """DVC does not follow imports: a module left out of `deps` could change without a rerun."""
    listed = listed_code(name)
    missing = {
        file.relative_to(ROOT).as_posix()
        for file in reached_code(name)
        if not any(file == dep or dep in file.parents for dep in listed)
    }
    assert not missing


@pytest.mark.parametrize("name", STAGES)
def test_each_stage_lists_no_code_that_it_does_not_reach(name: str) -> None:
    reached = closure(ROOT / "stages" / f"{name}.py")
    superfluous = {
        dep.relative_to(ROOT).as_posix()
        for dep in listed_code(name)
        if not any(file == dep or dep in file.parents for file in reached)
    }
    assert not superfluous


@pytest.mark.parametrize("name", STAGES)
def test_each_stage_names_its_params_sections(name: str) -> None:
    stage = importlib.import_module(f"stages.{name}").STAGE
    listed = {param.split(".")[0] for param in STAGES[name]["params"]}
    wanted = {stage.step, *(section for section, _ in stage.sections)} - {"parallel"}  # speed, never a result
    assert wanted <= listed


def test_dvc_yaml_is_read_at_a_glance() -> None:
    assert (ROOT / "dvc.yaml").read_text().count("\n") < 200


def test_dvc_does_not_take_caches_for_code() -> None:
    assert "__pycache__/" in (ROOT / ".dvcignore").read_text().splitlines()


def test_one_word_one_step() -> None:
    for name in STAGES:
        assert (ROOT / "stages" / f"{name}.py").is_file()
        rooms = [base for base in ("pipeline", "model") if (ROOT / base / name).is_dir()]
        assert len(rooms) == 1, name
        assert (ROOT / "tests" / rooms[0] / name).is_dir(), name
