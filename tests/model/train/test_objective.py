"""A training step in its fast forms: padded, compiled, without waiting for the device; and on cached features
against the encoders themselves."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model.data.batch import Batch
from model.data.samples import Samples
from model.emosem.losses import IGNORE, dice_loss, focal_loss
from model.train.objective import forward, losses_of, new_objective, total_loss
from model.train.params import TrainParams
from model.train.schedule import MicroBatch, new_optimisation
from model.train.train import _step, initial_model, new_accelerator, new_samples
from pipeline.backbones.sam import build_sam
from pipeline.reader.index import Index
from tests.worlds import trained_shards
from tests.worlds.backbones import write_backbones

CPU = torch.device("cpu")
PARAMS = TrainParams(batch_size=8, max_tokens=20, label_smoothing=0.1)
MULTI = dataclasses.replace(PARAMS, paradigm="multi", prefix="mask")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, Path, Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("world")
    paths = trained_shards.shards(folder, {"train": 6})
    return Index.load(paths.step("shards")), *trained_shards.backbones(folder / "weights")


def new(world: tuple[Index, Path, Path], params: TrainParams) -> tuple[Any, Samples]:
    torch.manual_seed(0)
    index, sam, language_model = world
    model = initial_model(index, params, sam, language_model)
    return model, new_samples(index, "train", model, params)


def accelerator_of(params: TrainParams) -> Accelerator:
    AcceleratorState._reset_state(reset_partial_state=True)  # it is one a process, and precisions differ
    return new_accelerator("cpu", params)


def gradients(model: torch.nn.Module, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    model.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("params", [PARAMS, MULTI], ids=["single", "multi"])
def test_padding_changes_neither_losses_nor_gradients(
    world: tuple[Index, Path, Path], params: TrainParams
) -> None:
    model, samples = new(world, params)
    model.eval()  # dropout's draws depend on the shape
    for numbers in ([0, 1, 2, 3, 4], [7], list(range(8))):
        batch = samples[numbers].to(CPU)
        padded = batch.padded(8, 20, "artworks" if params.paradigm == "multi" else "queries")
        assert len(padded.tokens) == 8 and padded.tokens.shape[1] == 20
        ours, theirs = (losses_of(*forward(model, b), b, params.label_smoothing) for b in (padded, batch))
        for name, loss in theirs.items():
            torch.testing.assert_close(ours[name], loss, rtol=1e-5, atol=1e-6)
        a, b = gradients(model, ours), gradients(model, theirs)
        assert a.keys() == b.keys()
        for name, gradient in b.items():
            torch.testing.assert_close(a[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


def test_multi_may_sum_over_an_artworks_emotions(world: tuple[Index, Path, Path]) -> None:
    """Eq. 10 by hand: every (artwork, emotion) of the batch, over the number of artworks."""
    params = dataclasses.replace(MULTI, visit="pair", multi_loss="sum")
    model, samples = new(world, params)
    _, first = np.unique(samples.table[:, :2], axis=0, return_index=True)
    batch = samples[first[:7].tolist()].to(CPU)
    assert 1 < len(batch.artworks) < len(batch.rows) == len(batch.tokens) == 7
    logits, words = forward(model.eval(), batch)
    masks = sum(
        loss(logits[[q]], batch.target[[q]], batch.valid[batch.rows[[q]]]).item()
        for q in range(7)
        for loss in (dice_loss, focal_loss)
    )
    losses = losses_of(logits, words, batch)
    by_hand = (masks + 7 * losses["language"].item()) / len(batch.artworks)
    assert float(total_loss(losses, batch, params).detach()) == pytest.approx(by_hand, rel=1e-5)
    mean = total_loss(losses, batch, dataclasses.replace(params, multi_loss="mean"))
    assert float(mean.detach()) == pytest.approx(masks / 7 + losses["language"].item(), rel=1e-5)
    single = dataclasses.replace(PARAMS, multi_loss="sum")
    assert float(total_loss(losses, batch, single).detach()) == float(mean.detach())


@given(st.integers(1, 16), st.data())
def test_padded_batches_have_one_of_four_shapes(texts: int, data: st.DataObject) -> None:
    queries = data.draw(st.integers(1, texts))
    artworks = data.draw(st.integers(1, queries))
    rows = torch.arange(queries) % artworks
    batch = Batch(
        artworks=torch.arange(artworks),
        sam=torch.ones(artworks, 2, 3, 3),
        sam_scale=None,
        clip=torch.ones(artworks, 4, 2),
        valid=torch.ones(artworks, 5, 5, dtype=torch.bool),
        rows=rows,
        emotion=rows,
        target=torch.ones(queries, 5, 5),
        weight=torch.bincount(torch.arange(texts) % queries).float(),
        query=torch.arange(texts) % queries,
        tokens=torch.ones(texts, 3, dtype=torch.int64),
        labels=torch.ones(texts, 3, dtype=torch.int64),
    )
    for counted, count in (("queries", queries), ("artworks", artworks)):
        padded = batch.padded(16, 6, counted)  # type: ignore[arg-type]
        size = next(n for n in (4, 8, 12, 16) if n >= count)
        assert len(padded.sam) == len(padded.valid) == len(padded.artworks) == size
        assert len(padded.rows) == len(padded.target) == (size if counted == "queries" else 16)
        assert padded.tokens.shape == padded.labels.shape == (16, 6)
        assert padded.weight.sum() == texts == (padded.labels != IGNORE).sum() / 3
        assert padded.rows.max() < size and padded.query.max() < queries


def take_steps(
    world: tuple[Index, Path, Path], params: TrainParams, steps: int, objective_of: Callable[..., Any]
) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """Losses of optimiser steps of two micro-batches, and the weights after them."""
    model, samples = new(world, params)
    accelerator = accelerator_of(params)
    optimizer, _ = new_optimisation(model, params, steps)
    network = accelerator.prepare_model(model).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # draws depend on the shape
    objective = objective_of(network, params)
    losses = []
    for number in range(steps):
        numbers = [(np.arange(5) + number) % 18, np.arange(9, 12)]
        step = [MicroBatch(n, len(n) / 8, seed=number) for n in numbers]
        batches = (samples[n].to(CPU) for n in numbers)
        found = _step(objective, network, step, batches, optimizer, accelerator, params)
        losses.append({name: float(loss) for name, loss in found.items()})
    return losses, {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_steps_are_one_graph_and_train_alike(
    world: tuple[Index, Path, Path], precision: Any
) -> None:
    """torch.compile refuses whatever would break the graph; its backend here runs it as it is."""
    torch._dynamo.reset()
    params = dataclasses.replace(PARAMS, precision=precision)
    plain, expected = take_steps(world, params, 3, new_objective)
    compiled = dataclasses.replace(params, compile=True)
    losses, weights = take_steps(world, compiled, 3, lambda *a: new_objective(*a, backend="eager"))
    tolerance = 1e-4 if precision == "fp32" else 2e-2
    for ours, theirs in zip(losses, plain, strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance)
    if precision == "fp32":
        for name, weight in expected.items():
            assert (weights[name] - weight).abs().max() < 1e-4, name


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a GPU: reading a number back, a tensor made of Python's."""

    KINDS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "lift_fresh", "aten.equal")

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(kind in str(function) for kind in self.KINDS):
            self.seen[str(function)] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("params", [PARAMS, MULTI, dataclasses.replace(PARAMS, precision="bf16")])
