"""Parts of `bench gpu` that go wrong in every way that a borrowed machine knows, without torch."""

import os
import signal
import subprocess
import sys
import time

from model.bench.gpu_parts.worker import Job, Rows


def fine(job: Job, rows: Rows) -> None:
    rows.add("one", {"per_second": 12.0, "lowest": 11.0, "highest": 13.0, "device": job.device})
    rows.measure("bad", lambda: {"value": [1 / 0]})
    rows.add("infinite", {"difference": float("nan"), "at_most": 1.0, "passed": False})
    rows.measure("two", lambda: {"per_second": 30.0, "lowest": 30.0, "highest": 30.0})


def raises(_job: Job, rows: Rows) -> None:
    rows.add("one", {"per_second": 5.0, "lowest": 5.0, "highest": 5.0})
    print("what it printed before")
    raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore lines")


def hangs(job: Job, rows: Rows) -> None:
    """Deaf to SIGTERM, with a child."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (job.folder.parent / "child.pid").write_text(str(child.pid))
    rows.add("one", {"passed": True, "difference": 0.0, "at_most": 0.0})
    with rows.file.open("a") as file:
        file.write('{"row": "cut')
    time.sleep(600)


def is_killed(_job: Job, rows: Rows) -> None:
    rows.add("one", {"per_second": 1.0, "lowest": 1.0, "highest": 1.0})
    os.kill(os.getpid(), signal.SIGKILL)
