"""Params: unknown keys and bad values are refused, all of a section at once."""

import dataclasses
import functools
import importlib
from pathlib import Path
from typing import Annotated, Any

import pydantic
import pytest
import yaml
from pydantic import Field

from pipeline.common.errors import UserError
from pipeline.common.fingerprint import fingerprint
from pipeline.common.params import STRICT, Paths, load_params
from pipeline.common.sections import SECTIONS
from tests.imports import ROOT


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Example:
    size: Annotated[int, Field(gt=0)] = 3
    rates: tuple[float, ...] = (0.5,)
    where: Path = Path("a")


def get(values: Any, key: str) -> Any:
    return values.get(key) if isinstance(values, dict) else None


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return path


def test_values_are_typed_and_absent_sections_default(tmp_path: Path) -> None:
    path = write(tmp_path, "score: {size: 4, rates: [1, 0.25], where: b/c}\n")
    assert load_params(path, "score", Example) == Example(4, (1.0, 0.25), Path("b/c"))
    assert load_params(path, "report", Example) == Example()


def test_all_errors_come_at_once_with_key_and_value(tmp_path: Path) -> None:
    path = write(tmp_path, "score: {size: -1, colour: red, rates: ['x']}\n")
    with pytest.raises(UserError) as error:
        load_params(path, "score", Example)
    text = str(error.value)
    assert "3 bad value(s)" in text
    assert "score.size = -1" in text and "score.rates.0 = 'x'" in text
    assert "score.colour = 'red'" in text and "known keys: size, rates, where" in text


@pytest.mark.parametrize("text", ["- a\n", "a: [\n", "just words\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="params file"):
        load_params(write(tmp_path, text), "score", Example)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_params(tmp_path / "none.yaml", "score", Example)


def test_a_misspelt_section_is_refused_whichever_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "score: {size: 4}\nmaskss: {aggregate: max}\n")
    with pytest.raises(UserError, match="nothing reads the section maskss; did you mean masks"):
        load_params(path, "score", Example)
    with pytest.raises(UserError, match="section zzz; known are paths, "):
        load_params(write(tmp_path, "zzz: {}\n"), "score", Example)


def test_the_known_sections_are_those_that_doctor_examines() -> None:
    for name, place in SECTIONS.items():
        module, _, cls = place.partition(":")
        assert dataclasses.is_dataclass(getattr(importlib.import_module(module), cls)), name
    for file in (ROOT / "params.yaml", *(ROOT / "params").glob("*.yaml")):
        assert set(yaml.safe_load(file.read_text())) <= set(SECTIONS)


@pytest.mark.parametrize("name", ["params.yaml", "params/artemis.yaml"])
def test_a_file_that_dvc_is_to_read_has_all_that_its_stages_name(name: str) -> None:
    """DVC stops at a section that is absent, though the section's own defaults would do."""
    values = yaml.safe_load((ROOT / name).read_text())
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    asked = [key.split(".") for stage in stages for key in stage["params"]]
    assert len(asked) > len(stages)
    assert [keys for keys in asked if not isinstance(functools.reduce(get, keys, values), dict | str)] == []


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    path = write(tmp_path, "score: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(UserError, match="cannot be read"):
        load_params(path, "score", Example)


def test_fingerprints_follow_content() -> None:
    assert fingerprint(Example(), "a") == fingerprint(Example(), "a")
    assert fingerprint(Example(), "a") != fingerprint(Example(size=4), "a")
    assert fingerprint(Paths()) != fingerprint(Paths(data=Path("elsewhere")))


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("score: {treshold: 1}", "score.treshold = 1: Unexpected keyword argument (did you mean threshold?)"),
        ("score: {clip: {nam: x}}", "(did you mean name?)"),  # of an optional dataclass
        ("backbones: {sam: {archh: tiny}}", "(did you mean arch?)"),
        ("backbones: {sam: {zzz: tiny}}", "(known keys: arch, checkpoint)"),
        ("backbones: {sma: {}}", "(did you mean sam?)"),
    ],
)
def test_an_unknown_key_gets_the_one_it_may_mean(text: str, advice: str, tmp_path: Path) -> None:
    section = text.partition(":")[0]
    module, _, name = SECTIONS[section].partition(":")
    with pytest.raises(UserError) as error:
        load_params(write(tmp_path, text), section, getattr(importlib.import_module(module), name))
    assert advice in str(error.value)
