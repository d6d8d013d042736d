"""Muon for what is a matrix between two vectors of features, AdamW for the rest; one step of both."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.common.errors import RunFailed


def muon_and_adamw(
    parts: nn.Module, lr: float, matrix_lr: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Muon for the weights of linear layers and of attention's projections, with which the loss falls in two
    thirds of AdamW's steps; AdamW for the rest, without weight decay of vectors. Their groups keep the peak
    learning rate under "peak"."""
    matrices = [layer.weight for layer in parts.modules() if isinstance(layer, nn.Linear)]
    matrices += [
        layer.in_proj_weight for layer in parts.modules() if isinstance(layer, nn.MultiheadAttention)
    ]
    known = {id(weight) for weight in matrices}
    rest = [p for p in parts.parameters() if id(p) not in known and p.requires_grad]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": weight_decay, "peak": lr},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0, "peak": lr},
    ]
    return [
        torch.optim.Muon(
            [{"params": matrices, "peak": matrix_lr}],
            lr=matrix_lr,
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98)),
    ]


def step(
    name: str,
    parts: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    loss: Tensor,
    share_of_lr: float,
) -> None:
    """One step down the loss's gradient, of norm 1 at most. Raises `RunFailed` when that is no number."""
    parts.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
    if not torch.isfinite(norm):
        raise RunFailed(f"{name}: the gradient is no number any more; try a lower pretrain.{name}.lr")
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share_of_lr
        optimizer.step()
