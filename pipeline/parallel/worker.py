"""What happens in the process that makes a shard, here or on a Dask worker.

Only plain data leaves it: a library's exception may not pickle, and would take the run with it.
"""

import contextlib
import dataclasses
import os
import sys
import traceback
from pathlib import Path

from pipeline.common.digests import DamagedFile, digests
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.fingerprint import package_version
from pipeline.common.progress import ShardProgress
from pipeline.parallel.shard_folder import shard_files
from pipeline.parallel.shard_result import FailedShard, Process, ShardResult

CODE = package_version(Path(__file__).parents[1])
"""The pipeline code of this process. Taken at import: a long-lived worker must not pass for a new one."""


def attempt(process: Process, shard: int, progress: ShardProgress, out: Path) -> ShardResult | FailedShard:
    """Make one shard in the folder `out` and hash its files, while the system still has them in memory.

    Whatever is raised becomes a `FailedShard`.
    """
    try:
        result = process(shard, progress)
        return dataclasses.replace(result, files=digests(shard_files(out, shard)))
    except DamagedFile as error:  # this shard's input; the others' may be sound
        return FailedShard(str(error), again=False)
    except UserError as error:
        return FailedShard(str(error), fatal="user")
    except RunFailed as error:
        return FailedShard(str(error), fatal="run")
    except Exception as error:
        return FailedShard(f"{type(error).__name__}: {error}", traceback.format_exc())


_at_work: dict[str, ShardProgress] = {}
"""Step folder -> progress of the shard that this process makes there. Of the process, because it is asked
from outside: a scheduler can call a function in a worker, and that has nothing else to find the shard by."""


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
        if sys.getfilesystemencoding() != "utf-8":
            return "is not in UTF-8, and would not find pictures with accents; start it with PYTHONUTF8=1"
        if not Path(self.cwd, self.probe).is_file():
            return f"does not see {self.folder}; the folder must be shared, under the same path everywhere"
        if not os.access(self.folder, os.W_OK):
            return f"may not write to {self.folder}"
        return None

    def progress(self) -> tuple[int, str] | None:
        """Artworks and device of the shard of this folder that this process is at, or None."""
        at_work = _at_work.get(str(self.folder))
        return None if at_work is None else (at_work.artworks, at_work.device)

    def run(self, process: Process, shard: int) -> ShardResult | FailedShard:
        """Make one shard in the folder of the command."""
        refusal = self.objection()
        if refusal:
            return FailedShard(f"a Dask worker on {os.uname().nodename} {refusal}", fatal="user")
        _at_work[str(self.folder)] = progress = ShardProgress()
        try:
            with contextlib.chdir(self.cwd):
                result = attempt(process, shard, progress, Path(self.out))
        finally:
            _at_work.pop(str(self.folder), None)
        if isinstance(result, FailedShard) and "CUDA error" in result.reason:
            os._exit(1)  # its GPU context is beyond repair; a fresh process tries the shard again
        return result
