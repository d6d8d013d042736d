"""`ablations`: the data where it is this file's own, every training of every seed, scores, and what they say.

Seeds come one after the other, in each the variants in their order, so that a run that is stopped early has
whole tables of fewer seeds. A training that fails is named at the end, and the others go on.
"""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from model.train.ablations import DataStep
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.lock import only_writer
from pipeline.common.params import Params
from pipeline.common.progress import duration
from stages import _ready
from stages._ablation_parts import Ablations, Part, SeedRun
from stages._ablation_tables import answer, scored_beside
from stages._children import Children, Stopped, last_line

PHASES: tuple[tuple[tuple[DataStep, ...], ...], ...] = (
    (("gallery",),),
    (("utterances",),),
    (("regions", "similarity"), ("features", "alignment")),
    (("masks", "relabel", "shards"),),
    (("baselines",),),
)
"""Data steps: the chains of a phase do not need each other, and run side by side."""
EVERY = 30.0
"""Seconds between lines of progress."""


def run_ablations(
    read: Params, variants: Sequence[str] = (), tables: bool = False
) -> tuple[dict[str, Any], str]:
    """Do what is left to do; returns the scores, and the tables as text.

    Args:
        read: the params.
        variants: those to train; none: all.
        tables: train nothing, score what is finished.

    Raises:
        UserError: wrong params, or nothing to score.
        RunFailed: parts that failed; what is finished is scored all the same.
        SystemExit: asked to stop by a signal; the code is the shell's, 128 + signal.
    """
    todo = Ablations(read, variants)
    scored_beside(todo)
    failed: list[str] = []
    with Children() as children:
        try:
            if not tables:
                todo.link_data()
                _ready.before_ablations(read, todo.params.made_here)
                with only_writer(todo.paths.data / "finished"):
                    _make_data(todo, children)
                    todo.link_seeds()
                    failed += _train_all(todo, children)
            scored = _score_all(todo, children, failed)
        except Stopped:
            print("ablations: stopped; the same command goes on", file=sys.stderr)
            raise SystemExit(128 + children.signal) from None
    values, text, written = answer(todo, scored)
    if failed:
        lines = "\n".join(f"  {line}" for line in dict.fromkeys(failed))
        raise RunFailed(f"some parts failed, and the same command tries them again ({written}):\n{lines}")
    return values, text


# ---- the data --------------------------------------------------------------------------------------


def _make_data(todo: Ablations, children: Children) -> None:
    for phase in PHASES:
        chains = [
            [todo.data_part(step) for step in chain if step in todo.params.made_here] for chain in phase
        ]
        _run_chains([chain for chain in chains if chain], todo.params.workers, children)


def _run_chains(chains: Sequence[Sequence[Part]], workers: int, children: Children) -> None:
    """Run chains side by side; the first failure stops all, and is raised."""
    at_once = min(workers, len(chains))

    def run(chain: Sequence[Part]) -> None:
        for part in chain:
            part.run(children, at_once)

    with ThreadPoolExecutor(max(1, at_once)) as pool:
        _wait([pool.submit(run, chain) for chain in chains], children)


def _wait(
    futures: Sequence[Future[Any]], children: Children, show: Callable[[], None] = lambda: None
) -> None:
    """Wait for all, and raise what one ended with: rather a failure than that others were stopped for it.

    In short pieces, because a signal is handled between them.
    """
    shown, left = time.monotonic(), set(futures)
    while left:
        done, left = wait(left, timeout=0.5)
        if any(future.exception() for future in done) and not children.signal:
            children.stop()
        if time.monotonic() - shown >= EVERY:
            shown = time.monotonic()
            show()
    errors = [error for future in futures if (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, Stopped)):
        raise error


# ---- trainings and scores --------------------------------------------------------------------------


