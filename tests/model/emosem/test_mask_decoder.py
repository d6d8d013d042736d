"""The batched decoder against `segment_anything`'s own, one image at a time."""

import pytest
import torch
from segment_anything.modeling import MaskDecoder as Official
from segment_anything.modeling import PromptEncoder, TwoWayTransformer

from model.emosem.mask_decoder import MaskDecoder

DIM, GRID = 32, 6


@pytest.fixture(scope="module")
def official() -> tuple[Official, PromptEncoder]:
    torch.manual_seed(0)
    transformer = TwoWayTransformer(depth=2, embedding_dim=DIM, num_heads=4, mlp_dim=48)
    decoder = Official(transformer_dim=DIM, transformer=transformer, iou_head_hidden_dim=16)
    prompt_encoder = PromptEncoder(DIM, (GRID, GRID), (GRID * 8, GRID * 8), mask_in_chans=8)
    with torch.no_grad():
        for parameter in decoder.parameters():  # away from layer norms of exactly 1 and 0
            parameter.add_(0.05 * torch.randn_like(parameter))
    return decoder.eval(), prompt_encoder.eval()


@pytest.fixture(scope="module")
def ours(official: tuple[Official, PromptEncoder]) -> MaskDecoder:
    decoder, prompt_encoder = official
    model = MaskDecoder(dim=DIM, grid=GRID, depth=2, num_heads=4, mlp_dim=48, num_mask_tokens=4)
    theirs = {k: v for k, v in decoder.state_dict().items() if not k.startswith("iou_prediction_head")}
    state = prompt_encoder.state_dict()
    theirs |= {k: v for k, v in state.items() if k.startswith(("pe_layer.", "no_mask_embed."))}
    model.load_state_dict(theirs, strict=True)
    return model.eval()


@torch.no_grad()
def one_by_one(
    official: tuple[Official, PromptEncoder],
    images: torch.Tensor,
    rows: torch.Tensor,
    prompts: list[torch.Tensor],
) -> torch.Tensor:
    decoder, prompt_encoder = official
    masks = []
    for row, prompt in zip(rows.tolist(), prompts, strict=True):
        _, dense = prompt_encoder(points=None, boxes=None, masks=None)
        masks.append(
            decoder.predict_masks(images[row : row + 1], prompt_encoder.get_dense_pe(), prompt[None], dense)[
                0
            ]
        )
    return torch.cat(masks)


@torch.no_grad()
def test_many_queries_of_many_images_equal_segment_anything_one_by_one(
    official: tuple[Official, PromptEncoder], ours: MaskDecoder
) -> None:
    images, rows = torch.randn(3, DIM, GRID, GRID), torch.tensor([2, 0, 0, 1, 2])
    prompts = torch.randn(5, 8, DIM)
    expected = one_by_one(official, images, rows, list(prompts))
    decoded = ours(images, rows, prompts, None, masks=range(4))
    assert decoded.mask_logits.shape == (5, 4, 4 * GRID, 4 * GRID)
    scale = expected.abs().max()
    assert (decoded.mask_logits - expected).abs().max() / scale < 1e-5
    only_first = ours(images, rows, prompts, None, masks=[0])
    torch.testing.assert_close(only_first.mask_logits[:, 0], decoded.mask_logits[:, 0])
    assert decoded.mask_tokens.shape == (5, 4, DIM) and decoded.prompt.shape == (5, 8, DIM)


@torch.no_grad()
def test_a_padded_prompt_equals_the_prompt_alone(
    official: tuple[Official, PromptEncoder], ours: MaskDecoder
) -> None:
    images, rows = torch.randn(2, DIM, GRID, GRID), torch.tensor([0, 1, 1])
    prompts, mask = torch.randn(3, 9, DIM), torch.ones(3, 9, dtype=torch.bool)
    mask[0, 8:] = mask[2, 7:] = False
    expected = one_by_one(official, images, rows, [p[m] for p, m in zip(prompts, mask, strict=True)])
    decoded = ours(images, rows, prompts, mask, masks=range(4))
    assert (decoded.mask_logits - expected).abs().max() / expected.abs().max() < 1e-5
    prompts[0, 8:], prompts[2, 7:] = 100.0, -100.0
    again = ours(images, rows, prompts, mask, masks=range(4))
    torch.testing.assert_close(again.mask_logits, decoded.mask_logits)
    torch.testing.assert_close(again.prompt[0, :8], decoded.prompt[0, :8])


def test_gradients_flow_through_a_frozen_mixer(ours: MaskDecoder) -> None:
    ours.requires_grad_(False)
    prompts = torch.randn(2, 3, DIM, requires_grad=True)
    decoded = ours(torch.randn(1, DIM, GRID, GRID), torch.tensor([0, 0]), prompts, None, masks=[0])
    decoded.mask_logits.mean().backward()
    assert prompts.grad is not None and (prompts.grad.flatten(1).norm(dim=1) > 0).all()


def test_heads_must_divide_the_attention() -> None:
    with pytest.raises(ValueError, match="5 heads do not divide"):
        MaskDecoder(dim=DIM, grid=GRID, depth=1, num_heads=5, mlp_dim=8, num_mask_tokens=4)
