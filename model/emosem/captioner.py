"""The language model (Sec. 3.3): GPT-2 with a cross-attention to CLIP's patch tokens in every block.

The prefix stands before the words as input embeddings, and positions run over both. transformers' GPT-2 does
the work; here are the prefix, the texts and nucleus sampling. Who may see whom is spelled out as a mask of
four dimensions: from a shorter one transformers would ask the device, at every call, whether it matters.

Shapes: T texts; P prefix tokens; L words, the end-of-text token included; K patch tokens; C channels.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

LOOK_EVERY = 8
"""Words generated on a GPU between looks at whether every text has ended."""
NEAR = 128
"""Most likely tokens among which a nucleus is first looked for on a processor, where sorting a vocabulary
took a third of a small model's time."""
CACHE = "cache" if "cache" in inspect.signature(GPT2LMHeadModel.forward).parameters else "past_key_values"
"""transformers' word for the keys and values of the words so far; it changed among the versions allowed."""


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int
) -> list[list[int]]:
    """Token ids of explanations, each cut to `max_tokens` with the end-of-text token last.

    A text gets a leading space: it follows a prefix, so its first word is a word like any other.
    """
    # past the wrapper, which takes ten times as long over a batch, and is not for several threads
    backend = tokenizer.backend_tokenizer
    encoded = backend.encode_batch_fast([" " + text.strip() for text in texts], add_special_tokens=False)
    return [[*text.ids[: max_tokens - 1], int(tokenizer.eos_token_id)] for text in encoded]


