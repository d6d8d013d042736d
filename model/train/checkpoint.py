"""A training run's state on disk: what resuming needs, and the weights of the best epoch.

last.pt ends with the SHA-256 of what stands before it. One that is damaged, cut or foreign counts for
nothing: the run says so and starts afresh.
"""

import hashlib
import io
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from accelerate import Accelerator
from safetensors.torch import load, save
from torch import Tensor

from model.emosem.network import EmoSEM
from pipeline.common.errors import RunFailed
from pipeline.common.files import write_atomic, write_bytes

HIGH = ("seg_pr50",)
"""Validation numbers of which the highest selects the best epoch; of others the lowest does."""


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
    """The best epoch's number so far, of the one that selects."""
    best_epoch: int = 0
    """How many epochs had been done then."""
    best_sha256: str = ""
    """Of best.safetensors."""
    sums: dict[str, Tensor] = field(default_factory=dict)
    """Each loss summed over the steps since the last point of the curves; scalars, on the device."""
    summed: int = 0
    """How many steps those are."""
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """Every point so far, (step, value) by ``train/dice`` and so on. The files of the curves are written from
    them and never read."""


class Checkpoints:
    """Saves and restores a run, and keeps the weights of its best epoch.

    In its folder lie ``last.pt`` (progress, trainable weights, optimiser, schedule) and ``best.safetensors``
    (trainable weights alone; their SHA-256 is in ``last.pt``), both replaced atomically. No random state is
    among them: each micro-batch has its own seed. Of several processes all read, and the first writes.
    """

    def __init__(
        self,
        folder: Path,
        identity: str,
        model: EmoSEM,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        accelerator: Accelerator,
        select_by: str = "seg_pr50",
    ) -> None:
        """`identity`: fingerprint of all that decides the run's result; `select_by`: see `TrainParams`."""
        self.folder, self.progress, self.select_by = folder, TrainProgress(identity), select_by
        self._model, self._optimizer, self._scheduler = model, optimizer, scheduler
        self._accelerator = accelerator

    def resume(self) -> TrainProgress:
        """Put the last checkpoint of the same run back, or write the first one of a new run.

        A checkpoint that cannot be read, or is of another run, is reported and replaced.

        Returns:
            Where the run stands; `save` writes it as it then is.
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
        """Content of ``last.pt``; None when there is none to go on from."""
        path = self.folder / "last.pt"
        if not path.exists():
            return None
        try:
            content = read_checkpoint(path)
            same = content["progress"]["fingerprint"] == self.progress.fingerprint
        except Exception as error:  # unpicklers answer foreign bytes with almost anything
            print(f"{path} cannot be used ({error}): training starts anew", file=sys.stderr)
            return None
        if not same:
            print(f"{path} is of other params, data, weights or code: training starts anew", file=sys.stderr)
        return content if same else None

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
        write_atomic(self.folder / "last.pt", lambda file: _save(content, file))

    def end_epoch(self, validation: dict[str, float]) -> None:
        """Note an epoch's validation, keep its weights if none was better, save."""
        progress = self.progress
        progress.epoch, progress.step, progress.validation = progress.epoch + 1, 0, validation
        score, sign = validation.get(self.select_by, 0.0), 1 if self.select_by in HIGH else -1
        if progress.best is None or sign * score >= sign * progress.best:  # of equals the last
            progress.best, progress.best_epoch = score, progress.epoch
            if self._accelerator.is_main_process:
                state = {name: tensor.cpu().contiguous() for name, tensor in self._trainable().items()}
                data = save(state)
                write_bytes(self.folder / "best.safetensors", data)
                progress.best_sha256 = hashlib.sha256(data).hexdigest()
        self.save()

    def load_best(self) -> None:
        """Put the best epoch's weights into the model.

        Raises `RunFailed` when they are not those that were written; the run is then not done any more.
        """
        path = self.folder / "best.safetensors"
        try:
            data = path.read_bytes()
            damage = (
                "" if hashlib.sha256(data).hexdigest() == self.progress.best_sha256 else "its SHA-256 is new"
            )
        except OSError as error:
            damage = str(error)
        if damage:
            (self.folder / "last.pt").unlink(missing_ok=True)
            raise RunFailed(
                f"{path} is damaged ({damage}), and with it the best epoch's weights. Run the same command "
                "again: it trains from the start"
            )
        self._model.load_state_dict(load(data), strict=False)

    def _trainable(self) -> dict[str, Tensor]:
        names = {name for name, p in self._model.named_parameters() if p.requires_grad}
        return {name: tensor for name, tensor in self._model.state_dict().items() if name in names}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a ``last.pt``, on the processor. Raises `ValueError` when it is not as it was written.

    Only tensors and plain values are unpickled.
    """
    data = memoryview(path.read_bytes())
    size = hashlib.sha256().digest_size
    if hashlib.sha256(data[:-size]).digest() != data[-size:]:
        raise ValueError("its SHA-256 is not the one at its end: it is damaged, or of other code")
    content: dict[str, Any] = torch.load(io.BytesIO(data[:-size]), map_location="cpu", weights_only=True)
    return content


def _save(content: dict[str, Any], file: IO[bytes]) -> None:
    """What `read_checkpoint` reads. The hash follows the archive, whose readers look no further."""
    digest = hashlib.sha256()

    class Hashed:
        """What `torch.save` asks of a file, and a hash of what it got."""

        def write(self, data: bytes) -> int:
            digest.update(data)
            return file.write(data)

        def flush(self) -> None:
            file.flush()

    torch.save(_fresh(content), Hashed())  # type: ignore[arg-type]  # it writes and flushes, no more
    file.write(digest.digest())


def _fresh(value: Any) -> Any:
    """A value in containers and strings of its own: a pickle tells which are one object, and a run that was
    resumed shares others than one that never stopped."""
    if isinstance(value, dict):
        return {_fresh(key): _fresh(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_fresh, value))
    return sys.intern(value) if isinstance(value, str) else value
