"""Train EmoSEM on cached features (Sec. 4.1). Read from `train` down.

An optimiser step is `accumulate` micro-batches of `batch_size` samples. A run writes runs/VARIANT/:

    model.safetensors, config.json, tokenizer files    what `EmoSEM.from_pretrained` reads
    checkpoint/last.pt                                 all that resuming needs
    dvclive/                                           curves: plots/metrics/{train,val}/*.tsv

It stops at SIGTERM or Ctrl-C after the step at hand, and goes on from its last checkpoint to the same result.
"""

import dataclasses
import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
import torch
from accelerate import Accelerator
from dvclive import Live
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader

from model import checkpoint
from model.checkpoint import Progress
from model.data import Batch, Frame, Samples, Visit, epoch_batches, read_features
from model.emosem import EmoSEM, Finetune, Paradigm, Prefix
from model.losses import dice_loss, focal_loss, language_loss
from model.metrics.segmentation import score_maps
from pipeline.params import STRICT, Paths, UserError, fingerprint
from pipeline.shard_index import Index
from pipeline.storage import sha256_file

Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Variant:
    """One trained model: what it changes of `TrainParams`; null keeps the common value."""

    paradigm: Paradigm | None = None
    prefix: Prefix | None = None
    finetune: Finetune | None = None
    epochs: Positive | None = None
    learning_rate: Rate | None = None
    language_learning_rate: Rate | None = None


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class TrainParams:
    """How EmoSEM is trained. The defaults suit the built-in gallery; (paper: ...) gives Sec. 4.1's value."""

    paradigm: Paradigm = "single"
    """single or multi, see `EmoSEMConfig`."""
    prefix: Prefix = "mask+prompt"
    """What the language model is told (Tab. 4)."""
    finetune: Finetune = "mask-head"
    """What of SAM's decoder trains (Fig. 7)."""
    detach_prompt: bool = False
    """Keep the mask loss out of the word embedding that prompt and language model share."""
    epochs: Positive = 4
    """Passes over the training samples (paper: 10)."""
    visit: Visit = "utterance"
    """What an epoch visits once: every utterance, or every (artwork, emotion) with its next utterance."""
    batch_size: Positive = 32
    """Samples of a micro-batch (paper: 4)."""
    accumulate: Positive = 1
    """Micro-batches of an optimiser step (paper: 4)."""
    window: Positive = 1
    """Artworks whose samples are mixed; 1 reads and segments each artwork once an epoch, see `epoch_batches`."""
    learning_rate: Rate = 1e-3
    """Of projectors, mask head and mask tokens (paper: 1e-4 for single, 8e-5 for multi)."""
    language_learning_rate: Rate = 1e-3
    """Of GPT-2 (paper: 2e-4)."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's; the paper gives none."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the steps over which learning rates rise from 0."""
    schedule: Literal["linear", "constant"] = "linear"
    """After the warm-up: linear decay to 0, or constant. The paper gives none; its forebear decays."""
    clip_norm: Rate | None = 1.0
    """Largest gradient norm, over all parameters; null for no clipping (paper: none given)."""
    binarise: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Threshold that makes pseudo-masks hard; null keeps them soft (paper: soft)."""
    max_tokens: Annotated[int, Field(ge=2)] = 25
    """Budget of an explanation, its end-of-text token included (paper: 25)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass; weights and losses are float32 either way."""
    seed: int = 0
    """Decides new weights, sample order and dropout."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read batches; never changes a result."""
    checkpoint_every: Positive = 200
    """Optimiser steps between checkpoints; one is also written after each epoch and when asked to stop."""
    log_every: Positive = 10
    """Optimiser steps between points of the curves."""
    validation_artworks: Positive = 48
    """Artworks of the validation split judged after each epoch."""
    variants: dict[str, Variant] = Field(
        default_factory=lambda: {
            "single": Variant(paradigm="single"),
            "multi": Variant(paradigm="multi", prefix="mask"),
            "no-prefix": Variant(paradigm="single", prefix="none"),
        }
    )
    """The models to train by name, one folder in runs/ each."""

    def of(self, variant: str) -> "TrainParams":
        """The parameters of one variant. Raises `UserError` for a name that `variants` does not hold."""
        if variant not in self.variants:
            raise UserError(f"train.variants has no {variant!r}; it has {', '.join(self.variants)}")
        changes = {k: v for k, v in vars(self.variants[variant]).items() if v is not None}
        return dataclasses.replace(self, **changes, variants={})