def decode_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The explanation in generated ids: what stands before the end-of-text token."""
    words = list(ids)
    if tokenizer.eos_token_id in words:
        words = words[: words.index(tokenizer.eos_token_id)]
    return str(tokenizer.decode(words)).strip()


def nucleus_sample(logits_TV: Tensor, uniform_T: Tensor, top_p: float, temperature: float) -> Tensor:
    """One token id per row from the nucleus: the fewest most likely tokens with probability >= `top_p`.

    Args:
        logits_TV: scores; ties rank by id.
        uniform_T: float64 numbers in [0, 1) that decide, so that a row never depends on its neighbours.
        top_p: nucleus sampling's probability (paper: 0.9).
        temperature: divides the logits.

    Returns:
        int64 (T,).
    """
    probs_TV = torch.softmax(logits_TV.double() / temperature, dim=-1)
    if probs_TV.device.type != "cpu" or probs_TV.shape[1] <= NEAR:  # a GPU would wait for the look at `whole`
        return _pick(*probs_TV.sort(descending=True, stable=True), uniform_T, top_p)
    ids = probs_TV.topk(NEAR, sorted=False).indices.sort().values  # by id, so that ties stay in this order
    probs, order = probs_TV.gather(1, ids).sort(descending=True, stable=True)
    inside = probs.cumsum(-1) - probs < top_p
    whole = torch.where(inside, probs, 1.0).amin(-1) > probs[:, -1]  # all others rank behind the nucleus
    tokens = _pick(probs, ids.gather(1, order), uniform_T, top_p)
    if not whole.all():
        rest = ~whole
        tokens[rest] = _pick(*probs_TV[rest].sort(descending=True, stable=True), uniform_T[rest], top_p)
    return tokens


def _pick(probs_TK: Tensor, ids_TK: Tensor, uniform_T: Tensor, top_p: float) -> Tensor:
    """`nucleus_sample` of probabilities in falling order; `ids_TK` names their tokens."""
    before = probs_TK.cumsum(-1) - probs_TK
    mass = torch.where(before < top_p, probs_TK, 0.0).cumsum(-1)
    picks = torch.searchsorted(mass, uniform_T[:, None] * mass[:, -1:], right=True)
    last = (before < top_p).sum(-1, keepdim=True) - 1
    return ids_TK.gather(1, picks.minimum(last))[:, 0]


class Captioner(nn.Module):
    """GPT-2 that continues a prefix while it looks at an image."""

    def __init__(self, gpt2_config: dict[str, Any], cross_attention: bool = True) -> None:
        """Keywords of transformers' `GPT2Config`; without `cross_attention` it sees no image.

        Others are left out: transformers would set them, and some of its settings name code to be fetched.
        """
        super().__init__()
        known = {name: value for name, value in gpt2_config.items() if name in GPT2Config().to_dict()}
        config = GPT2Config(**known | {"add_cross_attention": cross_attention})
        config._attn_implementation = "sdpa"
        if config.activation_function == "gelu_new":  # the same formula, in one kernel instead of eight
            config.activation_function = "gelu_pytorch_tanh"
        self.cross_attention = cross_attention
        self.gpt2 = GPT2LMHeadModel(config)
        self.eos = int(gpt2_config.get("eos_token_id", 50256))

    def embed(self, ids: Tensor) -> Tensor:
        """Word embeddings (..., C) of token ids, without positions."""
        words: Tensor = self.gpt2.transformer.wte(ids)
        return words

    def forward(
        self, prefix_TPC: Tensor, prefix_mask_TP: Tensor | None, tokens_TL: Tensor, visual_TKC: Tensor
    ) -> Tensor:
        """Teacher-forced logits (T, L, V): ``[:, i]`` predicts ``tokens_TL[:, i]`` from what stands before.

        Args:
            prefix_TPC: f of Sec. 3.3; with P = 0 the end-of-text token stands in, GPT-2's start of a text.
            prefix_mask_TP: bool, False for padding inside the prefix; None when there is none.
            tokens_TL: int64 ids, any id behind a text's end.
            visual_TKC: CLIP's patch tokens.
        """
        prefix, mask = self._start(prefix_TPC, prefix_mask_TP)
        mask = nn.functional.pad(mask, (0, tokens_TL.shape[1] - 1), value=True)
        logits: Tensor = self.gpt2(
            inputs_embeds=torch.cat([prefix, self.embed(tokens_TL[:, :-1])], dim=1),
            attention_mask=_causal(mask),
            position_ids=_positions(mask),
            encoder_hidden_states=self._crossed(visual_TKC),
            use_cache=False,
            logits_to_keep=tokens_TL.shape[1],
        ).logits
        return logits

    def _crossed(self, visual_TKC: Tensor) -> Tensor | None:
        """What cross-attention reads: not a slice, such as patch tokens behind CLIP's class token."""
        return visual_TKC.contiguous() if self.cross_attention else None  # transformers views it flat

    @torch.no_grad()
    def generate(
        self,
        prefix_TPC: Tensor,
        prefix_mask_TP: Tensor | None,
        visual_TKC: Tensor,
        seeds: Sequence[int],
        *,
        max_new_tokens: int,
        top_p: float,
        temperature: float,
        look_every: int | None = None,
    ) -> list[list[int]]:
        """Sample a continuation of each prefix, cached keys and values, all rows at once.

        Args:
            seeds: one per text. A text depends on its own seed and inputs, not on the batch it came in.
            max_new_tokens: budget, the end-of-text token included.
            top_p, temperature: see `nucleus_sample`.
            look_every: words between looks at whether every text has ended. On a GPU each look waits for all
                that is queued; None looks seldom there and always on a processor. Never changes a text.

        Returns:
            T lists of token ids, each up to and with its end-of-text token, or cut at the budget.
        """
        prefix, mask = self._start(prefix_TPC, prefix_mask_TP)
        uniforms = np.stack([np.random.default_rng(seed).random(max_new_tokens) for seed in seeds])
        uniform_TL = torch.from_numpy(uniforms).to(prefix.device)
        inputs: dict[str, Any] = {"inputs_embeds": prefix}
        seen, positions = _causal(mask), _positions(mask)
        tokens: list[Tensor] = []
        done = torch.zeros(len(prefix), dtype=torch.bool, device=prefix.device)
        look_every = look_every or (1 if prefix.device.type == "cpu" else LOOK_EVERY)
        for step in range(max_new_tokens):
            output = self.gpt2(
                **inputs,
                attention_mask=seen,
                position_ids=positions,
                encoder_hidden_states=self._crossed(visual_TKC),
                use_cache=True,
                logits_to_keep=1,
            )
            token = nucleus_sample(output.logits[:, -1], uniform_TL[:, step], top_p, temperature)
            token = torch.where(done, self.eos, token)
            tokens.append(token)
            done = done | (token == self.eos)
            if (step + 1) % look_every == 0 and done.all():
                break
            mask = nn.functional.pad(mask, (0, 1), value=True)
            inputs = {"input_ids": token[:, None], CACHE: output[CACHE]}
            seen, positions = mask[:, None, None, :], _positions(mask)[:, -1:]
        rows: list[list[int]] = torch.stack(tokens, dim=1).tolist()
        return [row[: row.index(self.eos) + 1] if self.eos in row else row for row in rows]

    def _start(self, prefix_TPC: Tensor, mask_TP: Tensor | None) -> tuple[Tensor, Tensor]:
        if not prefix_TPC.shape[1]:
            start = torch.full((len(prefix_TPC), 1), self.eos, device=prefix_TPC.device)
            prefix_TPC, mask_TP = self.embed(start), None
        if mask_TP is None:
            mask_TP = torch.ones(prefix_TPC.shape[:2], dtype=torch.bool, device=prefix_TPC.device)
        return prefix_TPC, mask_TP


def _causal(mask_TL: Tensor) -> Tensor:
    """bool (T, 1, L, L): a token sees itself and what stands before it, but no padding.

    Padding sees what the token before it sees, and so becomes its twin (see `model.emosem._pad`).
    """
    length = mask_TL.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=mask_TL.device).tril()
    return before & mask_TL[:, None, None, :]


def _positions(mask_TL: Tensor) -> Tensor:
    """Positions from 0 that skip padding; padding itself gets any valid one."""
    return (mask_TL.long().cumsum(-1) - 1).clamp(min=0)
