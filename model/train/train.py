"""Train EmoSEM on cached features (Sec. 4.1). Read from `train` down.

An optimiser step is `accumulate` micro-batches of `batch_size` samples. A run writes runs/VARIANT/:

    model.safetensors, config.json, tokenizer files    what `EmoSEM.from_pretrained` reads
    checkpoint/last.pt                                 all that resuming needs
    checkpoint/best.safetensors                        the epoch with the best validation Pr@50
    dvclive/                                           curves: plots/metrics/{train,val}/*.tsv

It stops at SIGTERM or Ctrl-C after the step at hand, and goes on from its last checkpoint to the same result.
"""

import dataclasses
from collections.abc import Generator, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from model.data.batch import Batch
from model.data.cached_features import read_features
from model.data.frame import Frame
from model.data.loader import load
from model.data.resident_features import ResidentFeatures
from model.data.samples import Samples
from model.emosem.network import EmoSEM
from model.emosem.pretrained import new_model as new_model_
from model.emosem.sca import ScaConfig
from model.metrics.segmentation import score_maps
from model.train.checkpoint import (
    TrainProgress,
    load_weights,
    read_checkpoint,
    restore_checkpoint,
    save_checkpoint,
    save_weights,
)
from model.train.monitor import Curves, Report, StopSignals
from model.train.objective import Objective, forward, losses_of, new_objective
from model.train.params import TrainParams
from model.train.provenance import describe_run
from model.train.schedule import Epochs, MicroBatch, new_optimisation
from pipeline.common.code import code_fingerprint
from pipeline.common.errors import UserError
from pipeline.common.fingerprint import fingerprint, sha256_file
from pipeline.common.params import Paths
from pipeline.reader.index import Index
from pipeline.reader.remote_index import open_index

"""What a run's checkpoint depends on besides this file: a resumed run must not mix two versions."""
SELECTION = "seg_pr50"
"""Validation score that selects a model."""


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

    Under ``accelerate launch`` each process takes its share of every optimiser step, and only the first
    writes.

    Args:
        paths: reads data/shards (and the tars beside it), writes runs/VARIANT.
        params: see `TrainParams`.
        variant: a name in `params.variants`.
        sam_checkpoint, language_model: pretrained parts, see `checkpoint.new_model`.
        device: cpu, cuda, or cuda:1; with several processes each gets a GPU of its own.

    Raises:
        UserError: no shards, or weights that do not fit.
        SystemExit: asked to stop by a signal; the code is the shell's, 128 + signal.
    """
    params = params.of(variant)
    run = paths.runs / variant
    accelerator = new_accelerator(device, params)
    torch.manual_seed(params.seed)

    index = open_index(params.stream or paths.step("shards"))
    model = start_model(index, params, sam_checkpoint, language_model).to(accelerator.device)
    samples = {split: new_samples(index, split, model, params) for split in ("train", "val")}
    steps_of = Epochs(samples["train"].table, params, accelerator.process_index, accelerator.num_processes)
    total = params.epochs * len(steps_of(0))
    optimizer, scheduler = new_optimisation(model, params, total)

    identity = _identity(index, params, accelerator.num_processes, sam_checkpoint, language_model)
    saved = read_checkpoint(run / "checkpoint" / "last.pt", identity)
    progress = restore_checkpoint(saved, model, optimizer, scheduler) if saved else TrainProgress(identity)
    accelerator.wait_for_everyone()
    main = accelerator.is_main_process

    def save() -> None:
        if main:
            save_checkpoint(run / "checkpoint" / "last.pt", progress, model, optimizer, scheduler)

    if not saved:
        save()
    network = accelerator.prepare_model(model)  # autocast, and gradients averaged over processes
    objective = new_objective(network, params)
    report = Report(variant, progress, total, silent=not main)
    with (
        Curves(run / "dvclive", progress.total_steps, silent=not main) as curves,
        StopSignals() as stop,
        closing(_ahead(samples["train"], steps_of, progress, params, accelerator.device)) as batches,
    ):
        while progress.epoch < params.epochs:
            for step in steps_of(progress.epoch)[progress.step :]:
                model.train()
                losses = _step(objective, network, step, batches, optimizer, accelerator, params)
                scheduler.step()
                progress.step, progress.total_steps = progress.step + 1, progress.total_steps + 1
                report.step(losses, samples=sum(len(b.samples) for b in step) * accelerator.num_processes)
                logs = progress.total_steps % params.log_every == 0
                if logs:
                    curves.log("train", progress.total_steps, report.means())
                asked = _agree(stop.asked, accelerator, logs)  # to save and go; the next run goes on
                if progress.total_steps % params.checkpoint_every == 0 or asked:
                    save()
                if asked:
                    raise SystemExit(128 + asked)
            progress.epoch, progress.step = progress.epoch + 1, 0
            progress.validation = validate(model, samples["val"], params, accelerator.device)
            curves.log("val", progress.total_steps, progress.validation)
            report.epoch(progress.validation)
            _keep_best(run, progress, model, main)
            save()

    if main:
        if params.select == "best":
            load_weights(run / "checkpoint" / "best.safetensors", model)
        model.about = describe_run(
            paths,
            index,
            variant=variant,
            training=params,
            sam_checkpoint=sam_checkpoint,
            language_model=language_model,
            validation=progress.validation,
        )
        model.save_pretrained(run)
    return _outcome(variant, params, progress, samples["train"], model)


def _outcome(
    variant: str, params: TrainParams, progress: TrainProgress, samples: Samples, model: EmoSEM
) -> dict[str, Any]:
    """What goes to metrics/train/VARIANT.json."""
    return {
        "variant": variant,
        "epochs": params.epochs,
        "steps": progress.total_steps,
        "train_samples": len(samples),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "validation": progress.validation,
        "best": {"epoch": progress.best_epoch, SELECTION: progress.best},
    }


def new_accelerator(device: str, params: TrainParams) -> Accelerator:
    """accelerate on a device, in the params' arithmetic."""
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    mixed_precision = "bf16" if params.precision == "bf16" else "no"
    return Accelerator(cpu=device == "cpu", mixed_precision=mixed_precision)


