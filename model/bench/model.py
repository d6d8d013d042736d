"""The network's parts by parameters and multiply-adds, and how fast a whole one answers on this machine."""

import dataclasses
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from model.bench import true_size_shards
from model.bench.flops import Part
from model.emosem.network import EmoSEM
from model.train.params import TrainParams
from model.train.precision import attention, autocast
from pipeline.backbones.params import BackbonesParams
from pipeline.common.machine import device_name
from pipeline.common.params import ParamsFile, load_params
from pipeline.common.progress import waiting

BATCH = 16
"""Artworks answered at once on a GPU; on a processor one more than one, as each takes long."""


def run(params_file: ParamsFile) -> dict[str, Any]:
    """Every part of the models of Tab. 2 and 3, and inference at EmoSEM's true size.

    Args:
        params_file: as every command takes it; says the device and the precision.

    Returns:
        ``models``: name -> ``parts`` and ``total``, each with parameters, ``trainable``, ``frozen`` and
        ``multiply_adds_G``; ``inference``: ``artworks_per_second`` from picture to mask and explanation, one
        emotion each, batched and one at a time, encoders included. Weights are random.
    """
    backbones = load_params(params_file, "backbones", BackbonesParams)
    precision = load_params(params_file, "train", TrainParams).precision
    from model.bench.flops import (
        published,  # needs open_clip, which a borrowed machine may lack for `inference`
    )

    with waiting("bench model", "counting the parts of the published models"):
        parts = measure_parts(published())
    with waiting("bench model", "timing inference at the paper's sizes"):
        return {"models": parts, "inference": inference(backbones.torch_device(), precision)}


def measure_parts(inventories: dict[str, dict[str, Part]]) -> dict[str, Any]:
    """Inventories of models with their totals."""

    def row(part: Part) -> dict[str, Any]:
        return {
            "parameters": part.parameters,
            "trainable": part.trainable,
            "frozen": part.parameters - part.trainable,
            "multiply_adds_G": round(part.multiply_adds / 1e9, 3),
        }

    models = {}
    for name, inventory in inventories.items():
        sums = (sum(getattr(p, f.name) for p in inventory.values()) for f in dataclasses.fields(Part))
        models[name] = {"total": row(Part(*sums)), "parts": {n: row(p) for n, p in inventory.items()}}
    return models


def inference(device: str, precision: str) -> dict[str, Any]:
    """Artworks a second through encoders, mask decoder and language model."""
    place = torch.device(device)
    encoders, model = true_size_shards.Encoders().to(place), true_size_shards.random_emosem().to(place).eval()
    arithmetic = autocast if precision == "bf16" else _plain
    gpu = place.type == "cuda"
    found: dict[str, Any] = {"device": device_name(device), "precision": precision}
    turns = 20 if gpu else 1
    for name, batch in (("one", 1), ("batched", BATCH if gpu else 2)):
        with arithmetic(place):
            if gpu:
                _answer(encoders, model, batch, place)  # warms up
                torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(turns):
                _answer(encoders, model, batch, place)
            if gpu:
                torch.cuda.synchronize()
        rate = turns * batch / (time.perf_counter() - start)
        found[name] = {"batch": batch, "artworks_per_second": round(rate, 3)}
    return found


def _plain(_: torch.device) -> AbstractContextManager[Any]:
    return nullcontext()


@torch.no_grad()
def _answer(encoders: true_size_shards.Encoders, model: EmoSEM, count: int, device: torch.device) -> None:
    sam, clip = encoders(count, device)
    rows = torch.arange(count, device=device)
    with attention(device):
        segmented = model.segment(sam, rows, rows % 8)
        segmented.mask_logits.sigmoid().cpu()
        model.captioner.generate(
            segmented.prefix,
            segmented.prefix_mask,
            clip if segmented.region is None else segmented.region,
            range(count),
            max_new_tokens=model.config.max_tokens,
            top_p=0.9,
            temperature=1.0,
        )
