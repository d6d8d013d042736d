"""Runs parts of `bench gpu`, each in a process with a time limit of its own."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from model.bench.gpu_parts.worker import Job

ROOT = Path(__file__).resolve().parents[3]
SHORTEST = 5.0
"""Seconds that must be left for a part to begin: torch alone takes some to import."""
TAIL = 1500
"""Characters of a failed part's output that are kept."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One process."""

    name: str
    function: str
    """``module:function``: takes a `Job` and the `Rows` to fill."""
    limit: float
    """Seconds."""
    timed: bool = True
    """False: it measures no time, so it may run beside its neighbours."""


class Runner:
    """Runs parts; whatever ends the command ends those at work too."""

    def __init__(self, template: Job, end: float) -> None:
        self.template, self.end = template, end
        self.at_work: set[subprocess.Popen[bytes]] = set()
        self.pool = ThreadPoolExecutor()

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self.end = 0.0  # nothing more begins
        for process in list(self.at_work):
            _end(process)
        self.pool.shutdown()

    def run(self, batch: Sequence[Part]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (name, result) of parts that run at once, as they end."""
        futures = {self.pool.submit(self._run, part): part.name for part in batch}
        for future in as_completed(futures):
            yield futures[future], future.result()

    def _run(self, part: Part) -> dict[str, Any]:
        """One part in a process of its own, ended with all that it started when its time is over."""
        start = time.monotonic()
        limit = min(part.limit, self.end - start)
        if limit < SHORTEST:
            return {"status": "not begun", "reason": "the time was over", "seconds": 0.0, "rows": {}}
        folder = self.template.folder / "parts"
        folder.mkdir(exist_ok=True)
        results, log = folder / f"{part.name}.jsonl", folder / f"{part.name}.log"
        job = dataclasses.replace(self.template, function=part.function, results=results, limit=limit)
        code = self._process(job, log)
        shutil.rmtree(job.own, ignore_errors=True)
        rows = _read(results)
        broken = rows.pop("", {}).get("problem", "")
        status = {0: "done", None: "over its limit"}.get(code, "failed")
        seconds = round(time.monotonic() - start, 1)
        found = {"status": status, "seconds": seconds, "limit": round(limit), "rows": rows}
        if status != "done":
            ended = (
                f"ended with exit code {code}" if code is not None else f"was not through in {limit:.0f} s"
            )
            found["reason"] = broken or ended
            found["output"] = log.read_text(encoding="utf-8", errors="replace")[-TAIL:]
        return found

    def _process(self, job: Job, log: Path) -> int | None:
        """The exit code of a part's process; None when its time was over."""
        file = job.results.with_suffix(".json")
        job.save(file)
        command = [sys.executable, "-m", "model.bench.gpu_parts.worker", str(file)]
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own module
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=ROOT,  # the built-in weights are named from there
                start_new_session=True,
            )
        self.at_work.add(process)
        try:
            return process.wait(job.limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)
            self.at_work.discard(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a part's processes. A kernel that hangs may keep one alive: it is not waited for longer."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)


def _read(results: Path) -> dict[str, dict[str, Any]]:
    """Rows by name; a last line that was cut is left out."""
    rows: dict[str, dict[str, Any]] = {}
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    for line in lines:
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            rows[row["row"]] = row["values"]
    return rows
