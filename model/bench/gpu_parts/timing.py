"""Clocks, memory and the roofline.

A GPU works behind the program that feeds it, so no clock is read before it has caught up. The roofline is the
card's own: the rate of a large matrix product and of a large copy, measured in the same run.
"""

import contextlib
import gc
import json
import math
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from model.bench.gpu_parts.worker import Job
from model.bench.rounding import significant

ROUNDS = 5
LEAST = 0.3
"""Seconds that a round lasts at least: waiting for the GPU at its end takes tens of microseconds."""
CEILINGS = "ceilings.json"
OF_PROCESSORS = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""The one attention kernel that torch's counter does not know."""
Shape = tuple[int, ...]
Arithmetic = Literal["bf16", "fp16", "tf32", "fp32"]


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock(device: torch.device) -> float:
    """Seconds, read when the device has caught up."""
    synchronise(device)
    return time.perf_counter()


def seconds_each(call: Callable[[], Any], job: Job, warm_up: int = 2) -> list[float]:
    """Seconds of one call, in each of several rounds of as many calls as last `LEAST` seconds.

    Args:
        call: queues work on the job's device, or does it.
        job: says the device; a tiny one has two rounds of one call.
        warm_up: calls before: kernels are loaded, chosen and compiled in them.
    """
    device = torch.device(job.device)
    for _ in range(warm_up):
        call()
    start = clock(device)
    call()
    once = clock(device) - start
    calls = 1 if job.tiny else max(1, math.ceil(LEAST / max(once, 1e-6)))
    found = []
    for _ in range(2 if job.tiny else ROUNDS):
        start = clock(device)
        for _ in range(calls):
            call()
        found.append((clock(device) - start) / calls)
    return found


def rate(seconds: Sequence[float], items: float) -> dict[str, float | int]:
    """Items a second: the median of the rounds, and their spread."""
    rates = [items / max(each, 1e-12) for each in seconds]
    return {
        "per_second": significant(statistics.median(rates)),
        "lowest": significant(min(rates)),
        "highest": significant(max(rates)),
        "rounds": len(rates),
    }


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[dict[str, int]]:
    """Yields a dict that holds, afterwards, the most bytes that tensors took and that torch had reserved.

    Empty on a processor.
    """
    found: dict[str, int] = {}
    if device.type == "cuda":
        gc.collect()
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    yield found
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        found["peak_memory"] = torch.cuda.max_memory_allocated(device)
        found["peak_reserved"] = torch.cuda.max_memory_reserved(device)


def flops(call: Callable[[], Any]) -> int | None:
    """Floating-point operations of matrix products, convolutions and attention; a multiply-add is two.

    None where torch cannot count them: a rate without its share is still a rate.
    """

    def attention(q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(q, k, v))

    counter = FlopCounterMode(display=False, custom_mapping={OF_PROCESSORS: attention})
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(
        False
    )  # one kernel of nn.MultiheadAttention, which is not counted
    try:
        with counter:
            call()
    except Exception:  # a mode that a kernel does not bear
        traceback.print_exc()
        return None
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops())


@dataclass(frozen=True)
class Ceilings:
    """What the card reaches on work that is nothing but arithmetic, or nothing but memory."""

    matmul: Mapping[str, float]
    """Arithmetic -> operations a second of a large matrix product."""
    copy: float
    """Bytes a second of a large copy on the device, those read and those written."""

    def save(self, folder: Path) -> None:
        """Write them for the parts that come."""
        values = {"matmul": dict(self.matmul), "copy": self.copy}
        (folder / CEILINGS).write_text(json.dumps(values), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Ceilings | None":
        """Those of this run; None where they could not be measured."""
        try:
            return cls(**json.loads((folder / CEILINGS).read_text(encoding="utf-8")))
        except OSError:
            return None


def roofline(
    job: Job, seconds: Sequence[float], operations: float | None, moved: float, arithmetic: Arithmetic
) -> dict[str, Any]:
    """How near a call comes to the least time that the card could take for it.

    Args:
        seconds: of a call, see `seconds_each`.
        operations: that it must do, see `flops`; None when they are not known.
        moved: bytes that must cross the device's memory at least: weights, inputs and outputs once each.
        arithmetic: of most of its operations.

    Returns:
        ``tflop``, ``gigabytes`` of a call; with ceilings also ``bound`` by what, and ``share_of_roofline``.
        Empty without operations.
    """
    if operations is None:
        return {}
    found: dict[str, Any] = {
        "arithmetic": arithmetic,
        "tflop": significant(operations / 1e12),
        "gigabytes": significant(moved / 1e9),
    }
    ceilings = Ceilings.load(job.folder)
    if ceilings is None or arithmetic not in ceilings.matmul:
        return found
    by_arithmetic, by_memory = operations / ceilings.matmul[arithmetic], moved / ceilings.copy
    least = max(by_arithmetic, by_memory)
    found["bound"] = "arithmetic" if by_arithmetic >= by_memory else "memory"
    found["share_of_roofline"] = significant(least / statistics.median(seconds), 3)
    return found


def bytes_of(module: torch.nn.Module) -> int:
    """Bytes of a network's weights."""
    return sum(t.nbytes for t in (*module.parameters(), *module.buffers()))