def _identity(
    index: Index, params: TrainParams, processes: int, sam_checkpoint: Path, language_model: Path
) -> str:
    """Fingerprint of everything that decides a run's result; only runs of the same one are resumed."""
    together = params.accumulate * processes
    decisive = dataclasses.replace(
        params, workers=0, accumulate=together, select="last", resident=False, stream=None
    )
    parts = [sha256_file(path) for path in (sam_checkpoint, language_model / "model.safetensors")]
    code = code_fingerprint(__name__)
    return fingerprint(decisive, parts, code, index.table["sha256"].to_pylist())


def _agree(asked: int, accelerator: Accelerator, now: bool) -> int:
    """The signal that any process got; several ask each other only `now` and then, because it takes time."""
    if accelerator.num_processes == 1:
        return asked
    if not now:
        return 0
    flag = torch.tensor([asked], device=accelerator.device)
    return int(accelerator.gather(flag).max())


def _keep_best(run: Path, progress: TrainProgress, model: EmoSEM, main: bool) -> None:
    """Note and keep the weights of the epoch with the best validation Pr@50; of equal ones the later."""
    score = progress.validation.get(SELECTION, 0.0)
    if progress.best is None or score >= progress.best:
        progress.best, progress.best_epoch = score, progress.epoch
        if main:
            save_weights(run / "checkpoint" / "best.safetensors", model)


def start_model(index: Index, params: TrainParams, sam_checkpoint: Path, language_model: Path) -> EmoSEM:
    """An untrained model of a variant on pretrained parts. Raises `UserError`."""
    rows = index.rows("train")
    if not rows:
        raise UserError(f"{index.folder / 'index.parquet'} has no training artwork")
    return new_model_(
        sam_checkpoint,
        language_model,
        untie_words=params.untie_words,
        paradigm=params.paradigm,
        prefix=params.prefix,
        finetune=params.finetune,
        ambiguity_aware=params.ambiguity_aware,
        detach_prompt=params.detach_prompt,
        sca=ScaConfig() if params.model == "sca" else None,
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


def _ahead(
    samples: Samples, steps_of: Epochs, progress: TrainProgress, params: TrainParams, device: torch.device
) -> Generator[Batch, None, None]:
    """Every micro-batch from here to the end of the run, read while the steps before it are taken."""
    resident = ResidentFeatures.load(samples, device) if params.resident else None
    samples.features = resident is None
    first, skipped = progress.epoch, progress.step  # as they are now: steps move them
    numbers = (
        micro.samples
        for epoch in range(first, params.epochs)
        for step in steps_of(epoch)[skipped if epoch == first else 0 :]
        for micro in step
    )
    return load(samples, numbers, device, workers=params.workers, resident=resident)


def _step(
    objective: Objective,
    network: torch.nn.Module,
    step: list[MicroBatch],
    batches: Iterator[Batch],
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    params: TrainParams,
) -> dict[str, Tensor]:
    """One optimiser step of `objective` of `network`; its losses, still on the device."""
    sums: dict[str, Tensor] = {}
    for place, micro in enumerate(step):
        last = place == len(step) - 1
        batch = next(batches).widened()
        torch.manual_seed(micro.seed)
        with nullcontext() if last else accelerator.no_sync(network):
            losses = objective(batch)
            total = losses["dice"] + losses["focal"] + losses["language"]  # Eq. 7
            accelerator.backward(
                micro.share * accelerator.num_processes * total
            )  # it averages over processes
        sums = {name: sums.get(name, 0) + micro.share * loss.detach() for name, loss in losses.items()}
    if params.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(network.parameters(), params.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=not params.compile)
    if accelerator.num_processes > 1:
        sums = {name: accelerator.reduce(loss, "sum") for name, loss in sums.items()}
    return sums


@torch.no_grad()
def validate(model: EmoSEM, samples: Samples, params: TrainParams, device: torch.device) -> dict[str, float]:
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
        batch = samples[numbers[start : start + params.batch_size].tolist()].to(device)
        logits_QHW, word_logits = forward(model, batch)
        for name, loss in losses_of(logits_QHW, word_logits, batch).items():
            sums[name] = sums.get(name, 0.0) + float(loss) * len(batch.tokens) / len(numbers)
        for logits_HW, target_HW, row in zip(logits_QHW, batch.target, batch.rows, strict=True):
            height, width = batch.valid[row].any(1).sum(), batch.valid[row].any(0).sum()
            maps.append(logits_HW[:height, :width].float().sigmoid().cpu().numpy())
            truths.append(target_HW[:height, :width].cpu().numpy() > 0.35)
    rates = score_maps(maps, truths).rates()
    losses = {name: round(total, 6) for name, total in sums.items()}
    return losses | {name: rates[name] for name in ("seg_pr25", "seg_pr50") if name in rates}
