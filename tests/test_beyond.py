"""params/beyond.yaml is params.yaml but for the recipe and the folders, and marks each line that departs."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.common.params import Paths, load_params
from pipeline.common.sections import SECTIONS
from tests.imports import ROOT

BEYOND = ROOT / "params" / "beyond.yaml"


def sections(file: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return values


def test_only_the_recipe_and_the_folders_differ() -> None:
    ours, papers = sections(BEYOND), sections(ROOT / "params.yaml")
    assert ours.keys() == papers.keys()
    changed = {
        (section, key)
        for section in ours.keys() - {"paths"}
        for key in (ours[section] or {}).keys() | (papers[section] or {}).keys()
        if (ours[section] or {}).get(key) != (papers[section] or {}).get(key)
    }
    recipe = {("masks", key) for key in ("support", "temperature", "relative", "aggregate", "negatives")}
    training = {("train", key) for key in ("binarise", "epochs", "language_dropout", "variants")}
    assert changed == {("regions", "sam_support"), *recipe, *training}
    for step in ("data", "runs", "metrics", "report", "artemis", "wikiart", "apolo"):
        assert str(ours["paths"][step]) != str(papers["paths"][step]), step
    marked = {line.split(":")[0].strip() for line in BEYOND.read_text().splitlines() if "# beyond" in line}
    labels = {"sam_support", "support", "temperature", "relative"}
    assert marked == labels | {"epochs", "language_dropout", "variants"}


@pytest.mark.parametrize("section", sections(BEYOND))
def test_every_section_is_read(section: str) -> None:
    module, _, name = SECTIONS[section].partition(":")
    load_params(BEYOND, section, getattr(importlib.import_module(module), name))
    assert load_params(BEYOND, "paths", Paths).data != Paths().data
