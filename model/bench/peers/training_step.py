"""A training step on cached features against the same step with the encoders in the loop."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from model.bench import true_size_shards
from model.bench.peers.pair import Job, Pair, close
from model.bench.peers.sam_encoding import SMALL
from model.data.batch import Batch
from model.emosem.config import EmoSEMConfig
from model.emosem.network import EmoSEM, build_emosem
from model.train.objective import new_objective
from model.train.params import TrainParams
from model.train.schedule import new_optimisation
from model.train.train import new_samples
from pipeline.backbones.language_model import load_tokenizer
from pipeline.backbones.sam import build_sam
from pipeline.reader.index import Index

HALF = 1e-3
"""Of cached features, which are float16."""
TOLERANCE = 2e-3
"""Of the losses that follow."""


class Step:
    """One sample, read, encoded or not, and learned from; both sides train the same model."""

    def __init__(self, job: Job, model: EmoSEM, encoders: true_size_shards.Encoders) -> None:
        self.device = torch.device(job.device)
        self.encoders = encoders.to(self.device)
        generator = torch.Generator().manual_seed(0)
        sides = [int(str(side)) for side in (encoders.sam.img_size, encoders.clip.config.image_size)]
        self.pixels = [torch.randn(1, 3, s, s, generator=generator).to(self.device) for s in sides]
        params = TrainParams(batch_size=1)
        self.samples = new_samples(self._write(job.folder), "train", model, params)
        self.objective = new_objective(model.to(self.device).train(), params)
        self.optimizer, _ = new_optimisation(model, params, 1000)

    def _write(self, folder: Path) -> Index:
        sam, clip = (grid[0].cpu().numpy() for grid in self.encode())
        grids = {"sam.npy": sam.astype(np.float16), "clip.npy": clip.astype(np.float16)}
        return true_size_shards.write_shards(folder, 1, grids=grids, side=self.encoders.sam.img_size)

    @torch.no_grad()
    def encode(self) -> tuple[Tensor, Tensor]:
        """Grids of the one picture, already resized and normalised: (1, C, h, w) and (1, K, C)."""
        sam, clip = self.pixels
        return self.encoders.sam(sam), self.encoders.clip(clip).last_hidden_state[:, 1:]

    def batch(self, cached: bool) -> Batch:
        """The sample, its features read or encoded."""
        self.samples.features = cached
        batch = self.samples[[0]].moved(self.device)
        if not cached:
            sam, clip = self.encode()
            batch = dataclasses.replace(batch, sam=sam, clip=clip)
        return batch.widened()

    def losses(self, cached: bool) -> list[float]:
        """With the same dropout each time."""
        torch.manual_seed(0)
        with torch.no_grad():
            return [float(loss) for loss in self.objective(self.batch(cached)).values()]

    def take(self, cached: bool) -> float:
        """The whole step."""
        loss = sum(self.objective(self.batch(cached)).values(), torch.zeros((), device=self.device))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())  # waits for the GPU

    def check(self) -> str:
        """Features, and losses before any step; then one step, which allocates the optimiser's state."""
        cached, encoded = self.batch(cached=True), self.batch(cached=False)
        grids = [
            close(getattr(cached, name).cpu(), getattr(encoded, name).cpu(), HALF, f"{name} grids")
            for name in ("sam", "clip")
        ]
        losses = close(self.losses(cached=True), self.losses(cached=False), TOLERANCE, "losses")
        self.take(cached=True)
        return ", ".join([*grids, losses])


def tiny_model() -> tuple[EmoSEM, true_size_shards.Encoders]:
    """A toy of the same classes."""
    config = EmoSEMConfig(
        dim=SMALL.out_chans,
        grid=SMALL.img_size // SMALL.patch_size,
        image_size=SMALL.img_size,
        mixer_heads=2,
        mixer_mlp_dim=32,
        visual_dim=32,
        language_model={"n_layer": 1, "n_embd": 32, "n_head": 2, "vocab_size": 2000, "n_positions": 64},
        prompts=tuple((number,) for number in range(1, 9)),
    )
    clip = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=32
    )
    encoders = true_size_shards.Encoders(build_sam(SMALL).image_encoder, CLIPVisionModel(clip))
    return build_emosem(config), encoders


def prepare(job: Job) -> Pair:
    """EmoSEM Single-Mask, SAM ViT-B and CLIP ViT-B/16, random; one sample."""
    torch.manual_seed(0)
    if job.tiny:
        model, encoders = tiny_model()
    else:
        model, encoders = true_size_shards.random_emosem(), true_size_shards.Encoders()
    model.tokenizer = load_tokenizer(job.tokenizer)
    step = Step(job, model, encoders)
    work = "one sample of one artwork: read, forward, backward, optimiser" + " (toy)" * job.tiny
    return Pair(work, "steps", 1, lambda: step.take(cached=True), lambda: step.take(cached=False), step.check)
