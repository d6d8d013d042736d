"""Train EmoSEM on cached features (Sec. 4.1). Read from `train` down.

An optimiser step is `accumulate` micro-batches of `batch_size` samples. A run writes runs/VARIANT/:

    model.safetensors, config.json, tokenizer files    what `EmoSEM.from_pretrained` reads
    checkpoint/last.pt                                 all that resuming needs
    dvclive/                                           curves: plots/metrics/{train,val}/*.tsv

It stops at SIGTERM or Ctrl-C after the step at hand, and goes on from its last checkpoint to the same result.
"""

import dataclasses
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
import torch
from accelerate import Accelerator
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader

from model import captioner, checkpoint, data, emosem, losses, mask_decoder, projectors
from model.checkpoint import Progress
from model.data import Batch, Frame, Samples, Visit, epoch_batches, read_features
from model.emosem import EmoSEM, Finetune, Paradigm, Prefix
from model.losses import dice_loss, focal_loss, language_loss
from model.metrics.segmentation import score_maps
from model.monitor import Curves, Report, StopSignals
from model.precision import attention
from pipeline.params import STRICT, Paths, UserError, fingerprint
from pipeline.shard_index import Index
from pipeline.storage import code_version, sha256_file

_CODE = (captioner, data, emosem, losses, mask_decoder, projectors)
"""What a run's checkpoint depends on besides this file: a resumed run must not mix two versions."""
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
    """Artworks whose samples are mixed; 1 segments each artwork once an epoch, see `epoch_batches`."""
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
    paths: Paths,
    params: TrainParams,
    variant: str,
    *,
    sam_checkpoint: Path,
    language_model: Path,
    device: str,
) -> dict[str, Any]:
    """Train a variant, or go on with it; returns counts and the last validation.

    Args:
        paths: reads data/shards (and the tars beside it), writes runs/VARIANT.
        params: see `TrainParams`.
        variant: a name in `params.variants`.
        sam_checkpoint, language_model: pretrained parts, see `checkpoint.new_model`.
        device: cpu, or anything else for the GPU that accelerate picks.

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
    model = new_model(index, params, sam_checkpoint, language_model).to(accelerator.device)
    samples = {split: new_samples(index, split, model, params) for split in ("train", "val")}
    optimizer, scheduler, epochs = _optimisation(model, samples["train"].table, params)

    parts = [sha256_file(path) for path in (sam_checkpoint, language_model / "model.safetensors")]
    code = code_version(sys.modules[__name__], *_CODE)
    seen = index.table["sha256"].to_pylist()
    identity = fingerprint(dataclasses.replace(params, workers=0), parts, code, seen)
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


def new_model(index: Index, params: TrainParams, sam_checkpoint: Path, language_model: Path) -> EmoSEM:
    """An untrained model of a variant on pretrained parts. Raises `UserError`."""
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


def new_samples(index: Index, split: str, model: EmoSEM, params: TrainParams) -> Samples:
    """A split's samples as the model takes them. Raises `UserError` when it has none."""
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
        collate_fn=_as_it_is,  # batches are made by the samples themselves
        num_workers=params.workers,
        generator=torch.Generator(),  # a loader draws from it; the global one belongs to dropout
        pin_memory=device.type == "cuda",
    )
    return (batch.to(device) for batch in loader)


def _as_it_is(batch: Any) -> Any:
    return batch


def answer(model: EmoSEM, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mask logits (Q, H, W) and word logits (T, L, V) of a batch."""
    with attention(batch.sam.device):
        logits: tuple[Tensor, Tensor] = model(
            batch.sam,
            batch.clip,
            rows_Q=batch.rows,
            emotion_Q=batch.emotion,
            query_T=batch.query,
            tokens_TL=batch.tokens,
        )
    return logits


def losses_of(mask_logits: Tensor, word_logits: Tensor, batch: Batch) -> dict[str, Tensor]:
    """The objective's parts (Eq. 5, 6): means over the batch's samples, float32 scalars."""
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
        losses = losses_of(*answer(model, batch), batch)
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

    One utterance of each (artwork, emotion) counts. There is no annotation here: a pseudo-mask's foreground
    is what lies above 0.35, as for predictions in APOLO's protocol.
    """
    model.eval()
    artworks = np.unique(samples.table[:, 0])
    chosen = artworks[np.linspace(0, len(artworks) - 1, params.validation_artworks).astype(int)]
    numbers = np.flatnonzero(np.isin(samples.table[:, 0], chosen) & (samples.table[:, 2] == 0))
    sums: dict[str, float] = {}
    maps: list[np.ndarray] = []
    truths: list[np.ndarray] = []
    for start in range(0, len(numbers), params.batch_size):
        batch = samples[numbers[start : start + params.batch_size].tolist()].to(accelerator.device)
        logits_QHW, word_logits = answer(model, batch)
        for name, loss in losses_of(logits_QHW, word_logits, batch).items():
            sums[name] = sums.get(name, 0.0) + float(loss) * len(batch.tokens) / len(numbers)
        for logits_HW, target_HW, row in zip(logits_QHW, batch.target, batch.rows, strict=True):
            height, width = batch.valid[row].any(1).sum(), batch.valid[row].any(0).sum()
            maps.append(logits_HW[:height, :width].float().sigmoid().cpu().numpy())
            truths.append(target_HW[:height, :width].cpu().numpy() > 0.35)
    rates = score_maps(maps, truths).rates()
    losses = {name: round(total, 6) for name, total in sums.items()}
    return losses | {name: rates[name] for name in ("seg_pr25", "seg_pr50") if name in rates}
