"""The small SAM's training cut to a few steps: killed, prolonged, ended early, and its drawn pictures."""

import dataclasses
from pathlib import Path

import pytest
import torch

from model.pretrain import pictures as drawing
from model.pretrain import sam as recipe
from model.pretrain import training_state
from model.pretrain.pictures import SIDE, load_pictures
from model.pretrain.sam import SamPretrainParams, train_sam
from model.pretrain.scenes import CLASSES, Canvas, load_canvases
from model.pretrain.training_state import trapezoid
from pipeline.backbones.sam import load_sam

SEED = 1_000_900


@pytest.fixture(scope="module")
def canvases() -> list[Canvas]:
    return load_canvases(SEED, 3, 1)


@pytest.fixture
def world(tmp_path: Path, canvases: list[Canvas], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, and a drawing that costs nothing."""
    monkeypatch.setattr(
        drawing, "load_canvases", lambda seed, count, workers, first: (canvases * 2)[first:count]
    )
    return tmp_path


RECIPE = SamPretrainParams(
    scenes=3,
    held_out=2,
    encoder_steps=2,
    encoder_batch=2,
    steps=3,
    batch=2,
    visual=2,
    semantic=2,
    warmup=1,
    cooldown=2,
    workers=1,
)


def test_the_recipe_writes_a_loadable_sam(world: Path, canvases: list[Canvas]) -> None:
    measured = train_sam(world, RECIPE, "cpu", world / "kept")
    names = {"point_iou", "point_best_iou", "box_iou", "semantic_iou", "multi_iou", "loss", "iou_by_kind"}
    assert names | {"probe_motif_cells", "processor_seconds"} <= measured.keys()
    shown = {CLASSES[motif.label] for canvas in canvases[:2] for motif in canvas.motifs}
    assert set(measured["iou_by_kind"]) <= shown
    encoder = load_sam("tiny", world / "sam.safetensors", "cpu")
    assert encoder.encode([canvases[0].image]).shape == (1, 128, 20, 20)
    assert {path.name for path in world.iterdir()} == {"sam.json", "sam.safetensors", "kept"}


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights alone; what they can do is not asked."""
    monkeypatch.setattr(recipe, "evaluate", lambda *_: {})
    monkeypatch.setattr(recipe, "probe", lambda *_: {})


class _Killed(BaseException):
    """As abrupt as a signal: nothing between here and the test catches it."""


def _train_until(step: int, out: Path, params: SamPretrainParams, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, and die right after this step, before it is counted; a state is saved after every step."""
    with monkeypatch.context() as patch:
        patch.setattr(training_state, "EVERY", 0.0)
        count = training_state.TrainingState.done

        def done(state: training_state.TrainingState) -> None:
            if state.step == step:
                raise _Killed
            count(state)

        patch.setattr(training_state.TrainingState, "done", done)
        with pytest.raises(_Killed):
            train_sam(out, params, "cpu", out / "kept")


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("step", [1, 3, 4])  # of the encoder alone, of all parts, in the cooldown
def test_a_killed_training_goes_on_to_the_same_bytes(
    world: Path,
    step: int,
    undisturbed: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _train_until(step, world, RECIPE, monkeypatch)
    assert not (world / "sam.safetensors").exists()
    capsys.readouterr()
    train_sam(world, RECIPE, "cpu", world / "kept")
    assert f"step {step}/5" in capsys.readouterr().out
    assert (world / "sam.safetensors").read_bytes() == undisturbed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, canvases: list[Canvas]) -> bytes:
    """What `RECIPE` gives in one go."""
    out = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "load_canvases", lambda seed, count, *_: canvases[:count])
        patch.setattr(recipe, "evaluate", lambda *_: {})
        patch.setattr(recipe, "probe", lambda *_: {})
        train_sam(out, RECIPE, "cpu", out / "kept")
    return (out / "sam.safetensors").read_bytes()


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("first", [2, 4])
def test_a_training_can_be_prolonged_and_ended_early(
    world: Path, first: int, undisturbed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished with fewer steps, or killed on the way to more, and then asked for three."""
    other = dataclasses.replace(RECIPE, steps=first)
    if first > RECIPE.steps:
        _train_until(3, world, other, monkeypatch)
    else:
        train_sam(world, other, "cpu", world / "kept")
        assert (world / "sam.safetensors").read_bytes() != undisturbed
    train_sam(world, RECIPE, "cpu", world / "kept")
    assert (world / "sam.safetensors").read_bytes() == undisturbed


@pytest.mark.usefixtures("unmeasured")
def test_a_state_of_another_recipe_or_none_at_all_is_not_gone_on_from(
    world: Path, undisturbed: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    train_sam(world, dataclasses.replace(RECIPE, lr=2e-3), "cpu", world / "kept")
    (world / "kept" / "cooldown.safetensors").write_bytes(b"no state")
    capsys.readouterr()
    train_sam(world, RECIPE, "cpu", world / "kept")
    shown = capsys.readouterr()
    assert "cooldown.safetensors is not gone on from" in shown.err
    assert "steady.safetensors is not gone on from: it is of another recipe" in shown.err
    assert "step 0/5" in shown.out
    assert (world / "sam.safetensors").read_bytes() == undisturbed


def test_the_learning_rate_rises_stays_and_falls() -> None:
    shares = [trapezoid(step, 10, warmup=3, cooldown=4) for step in range(10)]
    assert shares == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5])


def test_drawn_pictures_are_kept(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drawing, "CHUNK", 2)
    first = load_pictures(SEED, 5, 1, "cpu", world)
    assert first.images.shape == (5, 3, SIDE, SIDE) and len(list(world.iterdir())) == 3
    assert torch.equal(first.owners[:2], first.owners[3:])  # five of three canvases, twice
    damaged = sorted(world.iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:1000])
    second = load_pictures(SEED, 5, 1, "cpu", world)
    assert str(damaged) in capsys.readouterr().err

    def refuse(*_: object) -> list[Canvas]:
        raise AssertionError("drawn again")

    monkeypatch.setattr(drawing, "load_canvases", refuse)
    third = load_pictures(SEED, 5, 1, "cpu", world)
    for name, tensor in vars(first).items():
        assert torch.equal(tensor, getattr(second, name)) and torch.equal(tensor, getattr(third, name))
