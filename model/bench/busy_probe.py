"""A process of `bench busy`: it makes artworks when it is told to, and says when each was ready.

One line of JSON in, ``{"step": NAME, "until": TIME}``, and one out when that time is over: `Stint`'s fields.
Times are the machine's monotonic clock, which all processes share. In between it waits where it was, in the
middle of a shard, so that short turns add up to whole shards.
"""

import contextlib
import dataclasses
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from pipeline.common.progress import ShardProgress

Make = Callable[[ShardProgress], Any]
"""Makes a shard, and calls ``progress.add()`` after each artwork."""


@dataclasses.dataclass(frozen=True)
class Stint:
    """What a process did in one turn, which ends with an artwork."""

    start: float
    ready: list[float]
    """When each artwork was ready, in order."""
    cpu: float
    """Processor seconds, of all its threads."""


LEFTOVER = 0.005
"""Seconds: what is ready so soon after a turn's start was made before, with the batch that ended the last."""


class _OtherStep(Exception):  # noqa: N818 - nothing is wrong
    """Another step is asked for, or none any more."""


class _Turns:
    """Lets a step go on while it is this process's turn."""

    def __init__(self, requests: TextIO, replies: TextIO) -> None:
        self.requests, self.replies = requests, replies
        self.step = ""
        self.until = 0.0
        self.start = self.cpu = 0.0
        self.ready: list[float] = []

    def passed(self, _artworks: int, _device: str) -> None:
        """An artwork is ready; waits here when the turn is over. Raises `_OtherStep`."""
        now = time.monotonic()
        if now - self.start < LEFTOVER:
            return
        self.ready.append(now)
        if now >= self.until:
            self.say(dataclasses.asdict(Stint(self.start, self.ready, time.process_time() - self.cpu)))
            before = self.step
            if self.next() != before:
                raise _OtherStep

    def next(self) -> str:
        """The step of the next turn, "" when there is none."""
        asked = json.loads(self.requests.readline() or '{"step": "", "until": 0}')
        self.step, self.until, self.ready = asked["step"], asked["until"], []
        self.start, self.cpu = time.monotonic(), time.process_time()
        return self.step

    def say(self, answer: Mapping[str, Any]) -> None:
        print(json.dumps(answer), file=self.replies, flush=True)


def serve(steps: Mapping[str, Make], about: Mapping[str, Any]) -> None:
    """Make one shard by each step, to be warm, say `about`, and take turns until the input ends."""
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)  # what a library prints is no reply
        sys.stdout = sys.stderr
        for make in steps.values():
            make(ShardProgress())
        turns = _Turns(sys.stdin, replies)
        turns.say(about)
        turns.next()
        while turns.step:
            with contextlib.suppress(_OtherStep):
                while True:
                    steps[turns.step](ShardProgress(turns.passed))


def main(params_file: str, data: str, *names: str) -> None:
    """Serve steps of the factory by their names, each on the one shard of its folder ``data/NAME``."""
    import torch

    from pipeline.features.step import encode_shard
    from pipeline.plan.timing import Settings
    from pipeline.regions.step import propose_shard
    from pipeline.similarity.step import compare_shard

    found = Settings.load(Path(params_file))
    steps: dict[str, Any] = {
        "regions": functools.partial(propose_shard, params=found.regions),
        "similarity": functools.partial(compare_shard, params=found.similarity),
        "features": functools.partial(encode_shard, params=found.features),
    }

    def make(name: str, progress: ShardProgress) -> None:
        paths = dataclasses.replace(found.paths, data=Path(data, name))
        whole = name == "similarity"  # its artworks are ready all at once: the shard counts, as one
        steps[name](0, ShardProgress() if whole else progress, paths=paths, backbones=found.backbones)
        if whole:
            progress.add()

    makes = {name: functools.partial(make, name) for name in names}
    serve(makes, {"threads": torch.get_num_threads()})


if __name__ == "__main__":
    main(*sys.argv[1:])
