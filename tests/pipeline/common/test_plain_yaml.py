"""YAML as plain values: what is hostile or says two things is refused; the rest is what PyYAML reads."""

import dataclasses
import importlib
import os
import re
import threading
import tracemalloc
import typing
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.common.errors import UserError
from pipeline.common.params import Params, Paths
from pipeline.common.plain_yaml import parse_yaml, read_yaml
from pipeline.common.sections import SECTIONS
from pipeline.doctor.finding import Context
from tests.imports import ROOT

BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 8)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}], {new}: 1}}\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "section twice": (
        "utterances: {num_shards: 4}\nutterances: {split_seed: 3}\n",
        "utterances stands twice",
    ),
    "key twice": ("utterances: {num_shards: 4, num_shards: 8}\n", "utterances.num_shards stands twice"),
    "quoted twice": ("utterances: {num_shards: 4, 'num_shards': 8}\n", "utterances.num_shards stands twice"),
    "number twice": ("train: {variants: {1: {}, '1': {}}}\n", "train.variants.1 stands twice"),
    "infinite": ("train: {learning_rate: .inf}\n", "train.learning_rate"),
    "not a number": ("alignment: {fractions: [.5, .nan]}\n", "alignment.fractions.1"),
    "beyond floats": ("train: {learning_rate: 1.0e+999}\n", "train.learning_rate"),
    "tagged integer": ("utterances: {num_shards: !!int abc}\n", "utterances.num_shards"),
    "tagged date": ("gallery: {seed: !!timestamp x}\n", "gallery.seed"),
    "tagged set": ("gallery: !!set {seed}\n", "gallery has the tag"),
    "tagged object": ("gallery: {seed: !!python/name:os.system ''}\n", "gallery.seed"),
    "long number": (f"gallery: {{seed: {'9' * 5000}}}\n", "gallery.seed"),
    "number beyond 64 bits": (f"gallery: {{seed: {2**63}}}\n", "gallery.seed"),
    "octal": ("gallery: {seed: 010}\n", "gallery.seed"),
    "minutes": ("gallery: {seed: 1:30}\n", "gallery.seed"),
    "itself": ("utterances: &a {num_shards: *a}\n", "utterances.num_shards"),
    "merged into itself": ("utterances: &a {<<: *a}\n", "utterances"),
    "list of itself": ("utterances: &a [*a]\n", "utterances.0"),
    "nested lists": ("utterances: " + "[" * 5000 + "\n", "utterances.0"),
    "nested mappings": ("utterances: " + "{a: " * 5000 + "\n", "utterances.a"),
    "nested blocks": ("\n".join(" " * depth + "a:" for depth in range(400)), "a.a"),
    "nested dashes": ("utterances:\n  " + "- " * 5000 + "\n", "utterances.0"),
    "aliases": (BOMB, "20000 values"),
    "merges": (MERGE_BOMB, "20000 values"),
    "key that is a list": ("utterances: {[a]: 1}\n", "utterances has a list"),
    "NUL": ('paths: {data: "a\\0b"}\n', "paths.data"),
    "surrogate": ('paths: {data: "\\ud800"}\n', "paths.data"),
    "huge": ("#" * 2**19, "larger than"),
    "control characters": ("paths: \x01\n", "special characters"),
    "two documents": ("paths: {}\n---\npaths: {}\n", "line 2, column 1"),
    "half": ("paths: {data: a", "line 1"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_one_short_message_with_its_place(name: str, tmp_path: Path) -> None:
    text, place = HOSTILE[name]
    file = tmp_path / "params.yaml"
    file.write_text(text)
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as error:
            Params.read(file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(error.value).replace(str(file), "FILE")
    assert message.startswith("params file FILE cannot be read: ")
    assert place in message
    assert len(message) < 250 and "\n" not in message
    assert peak < 20 * 2**20


@pytest.mark.parametrize("name", [name for name, (_, place) in HOSTILE.items() if "." in place])
def test_doctor_says_the_same(name: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(HOSTILE[name][0])
    with pytest.raises(UserError, match=HOSTILE[name][1].replace(".", r"\.")):
        Context(tmp_path / "params.yaml", Path).params  # noqa: B018 - reading it is the point


def test_a_folder_an_empty_file_and_other_bytes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "utf16").write_text("paths: {}\n", encoding="utf-16")
    for name in ("", "empty", "utf16"):
        with pytest.raises(UserError, match="params file"):
            Params.read(tmp_path / name)


def test_dates_stay_text_and_numbers_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "a: 2026-11-29\nb: 2026-02-30\nc: 1e-4\nd: 1E5\ne: 1.e3\nf: -0x1F\ng: 1_000\nh: {7: x, on: y}\n"
    )
    expected = {"a": "2026-11-29", "b": "2026-02-30", "c": 1e-4, "d": 1e5, "e": 1e3, "f": -31, "g": 1000}
    assert read_yaml(file, "file") == expected | {"h": {"7": "x", "on": "y"}}


def test_anchors_and_merges_are_read_as_pyyaml_reads_them(tmp_path: Path) -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {<<: [*a, *b], x: 5}\nd: [*a, *a]\ne: {<<: *b}\n"
    (tmp_path / "p.yaml").write_text(text)
    assert read_yaml(tmp_path / "p.yaml", "file") == yaml.safe_load(text)


@pytest.mark.parametrize(
    "file", ["params.yaml", *(f"params/{f.name}" for f in (ROOT / "params").glob("*.yaml"))]
)
def test_our_own_files_are_read_as_pyyaml_reads_them(file: str) -> None:
    assert read_yaml(ROOT / file, "file") == yaml.safe_load((ROOT / file).read_text())


NUMBER_IN_YAML_1_2 = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
"""Text that PyYAML, of YAML 1.1, writes without quotes."""
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=8)
TEXTS = TEXTS.filter(lambda text: not NUMBER_IN_YAML_1_2.fullmatch(text))
LEAVES = st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | TEXTS
LEAVES |= st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=12)


