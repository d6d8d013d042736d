"""Dice, Focal and the language loss against numbers worked out by hand and by slow loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.emosem.losses import IGNORE, dice_loss, focal_loss, language_loss


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_dice_by_hand() -> None:
    logits = torch.tensor([[[logit(0.8), logit(0.5)], [logit(0.1), 9.0]]])
    target = torch.tensor([[[1.0, 0.5], [0.0, 1.0]]])
    valid = torch.tensor([[[True, True], [True, False]]])
    expected = 1 - (2 * (0.8 + 0.25) + 1) / ((0.8 + 0.5 + 0.1) + 1.5 + 1)
    assert dice_loss(logits, target, valid).item() == pytest.approx(expected, rel=1e-6)


def test_focal_by_hand() -> None:
    logits = torch.tensor([[[logit(0.8), logit(0.3)], [5.0, 5.0]]])
    target = torch.tensor([[[1.0, 0.25], [0.0, 0.0]]])
    valid = torch.tensor([[[True, True], [False, False]]])
    first = 0.25 * (1 - 0.8) ** 2 * -math.log(0.8)
    p_t, alpha_t = 0.3 * 0.25 + 0.7 * 0.75, 0.25 * 0.25 + 0.75 * 0.75
    second = alpha_t * (1 - p_t) ** 2 * -(0.25 * math.log(0.3) + 0.75 * math.log(0.7))
    assert focal_loss(logits, target, valid).item() == pytest.approx((first + second) / 2, rel=1e-5)


def test_focal_equals_torchvision_on_hard_targets() -> None:
    from torchvision.ops import sigmoid_focal_loss

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 7, generator=generator)
    target = (torch.rand(3, 5, 7, generator=generator) > 0.5).float()
    expected = sigmoid_focal_loss(logits, target).mean(dim=(1, 2))
    torch.testing.assert_close(
        focal_loss(logits, target, torch.ones_like(target, dtype=torch.bool)), expected
    )


@pytest.mark.parametrize("loss", [dice_loss, focal_loss])
def test_padding_counts_nowhere(loss: object) -> None:
    logits, target = torch.randn(2, 4, 4), torch.rand(2, 4, 4)
    valid = torch.zeros(2, 4, 4, dtype=torch.bool)
    valid[:, :3, :2] = True
    cropped = loss(logits[:, :3, :2], target[:, :3, :2], valid[:, :3, :2])  # type: ignore[operator]
    torch.testing.assert_close(loss(logits, target, valid), cropped)  # type: ignore[operator]


def test_an_empty_target_and_a_frame_of_padding_are_finite() -> None:
    logits, nothing = torch.full((1, 3, 3), -30.0), torch.zeros(1, 3, 3)
    valid = torch.ones(1, 3, 3, dtype=torch.bool)
    assert dice_loss(logits, nothing, valid).item() == pytest.approx(0.0)
    assert focal_loss(logits, nothing, ~valid).item() == 0.0
    assert torch.isfinite(focal_loss(torch.full((1, 3, 3), 200.0), nothing, valid)).all()


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=4))
def test_language_loss_is_the_mean_over_all_words(texts: list[list[int]]) -> None:
    length = max(map(len, texts))
    labels = torch.tensor([text + [IGNORE] * (length - len(text)) for text in texts])
    logits = torch.randn(len(texts), length, 6, generator=torch.Generator().manual_seed(1))
    losses = [
        -torch.log_softmax(logits[i, j].double(), dim=0)[word].item()
        for i, text in enumerate(texts)
        for j, word in enumerate(text)
    ]
    assert language_loss(logits, labels).item() == pytest.approx(float(np.mean(losses)), rel=1e-5)


def test_no_words_no_loss() -> None:
    assert language_loss(torch.randn(2, 3, 5), torch.full((2, 3), IGNORE)).item() == 0.0
