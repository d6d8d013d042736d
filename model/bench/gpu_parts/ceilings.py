"""What the machine is, and what its card reaches at best: what all other parts are held against."""

import os
import platform
import sys
from typing import Any

import torch

from model.bench.gpu_parts.timing import Ceilings, rate, seconds_each
from model.bench.gpu_parts.worker import Job, Rows
from model.bench.rounding import significant
from pipeline.common.machine import device_name

SIDE = 8192
"""Of the matrices: 1.1 TFLOP a product, far beyond any cache."""
COPIED = 1 << 31
"""Bytes copied on the device."""
SENT = 1 << 28
"""Bytes sent to the device and back."""


def ceilings(job: Job, rows: Rows) -> None:
    """Rows ``machine``; ``matmul.*``, ``copy``; ``to_device``, ``from_device``."""
    device = torch.device(job.device)
    rows.add("machine", describe(device))
    side = job.size(SIDE, 64)
    rates: dict[str, float] = {}
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16, "tf32": torch.float32, "fp32": torch.float32}
    for name, dtype in kinds.items():
        torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        rows.measure(f"matmul.{name}", lambda name=name, dtype=dtype: _matmul(job, side, name, dtype, rates))  # type: ignore[misc]
    torch.set_float32_matmul_precision("highest")
    found: dict[str, float] = {}
    rows.measure("copy", lambda: _copy(job, job.size(COPIED, 1 << 16), found))
    if rates and found:
        Ceilings(rates, found["copy"]).save(job.folder)
    if device.type == "cuda":
        rows.measure("to_device", lambda: _across(job, to_device=True))
        rows.measure("from_device", lambda: _across(job, to_device=False))


def describe(device: torch.device) -> dict[str, Any]:
    """Names and versions of what numbers depend on."""
    found: dict[str, Any] = {
        "device": device_name(str(device)),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "torch": torch.__version__,
        "executable": os.path.basename(sys.executable),  # noqa: PTH119 - no folder of this machine
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory": properties.total_memory,
            "convolutions_in_tf32": torch.backends.cudnn.allow_tf32,
        }
    return found


def _matmul(job: Job, side: int, name: str, dtype: torch.dtype, rates: dict[str, float]) -> dict[str, Any]:
    """Square matrices of random numbers: zeros run faster than real data."""
    a, b = (torch.randn(side, side, device=job.device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    found = rate(seconds_each(lambda: torch.mm(a, b, out=out), job), 2 * side**3)
    rates[name] = float(found["per_second"])
    return {"side": side, "tflop_per_second": significant(rates[name] / 1e12), **found}


def _copy(job: Job, size: int, rates: dict[str, float]) -> dict[str, Any]:
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=job.device)
    target = torch.empty_like(source)
    found = rate(seconds_each(lambda: target.copy_(source), job), 2 * size)
    rates["copy"] = float(found["per_second"])
    return {"bytes": size, "gigabytes_per_second": significant(rates["copy"] / 1e9), **found}


def _across(job: Job, to_device: bool) -> dict[str, Any]:
    """Between page-locked memory and the device."""
    here = torch.randint(0, 256, (SENT,), dtype=torch.uint8).pin_memory()
    there = here.to(job.device)
    target, source = (there, here) if to_device else (here, there)
    found = rate(seconds_each(lambda: target.copy_(source, non_blocking=True), job), SENT)
    return {"gigabytes_per_second": significant(float(found["per_second"]) / 1e9), **found}
