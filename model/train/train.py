"""Train EmoSEM on cached features (Sec. 4.1). Read from `train` down.

An optimiser step is `accumulate` micro-batches of `batch_size` samples. A run writes runs/VARIANT/:

    model.safetensors, config.json, tokenizer files    what `EmoSEM.from_pretrained` reads
    SHA256SUMS                                         of these, checked where they are read
    checkpoint/last.pt                                 all that resuming needs, checked when it is read
    checkpoint/best.safetensors                        the epoch that is best on val by `select_by`
    dvclive/                                           curves: plots/metrics/{train,val}/*.tsv

It stops at SIGTERM or Ctrl-C after the step at hand, and goes on from its last checkpoint to the same result.
A damaged checkpoint is reported, and the run starts afresh. A loss that is not finite ends it.
"""

import dataclasses
import os
from collections.abc import Generator, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from model.data.batch import Batch
from model.data.cached_features import read_features
from model.data.frame import Frame
from model.data.loader import load_batches
from model.data.resident_features import ResidentFeatures
from model.data.samples import Samples
from model.emosem.config import ScaConfig
from model.emosem.network import EmoSEM
from model.emosem.pretrained import build_pretrained, pretrained_files
from model.train.checkpoint import Checkpoints, TrainProgress
from model.train.monitor import Curves, LossWatch, ProgressLine, StopSignals
from model.train.objective import Objective, new_objective, total_loss
from model.train.params import TrainParams
from model.train.provenance import describe_run
from model.train.schedule import Epochs, MicroBatch, new_optimisation
from model.train.validation import validate
from pipeline.common.code import code_fingerprint
from pipeline.common.errors import UserError
from pipeline.common.files import check_writable
from pipeline.common.fingerprint import fingerprint, sha256_file
from pipeline.common.lock import writes
from pipeline.common.machine import cpu_threads
from pipeline.common.params import Paths
from pipeline.reader.index import Index
from pipeline.reader.remote_index import open_index


@writes(lambda paths, _, variant, **__: [paths.runs / variant] if is_first_process() else [], nested=True)
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
        sam_checkpoint, language_model: pretrained parts, see `build_pretrained`.
        device: cpu, cuda, or cuda:1; with several processes each gets a GPU of its own.

    Raises:
        UserError: no shards, or not as indexed; weights that do not fit; a folder that cannot be written to.
        RunFailed: a loss that is not finite, or a full disk.
        SystemExit: asked to stop by a signal; the code is the shell's, 128 + signal.
    """
    params = params.of(variant)
    run = paths.runs / variant
    accelerator = new_accelerator(device, params)
    if accelerator.is_main_process:
        check_writable(run)
    torch.manual_seed(params.seed)

    index = open_index(params.stream or paths.step("shards"))
    model = initial_model(index, params, sam_checkpoint, language_model).to(accelerator.device)
    samples = {split: new_samples(index, split, model, params) for split in ("train", "val")}
    steps_of = Epochs(samples["train"].table, params, accelerator.process_index, accelerator.num_processes)
    total = params.epochs * len(steps_of(0))
    optimizer, scheduler = new_optimisation(model, params, total)

    identity = run_identity(index, params, accelerator.num_processes, sam_checkpoint, language_model)
    checkpoints = Checkpoints(
        run / "checkpoint", identity, model, optimizer, scheduler, accelerator, params.select_by
    )
    progress, main = checkpoints.resume(), accelerator.is_main_process
    network = accelerator.prepare_model(model)  # autocast, and gradients averaged over processes
    objective, watch = new_objective(network, params), LossWatch(samples["train"], progress)
    line = ProgressLine(variant, progress, total, silent=not main)
    curves = Curves(run / "dvclive", progress, silent=not main)
    with (
        StopSignals() as stop,
        closing(_ahead(samples["train"], steps_of, progress, params, accelerator.device)) as batches,
    ):
        while progress.epoch < params.epochs:
            for step in steps_of(progress.epoch)[progress.step :]:
                model.train()
                losses = _step(objective, network, step, batches, optimizer, accelerator, params)
                scheduler.step()
                progress.step, progress.total_steps = progress.step + 1, progress.total_steps + 1
                watch.note(step, losses)
                line.step(losses, samples=sum(len(b.samples) for b in step) * accelerator.num_processes)
                if logs := progress.total_steps % params.log_every == 0:
                    watch.check()
                    curves.log("train", line.means())
                signal = _agree(stop.received, accelerator, logs)  # to save and go; the next run goes on
                if progress.total_steps % params.checkpoint_every == 0 or signal:
                    watch.check()
                    checkpoints.save()
                if signal:
                    curves.write()
                    raise SystemExit(128 + signal)
            watch.check()
            validation = validate(model, samples["val"], params, accelerator.device)
            curves.log("val", validation)
            line.epoch(validation)
            checkpoints.end_epoch(validation)

    curves.write()
    if main:
        if params.select == "best":
            checkpoints.load_best()
        model.provenance = describe_run(
            index, variant, params, sam_checkpoint, language_model,
            validation=progress.validation, threads=cpu_threads(accelerator.device.type),
        )  # fmt: skip
        model.save_pretrained(run)
    return _metrics(variant, params, progress, samples["train"], model)


def _metrics(
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
        "best": {"epoch": progress.best_epoch, params.select_by: progress.best},
    }


def is_first_process() -> bool:
    """Whether this is the process that writes, known before accelerate starts."""
    return os.environ.get("RANK", "0") == "0"


def new_accelerator(device: str, params: TrainParams) -> Accelerator:
    """accelerate on a device, in the params' arithmetic."""
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    mixed_precision = "bf16" if params.precision == "bf16" else "no"
    return Accelerator(cpu=device == "cpu", mixed_precision=mixed_precision)