def train(
    paths: Paths, params: TrainParams, sam_checkpoint: Path, language_model: Path, device: str, variant: str
) -> dict[str, Any]:
    """Train a variant, or go on with it; returns counts and the last validation.

    Args:
        paths: reads data/shards (and the tars beside it), writes runs/VARIANT.
        params: see `TrainParams`.
        sam_checkpoint, language_model: pretrained parts, see `checkpoint.new_model`.
        device: cpu, cuda or cuda:N.
        variant: a name in `params.variants`.

    Raises:
        UserError: no shards, or weights that do not fit.
        SystemExit: asked to stop by a signal; the code is the shell's, 128 + signal.
    """
    params = params.of(variant)
    run = paths.runs / variant
    accelerator = Accelerator(
        cpu=device == "cpu", mixed_precision="bf16" if params.precision == "bf16" else "no"
    )
    torch.manual_seed(params.seed)

    index = Index.load(paths.step("shards"))
    model = _new_model(index, params, sam_checkpoint, language_model).to(accelerator.device)
    samples = {split: _samples(index, split, model, params) for split in ("train", "val")}
    optimizer, scheduler, epochs = _optimisation(model, samples["train"].table, params)

    parts = [sha256_file(path) for path in (sam_checkpoint, language_model / "model.safetensors")]
    identity = fingerprint(dataclasses.replace(params, workers=0), parts, index.table["sha256"].to_pylist())
    saved = checkpoint.read(run / "checkpoint" / "last.pt", identity)
    progress = checkpoint.restore(saved, model, optimizer, scheduler) if saved else Progress(identity)
    if not saved:
        checkpoint.save(run / "checkpoint" / "last.pt", progress, model, optimizer, scheduler)

    accelerator.prepare_model(model)  # autocast; the optimiser steps in float32
    report = Report(variant, progress, total=params.epochs * len(epochs(0)))
    with Curves(run / "dvclive", progress.total_steps) as curves, StopSignals() as stop:
        while progress.epoch < params.epochs:
            groups = epochs(progress.epoch)
            batches = _load(samples["train"], groups[progress.step :], params, accelerator.device)
            for group in groups[progress.step :]:
                model.train()
                losses = _step(model, [next(batches) for _ in group], optimizer, accelerator, params)
                scheduler.step()
                progress.step, progress.total_steps = progress.step + 1, progress.total_steps + 1
                report.step(losses, samples=sum(map(len, group)))
                if progress.total_steps % params.log_every == 0:
                    curves.log("train", progress.total_steps, report.means())
                if progress.total_steps % params.checkpoint_every == 0 or stop.asked:
                    checkpoint.save(run / "checkpoint" / "last.pt", progress, model, optimizer, scheduler)
                if stop.asked:
                    print(f"stopped after step {progress.total_steps}; run again to go on", file=sys.stderr)
                    raise SystemExit(128 + stop.asked)
            progress.epoch, progress.step = progress.epoch + 1, 0
            progress.validation = validate(model, samples["val"], params, accelerator)
            curves.log("val", progress.total_steps, progress.validation)
            report.epoch(progress.validation)
            checkpoint.save(run / "checkpoint" / "last.pt", progress, model, optimizer, scheduler)

    model.save_pretrained(run)
    return {
        "variant": variant,
        "epochs": params.epochs,
        "steps": progress.total_steps,
        "train_samples": len(samples["train"]),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "validation": progress.validation,
    }


def _new_model(index: Index, params: TrainParams, sam_checkpoint: Path, language_model: Path) -> EmoSEM:
    rows = index.rows("train")
    if not rows:
        raise UserError(f"{index.folder / 'index.parquet'} has no training artwork")
    return checkpoint.new_model(
        sam_checkpoint,
        language_model,
        paradigm=params.paradigm,
        prefix=params.prefix,
        finetune=params.finetune,
        detach_prompt=params.detach_prompt,
        max_tokens=params.max_tokens,
        visual_dim=read_features(index, rows[0].key).clip.shape[1],
    )


