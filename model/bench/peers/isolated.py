"""A row in a process of its own: its failure, its memory and its time limit are its own too.

The process sends what it finds as it finds it, so that turns that are finished count even where the row does
not end. It leads a process group, of which nothing is left behind, however either side ends.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Literal

from model.bench.peers.pair import Differ, Job, Pair, Turn, turns

Prepare = Callable[[Job], Pair]
START: Literal["spawn", "fork"] = "spawn"
"""How a process begins: afresh, because one that has used a GPU or threads cannot be forked."""
LEAVE = 10.0
"""Seconds that a finished process has to end its workers and free shared memory, before it is killed."""
LOOK = 1.0
"""Seconds between a child's looks at whether its parent lives."""


@dataclass(frozen=True)
class Effort:
    """How long a row may take, and how often both sides run."""

    limit: float
    """Seconds for all of the row, preparation included."""
    least: int = 5
    """Turns."""
    most: int = 25
    seconds: float = 20.0
    """After the least, turns go on until so many are spent on them."""


@dataclass
class Found:
    """What came of a row."""

    about: dict[str, Any] = field(default_factory=dict)
    """``work``, ``unit``, ``items``, ``threads`` and ``agreement``, once both sides were checked."""
    turns: list[Turn] = field(default_factory=list)
    problem: str | None = None


def measure(prepare: Callable[[], Prepare], job: Job, effort: Effort) -> Found:
    """Check and time a row in a process of its own.

    Args:
        prepare: gives the row's preparation; called there, so it must be known by name.
        job: for it.
        effort: turns and time.
    """
    context: Any = multiprocessing.get_context(START)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(prepare, job, effort, sender))
    child.start()
    sender.close()
    try:
        return _received(receiver, child, effort.limit)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid or 0, signal.SIGKILL)
        child.kill()
        child.join()


def _received(receiver: Connection, child: Any, limit: float) -> Found:
    found, deadline = Found(), time.monotonic() + limit
    while True:
        if not receiver.poll(max(0.0, deadline - time.monotonic())):
            found.problem = f"stopped after {limit:.0f} s, its time limit (--limit)"
            return found
        try:
            kind, value = receiver.recv()
        except EOFError:
            child.join(LOOK)
            killed = " (killed; is the memory full?)" if child.exitcode == -signal.SIGKILL else ""
            found.problem = f"its process ended with exit code {child.exitcode}{killed}"
            return found
        if kind == "about":
            found.about = value
        elif kind == "turn":
            found.turns.append(value)
        else:
            found.problem = value
            child.join(LEAVE)
            return found


def _work(prepare: Callable[[], Prepare], job: Job, effort: Effort, sender: Connection) -> None:
    """What the process does."""
    os.setsid()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    if sys.platform == "linux":  # a spawned process would start its workers so too, not as users' programs do
        multiprocessing.set_start_method("fork", force=True)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # or it warns in every forked worker
    try:
        _measure(prepare()(job), effort, sender)
        sender.send(("end", None))
    except Differ as problem:
        sender.send(("end", f"the results differ, so there is nothing to time: {problem}"))
    except Exception as problem:
        traceback.print_exc(file=sys.stderr)
        first = next(iter(str(problem).splitlines()), "")
        sender.send(("end", f"{type(problem).__name__}: {first}"))


def _measure(pair: Pair, effort: Effort, sender: Connection) -> None:
    import cv2
    import torch

    cv2.setNumThreads(torch.get_num_threads())
    agreement = pair.check()
    about = {"work": pair.work, "unit": pair.unit, "items": pair.items, "threads": torch.get_num_threads()}
    sender.send(("about", {**about, "agreement": agreement}))
    start = time.monotonic()
    for number, turn in enumerate(turns(pair), 1):
        sender.send(("turn", turn))
        enough = number >= effort.least and time.monotonic() - start >= effort.seconds
        if enough or number >= effort.most:
            return


def _end_with(parent: int) -> None:
    """End the whole group when the parent has gone."""
    while os.getppid() == parent:
        time.sleep(LOOK)
    os.killpg(0, signal.SIGKILL)