def test_a_step_never_waits_for_the_device(world: tuple[Index, Path, Path], params: TrainParams) -> None:
    model, samples = new(world, params)
    accelerator = accelerator_of(params)
    optimizer, scheduler = new_optimisation(model, params, 4)
    network = accelerator.prepare_model(model).train()
    batches = [samples[[0, 1, 5]].to(CPU), samples[[2, 3]].to(CPU)]
    step = [MicroBatch(np.arange(2), 0.5, seed=n) for n in range(2)]
    with Waits() as waits:
        _step(new_objective(network, params), network, step, iter(batches), optimizer, accelerator, params)
        scheduler.step()
    assert not waits.seen
    with Waits() as waits:
        float(torch.ones(1))
    assert waits.seen


def test_generation_looks_at_the_device_once_in_a_while(world: tuple[Index, Path, Path]) -> None:
    model, samples = new(world, PARAMS)
    model.eval()
    batch = samples[[0, 1, 5]].to(CPU)
    words = []
    for every in (1, 5, 100):
        found = model.segment(batch.sam, batch.rows, batch.emotion)
        words.append(
            model.captioner.generate(
                found.prefix,
                found.prefix_mask,
                batch.clip[batch.rows],
                range(len(batch.rows)),
                max_new_tokens=12,
                top_p=0.9,
                temperature=1.0,
                look_every=every,
            )
        )
    assert words[0] == words[1] == words[2]


class Pictures:
    """Random pictures, and the frozen encoders that see them."""

    def __init__(self, folder: Path, count: int) -> None:
        from pipeline.backbones.clip import load_clip

        torch.manual_seed(2)
        self.sam = build_sam(trained_shards.SAM).eval()
        self.sam.load_state_dict(load_file(folder / "sam.safetensors"))
        backbones = write_backbones(folder / "clip")
        self.clip = load_clip(backbones.clip.name, backbones.clip.checkpoint, "cpu").model.visual
        self.pixels = torch.randn(count, 3, 32, 32)
        self.widen = torch.randn(16, trained_shards.WIDTH) / 4

    @torch.no_grad()
    def encode(self, artworks: Tensor) -> tuple[Tensor, Tensor]:
        """SAM grids, and CLIP patch tokens as wide as the tiny language model."""
        pixels = self.pixels[artworks]
        patches = self.clip.forward_intermediates(
            pixels, indices=1, output_fmt="NLC", normalize_intermediates=True
        )["image_intermediates"][0]
        return self.sam.image_encoder(pixels), patches @ self.widen


def test_cached_features_train_as_the_encoders_in_the_loop(
    world: tuple[Index, Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """20 steps: float16 features move the losses by no more than their own rounding, 2^-11, explains."""
    pictures = Pictures(world[1].parent, count=6)
    cached = [part.half() for part in pictures.encode(torch.arange(6))]

    def looped(batch: Batch) -> Batch:
        sam, clip = pictures.encode(batch.artworks)
        return dataclasses.replace(batch, sam=sam, clip=clip)

    def stored(batch: Batch) -> Batch:
        sam, clip = (part[batch.artworks].float() for part in cached)
        return dataclasses.replace(batch, sam=sam, clip=clip)

    def exact(batch: Batch) -> Batch:
        sam, clip = (part[batch.artworks] for part in pictures.encode(torch.arange(6)))
        return dataclasses.replace(batch, sam=sam, clip=clip)

    curves = []
    for source in (looped, exact, stored):
        losses, _ = take_steps(world, PARAMS, 20, lambda *a, s=source: lambda b: new_objective(*a)(s(b)))
        curves.append(torch.tensor([list(step.values()) for step in losses]))
    assert (curves[0][0] - curves[0][-1]).abs().max() > 0.1  # it trains
    torch.testing.assert_close(curves[1], curves[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(curves[2], curves[0], rtol=5e-3, atol=1e-3)
    assert not torch.equal(curves[2], curves[0])
