"""The baseline WESD, called WESR in the paper's Tab. 1: emotions of 7x7 cells from CLIP's patch tokens.

The network and its loss. Each cell is classified on its own, but for a summary of the picture that is added
to all of them; of the eight logits only that of the emotion is learned from, by the pseudo-mask of the
(artwork, emotion) brought to 7x7. Source: Chen et al., the APOLO benchmark, and its authors' code.

Two things depart from the original, because they must: the tokens are those of the features step (its CLIP,
their grid averaged to 7x7), and a constant pseudo-mask teaches 0 everywhere, where the original divides by 0.

Shapes: B pairs, K = 49 cells row by row, C the tokens' width.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.common.emotions import EMOTIONS

SIDE = 7
CELLS = SIDE * SIDE


class Wesd(nn.Module):
    """Tokens of a picture's cells to emotion logits; 266,760 parameters at width 512 (CLIP ViT-B/32)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.summary = nn.Linear(width, width)
        self.classify = nn.Linear(width, len(EMOTIONS))

    def forward(self, cells_BKC: Tensor) -> Tensor:
        """Float (B, K, C) to logits (B, K, 8)."""
        summary_B1C = self.summary(cells_BKC.mean(dim=1, keepdim=True))
        # classify(cells + summary), without a second copy of all cells
        return F.linear(cells_BKC, self.classify.weight) + self.classify(summary_B1C)

    def of_emotion(self, cells_BKC: Tensor, emotion_B: Tensor) -> Tensor:
        """Logits (B, K) of one emotion per row, int64 (B,)."""
        logits_BKE = self(cells_BKC)
        return logits_BKE[torch.arange(len(emotion_B)), :, emotion_B]


def wesd_loss(logits_BK: Tensor, target_BK: Tensor, double_sigmoid: bool) -> Tensor:
    """Binary cross-entropy with soft targets, the mean over cells and rows.

    Args:
        logits_BK: float, of the emotion.
        target_BK: float in [0, 1].
        double_sigmoid: take the sigmoid of the probability, as the authors' code does: it hands probabilities
            to a loss that wants logits, and so never asks for less than 0.5 or more than 0.73.
    """
    values = logits_BK.sigmoid() if double_sigmoid else logits_BK
    return F.binary_cross_entropy_with_logits(values, target_BK)


def cells_of(tokens: np.ndarray) -> np.ndarray:
    """CLIP's tokens of a picture, float (P, C) with or without the class token, as float32 (49, C).

    A square of patches of any size is averaged to 7x7. Raises `ValueError` where there is none.
    """
    side = math.isqrt(len(tokens))
    if tokens.ndim != 2 or len(tokens) - side * side > 1 or side == 0:
        raise ValueError(f"tokens of shape {tokens.shape} are no square of patches")
    patches = torch.from_numpy(tokens[len(tokens) - side * side :].astype(np.float32))
    grid = patches.T.reshape(1, -1, side, side)
    cells: np.ndarray = F.adaptive_avg_pool2d(grid, SIDE)[0].reshape(-1, CELLS).T.contiguous().numpy()
    return cells


def target_of(mask: np.ndarray) -> np.ndarray:
    """A pseudo-mask (h, w) of any range as float32 (49,) in [0, 1]: averaged to 7x7, then min-max."""
    small = cv2.resize(mask.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel()
    low, high = small.min(), small.max()
    if low == high or mask.min() == mask.max():  # averages of a constant may differ by their rounding
        return np.zeros(CELLS, np.float32)
    target: np.ndarray = (small - low) / (high - low)
    return target


class UncorrectedAdamW(torch.optim.Optimizer):
    """AdamW without the correction of its averages' bias towards 0: ``correct_bias=False`` of the AdamW that
    transformers once had, and that WESD was trained with. Its first steps are up to three times as long.

    The decay follows the step, scaled by the learning rate.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step; `closure` is not used."""
        for group in self.param_groups:
            slow, slower = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["mean"] = torch.zeros_like(parameter)
                    state["square"] = torch.zeros_like(parameter)
                state["mean"].lerp_(parameter.grad, 1 - slow)
                state["square"].mul_(slower).addcmul_(parameter.grad, parameter.grad, value=1 - slower)
                deviation = state["square"].sqrt().add_(group["eps"])
                parameter.addcdiv_(state["mean"], deviation, value=-group["lr"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
