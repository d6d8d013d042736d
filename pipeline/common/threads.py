"""How many threads the libraries start, and how these wait, decided before any of them is imported.

OpenMP's threads spin at every barrier, for milliseconds, while their partner waits for a core: beside other
programs a stack of convolutions then runs at a seventh to an eleventh of the speed that it has with threads
that sleep. Sleeping costs an idle machine some percent. Each library reads its variables once, when it is
loaded, so `pipeline` and `model` set them first of all; what the user has set stays, and results keep every
bit, because the number of torch's threads stays what torch would choose.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
"""Sleep at barriers after some microseconds: GNU's OpenMP by its own variable, others by the standard's."""
COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "RAYON_NUM_THREADS")
"""Thread counts of torch (and Arrow), MKL, OpenCV, and tokenizers."""
OPENBLAS = "OPENBLAS_NUM_THREADS"
"""numpy's matrices are small here, and OpenBLAS's threads wait for each other longer than they work: masks
took six times as long with two of them on two busy cores."""
QUOTA = Path("/sys/fs/cgroup")
"""Where Linux says what a container may use."""


def cores() -> int:
    """Processor cores that this process may use: those of its affinity mask, within its container's quota."""
    quota = _quota()
    return _visible() if quota is None else max(1, min(_visible(), math.ceil(quota)))


def _visible() -> int:
    """Cores that libraries count."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota() -> float | None:
    """Cores' worth of time that a control group leaves us (versions 2 and 1); None without a limit."""
    try:
        limit, period = (QUOTA / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            limit, period = ((QUOTA / "cpu" / name).read_text(encoding="ascii") for name in names)
        except (OSError, ValueError):
            return None
    try:
        return int(limit) / int(period) if int(limit) > 0 and int(period) > 0 else None
    except ValueError:  # "max"
        return None


def settings(environment: Mapping[str, str], share: int | None = None) -> dict[str, str]:
    """Variables for a process with this environment; none that it has already.

    Args:
        environment: of the process.
        share: threads for it; None: all of the cores, where the libraries' own choice stands unless a
            container's quota, which they do not see, leaves fewer.
    """
    wanted = WAITING | {OPENBLAS: "1"}
    threads = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if not threads.isdigit() or int(threads) == 0:
        share = share or (cores() if cores() < _visible() else None)
        threads = str(share or "")
    if threads:
        wanted |= dict.fromkeys(COUNTS, threads)
    if "OMP_WAIT_POLICY" in environment:  # whoever wants spinning threads means GNU's too
        del wanted["GOMP_SPINCOUNT"]
    return {name: value for name, value in wanted.items() if name not in environment}


_set_here: dict[str, str] = {}
"""What `set_threads` set: not the user's word."""


def set_threads() -> None:
    """Apply `settings` to this process and its children; what is already imported does not see them."""
    _set_here.update(settings(os.environ))
    os.environ.update(_set_here)


def for_workers(workers: int) -> dict[str, str]:
    """Variables for one of so many worker processes of this machine, which divide its cores between them."""
    users = {name: value for name, value in os.environ.items() if _set_here.get(name) != value}
    return settings(users, max(1, cores() // workers))
