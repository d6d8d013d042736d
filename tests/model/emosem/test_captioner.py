"""The language model against transformers' plain calls, and sampling against its definition."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.emosem.captioner import NEAR, Captioner, nucleus_sample

WIDTH, VOCABULARY, EOS = 32, 50, 0
CONFIG = {
    "n_embd": WIDTH,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 40,
    "vocab_size": VOCABULARY,
    "eos_token_id": EOS,
    "bos_token_id": EOS,
}


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    torch.manual_seed(0)
    model = Captioner(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from uniform predictions
    return model


@pytest.fixture(scope="module")
def world() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "prefix": torch.randn(4, 5, WIDTH, generator=generator),
        "visual": torch.randn(4, 7, WIDTH, generator=generator),
        "tokens": torch.randint(1, VOCABULARY, (4, 6), generator=generator),
    }


@torch.no_grad()
def test_logits_equal_a_plain_call(captioner: Captioner, world: dict[str, torch.Tensor]) -> None:
    logits = captioner(world["prefix"], None, world["tokens"], world["visual"])
    words = captioner.gpt2.transformer.wte(world["tokens"])
    for row in range(4):
        plain = captioner.gpt2(
            inputs_embeds=torch.cat([world["prefix"][row : row + 1], words[row : row + 1]], dim=1),
            encoder_hidden_states=world["visual"][row : row + 1],
        ).logits[0]
        torch.testing.assert_close(logits[row], plain[4:-1], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_patch_tokens_may_be_a_slice(captioner: Captioner, world: dict[str, torch.Tensor]) -> None:
    prefix, tokens, visual = world["prefix"], world["tokens"], world["visual"]
    slice_ = torch.cat([visual[:, :1], visual], dim=1)[:, 1:]
    assert not slice_.is_contiguous()
    expected = captioner(prefix, None, tokens, visual)
    assert torch.equal(captioner(prefix, None, tokens, slice_), expected)
    how = {"seeds": range(4), "max_new_tokens": 6, "top_p": 0.9, "temperature": 1.0}
    assert captioner.generate(prefix, None, slice_, **how) == captioner.generate(prefix, None, visual, **how)


@torch.no_grad()
def test_the_image_matters(captioner: Captioner, world: dict[str, torch.Tensor]) -> None:
    logits = captioner(world["prefix"], None, world["tokens"], world["visual"])
    blind = captioner(world["prefix"], None, world["tokens"], torch.zeros_like(world["visual"]))
    assert (logits - blind).abs().max() > 0.1


@torch.no_grad()
def test_padding_inside_the_prefix_changes_nothing(
    captioner: Captioner, world: dict[str, torch.Tensor]
) -> None:
    """Row 1 has 4 prefix tokens, padded before the last: as [p'', padding, m''] of a shorter prompt."""
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[1, 3] = False
    prefix = world["prefix"].clone()
    logits = captioner(prefix, mask, world["tokens"], world["visual"])
    alone = captioner(prefix[1:2, [0, 1, 2, 4]], None, world["tokens"][1:2], world["visual"][1:2])
    torch.testing.assert_close(logits[1:2], alone, rtol=1e-4, atol=1e-4)
    others = captioner(prefix, None, world["tokens"], world["visual"])
    for row in (0, 2, 3):
        torch.testing.assert_close(logits[row], others[row], rtol=1e-4, atol=1e-4)
    prefix[1, 3] = 1e3
    torch.testing.assert_close(captioner(prefix, mask, world["tokens"], world["visual"]), logits)


@torch.no_grad()
def test_without_a_prefix_the_text_starts_a_document(
    captioner: Captioner, world: dict[str, torch.Tensor]
) -> None:
    logits = captioner(world["prefix"][:, :0], None, world["tokens"], world["visual"])
    ids = torch.cat([torch.full((4, 1), EOS), world["tokens"][:, :-1]], dim=1)
    plain = captioner.gpt2(input_ids=ids, encoder_hidden_states=world["visual"]).logits
    torch.testing.assert_close(logits, plain, rtol=1e-4, atol=1e-4)


def generate(
    captioner: Captioner, world: dict[str, torch.Tensor], rows: list[int], **changes: object
) -> list[list[int]]:
    keywords = {"max_new_tokens": 12, "top_p": 0.9, "temperature": 1.0} | changes
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[2, 3] = False
    seeds = [100 + row for row in rows]
    return captioner.generate(world["prefix"][rows], mask[rows], world["visual"][rows], seeds, **keywords)  # type: ignore[arg-type]


def test_a_text_does_not_depend_on_its_batch(captioner: Captioner, world: dict[str, torch.Tensor]) -> None:
    together = generate(captioner, world, [0, 1, 2, 3])
    assert together == generate(captioner, world, [0, 1, 2, 3])
    assert together == [generate(captioner, world, [row])[0] for row in range(4)]
    assert generate(captioner, world, [3, 1, 0, 2]) == [together[row] for row in (3, 1, 0, 2)]
    assert all(text.index(EOS) == len(text) - 1 for text in together if EOS in text)


def test_a_narrow_nucleus_is_greedy_search(captioner: Captioner, world: dict[str, torch.Tensor]) -> None:
    """Against transformers' own generation."""
    ours = generate(captioner, world, [0, 1, 3], top_p=1e-6)
    theirs = captioner.gpt2.generate(
        inputs_embeds=world["prefix"][[0, 1, 3]],
        attention_mask=torch.ones(3, 5, dtype=torch.long),
        encoder_hidden_states=world["visual"][[0, 1, 3]],
        do_sample=False,
        max_new_tokens=12,
        pad_token_id=EOS,
    ).tolist()
    assert ours == [text[: text.index(EOS) + 1] if EOS in text else text for text in theirs]