@settings(max_examples=60)
@given(values=st.dictionaries(TEXTS, VALUES, max_size=4))
def test_whatever_is_written_is_read_again(values: dict[str, Any]) -> None:
    text = yaml.safe_dump(values, allow_unicode=True)
    assert parse_yaml(text) == yaml.safe_load(text)


LONG = "/".join(["x" * 200] * 30)
HOME = str(Path.home())
UNUSABLE = {"~/emosem-data": HOME, "~": HOME, "x" * 256: "255 bytes", "é" * 128: "255 bytes", LONG: "4095"}


@pytest.mark.parametrize("path", UNUSABLE, ids=lambda path: path[:10])
def test_paths_that_no_step_can_use(path: str, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(f"paths: {{data: '{path}'}}\n")
    with pytest.raises(UserError, match=r"paths\.data = ") as error:
        Params.read(file).section("paths", Paths)
    assert UNUSABLE[path] in str(error.value)
    assert len(str(error.value)) < 300 + len(str(file))


def test_no_section_takes_what_is_not_finite() -> None:
    """Also where params are made without a file: every number of every section, one after the other."""
    tried = 0
    for place in SECTIONS.values():
        module, _, name = place.partition(":")
        cls = getattr(importlib.import_module(module), name)
        for field, kind in typing.get_type_hints(cls).items():
            if "float" not in str(kind):
                continue
            default = getattr(cls(), field)
            for bad in (float("nan"), float("inf")):
                value = (bad,) * len(default) if isinstance(default, tuple) else bad
                with pytest.raises((pydantic.ValidationError, UserError)):
                    dataclasses.replace(cls(), **{field: value})
                tried += 1
    assert tried > 40


def test_a_file_is_read_once_also_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("paths: {data: a}\nscore: {threshold: 0.5}\n",))
    writer.start()
    params = Params.read(pipe)
    writer.join()
    pipe.unlink()
    pipe.write_text("paths: {data: b}\n")
    assert params.section("paths", Paths).data == Path("a")
    assert params.sections["score"] == {"threshold": 0.5}