def _train_all(todo: Ablations, children: Children) -> list[str]:
    """Train and predict every variant of every seed, and score a seed after its last; what failed."""
    _remove_stale(todo)
    board, failed = Board(todo), list[str]()
    at_once = todo.params.workers

    def run(one: SeedRun, variant: str) -> None:
        parts = todo.variant_parts(one, variant)
        board.begin(one, variant, parts)
        fine = _attempt(parts, children, at_once, failed)
        if board.end(one, variant, fine) and _predicted(one):
            _attempt([todo.score_part(one)], children, at_once, failed)

    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(run, one, variant) for one in todo.seeds for variant in todo.variants]
        _wait(futures, children, board.show)
    return failed


def _remove_stale(todo: Ablations) -> None:
    """Remove predictions of models that will be trained again, or tables meanwhile would mix old and new."""
    for one in todo.seeds:
        for variant in todo.variants:
            train, _ = todo.variant_parts(one, variant)
            if not train.finished:
                (one.paths.step("predict") / variant / "predictions.parquet").unlink(missing_ok=True)


def _attempt(parts: Sequence[Part], children: Children, at_once: int, failed: list[str]) -> bool:
    """Run parts one after the other; whether all went well. A failure ends these alone, and is noted."""
    try:
        for part in parts:
            part.run(children, at_once)
    except (UserError, RunFailed) as error:
        failed.append(str(error))
        print(f"ablations: {error}", file=sys.stderr, flush=True)
        return False
    return True


def _predicted(one: SeedRun) -> bool:
    return any(one.paths.step("predict").glob("*/predictions.parquet"))


def _score_all(todo: Ablations, children: Children, failed: list[str]) -> list[SeedRun]:
    """Score every seed that has predictions; those that are scored. Raises where there is none."""
    there = [one for one in todo.seeds if _predicted(one)]
    if not there and not failed:
        raise UserError(f"nothing is predicted yet in {todo.seeds[0].paths.step('predict')}")
    parts = [todo.score_part(one) for one in there]
    with ThreadPoolExecutor(1) as pool:  # not in this thread, which has to hear signals
        _wait([pool.submit(_attempt, [part], children, 1, failed) for part in parts], children)
    scored = [one for one, part in zip(there, parts, strict=True) if part.finished]
    if not scored:
        raise RunFailed("\n".join(dict.fromkeys(failed)))
    return scored


class Board:
    """What runs, what is done, and how long the rest will take: lines on stderr."""

    def __init__(self, todo: Ablations, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._epochs = todo.epochs
        self._left = {(one.seed, variant) for one in todo.seeds for variant in todo.variants}
        self._total = len(self._left)
        self._running: dict[tuple[int | None, str], tuple[str, Path | None]] = {}
        self._found: set[tuple[int | None, str]] = set()
        self._start, self._trained, self._failed = clock(), 0, 0

    def begin(self, one: SeedRun, variant: str, parts: Sequence[Part]) -> None:
        """A variant of a seed begins, or turns out to be finished."""
        run, finished = (one.seed, variant), all(part.finished for part in parts)
        with self._lock:
            if finished:
                self._found.add(run)
            self._running[run] = (f"{variant}{one.suffix}", parts[0].log)

    def end(self, one: SeedRun, variant: str, fine: bool = True) -> bool:
        """It has ended, well or not; returns whether it was its seed's last."""
        run = (one.seed, variant)
        with self._lock:
            del self._running[run]
            self._left.discard(run)
            self._failed += not fine
            if run not in self._found:
                self._trained += self._epochs[variant]
            last = not any(seed == one.seed for seed, _ in self._left)
        if run not in self._found or last:
            self.show()
        return last

    def show(self) -> None:
        """Print where things stand."""
        with self._lock:
            print(self.text(), file=sys.stderr, flush=True)

    def text(self) -> str:
        """How many trainings are done, the time left, and the last line of each that runs."""
        head = (
            f"ablations: {self._total - len(self._left) - self._failed} of {self._total} trainings done"
            + f", {self._failed} failed" * bool(self._failed)
        )
        epochs = sum(self._epochs[variant] for _, variant in self._left)
        if self._trained and epochs:
            left = (self._clock() - self._start) / self._trained * epochs
            head += f", {duration(left)} left"
        said = {name: last_line(log) if log else "" for name, log in self._running.values()}
        return "\n".join([head, *(f"  {name}: {line or 'starting'}" for name, line in said.items())])