@torch.no_grad()
def test_the_activation_is_gpt2s(captioner: Captioner) -> None:
    x = torch.linspace(-6, 6, 241)
    expected = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    torch.testing.assert_close(captioner.gpt2.transformer.h[0].mlp.act(x), expected)


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 6.0])  # nuclei of nearly all tokens, of fewer, of a few
@pytest.mark.parametrize("step", [0.0, 0.25])  # and many ties
def test_a_nucleus_in_a_large_vocabulary(scale: float, step: float) -> None:
    """Against one token after the other, in the order of their ranks."""
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(40, 4 * NEAR)) * scale
    if step:
        logits = np.round(logits / step) * step
    uniforms = rng.random(40)
    drawn = nucleus_sample(torch.from_numpy(logits), torch.from_numpy(uniforms), 0.9, 1.0).tolist()
    for row, uniform, token in zip(logits, uniforms, drawn, strict=True):
        probs = torch.softmax(torch.from_numpy(row), 0).numpy()
        ranked = np.lexsort((np.arange(len(row)), -probs))
        size = int(np.searchsorted(np.cumsum(probs[ranked]), 0.9)) + 1
        shares = np.cumsum(probs[ranked[:size]])
        assert token == ranked[np.searchsorted(shares, uniform * shares[-1], side="right")]


@given(st.integers(0, 10_000), st.floats(0.05, 1.0), st.floats(0.3, 3.0))
def test_the_nucleus_by_its_definition(seed: int, top_p: float, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(1, 9)) * 3
    probs = np.exp(logits[0] / temperature) / np.exp(logits[0] / temperature).sum()
    nucleus: list[int] = []
    for token in sorted(range(9), key=lambda t: -probs[t]):
        if probs[nucleus].sum() >= top_p - 1e-9 and nucleus:
            break
        nucleus.append(token)
    uniforms = torch.linspace(0, 1 - 1e-9, 4001, dtype=torch.float64)
    drawn = nucleus_sample(torch.from_numpy(logits).expand(4001, -1), uniforms, top_p, temperature).numpy()
    shares = np.bincount(drawn, minlength=9) / 4001
    expected = np.zeros(9)
    expected[nucleus] = probs[nucleus] / probs[nucleus].sum()
    np.testing.assert_allclose(shares, expected, atol=2e-3)