def _samples(index: Index, split: str, model: EmoSEM, params: TrainParams) -> Samples:
    config = model.config
    if model.tokenizer is None:
        raise ValueError("the model has no tokenizer")
    return Samples(
        index,
        split,
        model.tokenizer,
        Frame(config.image_size, side=4 * config.grid),
        max_tokens=config.max_tokens,
        binarise=params.binarise,
    )


def _optimisation(
    model: EmoSEM, table: np.ndarray, params: TrainParams
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, "Epochs"]:
    """AdamW with the two learning rates, their schedule, and each epoch's micro-batches."""
    groups = model.parameter_groups()
    optimizer = torch.optim.AdamW(
        [
            {"params": groups["segmenter"], "lr": params.learning_rate},
            {"params": groups["language_model"], "lr": params.language_learning_rate},
        ],
        weight_decay=params.weight_decay,
        fused=True,
    )
    epochs = Epochs(table, params)
    total = params.epochs * len(epochs(0))
    warmup = math.ceil(params.warmup * total)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return (total - step) / (total - warmup) if params.schedule == "linear" else 1.0

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor), epochs


@dataclasses.dataclass(frozen=True)
class Epochs:
    """The optimiser steps of each epoch, as groups of micro-batches of sample numbers."""

    table: np.ndarray
    params: TrainParams

    def __call__(self, epoch: int) -> list[list[np.ndarray]]:
        p = self.params
        batches = epoch_batches(
            self.table, p.batch_size, seed=p.seed, epoch=epoch, window=p.window, visit=p.visit
        )
        return [batches[start : start + p.accumulate] for start in range(0, len(batches), p.accumulate)]


def _load(
    samples: Samples, groups: list[list[np.ndarray]], params: TrainParams, device: torch.device
) -> Iterator[Batch]:
    """The groups' micro-batches in order, on the device."""
    loader: DataLoader[Batch] = DataLoader(
        samples,
        batch_size=None,
        sampler=[batch for group in groups for batch in group],
        collate_fn=_as_it_is,
        num_workers=params.workers,
        pin_memory=device.type == "cuda",
    )
    return (batch.to(device) for batch in loader)


def _as_it_is(batch: Batch) -> Batch:
    return batch


def losses_of(model: EmoSEM, batch: Batch) -> dict[str, Tensor]:
    """The objective's parts (Eq. 5, 6) on a batch: means over its samples, float32 scalars."""
    mask_logits, word_logits = model(
        batch.sam,
        batch.clip,
        rows_Q=batch.rows,
        emotion_Q=batch.emotion,
        query_T=batch.query,
        tokens_TL=batch.tokens,
    )
    valid = batch.valid.index_select(0, batch.rows)
    weight = batch.weight / batch.weight.sum()  # a query counts once for each of its texts
    return {
        "dice": (dice_loss(mask_logits, batch.target, valid) * weight).sum(),
        "focal": (focal_loss(mask_logits, batch.target, valid) * weight).sum(),
        "language": language_loss(word_logits, batch.labels),
    }


def _step(
    model: EmoSEM,
    batches: list[Batch],
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    params: TrainParams,
) -> dict[str, Tensor]:
    """One optimiser step; returns the parts of its loss, still on the device."""
    texts = sum(len(batch.tokens) for batch in batches)
    sums: dict[str, Tensor] = {}
    for batch in batches:
        share = len(batch.tokens) / texts
        losses = losses_of(model, batch)
        accelerator.backward(share * (losses["dice"] + losses["focal"] + losses["language"]))  # Eq. 7
        sums = {name: sums.get(name, 0) + share * loss.detach() for name, loss in losses.items()}
    if params.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), params.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return sums


