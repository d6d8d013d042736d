"""The processes that `bench busy` measures, and the busy loops beside them."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.bench.busy_probe import Stint
from pipeline.common.errors import RunFailed

LOOP = """import os, sys, time
print(flush=True)
while time.monotonic() < float(sys.argv[1]) and os.getppid() == int(sys.argv[2]):
    for _ in range(100_000): pass
"""


TRIES = 5
"""Turns that are begun again, should the machine not let every process begin in time."""
LAST_WORDS = 10.0
"""Seconds that a process has to say why it ends."""


class Probe:
    """A process that serves turns, see `busy_probe`.

    Args:
        command: starts it.
        environment: of it.
        log: file for what it prints; read for the message when it fails.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as errors:
            self.process: Any = subprocess.Popen(  # noqa: S603 - our own code
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.about: dict[str, Any] = {}

    def __enter__(self) -> "Probe":
        self.about = self.answer()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, step: str, until: float) -> None:
        """Let it make artworks by a step until then."""
        with contextlib.suppress(BrokenPipeError):  # its answer says why
            self.process.stdin.write(json.dumps({"step": step, "until": until}) + "\n")
            self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """What it says next. Raises `RunFailed` when it has ended."""
        line = self.process.stdout.readline()
        if not line:
            with contextlib.suppress(subprocess.TimeoutExpired):  # its last words come last
                self.process.wait(LAST_WORDS)
            last = self.log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
            raise RunFailed(
                f"bench busy: a process that was to be measured ended: {last or 'without a word'}"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclasses.dataclass(frozen=True)
class Pace:
    """Of one turn."""

    rate: float
    """Artworks a second, of all processes together."""
    cpu: float
    """Processor seconds an artwork."""


@dataclasses.dataclass(frozen=True)
class Crew:
    """All processes of one setting: copies of the step, each of some workers."""

    copies: Sequence[Sequence[Probe]]

    @property
    def threads(self) -> int:
        """That compute in one copy."""
        return sum(probe.about["threads"] for probe in self.copies[0])

    def turn(self, step: str, seconds: float, copies: int = 1, loops: int = 0) -> Pace:
        """Let so many copies work at once, while busy loops run beside them. Raises `RunFailed`."""
        probes = [probe for copy in self.copies[:copies] for probe in copy]
        for _ in range(TRIES):
            with busy_loops(loops, seconds):
                end = time.monotonic() + seconds
                for probe in probes:
                    probe.ask(step, end)
                stints = [Stint(**probe.answer()) for probe in probes]
            begin = max(stint.start for stint in stints)  # all are at work
            if begin < end:
                rate = sum(made(stint, begin, end) for stint in stints) / (end - begin)
                ready = sum(len(stint.ready) for stint in stints)
                return Pace(rate, sum(stint.cpu for stint in stints) / ready)
        raise RunFailed(
            f"bench busy: {TRIES} times a process was not scheduled for {seconds:g} s; use a calmer machine"
        )


def made(stint: Stint, begin: float, end: float) -> float:
    """Artworks made between two times; one that was begun or ended outside counts by the part inside.

    Artworks that are ready at once, as those of a batch, were made since the one before them.
    """
    times = {stint.start: 0.0} | {ready: number + 1.0 for number, ready in enumerate(stint.ready)}
    before, after = np.interp([begin, end], list(times), list(times.values()))
    return float(after - before)


@contextlib.contextmanager
def busy_loops(number: int, seconds: float) -> Iterator[None]:
    """So many processes that do nothing but compute; started, and ended with the block, or soon after.

    They end by themselves when this process dies.
    """
    with contextlib.ExitStack() as stack:
        loops: list[Any] = []
        last = time.monotonic() + 60 + 20 * seconds
        command = [sys.executable, "-S", "-c", LOOP, str(last), str(os.getpid())]
        for _ in range(number):
            loop = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))  # noqa: S603 - our own code
            stack.callback(loop.kill)
            loops.append(loop)
        for loop in loops:
            loop.stdout.readline()
        yield
