"""What a training run leaves on disk: whole, the same after kills, checked when read, never in place."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.emosem.network import EmoSEM
from model.train import train as module
from model.train.checkpoint import Checkpoints, TrainProgress, read_checkpoint
from model.train.monitor import Curves, LossWatch
from model.train.params import TrainParams
from model.train.schedule import Epochs, MicroBatch
from model.train.train import new_samples, train
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.lock import only_writer
from pipeline.common.params import Paths
from pipeline.reader.index import Index
from tests.worlds import trained_shards

PARAMS = TrainParams(
    epochs=2,
    batch_size=4,
    accumulate=2,
    window=2,
    checkpoint_every=1,
    log_every=3,
    max_tokens=20,
    select="best",
)
SPLITS = {"train": 6, "val": 3}


class Killed(BaseException):
    """Stands in for kill -9: nothing after it runs."""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    torch.set_num_threads(1)
    return trained_shards.backbones(tmp_path_factory.mktemp("weights"))


def run(paths: Paths, parts: tuple[Path, Path], params: TrainParams = PARAMS) -> dict[str, Any]:
    return train(paths, params, "single", sam_checkpoint=parts[0], language_model=parts[1], device="cpu")


def content(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def whole(parts: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file of a run that nothing disturbed."""
    paths = trained_shards.shards(tmp_path_factory.mktemp("whole"), SPLITS)
    run(paths, parts)
    return content(paths.runs / "single")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return trained_shards.shards(tmp_path, SPLITS)


def die(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int, after: bool = False) -> None:
    """Be killed at the `at`-th call of a function, before or after its work."""
    function, calls = getattr(owner, name), []

    def dying(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == at and not after:
            raise Killed
        result = function(*args, **kwargs)
        if len(calls) == at:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, dying)


@pytest.mark.parametrize(
    ("owner", "name", "at", "after"),
    [
        pytest.param(module, "_step", 2, False, id="between two points of the curves"),
        pytest.param(Checkpoints, "end_epoch", 1, False, id="validation logged, not saved"),
        pytest.param(Checkpoints, "end_epoch", 1, True, id="epoch saved, its losses half summed"),
        pytest.param(Curves, "write", 2, False, id="curves not written"),
        pytest.param(Checkpoints, "save", 4, True, id="saved, curves not written"),
        pytest.param(EmoSEM, "_save_pretrained", 1, True, id="model written, not in place"),
    ],
)
def test_a_kill_anywhere_leaves_no_trace(
    paths: Paths,
    parts: tuple[Path, Path],
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    at: int,
    after: bool,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Curves, "EVERY", 0.0)
        die(patch, owner, name, at, after)
        with pytest.raises(Killed):
            run(paths, parts)
    folder = paths.runs / "single"
    (folder / "checkpoint" / ".last.pt.abcdefgh.tmp").write_bytes(b"half")  # as a real kill leaves them
    (folder / ".files.abcdefgh.tmp").mkdir()
    (folder / ".files.abcdefgh.tmp" / "model.safetensors").write_bytes(b"half")
    run(paths, parts)
    assert content(folder) == whole


def test_every_point_stands_once(whole: dict[str, bytes]) -> None:
    """Twelve samples or more in steps of eight: by the params, a point each three steps and each epoch."""
    last = int(whole["dvclive/plots/metrics/val/dice.tsv"].splitlines()[-1].split(b"\t")[0])
    for name, data in whole.items():
        if name.endswith(".tsv"):
            head, *points = (line.split("\t") for line in data.decode().splitlines())
            assert head == ["step", Path(name).stem]
            steps = [int(step) for step, _ in points]
            assert steps == ([*range(3, last + 1, 3)] if "/train/" in name else [last // 2, last])


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda _: b"\xff\0"]
)
def test_curves_that_cannot_be_read_stop_nothing(
    paths: Paths,
    parts: tuple[Path, Path],
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[bytes], bytes],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Curves, "EVERY", 0.0)
        die(patch, module, "_step", 5)
        with pytest.raises(Killed):
            run(paths, parts)
    files = [file for file in (paths.runs / "single" / "dvclive").rglob("*") if file.is_file()]
    assert len(files) > 5
    for file in files:
        file.write_bytes(damage(file.read_bytes()))
    run(paths, parts)
    assert content(paths.runs / "single") == whole


def test_curves_of_another_run_do_not_stay(paths: Paths, parts: tuple[Path, Path]) -> None:
    stale = paths.runs / "single" / "dvclive" / "plots" / "metrics" / "val" / "gone.tsv"
    stale.parent.mkdir(parents=True)
    stale.write_text("step\tgone\n1\t2\n")
    run(paths, parts, dataclasses.replace(PARAMS, epochs=1))
    assert not stale.exists()


def test_nothing_is_written_in_place(paths: Paths, parts: tuple[Path, Path], tmp_path: Path) -> None:
    """As after a pull: every file is a read-only hard link into a cache, which must keep what it holds."""
    run(paths, parts)
    folder, cache = paths.runs / "single", tmp_path / "cache"
    shutil.copytree(folder, cache, copy_function=os.link)
    before = content(cache)
    for file in cache.rglob("*"):
        file.chmod(0o555 if file.is_dir() else 0o444)
    run(paths, parts, dataclasses.replace(PARAMS, learning_rate=5e-3))
    assert content(cache) == before
    after = content(folder)
    assert after.keys() == before.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert changed >= {"model.safetensors", "SHA256SUMS", "config.json", "checkpoint/last.pt", "README.md"}
    assert "dvclive/plots/metrics/train/dice.tsv" in changed


