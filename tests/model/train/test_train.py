"""Training on a tiny random world: it learns, it resumes to the same result, it stops when asked."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from model.emosem.network import EmoSEM
from model.train import train as module
from model.train.params import TrainParams
from model.train.schedule import Epochs, new_optimisation
from model.train.train import _step, train
from pipeline.common.errors import UserError
from pipeline.common.params import Paths, parse_section
from stages.train import STAGE
from tests.imports import ROOT
from tests.worlds import trained_shards

PARAMS = TrainParams(
    epochs=3, batch_size=4, accumulate=2, window=2, checkpoint_every=2, log_every=1, max_tokens=20, warmup=0.2
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    torch.set_num_threads(1)
    return trained_shards.backbones(tmp_path_factory.mktemp("weights"))


def run(
    folder: Path, parts: tuple[Path, Path], params: TrainParams, variant: str = "single"
) -> dict[str, Any]:
    paths = folder if isinstance(folder, Paths) else trained_shards.shards(folder, {"train": 6, "val": 3})
    return train(paths, params, variant, sam_checkpoint=parts[0], language_model=parts[1], device="cpu")


def curve(run_folder: Path, name: str) -> list[str]:
    return (run_folder / "dvclive" / "plots" / "metrics" / f"{name}.tsv").read_text().splitlines()


class Killed(BaseException):
    """Stands in for kill -9: nothing after it runs."""


@pytest.mark.parametrize("at", [1, 4, 7])
def test_a_killed_run_continues_to_the_same_result(
    tmp_path: Path, parts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    whole = trained_shards.shards(tmp_path / "whole", {"train": 6, "val": 3})
    expected = run(whole, parts, PARAMS)
    broken = trained_shards.shards(tmp_path / "broken", {"train": 6, "val": 3})
    taken, step = [], _step

    def killed_step(*args: Any) -> Any:
        if len(taken) == at:
            raise Killed
        taken.append(1)
        return step(*args)

    monkeypatch.setattr(module, "_step", killed_step)
    with pytest.raises(Killed):
        run(broken, parts, PARAMS)
    assert not (broken.runs / "single" / "model.safetensors").exists()
    monkeypatch.setattr(module, "_step", step)
    assert run(broken, parts, dataclasses.replace(PARAMS, workers=1)) == expected  # and with other workers
    a, b = (load_file(paths.runs / "single" / "model.safetensors") for paths in (whole, broken))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    for name in ("train/dice", "train/language", "val/seg_pr50"):
        assert curve(whole.runs / "single", name) == curve(broken.runs / "single", name)


def test_sigterm_saves_and_the_next_run_goes_on(
    tmp_path: Path,
    parts: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = trained_shards.shards(tmp_path, {"train": 6, "val": 3})
    step, taken = _step, []

    def asked_to_stop(*args: Any) -> Any:
        taken.append(1)
        if len(taken) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*args)

    monkeypatch.setattr(module, "_step", asked_to_stop)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        run(paths, parts, PARAMS)
    assert stop.value.code == 128 + signal.SIGTERM and len(taken) == 3
    assert signal.getsignal(signal.SIGTERM) is before
    assert "stopped and saved; the same command goes on" in capsys.readouterr().err
    total = run(paths, parts, PARAMS)["steps"]
    assert len(taken) == total


def test_a_finished_run_is_not_trained_again_and_other_params_start_afresh(
    tmp_path: Path,
    parts: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = trained_shards.shards(tmp_path, {"train": 4, "val": 2})
    first = run(paths, parts, PARAMS)
    taken, step = [], _step
    monkeypatch.setattr(module, "_step", lambda *args: (taken.append(1), step(*args))[1])
    assert run(paths, parts, PARAMS) == first and not taken
    assert "anew" not in capsys.readouterr().err
    run(paths, parts, dataclasses.replace(PARAMS, learning_rate=2e-3))
    assert len(taken) == first["steps"]
    assert (
        "last.pt is of other params, data, weights or code: training starts anew" in capsys.readouterr().err
    )


@pytest.mark.parametrize("variant", ["single", "multi"])
def test_a_handful_of_samples_is_learnt_by_heart(
    tmp_path: Path, parts: tuple[Path, Path], variant: str
) -> None:
    params = TrainParams(
        epochs=120,
        schedule="constant",
        batch_size=12,
        finetune="mask-decoder",  # a random mixer, frozen, would teach slowly
        learning_rate=5e-3,
        language_learning_rate=5e-3,
        max_tokens=20,
        log_every=1,
        checkpoint_every=1000,
        validation_artworks=1,
    )
    paths = trained_shards.shards(tmp_path, {"train": 2, "val": 1})
    run(paths, parts, params, variant)
    first, last = (
        {
            name: float(curve(paths.runs / variant, f"train/{name}")[at].split("\t")[1])
            for name in ("dice", "language")
        }
        for at in (1, -1)
    )
    assert last["dice"] < 0.3 < first["dice"]  # the union of both emotions' quarters would leave 1/3
    assert last["language"] < 0.6 < first["language"]


def test_accumulation_equals_one_large_batch(tmp_path: Path, parts: tuple[Path, Path]) -> None:
    """SGD-like check on the first step: dropout off, same samples, one batch of 8 or two of 4."""
    results = []
    for size, accumulate in ((8, 1), (4, 2)):
        paths = trained_shards.shards(tmp_path / str(size), {"train": 4, "val": 1})
        params = TrainParams(epochs=1, batch_size=size, accumulate=accumulate, log_every=1, max_tokens=20)
        run(paths, parts, params)
        results.append(curve(paths.runs / "single", "train/dice")[1])
    step, values = results[0].split("\t")[0], [float(result.split("\t")[1]) for result in results]
    assert step == "1" and values[0] == pytest.approx(values[1], rel=1e-4)


def test_only_the_papers_parts_change(tmp_path: Path, parts: tuple[Path, Path]) -> None:
    paths = trained_shards.shards(tmp_path, {"train": 4, "val": 1})
    run(paths, parts, PARAMS)
    trained = EmoSEM.from_pretrained(paths.runs / "single").state_dict()
    from model.emosem.pretrained import load_sam_decoder

    sam = load_sam_decoder(parts[0]).state
    changed = {
        name for name, tensor in sam.items() if not torch.equal(tensor, trained[f"mask_decoder.{name}"])
    }
    assert changed == {
        name
        for name in sam
        if name.startswith(("mask_tokens.", "output_upscaling.", "output_hypernetworks_mlps.0."))
    }


def test_params_of_a_variant() -> None:
    params = TrainParams(variants={"x": {"paradigm": "multi", "prefix": "none", "epochs": 9}})
    assert (params.of("x").paradigm, params.of("x").prefix, params.of("x").epochs) == ("multi", "none", 9)
    assert params.of("x").learning_rate == params.learning_rate
    with pytest.raises(UserError, match="no 'y'; it has x"):
        params.of("y")
    with pytest.raises(UserError, match=r"train\.variants\.x\.epochs"):
        parse_section({"variants": {"x": {"epochs": 0}}}, "train", TrainParams, "params.yaml")


def test_what_does_not_fit_is_named(tmp_path: Path, parts: tuple[Path, Path]) -> None:
    paths = trained_shards.shards(tmp_path, {"train": 2, "val": 1})
    params = dataclasses.replace(PARAMS, variants={"single": {"paradigm": "multi", "prefix": "prompt"}})
    with pytest.raises(UserError, match="use mask or none"):
        run(paths, parts, params)
    with pytest.raises(UserError, match="no training artwork"):
        run(trained_shards.shards(tmp_path / "empty", {"val": 1}), parts, PARAMS)
    with pytest.raises(UserError, match="does not exist"):
        run(paths, (tmp_path / "absent.safetensors", parts[1]), PARAMS)
    with pytest.raises(UserError, match=r"config\.json"):
        run(paths, (parts[0], tmp_path), PARAMS)


def params_file(folder: Path, paths: Paths, parts: tuple[Path, Path], **train: Any) -> Path:
    sections = {
        "paths": {"data": str(paths.data), "runs": str(paths.runs), "metrics": str(paths.metrics)},
        "backbones": {"sam": {"checkpoint": str(parts[0])}, "language_model": str(parts[1]), "device": "cpu"},
        "train": train,
    }
    file = folder / "params.yaml"
    file.write_text(yaml.safe_dump(sections))
    return file


def test_the_stage_takes_a_params_file(tmp_path: Path, parts: tuple[Path, Path]) -> None:
    paths = trained_shards.shards(tmp_path, {"train": 3, "val": 1})
    file = params_file(
        tmp_path, paths, parts, epochs=1, variants={"multi": {"paradigm": "multi", "prefix": "mask"}}
    )
    metrics = STAGE.run(file, "multi")
    metrics.pop("seconds")  # of the call, not of what stands there
    assert json.loads((paths.metrics / "train" / "multi.json").read_text()) == metrics
    assert EmoSEM.from_pretrained(paths.runs / "multi").config.paradigm == "multi"


def test_two_processes_take_the_steps_of_one(tmp_path: Path, parts: tuple[Path, Path]) -> None:
    """gloo on the processor: two processes of one micro-batch against one process of two, dropout and all."""
    common = {"epochs": 2, "batch_size": 3, "log_every": 1, "max_tokens": 20, "validation_artworks": 2}
    one, two = (trained_shards.shards(tmp_path / name, {"train": 5, "val": 2}) for name in ("one", "two"))
    run(one, parts, TrainParams(accumulate=2, **common))
    file = params_file(tmp_path, two, parts, accumulate=1, **common)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run(
        [sys.executable, *launch, "-m", "stages.train", "single", "--params", str(file)],
        check=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=240,
    )
    for name in ("train/dice", "train/language", "val/dice"):
        ours, theirs = (
            [float(line.split("\t")[1]) for line in curve(paths.runs / "single", name)[1:]]
            for paths in (one, two)
        )
        assert ours == pytest.approx(theirs, rel=1e-3)
    a, b = (load_file(paths.runs / "single" / "model.safetensors") for paths in (one, two))
    assert all(torch.allclose(a[name], b[name], atol=1e-3) for name in a)


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=12),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_processes_share_an_epoch(counts: list[int], size: int, accumulate: int, processes: int) -> None:
    """Each sample once, equal work everywhere, shares of a step that add up to one."""
    table = np.array([(artwork, 0, n) for artwork, count in enumerate(counts) for n in range(count)])
    params = TrainParams(batch_size=size, accumulate=accumulate)
    ranks = [Epochs(table, params, rank, processes)(1) for rank in range(processes)]
    assert len({tuple(len(step) for step in steps) for steps in ranks}) == 1
    real = [micro for steps in ranks for step in steps for micro in step if micro.share]
    assert sorted(np.concatenate([micro.samples for micro in real]).tolist()) == list(range(len(table)))
    for together in zip(*ranks, strict=True):
        assert sum(micro.share for step in together for micro in step) == pytest.approx(1)
    alone = Epochs(table, dataclasses.replace(params, accumulate=accumulate * processes))(1)
    assert {micro.seed for micro in real} == {micro.seed for step in alone for micro in step}


def test_the_best_epoch_is_kept(
    tmp_path: Path, parts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, weights = iter([10.0, 30.0, 20.0]), []

    def validate(model: EmoSEM, *_: Any) -> dict[str, float]:
        weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"seg_pr50": next(scores)}

    monkeypatch.setattr(module, "validate", validate)
    paths = trained_shards.shards(tmp_path, {"train": 4, "val": 1})
    metrics = run(paths, parts, dataclasses.replace(PARAMS, select="best"))
    assert metrics["best"] == {"epoch": 2, "seg_pr50": 30.0}
    saved = EmoSEM.from_pretrained(paths.runs / "single").state_dict()
    assert all(torch.equal(saved[name], tensor) for name, tensor in weights[1].items())
    assert any(not torch.equal(saved[name], tensor) for name, tensor in weights[2].items())


def test_dropout_of_the_language_model_is_the_models(tmp_path: Path, parts: tuple[Path, Path]) -> None:
    paths = trained_shards.shards(tmp_path, {"train": 3, "val": 1})
    params = dataclasses.replace(PARAMS, epochs=1, language_dropout=0.3)
    run(paths, parts, params)
    config = EmoSEM.from_pretrained(paths.runs / "single").captioner.gpt2.config
    assert (config.embd_pdrop, config.attn_pdrop, config.resid_pdrop) == (0.3, 0.3, 0.3)
    own = json.loads((parts[1] / "config.json").read_text())
    run(paths, parts, dataclasses.replace(params, language_dropout=None))
    config = EmoSEM.from_pretrained(paths.runs / "single").captioner.gpt2.config
    assert config.resid_pdrop == own["resid_pdrop"]


def test_of_a_loss_the_lowest_epoch_is_kept(
    tmp_path: Path, parts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([0.9, 0.5, 0.7])
    monkeypatch.setattr(module, "validate", lambda *_: {"seg_pr50": 50.0, "language": next(losses)})
    paths = trained_shards.shards(tmp_path, {"train": 3, "val": 1})
    metrics = run(paths, parts, dataclasses.replace(PARAMS, select="best", select_by="language"))
    assert metrics["best"] == {"epoch": 2, "language": 0.5}


def test_learning_rates_by_hand() -> None:
    model = torch.nn.Linear(1, 1)
    model.parameter_groups = lambda: {"segmenter": [model.weight], "language_model": [model.bias]}  # type: ignore[assignment]
    for schedule, expected in (
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5]),  # up over two of six steps, then down to 0
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5]),
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
    ):
        params = TrainParams(learning_rate=1.0, language_learning_rate=2.0, warmup=1 / 3, schedule=schedule)  # type: ignore[arg-type]
        optimizer, scheduler = new_optimisation(model, params, 6)  # type: ignore[arg-type]
        rates = []
        for _ in range(5):
            rates.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            scheduler.step()
        assert [rate for rate, _ in rates] == pytest.approx(expected)
        assert [language for _, language in rates] == pytest.approx([2 * rate for rate, _ in rates])
