"""A training run's identity: whatever decides its weights and curves moves it, and nothing else does."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from model.emosem.network import EmoSEM
from model.train.params import TrainParams
from model.train.train import run_identity, train
from pipeline.common import code
from pipeline.reader.index import Index
from tests.imports import ROOT
from tests.worlds import trained_shards

PARAMS = TrainParams(epochs=2, batch_size=4, accumulate=2, max_tokens=20)


@dataclasses.dataclass(frozen=True)
class Run:
    """What an identity is of."""

    index: Index
    sam: Path
    language_model: Path

    def identity(self, params: TrainParams = PARAMS, processes: int = 1) -> str:
        return run_identity(self.index, params, processes, self.sam, self.language_model)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    torch.set_num_threads(1)
    paths = trained_shards.shards(tmp_path, {"train": 3, "val": 1})
    return Run(Index.load(paths.step("shards")), *trained_shards.backbones(tmp_path / "weights"))


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the source that may be edited; identities are of it."""
    for name in code.PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / "tree" / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "ROOT", tmp_path / "tree")
    forget()
    yield tmp_path / "tree"
    forget()


def forget() -> None:
    for function in (code._fingerprint, code._imports, code._stripped):
        function.cache_clear()


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{file.name} no longer holds {old!r}"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    forget()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("model/emosem/mask_decoder.py", "MLP(dim, dim, dim // 8, 3)", "MLP(dim, dim, dim // 8, 2)"),
        ("model/emosem/mask_decoder.py", "nn.Embedding(num_mask_tokens, dim)", "nn.Embedding(9, dim)"),
        ("model/emosem/config.py", "8612, 378", "8612, 379"),
        ("model/train/checkpoint.py", 'HIGH = ("seg_pr50",)', 'HIGH = ("seg_pr50", "dice")'),
        ("model/train/validation.py", "samples.table[:, 2] == 0", "samples.table[:, 2] == 1"),
        ("model/train/precision.py", "torch.bfloat16", "torch.float16"),
        ("model/emosem/saving.py", "load_state_dict(state, strict=False)", "load_state_dict(state)"),
    ],
)
def test_code_that_decides_the_weights_retrains(run: Run, tree: Path, file: str, old: str, new: str) -> None:
    before = run.identity()
    edit(tree / file, old, new)
    assert run.identity() != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("model/emosem/model_card_template.md", "## Training", "## How it was trained"),
        ("model/emosem/model_card.py", "CITATION = ", "CITATION = '' + "),
        ("model/emosem/export.py", '"none yet"', '"none so far"'),
        ("model/metrics/columns.py", '"Box Pr@25"', '"Pr@25, boxes"'),
        ("model/train/monitor.py", "samples/s", "samples a second"),
        ("model/emosem/mask_decoder.py", '"""SAM\'s mask decoder', '"""The mask decoder of SAM'),
        ("model/train/train.py", "# autocast, and", "# mixed precision, and"),
    ],
)
def test_pages_progress_and_comments_do_not(run: Run, tree: Path, file: str, old: str, new: str) -> None:
    before = run.identity()
    edit(tree / file, old, new)
    assert run.identity() == before


def _json(name: str, key: str, value: Any) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        file = (run.sam if name == "sam.json" else run.language_model / name).with_name(name)
        content = json.loads(file.read_text(encoding="utf-8"))
        assert content.get(key) != value
        file.write_text(json.dumps(content | {key: value}), encoding="utf-8")

    return change


def _weight(file: Callable[[Run], Path]) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        state = load_file(file(run))
        name = sorted(state)[0]
        save_file(state | {name: state[name] + 1}, file(run), metadata={"format": "pt"})

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_weight(lambda run: run.sam), id="SAM"),
        pytest.param(_weight(lambda run: run.language_model / "model.safetensors"), id="GPT-2"),
        pytest.param(_json("sam.json", "decoder_num_heads", 2), id="SAM's heads"),
        pytest.param(_json("config.json", "embd_pdrop", 0.3), id="GPT-2's dropout"),
        pytest.param(_json("tokenizer.json", "version", "2.0"), id="tokenizer"),
        pytest.param(_json("tokenizer_config.json", "model_max_length", 12), id="tokenizer's config"),
    ],
)
def test_each_pretrained_file_counts(run: Run, change: Callable[[Run], None]) -> None:
    before = run.identity()
    change(run)
    assert run.identity() != before


@pytest.mark.parametrize("column", ["key", "split", "emotions", "utterance_counts", "sha256"])
def test_the_samples_count(run: Run, column: str) -> None:
    table = run.index.table
    values = table[column].to_pylist()
    changed = {"emotions": ["fear"], "utterance_counts": [7]}.get(column, "test")
    other = table.set_column(
        table.column_names.index(column),
        table.schema.field(column),
        pa.array([changed, *values[1:]], table.schema.field(column).type),
    )
    index = Index(run.index.folder, other)
    assert dataclasses.replace(run, index=index).identity() != run.identity()


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bf16"}, {"seed": 1}, {"prefix": "mask"}, {"epochs": 3}, {"select_by": "language"},
        {"language_dropout": 0.0}, {"visual": "region"},
    ],
)  # fmt: skip
def test_params_count(run: Run, change: dict[str, Any]) -> None:
    assert run.identity(dataclasses.replace(PARAMS, **change)) != run.identity()


def test_what_changes_speed_alone_does_not_count(run: Run) -> None:
    fast = dataclasses.replace(PARAMS, workers=0, resident=True, stream="https://example.org/shards")
    assert run.identity(fast) == run.identity()
    assert run.identity(dataclasses.replace(PARAMS, accumulate=1), processes=2) == run.identity()


def test_another_choice_of_epoch_needs_no_training_and_gives_the_model_of_a_fresh_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`select` is left out of the identity, because both epochs' weights are kept."""
    torch.set_num_threads(1)
    sam, language_model = trained_shards.backbones(tmp_path / "weights")
    best = dataclasses.replace(PARAMS, select="best")
    states = {}
    for name, orders in {"fresh": [best], "changed": [PARAMS, best]}.items():
        paths = trained_shards.shards(tmp_path / name, {"train": 4, "val": 2})
        for params in orders:
            scores = iter([{"seg_pr50": 30.0}, {"seg_pr50": 20.0}])  # the first of two epochs is the best
            monkeypatch.setattr("model.train.train.validate", lambda *_, scores=scores: next(scores))
            train(paths, params, "single", sam_checkpoint=sam, language_model=language_model, device="cpu")
            states[name, params.select] = EmoSEM.from_pretrained(paths.runs / "single").state_dict()
    assert "anew" not in capsys.readouterr().err

    def equal(a: tuple[str, str], b: tuple[str, str]) -> bool:
        return all(torch.equal(states[a][name], tensor) for name, tensor in states[b].items())

    assert equal(("fresh", "best"), ("changed", "best"))
    assert not equal(("changed", "last"), ("changed", "best"))