@pytest.mark.parametrize("place", np.linspace(0, 1, 20))
def test_a_flipped_bit_of_a_checkpoint_is_told(whole: dict[str, bytes], tmp_path: Path, place: float) -> None:
    data = bytearray(whole["checkpoint/last.pt"])
    data[int(place * (len(data) - 1))] ^= 1 << int(place * 7)
    (tmp_path / "last.pt").write_bytes(data)
    with pytest.raises(ValueError, match="SHA-256"):
        read_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda data: data[:5000] + bytes([data[5000] ^ 4]) + data[5001:], id="flipped"),
        pytest.param(lambda data: data[: len(data) // 2], id="cut"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: b"no checkpoint", id="foreign"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_run_starts_afresh(
    paths: Paths,
    parts: tuple[Path, Path],
    whole: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[bytes], bytes],
) -> None:
    last = paths.runs / "single" / "checkpoint" / "last.pt"
    last.parent.mkdir(parents=True)
    last.write_bytes(spoil(whole["checkpoint/last.pt"]))
    run(paths, parts)
    assert content(paths.runs / "single") == whole
    said = [line for line in capsys.readouterr().err.splitlines() if "last.pt" in line]
    assert len(said) == 1 and str(last) in said[0] and "training starts anew" in said[0]


def test_damaged_best_weights_are_named_and_the_next_run_trains(
    paths: Paths, parts: tuple[Path, Path], whole: dict[str, bytes]
) -> None:
    run(paths, parts)
    best = paths.runs / "single" / "checkpoint" / "best.safetensors"
    data = bytearray(best.read_bytes())
    data[-3] ^= 1
    best.write_bytes(data)
    with pytest.raises(RunFailed, match=rf"{best} is damaged.*trains from the start"):
        run(paths, parts)
    run(paths, parts)
    assert content(paths.runs / "single") == whole


def test_a_checkpoint_is_still_an_archive_of_torch(whole: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(whole["checkpoint/last.pt"])
    ours, theirs = read_checkpoint(tmp_path / "last.pt"), torch.load(tmp_path / "last.pt", weights_only=True)
    assert ours["progress"]["total_steps"] == theirs["progress"]["total_steps"] > 0


def test_a_run_has_one_writer(paths: Paths, parts: tuple[Path, Path]) -> None:
    with only_writer(paths.runs / "single"), pytest.raises(UserError, match="another run"):
        run(paths, parts)
    assert not (paths.runs / "single").exists()


# ---- losses that are not numbers -----------------------------------------------------------------------


def test_a_loss_that_is_not_finite_ends_the_run_and_names_its_artworks(
    paths: Paths, parts: tuple[Path, Path]
) -> None:
    with pytest.raises(RunFailed) as failure:
        run(paths, parts, dataclasses.replace(PARAMS, learning_rate=1e30, language_learning_rate=1e30))
    assert "the loss of step 2 is not finite" in str(failure.value)
    saved = read_checkpoint(paths.runs / "single" / "checkpoint" / "last.pt")
    assert saved["progress"]["total_steps"] == 1  # nothing of the second step
    model = module.initial_model(Index.load(paths.step("shards")), PARAMS, *parts)
    samples = new_samples(Index.load(paths.step("shards")), "train", model, PARAMS)
    second = Epochs(samples.table, PARAMS)(0)[1]
    artworks = {samples.keys[samples.table[n, 0]] for micro in second for n in micro.samples}
    named = {key for key in samples.keys if key in str(failure.value)}
    assert named == artworks != set(samples.keys)


class OnGpu(float):
    """A loss that takes waiting to read."""

    device = torch.device("cuda")


def test_on_a_gpu_the_first_of_several_steps_is_named(paths: Paths, parts: tuple[Path, Path]) -> None:
    index = Index.load(paths.step("shards"))
    samples = new_samples(index, "train", module.initial_model(index, PARAMS, *parts), PARAMS)
    progress = TrainProgress("")
    watch = LossWatch(samples, progress)
    for step, loss in enumerate([0.5, float("inf"), float("nan")], 1):
        progress.total_steps = step
        first = int(np.flatnonzero(samples.table[:, 0] == step)[0])
        watch.note([MicroBatch(np.array([first]), 1.0, 0)], {"dice": OnGpu(loss)})  # type: ignore[dict-item]
    with pytest.raises(
        RunFailed, match=rf"step 2 is not finite \(dice inf\); its artworks are {samples.keys[2]}\."
    ):
        watch.check()
    watch = LossWatch(samples, progress)
    watch.check()


def test_a_validation_that_is_not_finite_names_its_artworks(
    paths: Paths, parts: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(model: EmoSEM, *args: Any) -> Any:
        with torch.no_grad():
            model.captioner.gpt2.transformer.wte.weight.fill_(float("nan"))
        return validate(model, *args)

    validate = module.validate
    monkeypatch.setattr(module, "validate", spoil)
    with pytest.raises(RunFailed, match=r"validation: the \w+ loss of the artworks 0{15}"):
        run(paths, parts)
    model = read_checkpoint(paths.runs / "single" / "checkpoint" / "last.pt")["model"]
    assert all(tensor.isfinite().all() for tensor in model.values())
