"""A process that imports steps once and runs each in a fork: quick, and it can be killed at any moment.

``python -m tests.worlds.step_driver STAGE...`` imports those stages. It reads a JSON object a line,
{"folder", "step", "log", "kill_after" | "crash_at"}, and answers with another,
{"killed", "status", "seconds", "output"}.
"step" is a stage with its variant ("train single"), `cli.py` with its arguments, or "stand-in". `kill_after`:
seconds until SIGKILL. `crash_at`: SIGKILL at that file operation.
"""

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.common.progress import ShardProgress
from pipeline.common.tars import write_tar
from pipeline.parallel.map_shards import ParallelParams, map_shards
from pipeline.parallel.shard_result import ShardResult

FILE_OPERATIONS = ("sample", "open", "os.rename", "os.remove", "os.chmod", "os.mkdir", "tempfile.mkstemp")
"""Audit events of what a killed writer could leave half-done; "sample" is our own, within a tar."""


def stand_in(shard: int, _progress: ShardProgress) -> ShardResult:
    """A shard whose tar takes a while, in file operations, to write."""

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        for number in range(2):
            sys.audit("sample")
            yield f"{shard}-{number}", {"bin": bytes([shard]) * 20_000}

    write_tar(Path("data/stand-in") / f"{shard:06d}.tar", samples())
    return ShardResult(2)


def run_step(name: str) -> None:
    if name == "stand-in":
        jobs = {shard: f"job {shard}" for shard in range(2)}
        map_shards(name, Path("data/stand-in"), jobs, stand_in, ParallelParams())
    elif name == "cli.py":
        importlib.import_module("cli").main()
    else:
        importlib.import_module(f"stages.{name}").STAGE.main()


def crash_at(count: int) -> None:
    """Kill this process at its `count`-th file operation from now."""
    left = [count]

    def hook(event: str, _arguments: tuple[Any, ...]) -> None:
        if event in FILE_OPERATIONS:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def child(order: dict[str, Any], log: Path) -> None:
    """Run the step as its command line would, and end this process; never returns."""
    os.setsid()
    os.chdir(order["folder"])
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    name, *arguments = order["step"].split()
    sys.argv = [name, *arguments]
    status = 0
    try:
        if "crash_at" in order:
            crash_at(order["crash_at"])
        run_step(name)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def obey(order: dict[str, Any]) -> dict[str, Any]:
    log = Path(order["log"])
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        child(order, log)
    deadline = start + order.get("kill_after", 300.0)
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.001)
    else:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    output = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    code = os.waitstatus_to_exitcode(status)
    return {"killed": code < 0, "status": code, "seconds": time.monotonic() - start, "output": output[-4000:]}


if __name__ == "__main__":
    for stage in sys.argv[1:]:
        importlib.import_module(f"stages.{stage}")
    for line in sys.stdin:
        print(json.dumps(obey(json.loads(line))), flush=True)
