"""How far a step is, on stderr: a line per shard, lines within long shards, a warning when it crawls.

The process that makes a shard counts its artworks in a `ShardProgress`. In the step's own process every count
reaches the `ShardMeter` at once; the count of a Dask worker is fetched now and then.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

INTERVAL = 10.0
"""Seconds between lines within a shard."""
SLOW = 2.0
"""Artworks a second below which a CPU is named as the likely reason."""
LONG = 900.0
"""Seconds left above which that is worth a warning."""


class ShardProgress:
    """Artworks of one shard that are through, and the device that they are computed on.

    Args:
        on_change: called with both after every artwork, or nobody.
    """

    def __init__(self, on_change: Callable[[int, str], None] | None = None) -> None:
        self.artworks, self.device = 0, ""
        self._on_change = on_change

    def add(self, artworks: int = 1) -> None:
        """The shard is so many artworks further."""
        self.artworks += artworks
        if self._on_change is not None:
            self._on_change(self.artworks, self.device)

    def running_on(self, device: str) -> None:
        """The shard is computed on this device, e.g. "cpu" or "cuda"."""
        self.device = device


class Meter:
    """Items done of a total, with rate and time left: a line now and then, and at the end.

    Args:
        step: name shown with the lines.
        total: items to do, or None when it is not known.
        skipped: items that are done already.
        unit: what an item is.
        clock: seconds, from any zero.
    """

    def __init__(
        self,
        step: str,
        total: int | None,
        skipped: int = 0,
        unit: str = "picture",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.step, self.total, self.unit, self.clock = step, total, unit, clock
        self.done = 0
        self.start = self.shown = clock()
        if skipped:
            self._say(f"{skipped} {unit}(s) already done, {total} to do")

    def add(self, items: int = 1) -> None:
        """So many more are done; shown when the last line is a while ago, and at the end."""
        self.done += items
        if self._due() or (self.total is not None and self.done >= self.total):
            self.shown = self.clock()
            left = self._seconds_left(self.done)
            of_total = "" if self.total is None else f"/{self.total:,}"
            self._say(f"{self.done:,}{of_total} {self.unit}s, {self._rate(self.done):.1f}/s{_left(left)}")

    def _due(self) -> bool:
        return self.clock() - self.shown >= INTERVAL

    def _rate(self, done: int) -> float:
        return done / max(self.clock() - self.start, 1e-9)

    def _seconds_left(self, done: int) -> float | None:
        return max(self.total - done, 0) / self._rate(done) if self.total and done else None

    def _say(self, text: str) -> None:
        _say(f"{self.step}: {text}", sys.stderr)


class ShardMeter(Meter):
    """Progress of a step that works shard by shard.

    Args:
        step: its name.
        shards: how many are to do.
        artworks: in those shards, or None when it is not known; time left then goes by shards.
        skipped: shards that are done already.
        clock: seconds, from any zero.
    """

    def __init__(
        self,
        step: str,
        shards: int,
        artworks: int | None,
        skipped: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(step, artworks, unit="artwork", clock=clock)
        self.shards = shards
        self.shards_done = 0
        self.introduced = False
        if skipped:
            self._say(f"{skipped} shard(s) already done, {shards} to do")

    def finish(self, artworks: int) -> None:
        """One more shard is done, with so many artworks."""
        self.shards_done += 1
        self.done += artworks
        self._show(self.done)

    def update(self, artworks: int, device: str) -> None:
        """So many artworks of unfinished shards are through; shown when the last line is a while ago."""
        if self._due():
            self._show(self.done + artworks)
            if device and not self.introduced:
                self.introduced = True
                self._introduce(self.done + artworks, device)

    def _show(self, done: int) -> None:
        self.shown = self.clock()
        left = _left(self._seconds_left(done))
        self._say(f"shard {self.shards_done}/{self.shards}, {done} artworks, {self._rate(done):.1f}/s{left}")

    def _introduce(self, done: int, device: str) -> None:
        """Once: the device, and a warning when it will take very long and no GPU is at work."""
        self._say(f"on {device}")
        left = self._seconds_left(done)
        if device.startswith("cpu") and self._rate(done) < SLOW and (left is None or left > LONG):
            self._say(
                f"WARNING: {self._rate(done):.2f} artworks/s, because no GPU is used: torch sees none, or "
                "backbones.device says cpu. docs/cluster.md tells how to use a GPU, several, or a cluster"
            )

    def _seconds_left(self, done: int) -> float | None:
        by_artworks = super()._seconds_left(done)
        if by_artworks is None and self.shards_done:
            return (self.clock() - self.start) / self.shards_done * (self.shards - self.shards_done)
        return by_artworks


@contextlib.contextmanager
def waiting(step: str, what: str, every: float = INTERVAL) -> Iterator[None]:
    """Say what a command is busy with, at once, and every so many seconds for how long already.

    For work of one piece, such as importing torch or reading weights; what has parts has a `Meter`.
    """
    _say(f"{step}: {what}", sys.stderr)
    with _repeatedly(f"{step}: {what}, for", every, quiet=0.0):
        yield


@contextlib.contextmanager
def alive(step: str, every: float = INTERVAL) -> Iterator[None]:
    """Say now and then that a step is at work, where nothing else here has said anything for as long.

    Covers what has no `Meter` of its own, such as reading large weights before the first artwork.
    """
    with _repeatedly(f"{step}: at work, for", every, quiet=every):
        yield


@contextlib.contextmanager
def _repeatedly(words: str, every: float, quiet: float) -> Iterator[None]:
    """Say the words with the seconds since now, every so many; only after so many `quiet` ones."""
    start, over = time.monotonic(), threading.Event()
    stream = sys.stderr  # plan silences the steps that it times

    def tell() -> None:
        while not over.wait(every):
            now = time.monotonic()
            if now - max(_spoken, start) >= quiet:
                _say(f"{words} {duration(now - start)}", stream)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


_spoken = 0.0
"""When this module last said something, by the monotonic clock."""


def _say(text: str, stream: TextIO) -> None:
    global _spoken  # noqa: PLW0603 - there is one stderr
    _spoken = time.monotonic()
    print(text, file=stream, flush=True)


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f", {duration(seconds)} left"


def duration(seconds: float) -> str:
    """Seconds as people say it: 42 s, 12 min, 3 h 05 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
