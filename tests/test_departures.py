"""docs/departures.md and params/artemis.yaml: what they say of the paper and of the switches is so."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

from model.predict.params import PredictParams
from model.train.params import TrainParams
from pipeline.common.params import load_params
from pipeline.common.sections import SECTIONS
from tests.imports import ROOT

ARTEMIS = ROOT / "params" / "artemis.yaml"
PAGE = (ROOT / "docs" / "departures.md").read_text(encoding="utf-8")
SWITCHES = sorted(set(re.findall(rf"`((?:{'|'.join(SECTIONS)})\.\w+)(?:: ([\w.]+))?`", PAGE)))


def test_the_papers_file_holds_the_papers_numbers() -> None:
    """Sec. 4.1, sentence by sentence."""
    train = load_params(ARTEMIS, "train", TrainParams)
    single, multi = train.of("single"), train.of("multi")
    assert (single.batch_size, single.accumulate, single.epochs, single.max_tokens) == (4, 4, 10, 25)
    assert single.language_learning_rate == multi.language_learning_rate == 2e-4
    assert (single.learning_rate, multi.learning_rate) == (1e-4, 8e-5)
    assert (single.prefix, multi.prefix, single.finetune) == ("mask+prompt", "mask", "mask-head")
    assert multi.multi_loss == "sum" and single.binarise is None
    assert single.window > 1 and single.visit == "pair" and single.clip_norm is None
    assert single.precision == "fp32"
    predict = load_params(ARTEMIS, "predict", PredictParams)
    assert (predict.top_p, predict.max_new_tokens) == (0.9, 25)


@pytest.mark.parametrize(("key", "value"), SWITCHES)
def test_every_switch_exists_and_changes_the_papers_file(key: str, value: str, tmp_path: Path) -> None:
    from dvc.utils.hydra import apply_overrides

    section, name = key.split(".")
    module, _, cls = SECTIONS[section].partition(":")
    params = getattr(importlib.import_module(module), cls)
    assert name in {field.name for field in dataclasses.fields(params)}
    file = tmp_path / "params.yaml"
    file.write_text(ARTEMIS.read_text())
    if value:
        before = load_params(file, section, params)
        apply_overrides(str(file), [f"++{key}={value}"])
        after = load_params(file, section, params)
        assert before != after or (key, value) == ("train.multi_loss", "sum")


def test_lines_that_depart_are_on_the_page() -> None:
    text = ARTEMIS.read_text()
    keys = re.findall(r"(?m)^ +(\w+): .*# (?:departs|silent)", text)
    assert len(keys) > 10
    assert [key for key in keys if f".{key}" not in PAGE and key not in ("sam_dtype", "aggregate")] == []
