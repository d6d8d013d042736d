"""A training run's state on disk: what resuming needs, and the weights of the best epoch."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from model.emosem.network import EmoSEM
from pipeline.common.errors import UserError
from pipeline.common.files import write_atomic, write_bytes

SELECTION = "seg_pr50"
"""Validation score that selects the best epoch."""


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
    """The last epoch's losses and scores on the validation split."""
    best: float | None = None
    """The best epoch's `SELECTION` so far."""
    best_epoch: int = 0
    """How many epochs had been done then."""


class Checkpoints:
    """Saves and restores a run, and keeps the weights of its best epoch.

    In its folder lie ``last.pt`` (progress, trainable weights, optimiser, schedule) and ``best.safetensors``
    (trainable weights alone), both replaced atomically. No random state is among them: each micro-batch has
    its own seed. Of several processes all read, and the first writes.
    """

    def __init__(
        self,
        folder: Path,
        identity: str,
        model: EmoSEM,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        accelerator: Accelerator,
    ) -> None:
        """`identity`: fingerprint of all that decides the run's result."""
        self.folder, self.progress = folder, TrainProgress(identity)
        self._model, self._optimizer, self._scheduler = model, optimizer, scheduler
        self._accelerator = accelerator

    def resume(self) -> TrainProgress:
        """Put the last checkpoint of the same run back, or write the first one of a new run.

        Returns:
            Where the run stands; `save` writes it as it then is.

        Raises:
            UserError: the last checkpoint cannot be read.
        """
        content = self._read()
        self._accelerator.wait_for_everyone()  # before the first process replaces what others read
        if content is None:
            self.save()
            return self.progress
        self._model.load_state_dict(content["model"], strict=False)
        self._optimizer.load_state_dict(content["optimizer"])
        self._scheduler.load_state_dict(content["scheduler"])
        self.progress = TrainProgress(**content["progress"])
        return self.progress

    def _read(self) -> dict[str, Any] | None:
        """Content of ``last.pt``; None when there is none, or one of another run."""
        path = self.folder / "last.pt"
        if not path.is_file():
            return None
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # see load_sam_decoder
            raise UserError(f"{path} cannot be read ({error}); delete it to train from the start") from None
        if content["progress"]["fingerprint"] != self.progress.fingerprint:
            print(f"{path} is of other params, data, weights or code: training starts anew", file=sys.stderr)
            return None
        return content

    def save(self) -> None:
        """Write all that resuming needs."""
        if not self._accelerator.is_main_process:
            return
        content = {
            "progress": vars(self.progress),
            "model": self._trainable(),
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
        }
        write_atomic(self.folder / "last.pt", lambda file: torch.save(content, file))

    def end_epoch(self, validation: dict[str, float]) -> None:
        """Note an epoch's validation, keep its weights if none was better, save."""
        progress = self.progress
        progress.epoch, progress.step, progress.validation = progress.epoch + 1, 0, validation
        score = validation.get(SELECTION, 0.0)
        if progress.best is None or score >= progress.best:
            progress.best, progress.best_epoch = score, progress.epoch
            if self._accelerator.is_main_process:
                state = {name: tensor.cpu().contiguous() for name, tensor in self._trainable().items()}
                write_bytes(self.folder / "best.safetensors", save(state))
        self.save()

    def load_best(self) -> None:
        """Put the best epoch's weights into the model. Raises `UserError` when they cannot be read."""
        path = self.folder / "best.safetensors"
        try:
            state = load_file(path)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{path} cannot be read ({error}); delete the run's folder to train again"
            ) from None
        self._model.load_state_dict(state, strict=False)

    def _trainable(self) -> dict[str, Tensor]:
        names = {name for name, p in self._model.named_parameters() if p.requires_grad}
        return {name: tensor for name, tensor in self._model.state_dict().items() if name in names}
