"""Explanations against transformers' `generate`: one language model, greedy, the same tokens."""

import torch

from model.bench.peers.pair import Differ, Job, Pair
from model.emosem.captioner import Captioner

TEXTS, PREFIX, WORDS, PATCHES = 8, 14, 25, 196
"""At once; tokens of f (Sec. 3.3); tokens of an explanation (Sec. 4.1); CLIP's patch tokens."""
TINY = {"n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 200, "eos_token_id": 199}
GREEDY = 1e-9
"""Of nucleus sampling: the nucleus holds the most likely token and no other."""


def prepare(job: Job) -> Pair:
    """distilgpt2's sizes with cross-attention, random."""
    torch.manual_seed(0)
    captioner = Captioner(TINY if job.tiny else {"n_layer": 6}).to(job.device).eval()
    width = captioner.gpt2.config.n_embd
    prefix = torch.randn(TEXTS, PREFIX, width, device=job.device)
    visual = torch.randn(TEXTS, PATCHES, width, device=job.device)
    eos = captioner.eos

    def ours() -> list[list[int]]:
        return captioner.generate(
            prefix, None, visual, range(TEXTS), max_new_tokens=WORDS, top_p=GREEDY, temperature=1.0
        )

    @torch.no_grad()
    def theirs() -> list[list[int]]:
        rows: list[list[int]] = captioner.gpt2.generate(
            inputs_embeds=prefix,
            attention_mask=torch.ones(prefix.shape[:2], dtype=torch.long, device=job.device),
            encoder_hidden_states=visual,
            max_new_tokens=WORDS,
            do_sample=False,
            use_cache=True,
            eos_token_id=eos,
            pad_token_id=eos,
        ).tolist()
        return [row[: row.index(eos) + 1] if eos in row else row for row in rows]

    def check() -> str:
        found, wanted = ours(), theirs()
        if found != wanted:
            wrong = sum(a != b for a, b in zip(found, wanted, strict=True))
            raise Differ(f"{wrong} of {len(wanted)} texts have other tokens")
        return f"the same {sum(map(len, found))} tokens"

    work = f"{TEXTS} texts at once of up to {WORDS} tokens behind a prefix of {PREFIX}"
    return Pair(work, "texts", TEXTS, ours, theirs, check)