@torch.no_grad()
def validate(
    model: EmoSEM, samples: Samples, params: TrainParams, accelerator: Accelerator
) -> dict[str, float]:
    """Losses, and Pr@25/50 (percent) against the pseudo-masks, over artworks spread through the split.

    Pseudo-masks are foreground above 0.35, as predictions are (APOLO's protocol); there is no annotation here.
    """
    model.eval()
    artworks = np.unique(samples.table[:, 0])
    chosen = artworks[np.linspace(0, len(artworks) - 1, params.validation_artworks).astype(int)]
    table = samples.table
    numbers = np.flatnonzero(np.isin(table[:, 0], chosen) & (table[:, 2] == 0))
    sums, weights, maps, truths = dict.fromkeys(("dice", "focal", "language"), 0.0), 0, [], []
    for start in range(0, len(numbers), params.batch_size):
        batch = samples[numbers[start : start + params.batch_size]].to(accelerator.device)
        for name, loss in losses_of(model, batch).items():
            sums[name] += float(loss) * len(batch.tokens)
        weights += len(batch.tokens)
        with accelerator.autocast():
            logits = model.segment(batch.sam, batch.rows, batch.emotion).mask_logits
        for probability, target, valid in zip(
            logits.float().sigmoid(), batch.target, batch.valid[batch.rows], strict=True
        ):
            height, width = valid.any(1).sum(), valid.any(0).sum()
            maps.append(probability[:height, :width].cpu().numpy())
            truths.append(target[:height, :width].cpu().numpy() > 0.35)
    rates = score_maps(maps, truths).rates()
    found = {name: rates[name] for name in ("seg_pr25", "seg_pr50") if name in rates}
    return {name: round(total / weights, 6) for name, total in sums.items()} | found


class StopSignals(AbstractContextManager["StopSignals"]):
    """Notes SIGTERM and Ctrl-C instead of dying of them, so that the step at hand can be saved.

    A second signal acts as usual. Outside the main thread signals stay as they are.
    """

    asked: int = 0
    """Number of the signal that came, or 0."""

    def __enter__(self) -> "StopSignals":
        self._before: dict[int, Any] = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        except ValueError:  # not the main thread
            pass
        return self

    def _note(self, number: int, _frame: Any) -> None:
        self.asked = number
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def __exit__(self, *_: object) -> None:
        self._restore()


class Curves(AbstractContextManager["Curves"]):
    """Training curves by DVCLive, one .tsv per value in ``plots/metrics/{train,val}/``."""

    def __init__(self, folder: Path, step: int) -> None:
        """Continue at `step`: points of steps after it, from before a kill, are dropped."""
        for curve in folder.rglob("*.tsv"):
            header, *points = curve.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [point for point in points if int(point.split("\t")[0]) <= step]
            curve.write_text(header + "".join(kept), encoding="utf-8")
        self._live = Live(
            str(folder), resume=step > 0, report=None, save_dvc_exp=False, dvcyaml=None, cache_images=False
        )

    def log(self, group: str, step: int, values: dict[str, float]) -> None:
        """One point per value at an optimiser step."""
        self._live.step = step
        for name, value in values.items():
            self._live.log_metric(f"{group}/{name}", value)
        self._live.make_summary()

    def __exit__(self, *_: object) -> None:
        self._live.end()


class Report:
    """Progress for a person: losses, rate and time left, on stderr every few seconds."""

    EVERY = 5.0
    """Seconds between lines."""

    def __init__(self, variant: str, progress: Progress, total: int) -> None:
        self._variant, self._progress, self._total = variant, progress, total
        self._first = progress.total_steps
        self._start = self._shown = time.monotonic()
        self._samples = 0
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        if self._first:
            print(f"{variant}: going on after step {self._first} of {total}", file=sys.stderr)

    def step(self, losses: dict[str, Tensor], samples: int) -> None:
        """Note a step; print if it is time."""
        self._sums = {name: self._sums.get(name, 0) + loss for name, loss in losses.items()}
        self._count += 1
        self._samples += samples
        if time.monotonic() - self._shown >= self.EVERY:
            self._print(" ".join(f"{name} {float(loss):.3f}" for name, loss in losses.items()))

    def means(self) -> dict[str, float]:
        """Mean losses since the last call."""
        means = {name: round(float(total) / self._count, 6) for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means

    def epoch(self, validation: dict[str, float]) -> None:
        """Print an epoch's validation."""
        shown = " ".join(f"{name} {value:.3f}" for name, value in validation.items())
        self._print(f"validation: {shown}")

    def _print(self, text: str) -> None:
        self._shown = time.monotonic()
        seconds, done = self._shown - self._start, self._progress.total_steps - self._first
        left = seconds / done * (self._total - self._progress.total_steps) if done else math.nan
        rate = self._samples / seconds if seconds else math.nan
        print(
            f"{self._variant}: step {self._progress.total_steps}/{self._total}, {text}, "
            f"{rate:.0f} samples/s, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
