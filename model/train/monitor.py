"""A training run and the outside: curves, a progress line for people, and signals to stop."""

import json
import math
import signal
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from model.data.samples import Samples
from model.train.checkpoint import TrainProgress
from model.train.schedule import MicroBatch
from pipeline.common.errors import RunFailed
from pipeline.common.files import write_bytes


class StopSignals(AbstractContextManager["StopSignals"]):
    """Notes SIGTERM and Ctrl-C instead of dying of them, so that the step at hand can be saved.

    A second signal acts as usual. Outside the main thread signals stay as they are.
    """

    received: int = 0
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
        self.received = number
        self._restore()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._restore()
        if self.received and kind is SystemExit:
            print("train: stopped and saved; the same command goes on", file=sys.stderr, flush=True)


class Curves:
    """Training curves as files: DVCLive's layout, which `dvc plots` and the report read.

    One ``plots/metrics/{train,val}/NAME.tsv`` per value, and the last of each in metrics.json. The points are
    the progress's own, which the checkpoint keeps: a run that goes on writes them again, and each once.
    """

    EVERY = 5.0
    """Seconds between writings, for those who look on."""

    def __init__(self, folder: Path, progress: TrainProgress, silent: bool = False) -> None:
        """Write the points so far. `silent` writes nothing, for all but the first of several processes."""
        self._folder, self._progress, self._silent = folder, progress, silent
        self._written = -math.inf
        if silent:
            return
        for file in folder.glob("plots/metrics/*/*.tsv"):
            if (
                file.relative_to(folder / "plots" / "metrics").with_suffix("").as_posix()
                not in progress.curves
            ):
                file.unlink()  # of another run
        self.write()

    def log(self, group: str, values: dict[str, float]) -> None:
        """One point per value at the step where the run stands."""
        for name, value in values.items():
            points = self._progress.curves.setdefault(f"{group}/{name}", [])
            points.append((self._progress.total_steps, value))
        if time.monotonic() - self._written >= self.EVERY:
            self.write()

    def write(self) -> None:
        """Bring the files up to the points."""
        if self._silent:
            return
        last: dict[str, Any] = {"step": self._progress.total_steps}
        for name, points in self._progress.curves.items():
            group, _, value = name.partition("/")
            last.setdefault(group, {})[value] = points[-1][1]
            lines = [f"step\t{value}\n", *(f"{step}\t{number}\n" for step, number in points)]
            _write_changed(self._folder / "plots" / "metrics" / f"{name}.tsv", "".join(lines))
        _write_changed(self._folder / "metrics.json", json.dumps(last, indent=4) + "\n")
        self._written = time.monotonic()


def _write_changed(path: Path, text: str) -> None:
    """Write a small file unless it holds the text already."""
    data = text.encode()
    try:
        same = path.read_bytes() == data
    except OSError:
        same = False
    if not same:
        write_bytes(path, data)


class LossWatch:
    """Ends a run at the first loss that is not finite, before anything of it is saved.

    On a GPU reading a loss waits for its step, so there they are looked at where the run waits anyway.
    """

    def __init__(self, samples: Samples, progress: TrainProgress) -> None:
        self._samples, self._progress = samples, progress
        self._noted: list[tuple[int, list[MicroBatch], dict[str, Tensor]]] = []

    def note(self, step: list[MicroBatch], losses: dict[str, Tensor]) -> None:
        """Keep a step's losses until they are looked at; on a processor that is now. Raises `RunFailed`."""
        self._noted.append((self._progress.total_steps, step, losses))
        if all(loss.device.type == "cpu" for loss in losses.values()):
            self.check()

    def check(self) -> None:
        """Look at the losses noted. Raises `RunFailed`, with the artworks of the first that is not finite."""
        for number, step, losses in self._noted:
            values = {name: float(loss) for name, loss in losses.items()}
            if not all(math.isfinite(value) for value in values.values()):
                shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
                drawn = np.unique(self._samples.table[np.concatenate([m.samples for m in step]), 0])
                artworks = ", ".join(self._samples.keys[artwork] for artwork in drawn)
                raise RunFailed(
                    f"the loss of step {number} is not finite ({shown}); its artworks are {artworks}. "
                    "Nothing of it was saved. Lower train.learning_rate or language_learning_rate, set "
                    "clip_norm, or train in fp32"
                )
        self._noted.clear()


class ProgressLine:
    """Progress for a person: losses, rate and time left, on stderr every few seconds."""

    EVERY = 5.0
    """Seconds between lines."""

    def __init__(self, variant: str, progress: TrainProgress, total: int, silent: bool = False) -> None:
        self._variant, self._progress, self._total = variant, progress, total
        self._silent = silent
        self._first = progress.total_steps
        self._start = self._shown = time.monotonic()
        self._samples = 0
        if self._first and not silent:
            print(f"{variant}: going on after step {self._first} of {total}", file=sys.stderr)

    def step(self, losses: dict[str, Tensor], samples: int) -> None:
        """Note a step; print if it is time."""
        progress = self._progress
        progress.sums = {name: progress.sums.get(name, 0) + loss for name, loss in losses.items()}
        progress.summed += 1
        self._samples += samples
        if time.monotonic() - self._shown >= self.EVERY:
            self._print(" ".join(f"{name} {float(loss):.3f}" for name, loss in losses.items()))

    def means(self) -> dict[str, float]:
        """Mean losses since the last call."""
        progress = self._progress
        means = {name: round(float(total) / progress.summed, 6) for name, total in progress.sums.items()}
        progress.sums, progress.summed = {}, 0
        return means

    def epoch(self, validation: dict[str, float]) -> None:
        """Print an epoch's validation."""
        shown = " ".join(f"{name} {value:.3f}" for name, value in validation.items())
        self._print(f"validation: {shown}")

    def _print(self, text: str) -> None:
        if self._silent:
            return
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
