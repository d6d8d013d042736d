"""The built-in language model: a byte-level BPE and a small GPT-2, trained on the gallery's grammar.

The sentences are spoken about motifs that nobody drew, from seeds that no gallery uses; no painting is seen.
A quarter of the texts say their emotion first ("awe: the ..."), so that the words of the emotional prompt
have a meaning before EmoSEM is trained, as they have in a GPT-2 that read the web.
"""

import math
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic
import torch
from pydantic import Field
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from model.emosem.losses import IGNORE, language_loss
from model.train.precision import attention, autocast
from pipeline.common.emotions import EMOTIONS, prompt
from pipeline.common.params import STRICT
from pipeline.gallery.words.grammar import disagreement, utterance
from pipeline.gallery.world import EVOKES, KINDS, Look, Motif

END = "<|endoftext|>"
Positive = Annotated[int, Field(gt=0)]


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class LanguageModelPretrainParams:
    """The recipe."""

    seed: Annotated[int, Field(ge=1_000_000)] = 3_000_000
    """Of the sentences and the weights; galleries have smaller ones."""
    sentences: Positive = 60_000
    """Texts to learn from, before duplicates are dropped."""
    held_out: Positive = 2_000
    """Texts to measure perplexity on, none of them learnt from."""
    vocabulary: Annotated[int, Field(ge=300, le=2048)] = 1536
    """Most tokens of the BPE; words of the emotional prompt get one each."""
    layers: Positive = 4
    width: Positive = 128
    """Must be the width of the built-in CLIP's patch tokens: GPT-2 attends to them."""
    heads: Positive = 4
    positions: Positive = 64
    """Longest prefix and text together, tokens."""
    steps: Positive = 800
    batch_size: Positive = 96
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """AdamW's highest, after 5 % of the steps; then half a cosine to 0."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01


def speak(rng: np.random.Generator) -> tuple[str, str]:
    """(emotion, sentence) about a random motif; one in eight speaks of the whole picture instead."""
    kinds = [name for name, emotions in EVOKES.items() if emotions]
    kind = KINDS[kinds[int(rng.integers(len(kinds)))]]
    emotion = kind.emotions[int(rng.integers(len(kind.emotions)))]
    if rng.random() < 1 / 8:
        return emotion, disagreement(emotion, rng)
    look = Look(
        colour=kind.colours[int(rng.integers(len(kind.colours)))],
        state=kind.states[int(rng.integers(len(kind.states)))],
        size=("small", "large", "")[int(rng.integers(3))],
    )
    nowhere = np.zeros((1, 1), dtype=np.bool_)
    motif = Motif(kind.name, kind.emotions, kind.phrase(look), nowhere, (0.0, 0.0, 0.0, 0.0), look)
    return emotion, utterance(motif, emotion, rng)


def compose(seed: int, count: int) -> list[str]:
    """Texts, each with the leading space that a text after a prefix has; a quarter named by its emotion."""
    rng = np.random.default_rng(seed)
    texts = []
    for number in range(count):
        emotion, sentence = speak(rng)
        texts.append(f" {emotion}: {sentence}" if number % 4 == 0 else f" {sentence}")
    return texts


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """GPT-2's kind of tokenizer. Emotions and the prompt's words recur often enough to get a token each."""
    bpe = ByteLevelBPETokenizer()
    prompts = [prompt(emotion) for emotion in EMOTIONS] * (len(texts) // 100 + 1)
    bpe.train_from_iterator(
        [*texts, *prompts], vocab_size=vocabulary, special_tokens=[END], show_progress=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token=END, eos_token=END, unk_token=END, pad_token=END
    )


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str], end: int) -> Tensor:
    """(texts, L) int64: end-of-text, the text, end-of-text, then `IGNORE`."""
    rows = [[end, *ids, end] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    length = max(map(len, rows))
    return torch.tensor([[*row, *[IGNORE] * (length - len(row))] for row in rows])


def loss_of(model: torch.nn.Module, rows: Tensor) -> Tensor:
    """Mean cross-entropy of every token after the first."""
    logits = model(input_ids=rows[:, :-1].clamp(min=0), use_cache=False).logits
    return language_loss(logits, rows[:, 1:])


def train_language_model(out: Path, params: LanguageModelPretrainParams, device: str) -> dict[str, Any]:
    """Write ``out/gpt2/`` as transformers saves it; returns held-out perplexity and sizes."""
    start = time.monotonic()
    held_out = sorted(set(compose(params.seed + 1, params.held_out)))
    texts = sorted(set(compose(params.seed, params.sentences)) - set(held_out))
    tokenizer = train_tokenizer(texts, params.vocabulary)
    end: int = tokenizer.get_vocab()[END]
    torch.manual_seed(params.seed)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=params.positions,
        n_embd=params.width,
        n_layer=params.layers,
        n_head=params.heads,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
    )
    model = GPT2LMHeadModel(config)
    torch.nn.Module.to(model, device)  # transformers' own has no types
    rows, test = encode(tokenizer, texts, end).to(device), encode(tokenizer, held_out, end).to(device)
    fit_language_model(model, rows, params)
    model.eval()
    with torch.no_grad():
        words = [int((part[:, 1:] != IGNORE).sum()) for part in test.split(250)]
        losses = [float(loss_of(model, part)) for part in test.split(250)]
    mean = float(np.average(losses, weights=words))
    model.half().save_pretrained(out / "gpt2")
    tokenizer.save_pretrained(out / "gpt2")
    return {
        "perplexity": round(math.exp(mean), 3),
        "vocabulary": len(tokenizer),
        "parameters": sum(p.numel() for p in model.parameters()),
        "texts": len(texts),
        "seconds": round(time.monotonic() - start, 1),
    }


def fit_language_model(model: torch.nn.Module, rows: Tensor, params: LanguageModelPretrainParams) -> None:
    """Train in place on random batches of `rows`."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, params.learning_rate, total_steps=params.steps, pct_start=0.05
    )
    generator = torch.Generator().manual_seed(params.seed)
    model.train()
    for _ in range(params.steps):
        chosen = torch.randint(len(rows), (params.batch_size,), generator=generator)
        with autocast(rows.device), attention(rows.device):
            loss = loss_of(model, rows[chosen.to(rows.device)])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
