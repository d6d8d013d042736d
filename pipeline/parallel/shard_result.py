"""What the work on one shard ends as."""

import dataclasses
from collections.abc import Callable, Generator
from typing import Any, Literal

from pipeline.common.progress import ShardProgress


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """A shard that is written: artworks kept, (key, reason) of each that was rejected, and other counts."""

    kept: int
    rejects: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    """Whatever else the step counts, e.g. truncated texts; summed over shards into the step's metrics."""
    threads: int | None = None
    """Threads that computed it, where another number gives other last digits; noted in the sidecar."""
    files: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """Name -> ``bytes`` and ``sha256`` of its files; noted by the shard loop, not by steps."""

    @property
    def artworks(self) -> int:
        """Artworks looked at."""
        return self.kept + len(self.rejects)


Process = Callable[[int, ShardProgress], ShardResult]
"""(Shard number, progress to report to) -> result; writes the shard's files."""


@dataclasses.dataclass(frozen=True)
class FailedShard:
    """A shard that could not be made."""

    reason: str
    details: str = ""
    """The traceback, where there is one."""
    fatal: Literal["", "user", "run"] = ""
    """user, run: no other shard would fare better; ends the run as `UserError`, `RunFailed`."""
    again: bool = True
    """Whether the same command may fare better: not where another step has to make an input again."""


Results = Generator[tuple[int, ShardResult | FailedShard], None, None]
"""Yields (shard number, result), in any order."""
