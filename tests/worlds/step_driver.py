"""A process that imports the steps once and runs each in a fork: quick, and it can be killed at any moment.

Reads a JSON object a line, {"folder", "step", "log", "kill_after" | "crash_at"}, and answers with another,
{"killed", "status", "seconds", "output"}. "step" is a stage with its variant ("train single"), or `cli.py`
with its arguments. `kill_after`: seconds until SIGKILL. `crash_at`: SIGKILL at that file operation.
"""

import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

STAGES = (
    "gallery", "utterances", "regions", "features", "similarity", "masks", "shards", "train", "predict",
    "alignment", "baselines", "score", "report",
)  # fmt: skip
FILE_OPERATIONS = ("open", "os.rename", "os.remove", "os.chmod", "os.mkdir", "tempfile.mkstemp")
"""Audit events of what a killed writer could leave half-done."""


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
        if name == "cli.py":
            importlib.import_module("cli").main()
        else:
            importlib.import_module(f"stages.{name}").STAGE.main()
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
    for stage in STAGES:
        importlib.import_module(f"stages.{stage}")
    importlib.import_module("transformers")
    for line in sys.stdin:
        print(json.dumps(obey(json.loads(line))), flush=True)
