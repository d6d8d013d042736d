"""How many threads the libraries start, and how these wait, decided before any of them is imported.

OpenMP's threads spin at every barrier, for milliseconds, while their partner waits for a core: beside other
programs a stack of convolutions then runs at a seventh to an eleventh of the speed that it has with threads
that sleep. Sleeping costs an idle machine some percent. Each library reads its variables once, when it is
loaded, so `pipeline` and `model` set them first of all; what the user has set stays, and results keep every
bit, because the number of torch's threads stays what torch would choose, unless it may use fewer cores.
"""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
"""Sleep at barriers after some microseconds at most: OpenMP by the standard's variable, GNU's and Intel's
(LLVM's) also by their own. A stack of convolutions on two cores beside a dozen programs, iterations/s: GNU's
1.2 by itself and 63 so; Intel's 4.2 by itself, 45 by the standard's variable, 72 so, 4.1 after 1 ms."""
COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "RAYON_NUM_THREADS")
"""Thread counts of torch (and Arrow), MKL, OpenCV, and tokenizers."""
BLAS = ("OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Thread counts of numpy's BLAS, whichever it is: one. Its matrices are small here, and OpenBLAS's threads
wait for each other longer than they work: masks took six times as long with two of them on two busy cores."""
CORES = "EMOSEM_CORES"
"""Cores that this process is to use, whatever the machine says: a worker's share, or the user's word."""
ALLOTTED = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")
"""What a job queue gave to this job; not every site also confines the job to it."""
TOGETHER = "LOCAL_WORLD_SIZE"
"""Processes of one training on this machine, as torchrun and accelerate number them."""
GROUPS = Path("/sys/fs/cgroup")
"""Where Linux says what a container or a login session may use."""
OWN_GROUPS = Path("/proc/self/cgroup")
"""Which groups this process is in."""
PROCESSORS = Path("/sys/devices/system/cpu")
"""Where Linux says which processors are threads of one core."""


def cores(environment: Mapping[str, str] = os.environ) -> int:
    """Processors that this process may use: how many of its own threads or processes to have at work.

    `EMOSEM_CORES`, or else the fewest of: its affinity mask, the quota of its control groups (rounded up),
    its share of a SLURM job; divided by the processes of a distributed training. At least 1.
    """
    chosen = _count(environment.get(CORES))
    if chosen is not None:
        return chosen
    quota = _quota()
    limits = [len(_visible()), None if quota is None else math.ceil(quota)]
    limits += [_count(environment.get(name)) for name in ALLOTTED]
    fewest = min(limit for limit in limits if limit is not None)
    return max(1, fewest // (_count(environment.get(TOGETHER)) or 1))


def _count(text: str | None) -> int | None:
    """A variable's number of threads, of nested levels the outer one; None for anything but a count."""
    number = (text or "").partition(",")[0].strip()
    return int(number) if number.isdecimal() and int(number) > 0 else None


def _visible() -> set[int]:
    """Processors that libraries count."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _physical() -> int:
    """How many cores those are: two of them may be threads of one. MKL, and so torch, counts cores."""
    try:
        files = [PROCESSORS / f"cpu{number}/topology/thread_siblings_list" for number in _visible()]
        return len({file.read_text(encoding="ascii") for file in files})
    except OSError:
        return len(_visible())


def _quota() -> float | None:
    """Cores' worth of time that control groups (versions 2 and 1) leave this process; None without a limit.

    A group is also bound by those above it. In a container its own may seem to be the root.
    """
    found = [limit for folder in _groups() if (limit := _limit(folder)) is not None]
    return min(found, default=None)


def _groups() -> Iterator[Path]:
    """Folders of this process's groups, and of all above them."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    paths = {line.split(":", 2)[-1].lstrip("/") for line in lines}
    own = {path for path in paths if ".." not in path.split("/")}  # else outside what is mounted
    for root in (GROUPS, GROUPS / "cpu"):
        for path in {"", *own}:
            folder = root / path
            yield folder
            yield from (above for above in folder.parents if root in (above, *above.parents))


def _limit(group: Path) -> float | None:
    try:
        limit, period = (group / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            limit, period = ((group / name).read_text(encoding="ascii") for name in names)
        except (OSError, ValueError):
            return None
    try:
        return int(limit) / int(period) if int(limit) > 0 and int(period) > 0 else None
    except ValueError:  # "max"
        return None


def settings(environment: Mapping[str, str], workers: int | None = None) -> dict[str, str]:
    """Variables for a process with this environment; none that it has already.

    Args:
        environment: of the process.
        workers: processes that divide the cores between them; None: this one has all that it may use, and
            the libraries' own choice stands unless those are fewer than they see.
    """
    wanted = WAITING | dict.fromkeys(BLAS, "1")
    threads = _count(environment.get("OMP_NUM_THREADS"))
    if threads is None:
        usable = cores(environment)
        if workers or usable < len(_visible()):
            threads = max(1, min(usable, _physical()) // (workers or 1))
    if threads is not None:
        wanted |= dict.fromkeys(COUNTS, str(threads))
    if "OMP_WAIT_POLICY" in environment:  # whoever wants spinning threads means every OpenMP's
        wanted = {name: value for name, value in wanted.items() if name not in WAITING}
    return {name: value for name, value in wanted.items() if name not in environment}


_set_here: dict[str, str] = {}
"""What `set_threads` set: not the user's word."""


def set_threads() -> None:
    """Apply `settings` to this process and its children; what is already imported does not see them."""
    _set_here.update(settings(os.environ))
    os.environ.update(_set_here)


def users_environment() -> dict[str, str]:
    """The environment as the user gave it: without what `set_threads` set."""
    return {name: value for name, value in os.environ.items() if _set_here.get(name) != value}


def for_workers(workers: int, users: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables for one of so many worker processes of this machine, which divide its cores between them.

    `users`: the environment as the user gave it, where it is another than this process's.
    """
    users = users_environment() if users is None else users
    return settings(users, workers) | {CORES: str(max(1, cores(users) // workers))}
