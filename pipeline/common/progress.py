"""How far a step is, on stderr: a line per shard, lines within long shards, a warning when it crawls.

A step says `tick()` after each artwork and `running_on(device)` when it has chosen one. In this process that
is shown at once; a Dask worker only remembers it, and `parallel` asks for it now and then.
"""

import sys
import time
from collections.abc import Callable

INTERVAL = 10.0
"""Seconds between lines within a shard."""
SLOW = 2.0
"""Artworks a second below which a CPU is named as the likely reason."""
LONG = 900.0
"""Seconds left above which that is worth a warning."""

_ticks = 0
_device = ""
_listener: Callable[[int, str], None] | None = None


def tick(artworks: int = 1) -> None:
    """Say that the shard at hand is so many artworks further."""
    global _ticks  # noqa: PLW0603 - a counter of this process, as there is one shard at a time in it
    _ticks += artworks
    if _listener is not None:
        _listener(_ticks, _device)


def running_on(device: str) -> None:
    """Say which device this process computes on, e.g. "cpu" or "cuda"."""
    global _device  # noqa: PLW0603
    _device = device


def start_shard() -> None:
    """Begin to count anew."""
    global _ticks  # noqa: PLW0603
    _ticks = 0


def seen() -> tuple[int, str]:
    """Artworks of the shard at hand that are through, and the device."""
    return _ticks, _device


def listen(listener: Callable[[int, str], None] | None) -> None:
    """Call `listener(artworks of this shard, device)` at every tick of this process, or nobody."""
    global _listener  # noqa: PLW0603
    _listener = listener


class Progress:
    """Progress of one step.

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
        self.step, self.shards, self.artworks, self.clock = step, shards, artworks, clock
        self.shards_done = self.artworks_done = 0
        self.start = self.shown = clock()
        self.introduced = False
        if skipped:
            _say(self.step, f"{skipped} shard(s) already done, {shards} to do")

    def finish(self, artworks: int) -> None:
        """One more shard is done, with so many artworks."""
        self.shards_done += 1
        self.artworks_done += artworks
        self._show(0)

    def update(self, artworks: int, device: str) -> None:
        """So many artworks of unfinished shards are through; shown when the last line is a while ago."""
        if self.clock() - self.shown >= INTERVAL:
            self._show(artworks)
            if device and not self.introduced:
                self.introduced = True
                self._introduce(artworks, device)

    def _show(self, partial: int) -> None:
        self.shown = self.clock()
        left = self._seconds_left(partial)
        _say(
            self.step,
            f"shard {self.shards_done}/{self.shards}, {self.artworks_done + partial} artworks, "
            f"{self._rate(partial):.1f}/s" + (f", {duration(left)} left" if left is not None else ""),
        )

    def _introduce(self, partial: int, device: str) -> None:
        """Once: the device, and a warning when it will take very long and no GPU is at work."""
        _say(self.step, f"on {device}")
        left = self._seconds_left(partial)
        if device.startswith("cpu") and self._rate(partial) < SLOW and (left is None or left > LONG):
            _say(
                self.step,
                f"WARNING: {self._rate(partial):.2f} artworks/s, because no GPU is used: torch sees none, or "
                "backbones.device says cpu. docs/cluster.md tells how to use a GPU, several, or a cluster",
            )

    def _rate(self, partial: int) -> float:
        return (self.artworks_done + partial) / max(self.clock() - self.start, 1e-9)

    def _seconds_left(self, partial: int) -> float | None:
        if self.artworks and self.artworks_done + partial:
            return max(self.artworks - self.artworks_done - partial, 0) / self._rate(partial)
        if self.shards_done:
            return (self.clock() - self.start) / self.shards_done * (self.shards - self.shards_done)
        return None


class Meter:
    """Progress through pictures outside of any shard: how many, rate and time left, now and then.

    Args:
        step: name shown with the lines.
        pictures: how many are to do.
        skipped: pictures that are done already.
        clock: seconds, from any zero.
    """

    def __init__(
        self, step: str, pictures: int, skipped: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.step, self.pictures, self.clock = step, pictures, clock
        self.done = 0
        self.start = self.shown = clock()
        if skipped:
            _say(step, f"{skipped} picture(s) already done, {pictures} to do")

    def add(self, pictures: int = 1) -> None:
        """So many more are done; shown when the last line is a while ago, and at the end."""
        self.done += pictures
        now = self.clock()
        if now - self.shown < INTERVAL and self.done < self.pictures:
            return
        self.shown = now
        rate = self.done / max(now - self.start, 1e-9)
        left = duration((self.pictures - self.done) / rate)
        _say(self.step, f"{self.done:,}/{self.pictures:,} pictures, {rate:.1f}/s, {left} left")


def _say(step: str, text: str) -> None:
    print(f"{step}: {text}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as people say it: 42 s, 12 min, 3 h 05 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
