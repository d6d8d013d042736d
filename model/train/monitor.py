"""A training run and the outside: curves, a progress line for people, and signals to stop."""

import math
import signal
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import Tensor

from model.train.checkpoint import TrainProgress


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


class Curves(AbstractContextManager["Curves"]):
    """Training curves by DVCLive, one .tsv per value in ``plots/metrics/{train,val}/``."""

    def __init__(self, folder: Path, step: int, silent: bool = False) -> None:
        """Continue at `step`: points of steps after it, from before a kill, are dropped.

        `silent` writes nothing, for all but the first of several processes.
        """
        self._live: Any = None
        if silent:
            return
        from dvclive.live import Live  # only a run needs it: `bench` works without

        for curve in folder.rglob("*.tsv"):
            header, *points = curve.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [point for point in points if int(point.split("\t")[0]) <= step]
            curve.write_text(header + "".join(kept), encoding="utf-8")
        self._live = Live(
            str(folder), resume=step > 0, report=None, save_dvc_exp=False, dvcyaml=None, cache_images=False
        )

    def log(self, group: str, step: int, values: dict[str, float]) -> None:
        """One point per value at an optimiser step."""
        if self._live is None:
            return
        self._live.step = step
        for name, value in values.items():
            self._live.log_metric(f"{group}/{name}", value)
        self._live.make_summary()

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.end()


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
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        if self._first and not silent:
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
