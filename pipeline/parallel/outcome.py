"""What one shard's work ends as."""

import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import Literal


@dataclasses.dataclass(frozen=True)
class ShardOutcome:
    """What one shard came to: artworks written, (key, reason) of each that could not be, and other counts."""

    kept: int
    rejects: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    """Whatever else the step counts, e.g. truncated texts; summed over shards into the step's metrics."""

    @property
    def artworks(self) -> int:
        """Artworks looked at."""
        return self.kept + len(self.rejects)


Process = Callable[[int], ShardOutcome]
"""Shard number -> outcome; writes the shard's files."""


@dataclasses.dataclass(frozen=True)
class FailedShard:
    """A shard that could not be made."""

    reason: str
    details: str = ""
    """The traceback, where there is one."""
    fatal: Literal["", "user", "run"] = ""
    """user, run: no other shard would fare better; ends the run as `UserError`, `RunFailed`."""


Outcomes = Generator[tuple[int, ShardOutcome | FailedShard], None, None]


Run = Callable[[Sequence[int], Callable[[int], None]], Outcomes]
"""Shards to do, and what to call before each -> their outcomes, in any order."""
