"""The small CLIP's loss: which crop fits which text, and contrasts between all of a batch."""

import torch
from torch import Tensor


def fits(shown: Tensor, named: Tensor, shares: Tensor) -> Tensor:
    """How well each crop shows what a text names, where the text says nothing false of it.

    Args:
        shown: int64 (B, M, 4) traits of up to M subjects per crop.
        named: int64 (T, 4) what each text names; -1 where it says nothing.
        shares: float (B, M) how well the crop shows each subject; 0: not at all.

    Returns:
        float (B, T): the share of the best shown subject that the text fits, 0 where there is none.
    """
    wanted = named[None, :, None]
    agrees = ((wanted == shown[:, None]) | (wanted == -1)).all(-1)
    return (agrees * shares[:, None]).amax(-1)


def contrastive_loss(
    images: Tensor, texts: Tensor, scale: Tensor, weights: Tensor, unasked: Tensor | None = None
) -> Tensor:
    """Symmetric cross-entropy of unit vectors (B, D) and (T, D), with all that fits as positives.

    Args:
        weights: (B, T) how well a crop fits a text. Texts are to be told from a crop, and crops from a text,
            in proportion to it; a crop that fits no text is only among those that a text is told from.
        unasked: bool (B, T), crops that are neither right nor wrong for a text.
    """
    logits = scale * images @ texts.T
    columns = logits if unasked is None else logits.masked_fill(unasked, -1e4)
    wanted = weights if unasked is None else weights.masked_fill(unasked, 0.0)
    return (_cross_entropy(logits, weights) + _cross_entropy(columns.T, wanted.T)) / 2


def _cross_entropy(logits: Tensor, weights: Tensor) -> Tensor:
    """Of rows that have a positive weight, against their weights made to sum to 1."""
    total = weights.sum(1, keepdim=True)
    right = total[:, 0] > 0
    target = weights / torch.where(right[:, None], total, 1.0)
    return -(target * logits.log_softmax(1)).sum() / right.sum().clamp(min=1)
