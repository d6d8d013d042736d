"""A process that imports the steps once and runs each in a fork that can be killed at any moment.

Reads a JSON object a line, {"folder", "step", "kill_after" | "crash_at"}, and answers with another,
{"killed", "seconds"}. `kill_after`: seconds until SIGKILL. `crash_at`: SIGKILL at that file operation.
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

STEPS = ("utterances", "regions", "similarity", "masks", "features", "shards")
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


def run_step(step: str) -> None:
    if step == "stand-in":
        jobs = {shard: f"job {shard}" for shard in range(2)}
        map_shards(step, Path("data/stand-in"), jobs, stand_in, ParallelParams())
    else:
        importlib.import_module(f"stages.{step}").STAGE.run(Path("params.yaml"))


def crash_at(count: int) -> None:
    """Kill this process at its `count`-th file operation from now."""
    left = [count]

    def hook(event: str, _arguments: tuple[Any, ...]) -> None:
        if event in FILE_OPERATIONS:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def child(order: dict[str, Any]) -> None:
    """Run the step and end this process; never returns."""
    os.chdir(order["folder"])
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        if "crash_at" in order:
            crash_at(order["crash_at"])
        run_step(order["step"])
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def obey(order: dict[str, Any]) -> dict[str, Any]:
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        child(order)
    deadline = start + order.get("kill_after", 300.0)
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.001)
    else:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(Path(order["folder"], "log.txt").read_text()[-3000:])
    return {"killed": os.WIFSIGNALED(status), "seconds": time.monotonic() - start}


if __name__ == "__main__":
    for name in STEPS:
        importlib.import_module(f"stages.{name}")
    for line in sys.stdin:
        print(json.dumps(obey(json.loads(line))), flush=True)
