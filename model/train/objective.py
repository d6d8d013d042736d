"""A batch's losses by a model: what a training step minimises (Sec. 3.4)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from model.data.batch import Batch, Counted
from model.emosem.losses import dice_loss, focal_loss, language_loss
from model.train.params import TrainParams
from model.train.precision import attention

Objective = Callable[[Batch], dict[str, Tensor]]


def new_objective(network: torch.nn.Module, params: TrainParams, backend: str | None = None) -> Objective:
    """A batch's losses by a network, compiled if asked.

    Args:
        network: the model as accelerate wraps it.
        backend: of `torch.compile`; None is the one that makes kernels and CUDA graphs.
    """
    if not params.compile:
        return lambda batch: losses_of(*forward(network, batch), batch, params.label_smoothing)
    how: dict[str, Any] = {"backend": backend} if backend else {"mode": "reduce-overhead"}
    alone = not isinstance(network, DistributedDataParallel)  # whose hooks torch leaves out of the graph
    compiled = torch.compile(network, dynamic=False, fullgraph=alone, **how)
    compiled_losses = torch.compile(losses_of, dynamic=False, fullgraph=True, **how)
    counted: Counted = "artworks" if params.paradigm == "multi" else "queries"

    def objective(batch: Batch) -> dict[str, Tensor]:
        torch.compiler.cudagraph_mark_step_begin()
        batch = batch.padded(params.batch_size, params.max_tokens, counted)
        return compiled_losses(*forward(compiled, batch), batch, params.label_smoothing)

    for parameter in network.parameters():
        if parameter.requires_grad:  # a graph's own gradients are gone when it runs again
            parameter.grad = torch.zeros_like(parameter)
    return objective


def forward(model: Callable[..., tuple[Tensor, Tensor]], batch: Batch) -> tuple[Tensor, Tensor]:
    """Mask logits (Q, H, W) and word logits (T, L, V) of a batch."""
    with attention(batch.sam.device):
        logits: tuple[Tensor, Tensor] = model(
            batch.sam,
            batch.clip,
            rows_Q=batch.rows,
            emotion_Q=batch.emotion,
            query_T=batch.query,
            tokens_TL=batch.tokens,
        )
    return logits


def total_loss(losses: dict[str, Tensor], batch: Batch, params: TrainParams) -> Tensor:
    """What is minimised: the parts' sum (Eq. 7); for multi with `multi_loss: sum` also over emotions (10)."""
    total = losses["dice"] + losses["focal"] + losses["language"]
    if params.paradigm == "multi" and params.multi_loss == "sum":
        return total * (len(batch.rows) / len(batch.artworks))  # the parts are means over all of them
    return total


def losses_of(
    mask_logits: Tensor, word_logits: Tensor, batch: Batch, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """The objective's parts (Eq. 5, 6): means over the batch's samples, float32 scalars."""
    valid = batch.valid.index_select(0, batch.rows)
    weight = batch.weight / batch.weight.sum()  # a query counts once for each text, less by review
    return {
        "dice": (dice_loss(mask_logits, batch.target, valid) * weight).sum(),
        "focal": (focal_loss(mask_logits, batch.target, valid) * weight).sum(),
        "language": language_loss(word_logits, batch.labels, label_smoothing),
    }
