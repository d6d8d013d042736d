"""Pretrained parts into a new network, and a training run's state to disk and back."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_of
from torch import Tensor

from model.emosem.network import EmoSEM
from pipeline.common.errors import UserError
from pipeline.common.files import write_atomic, write_bytes


@dataclass
class TrainProgress:
    """Where a training run stands; the next step to take is `step` of `epoch`."""

    fingerprint: str
    """Of everything that decides the run's result. A checkpoint with another one is not resumed."""
    epoch: int = 0
    step: int = 0
    """Optimiser steps done in this epoch."""
    total_steps: int = 0
    """Optimiser steps done in all."""
    validation: dict[str, float] = field(default_factory=dict)
    """What the last epoch's validation found."""
    best: float | None = None
    """The best epoch's score so far."""
    best_epoch: int = 0
    """How many epochs had been done then."""


def save_checkpoint(
    path: Path, progress: TrainProgress, model: EmoSEM, optimizer: torch.optim.Optimizer, scheduler: Any
) -> None:
    """Write all that resuming needs, atomically: trainable weights, optimiser, schedule.

    No random state is among it: each micro-batch has its own seed.
    """
    content = {
        "progress": vars(progress),
        "model": _trainable(model),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }
    write_atomic(path, lambda file: torch.save(content, file))


def read_checkpoint(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """A checkpoint's content, or None when it belongs to another run. Raises `UserError` if it is damaged."""
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # see load_sam_decoder
        raise UserError(f"{path} cannot be read ({error}); delete it to train from the start") from None
    if content["progress"]["fingerprint"] != fingerprint:
        print(f"{path} is of other params, data, weights or code: training starts anew", file=sys.stderr)
        return None
    return content


def restore_checkpoint(
    content: dict[str, Any], model: EmoSEM, optimizer: torch.optim.Optimizer, scheduler: Any
) -> TrainProgress:
    """Put a checkpoint's content back; the run then continues as if never stopped."""
    model.load_state_dict(content["model"], strict=False)
    optimizer.load_state_dict(content["optimizer"])
    scheduler.load_state_dict(content["scheduler"])
    return TrainProgress(**content["progress"])


def save_weights(path: Path, model: EmoSEM) -> None:
    """Write the trainable weights alone, atomically."""
    write_bytes(path, safetensors_of({n: t.cpu().contiguous() for n, t in _trainable(model).items()}))


def load_weights(path: Path, model: EmoSEM) -> None:
    """Put back what `save_weights` wrote; the frozen weights stay. Raises `UserError`."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}); delete the run's folder to train again") from None
    model.load_state_dict(state, strict=False)


def _trainable(model: EmoSEM) -> dict[str, Tensor]:
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name in names}
