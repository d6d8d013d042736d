"""Is the device's answer the processor's? Differences, each with the most that its arithmetic explains."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

EXACT = 0.0
FLOAT32 = 2e-3
"""Relative, of whole tensors: cuDNN takes TF32 (ten bits) for float32 convolutions."""
HALF = 5e-2
"""Relative, of bf16 and fp16, with the rounding of several layers."""


def within(difference: float, at_most: float, **more: Any) -> dict[str, Any]:
    """A row: `passed` unless the difference is larger, or no number."""
    return {"difference": difference, "at_most": at_most, "passed": difference <= at_most, **more}


def relative(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference by the norm of what was expected; NaN where either holds one."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    if found.shape != expected.shape:
        raise ValueError(f"shapes {tuple(found.shape)} and {tuple(expected.shape)}")
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


def largest(found: Tensor, expected: Tensor) -> float:
    """The largest difference of any two values."""
    return float((found.detach().double().cpu() - expected.detach().double().cpu()).abs().max())


def gradients_differ(found: torch.nn.Module, expected: torch.nn.Module) -> float:
    """The largest relative difference of any part's gradients.

    By part (mask decoder, each projector, language model): the words' gradients are far larger than a mask's
    and would hide them.
    """
    parts = {name.partition(".")[0] for name, p in expected.named_parameters() if p.requires_grad}
    return max(relative(_gradient(found, part), _gradient(expected, part)) for part in parts)


def _gradient(model: torch.nn.Module, part: str) -> Tensor:
    """All gradients of a part as one vector, None as zeros."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad and n.startswith(f"{part}.")]
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for _, p in named]
    return torch.cat([grad.detach().double().cpu().flatten() for grad in grads])


def unequal(found: Iterable[Any], expected: Iterable[Any]) -> float:
    """Share of things that differ."""
    pairs = list(zip(found, expected, strict=True))
    return sum(one != other for one, other in pairs) / len(pairs)