def run_identity(
    index: Index, params: TrainParams, processes: int, sam_checkpoint: Path, language_model: Path
) -> str:
    """Fingerprint of all that decides a run's weights and curves; only runs of the same one are resumed.

    That is: the params, pretrained files, code (prompts are code) and samples. Left out are what changes
    speed alone, and `select`: both weights are kept, and the choice is made at the end.
    """
    together = params.accumulate * processes
    decisive = dataclasses.replace(
        params, workers=0, accumulate=together, select="last", resident=False, stream=None
    )
    files = [(path.name, sha256_file(path)) for path in pretrained_files(sam_checkpoint, language_model)]
    samples = index.table.select(["key", "split", "emotions", "utterance_counts", "sha256"]).to_pydict()
    return fingerprint(decisive, files, code_fingerprint(__name__), samples)


def _agree(signal: int, accelerator: Accelerator, now: bool) -> int:
    """The signal that any process got; several ask each other only `now` and then, because it takes time."""
    if accelerator.num_processes == 1:
        return signal
    if not now:
        return 0
    flag = torch.tensor([signal], device=accelerator.device)
    return int(accelerator.gather(flag).max())


def initial_model(index: Index, params: TrainParams, sam_checkpoint: Path, language_model: Path) -> EmoSEM:
    """An untrained model of a variant on pretrained parts. Raises `UserError`."""
    rows = index.rows("train")
    if not rows:
        raise UserError(f"{index.folder / 'index.parquet'} has no training artwork")
    features = read_features(index, rows[0].key)
    model = build_pretrained(
        sam_checkpoint,
        language_model,
        untie_words=params.untie_words,
        dropout=params.language_dropout,
        paradigm=params.paradigm,
        prefix=params.prefix,
        visual=params.visual,
        finetune=params.finetune,
        ambiguity_aware=params.ambiguity_aware,
        detach_prompt=params.detach_prompt,
        sca=ScaConfig() if params.model == "sca" else None,
        max_tokens=params.max_tokens,
        visual_dim=features.clip.shape[1],
    )
    expected = (model.config.dim, model.config.grid, model.config.grid)
    if features.sam.shape != expected:
        raise UserError(
            f"the features are another SAM's: artwork {rows[0].key} has {features.sam.shape}, "
            f"{sam_checkpoint} gives {expected}. Name the one that made them, or run the features step again"
        )
    return model


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
    return load_batches(samples, numbers, device, workers=params.workers, resident=resident)


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
            weight = micro.share * accelerator.num_processes  # backward averages over processes
            accelerator.backward(weight * total_loss(losses, batch, params))
        sums = {name: sums.get(name, 0) + micro.share * loss.detach() for name, loss in losses.items()}
    if params.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(network.parameters(), params.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=not params.compile)
    if accelerator.num_processes > 1:
        sums = {name: accelerator.reduce(loss, "sum") for name, loss in sums.items()}
    return sums
