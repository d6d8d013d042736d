"""Which arithmetic a device is good at."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 for what bears it, on a GPU and on a processor alike: half the time of float32 in both."""
    return torch.autocast(device.type, torch.bfloat16)


def attention(device: torch.device) -> AbstractContextManager[Any]:
    """The attention that is fast for short sequences: torch's choice on a GPU, plain products on a processor,
    where the backward of the fused kernel takes several times as long."""
    return nullcontext() if device.type == "cuda" else sdpa_kernel(SDPBackend.MATH)
