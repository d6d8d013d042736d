"""The training objective (Sec. 3.4): Dice + Focal on mask logits, cross-entropy on words.

Shapes: Q queries, one (artwork, emotion) each; H, W the mask decoder's own frame (256 x 256 at the official
sizes); T texts; L tokens; V vocabulary. Targets are soft: the pseudo-mask is a similarity in [0, 1].
"""

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = -100
"""Label of positions that are no word: padding behind the end of a text."""


def dice_loss(logits_QHW: Tensor, target_QHW: Tensor, valid_QHW: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - (2 sum(p t) + s) / (sum(p) + sum(t) + s) of each query, (Q,) float32 in [0, 1].

    Args:
        logits_QHW: before the sigmoid.
        target_QHW: soft mask in [0, 1].
        valid_QHW: bool, False on the padding of the decoder's square frame, which counts nowhere.
        smooth: s; keeps an empty target finite.
    """
    valid = valid_QHW.float()
    p = torch.sigmoid(logits_QHW.float()) * valid
    t = target_QHW.float() * valid
    overlap = (p * t).sum(dim=(1, 2))
    return 1 - (2 * overlap + smooth) / (p.sum(dim=(1, 2)) + t.sum(dim=(1, 2)) + smooth)


def focal_loss(
    logits_QHW: Tensor, target_QHW: Tensor, valid_QHW: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Focal loss of each query, averaged over its valid pixels, (Q,) float32.

    Arguments as in `dice_loss`. For a soft target t: p_t = p t + (1 - p)(1 - t), likewise alpha_t, and the
    cross-entropy is that of the soft target; at t in {0, 1} this is the published loss (paper ref. [29]).
    """
    logits, t, valid = logits_QHW.float(), target_QHW.float(), valid_QHW.float()
    p = torch.sigmoid(logits)
    p_t = p * t + (1 - p) * (1 - t)
    alpha_t = alpha * t + (1 - alpha) * (1 - t)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, t, reduction="none")
    loss = alpha_t * (1 - p_t) ** gamma * cross_entropy * valid
    return loss.sum(dim=(1, 2)) / valid.sum(dim=(1, 2)).clamp(min=1)


def language_loss(logits_TLV: Tensor, labels_TL: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over all words of all texts, a float32 scalar (Eq. 6).

    ``logits_TLV[:, i]`` predicts ``labels_TL[:, i]``; labels `IGNORE` count nowhere. A batch without a word
    has loss 0. `label_smoothing` is the share of a word's weight that all words get alike.
    """
    total = F.cross_entropy(
        logits_TLV.float().flatten(0, 1),
        labels_TL.flatten(),
        ignore_index=IGNORE,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    return total / (labels_TL != IGNORE).sum().clamp(min=1)
