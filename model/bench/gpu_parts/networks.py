"""The network, its shards and params, at the paper's sizes or tiny, for parts that train or answer."""

from pathlib import Path
from typing import Any

import torch

from model.bench import true_size_shards
from model.bench.gpu_parts.worker import Job
from model.emosem.config import EmoSEMConfig
from model.emosem.network import EmoSEM, build_emosem
from model.train.params import TrainParams
from pipeline.backbones.language_model import load_tokenizer
from pipeline.reader.index import Index

TINY_WORDS: dict[str, Any] = {
    "n_layer": 1,
    "n_head": 2,
    "vocab_size": 4096,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
TINY = EmoSEMConfig(
    dim=32,
    grid=8,
    image_size=128,
    mixer_heads=4,
    mixer_mlp_dim=32,
    visual_dim=32,
    language_model={**TINY_WORDS, "n_embd": 32},
    prompts=tuple((1, 2, *(3 + emotion,) * (1 + emotion % 2)) for emotion in range(8)),
)
"""Small, with a vocabulary that holds the built-in tokenizer's, and prompts of two lengths as GPT-2's are."""
ARTWORKS, TINY_ARTWORKS = 64, 4
"""Of the shards: 154 MB, which a loader reads from the page cache."""


def config_of(job: Job) -> EmoSEMConfig:
    """The paper's sizes, or tiny ones."""
    return TINY if job.tiny else EmoSEMConfig()


def new_model(job: Job, config: EmoSEMConfig | None = None, seed: int = 0) -> EmoSEM:
    """A network with random weights, on the processor, with a tokenizer."""
    torch.manual_seed(seed)
    model = build_emosem(config or config_of(job))
    model.tokenizer = load_tokenizer(job.tokenizer)
    return model


def new_shards(job: Job, name: str, config: EmoSEMConfig | None = None, int8: bool = False) -> Index:
    """Shards that fit the network, in a folder of their own."""
    folder: Path = job.own / name
    count = job.size(ARTWORKS, TINY_ARTWORKS)
    config = config or config_of(job)
    return true_size_shards.write_shards(folder, count, side=config.image_size, config=config, int8=int8)


def train_params(batch: int, **changed: Any) -> TrainParams:
    """Single-Mask in bf16."""
    return TrainParams(batch_size=batch, precision="bf16", **{"workers": 4, **changed})


def backend(job: Job) -> str | None:
    """Of `torch.compile`: None makes kernels and CUDA graphs; a processor may have no compiler for it."""
    return None if job.device.startswith("cuda") else "eager"
