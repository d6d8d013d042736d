"""What this machine is: names, free disk, free memory."""

import os
import platform
import shutil
from pathlib import Path

from pipeline.common.errors import UserError

UNITS = ("B", "kB", "MB", "GB", "TB")


def device_name(device: str) -> str:
    """A torch device for people: the GPU's name, or the processor's and its threads in use."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} thread(s)"


def cpu_threads(device: str) -> int | None:
    """Threads that compute there, whose number decides how sums are rounded; None on a GPU."""
    import torch

    return torch.get_num_threads() if device == "cpu" else None


def torch_device(device: str, key: str) -> str:
    """The torch device to run on, "auto" resolved to the GPU where there is one.

    `key`: the params key that names it. Raises `UserError` when a GPU is asked for and absent.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"{key} is {device}, but torch sees no GPU; use auto or cpu")
    return device


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def existing(path: Path) -> Path:
    """The path itself or its nearest parent that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def free_bytes(path: Path) -> int:
    """What may still be written where `path` is or will be."""
    return shutil.disk_usage(existing(path)).free


def filesystem(path: Path) -> int:
    """Number of the file system that `path` is or will be on."""
    return existing(path).stat().st_dev


def available_memory() -> int | None:
    """Bytes that new programs can have without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    try:  # systems without /proc say at least how much there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def shown_bytes(count: float) -> str:
    """A number of bytes with three digits: 168 GB (powers of 1000, as disks are sold)."""
    for unit in UNITS[:-1]:
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} {UNITS[-1]}"
