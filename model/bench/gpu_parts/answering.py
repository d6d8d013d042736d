"""From a picture to its mask and explanation, encoders included, and the language model alone."""

import dataclasses
import functools
from typing import Any

import numpy as np
import torch

from model.bench import true_size_weights
from model.bench.gpu_parts import networks
from model.bench.gpu_parts.timing import bytes_of, peak_memory, rate, roofline, seconds_each
from model.bench.gpu_parts.worker import Job, Rows
from model.bench.score import blobs
from model.emosem.config import EmoSEMConfig
from model.emosem.network import EmoSEM
from model.predict.params import PredictParams
from model.predict.predictor import Predictor
from pipeline.backbones.params import BackbonesParams
from pipeline.common.emotions import EMOTIONS
from pipeline.features.encoders import Encoders
from pipeline.features.params import FeaturesParams

BATCHES = (16, 64)
SIZE = (1014, 1280)
PREFIX = 10
"""Tokens of a prefix: nine of the prompt and the mask's."""
WORDS = 25


def answering(job: Job, rows: Rows) -> None:
    """Rows ``artworks.one`` (a decoded picture in, map and text out), ``artworks.batch_N`` (resized ones)."""
    backbones = BackbonesParams(device=job.device)
    config = TINY_BACKBONES if job.tiny else None
    if not job.tiny:
        folder = job.own / "weights"
        backbones = true_size_weights.write_clip(folder, true_size_weights.write_sam(folder, backbones))
        clip = dataclasses.replace(backbones.clip, precision="fp16")
        backbones = dataclasses.replace(backbones, clip=clip)
    if not job.device.startswith("cuda"):
        backbones = dataclasses.replace(
            backbones, clip=dataclasses.replace(backbones.clip, precision="float32")
        )
    encoders = Encoders(FeaturesParams(precision="bf16", batch=BATCHES[0]), backbones)
    model = networks.new_model(job, config).to(job.device).eval()
    predictor = Predictor(model, encoders, PredictParams(batch=BATCHES[0], device=job.device))
    rows.measure("artworks.one", functools.partial(_one, job, predictor))
    for batch in BATCHES:
        rows.measure(f"artworks.batch_{batch}", functools.partial(_batched, job, predictor, batch))


def generation(job: Job, rows: Rows) -> None:
    """The language model alone: rows ``texts_1``, ``texts_16``, ``texts_64`` of 25 words each."""
    model = networks.new_model(job).to(job.device).eval()
    for batch in (1, *BATCHES):
        rows.measure(f"texts_{batch}", functools.partial(_generate, job, model, batch))


TINY_BACKBONES = dataclasses.replace(
    networks.TINY,
    dim=128,
    grid=16,
    image_size=256,
    visual_dim=128,
    language_model={**networks.TINY_WORDS, "n_embd": 128},
)
"""A network for the built-in small encoders."""


def _pictures(job: Job, count: int) -> list[np.ndarray]:
    """uint8 RGB pictures of a painting's usual size, each different."""
    height, width = (60, 90) if job.tiny else SIZE
    rng = np.random.default_rng(0)
    return [
        (255 * np.stack([blobs(rng, height, width) for _ in range(3)], axis=2)).astype(np.uint8)
        for _ in range(count)
    ]


def _one(job: Job, predictor: Predictor) -> dict[str, Any]:
    """One picture after another, resized here, on one thread: what somebody sees who waits for an answer."""
    (image,) = _pictures(job, 1)
    with peak_memory(torch.device(job.device)) as memory:
        seconds = seconds_each(lambda: predictor.predict([image], ["awe"]), job)
    return {**rate(seconds, 1), **memory}


def _batched(job: Job, predictor: Predictor, batch: int) -> dict[str, Any]:
    """Pictures that threads have resized, as `predict` of a folder does; an emotion each."""
    count = job.size(batch, batch // 8)
    pictures = [predictor.prepare(image) for image in _pictures(job, count)]
    emotions = [[EMOTIONS[number % 8]] for number in range(count)]
    with peak_memory(torch.device(job.device)) as memory:
        seconds = seconds_each(lambda: predictor.predict_prepared(pictures, emotions), job)
    return {"batch": count, **rate(seconds, count), **memory}


def _generate(job: Job, model: EmoSEM, batch: int) -> dict[str, Any]:
    """Texts of random prefixes. Bytes: the weights, once for every word."""
    config: EmoSEMConfig = model.config
    words = job.size(WORDS, 3)
    width = int(model.captioner.gpt2.config.n_embd)
    prefix = torch.randn(batch, PREFIX, width, device=job.device) * 0.1
    visual = torch.randn(batch, 196, config.visual_dim, device=job.device)

    def call() -> list[list[int]]:
        return model.captioner.generate(
            prefix, None, visual, range(batch), max_new_tokens=words, top_p=0.9, temperature=1.0
        )

    with peak_memory(torch.device(job.device)) as memory:
        seconds = seconds_each(call, job)
    length = max(map(len, call()))
    # every weight is a multiply-add for each token, of the prefix once and of every word
    operations = 2 * sum(p.numel() for p in model.captioner.parameters()) * batch * (PREFIX + length)
    against = roofline(job, seconds, operations, length * bytes_of(model.captioner), "fp32")
    return {"texts": batch, "words": length, **rate(seconds, batch), **against, **memory}
