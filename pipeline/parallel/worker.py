"""What happens in the process that makes a shard, here or on a Dask worker.

Only plain data leaves it: a library's exception may not pickle, and would take the run with it.
"""

import contextlib
import dataclasses
import os
import traceback
from pathlib import Path

from pipeline.common import progress
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.fingerprint import package_version
from pipeline.parallel.outcome import FailedShard, Process, ShardOutcome

CODE = package_version(Path(__file__).parents[1])
"""The pipeline code of this process. Taken at import: a long-lived worker must not pass for a new one."""


def attempt(process: Process, shard: int) -> ShardOutcome | FailedShard:
    """Make one shard; whatever is raised becomes a `FailedShard`."""
    progress.start_shard()
    try:
        return process(shard)
    except UserError as error:
        return FailedShard(str(error), fatal="user")
    except RunFailed as error:
        return FailedShard(str(error), fatal="run")
    except Exception as error:
        return FailedShard(f"{type(error).__name__}: {error}", traceback.format_exc())


_writing: set[str] = set()
"""Folders that this process is writing a shard of."""


@dataclasses.dataclass(frozen=True)
class Ticket:
    """A run, as a Dask worker has to know it."""

    cwd: str
    """Folder of the command; paths in params are relative to it."""
    out: str
    """Folder of the step."""
    probe: str
    """A file that exists while the run lasts."""
    code: str | None
    """`CODE` of the run, or None where worker and run are one machine's."""

    @property
    def folder(self) -> Path:
        """`out` for a process in any folder."""
        return Path(self.cwd, self.out)

    def objection(self) -> str | None:
        """Why this process is not fit for the run, or None."""
        if self.code not in (None, CODE):
            return "runs another version of this repository's code; update it there and restart the worker"
        if not Path(self.cwd, self.probe).is_file():
            return f"does not see {self.folder}; the folder must be shared, under the same path everywhere"
        if not os.access(self.folder, os.W_OK):
            return f"may not write to {self.folder}"
        return None

    def is_being_served(self) -> bool:
        """Whether this process is at a shard of the run's folder."""
        return str(self.folder) in _writing

    def run(self, process: Process, shard: int) -> ShardOutcome | FailedShard:
        """Make one shard in the folder of the command."""
        refusal = self.objection()
        if refusal:
            return FailedShard(f"a Dask worker on {os.uname().nodename} {refusal}", fatal="user")
        _writing.add(str(self.folder))
        try:
            with contextlib.chdir(self.cwd):
                outcome = attempt(process, shard)
        finally:
            _writing.discard(str(self.folder))
        if isinstance(outcome, FailedShard) and "CUDA error" in outcome.reason:
            os._exit(1)  # its GPU context is beyond repair; a fresh process tries the shard again
        return outcome
