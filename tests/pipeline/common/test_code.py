"""Code fingerprints: every change that can change bytes moves them, and no other does."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.common import code
from pipeline.common.code import NEUTRAL, code_fingerprint, import_closure
from tests.imports import ROOT, direct_imports

STEPS = (
    "pipeline.regions.step",
    "pipeline.regions.sources.vinvl",
    "pipeline.regions.sources.apolo_boxes",
    "pipeline.regions.sources.sam_automatic",
    "pipeline.features.step",
    "pipeline.similarity.step",
    "pipeline.masks.step",
    "pipeline.shards.join",
    "model.train.train",
    "model.predict.folder",
)
"""Modules that ask for a fingerprint of their own closure."""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the source that may be edited."""
    for name in code.PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "ROOT", tmp_path)
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    for function in (code._fingerprint, code._imports, code._stripped):
        function.cache_clear()


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{file.name} no longer holds {old!r}"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    forget()


def neutral(name: str) -> bool:
    return any(name == other or name.startswith(f"{other}.") for other in NEUTRAL)


@pytest.mark.parametrize("step", STEPS)
def test_the_closure_holds_whatever_importing_the_step_loads(step: str) -> None:
    """Python itself says what a module loads; the static closure may hold more (imports in functions)."""
    program = (
        f"import sys, {step}\n"
        "ours = {k: m for k, m in sys.modules.items() if k.split('.')[0] in ('pipeline', 'model')}\n"
        "print(*(name for name, module in ours.items() if not hasattr(module, '__path__')))\n"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert step in loaded
    reached = import_closure([step])
    extra = {name for name in loaded if not neutral(name)} - reached
    assert not {
        name for name in reached if direct_imports(code._file(name)) & extra
    }  # through neutral ones only


@pytest.mark.parametrize("step", STEPS)
def test_any_changed_function_of_the_closure_changes_the_digest(step: str) -> None:
    """Each function of each module gets one statement more; the text that is hashed must differ."""
    for name in import_closure([step]):
        file = code._file(name)
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        tree = ast.parse("".join(lines))
        whole = code._stripped(file)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                last = node.body[-1]
                one = [
                    *lines[: last.end_lineno],
                    " " * last.col_offset + "del x\n",
                    *lines[last.end_lineno :],
                ]
                assert code._strip("".join(one)) != whole, f"{name}.{node.name}"


@pytest.mark.parametrize(
    ("step", "file", "old", "new"),
    [
        ("model.train.train", "model/emosem/config.py", "8612, 378", "8612, 379"),  # the prompt's tokens
        (
            "model.train.train",
            "model/metrics/segmentation.py",
            "def score_maps(",
            "x = 1\n\n\ndef score_maps(",
        ),
        (
            "model.train.train",
            "model/emosem/mask_decoder.py",
            "class MaskDecoder",
            "x = 1\n\n\nclass MaskDecoder",
        ),
        ("model.train.train", "pipeline/common/emotions.py", '"awe"', '"wonder"'),
        ("pipeline.masks.step", "pipeline/masks/raster.py", "FIXED_POINT_BITS = ", "FIXED_POINT_BITS = 1 + "),
        (
            "pipeline.features.step",
            "pipeline/common/geometry.py",
            "def frame_size",
            "x = 1\n\n\ndef frame_size",
        ),
        (
            "model.predict.folder",
            "pipeline/common/geometry.py",
            "def frame_size",
            "x = 1\n\n\ndef frame_size",
        ),
        (
            "pipeline.regions.sources.apolo_boxes",
            "pipeline/regions/sources/apolo_boxes.py",
            "SCORE = ",
            "SCORE = 0 * ",
        ),
        (
            "pipeline.regions.sources.vinvl",
            "pipeline/regions/sources/vinvl.py",
            "def identity",
            "x = 1\n\n\ndef identity",
        ),
    ],
)
def test_a_change_of_what_decides_bytes_is_seen(tree: Path, step: str, file: str, old: str, new: str) -> None:
    before = code_fingerprint(step)
    edit(tree / file, old, new)
    assert code_fingerprint(step) != before


@pytest.mark.parametrize("step", STEPS)
def test_progress_pages_and_scheduling_play_no_part(tree: Path, step: str) -> None:
    before = code_fingerprint(step)
    for file in (
        "pipeline/common/progress.py",
        "pipeline/common/errors.py",
        "pipeline/common/files.py",
        "pipeline/parallel/map_shards.py",
        "pipeline/doctor/examine.py",
        "model/report/step.py",
        "model/emosem/model_card.py",
        "model/train/monitor.py",
    ):
        (tree / file).write_text((tree / file).read_text(encoding="utf-8") + "\nx = 1\n", encoding="utf-8")
    forget()
    assert code_fingerprint(step) == before


@pytest.mark.parametrize("step", STEPS)
def test_comments_docstrings_and_blank_lines_play_no_part(tree: Path, step: str) -> None:
    before = code_fingerprint(step)
    for name in import_closure([step]):
        file = tree.joinpath(*name.split(".")).with_suffix(".py")
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace('"""', '"""Edited. ', 1).replace("\n\n\n", "\n\n\n\n# edited\n", 1))
    forget()
    assert code_fingerprint(step) == before


def test_stripping_by_hand() -> None:
    source = (
        '"""Doc."""\n# why\nX = 1  # one\n"""Of X."""\n\n\n'
        'def f():\n    """Doc\n    two lines."""\n    return "# no comment"\n'
    )
    assert code._strip(source) == 'X = 1\ndef f():\n    return "# no comment"\n'


def test_a_source_of_regions_does_not_depend_on_the_others(tree: Path) -> None:
    apolo, vinvl = (f"pipeline.regions.sources.{name}" for name in ("apolo_boxes", "vinvl"))
    shared = {"without": ("pipeline.regions.sources", "pipeline.regions.box_masks")}
    before = [code_fingerprint(apolo), code_fingerprint("pipeline.regions.step", **shared)]
    edited = code_fingerprint(vinvl)
    edit(tree / "pipeline/regions/vinvl/postprocess.py", "RETRIES = ", "RETRIES = 1 + ")
    assert code_fingerprint(vinvl) != edited
    assert [code_fingerprint(apolo), code_fingerprint("pipeline.regions.step", **shared)] == before
