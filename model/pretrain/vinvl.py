"""Trains the small VinVL of the built-in gallery: the true-size class with fewer and thinner layers.

From random weights, on scenes of seeds that the gallery never uses. Batch norm learns while training and is
folded into the detector's frozen constants at the end. One recipe: fixed seeds, fixed number of steps.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic
import torch
from pydantic import Field
from torch import Tensor, nn

from model.pretrain.detection_data import (
    ATTRIBUTES,
    FIRST_SCENERY,
    LABELS,
    Example,
    by_orientation,
    draw_examples,
)
from model.pretrain.detection_loss import DetectionBatch, Sampling, losses
from pipeline.common.params import STRICT
from pipeline.regions.vinvl.boxes import iou
from pipeline.regions.vinvl.config import VinvlConfig
from pipeline.regions.vinvl.detector import AttrRCNN
from pipeline.regions.vinvl.resnext import FrozenBatchNorm2d

SMALL = VinvlConfig(
    stem_channels=24,
    groups=8,
    width_per_group=4,
    stage_channels=64,
    blocks=(2, 3, 5, 1),
    anchor_sizes=(24, 48, 96, 160, 256),
    roi_resolution=7,
    num_classes=len(LABELS),
    num_attributes=len(ATTRIBUTES),
    class_embedding=16,
    attribute_hidden=64,
    short_side=192,
    long_side=320,
    rpn_pre_nms=1000,
    rpn_post_nms=100,
    min_detections=30,
    max_detections=40,
    ignore_box_regression=False,
)
"""Sizes of the small detector: 1.7 million parameters, a tenth of a second per picture on one core."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class VinvlPretrainParams:
    """The recipe."""

    seed: Annotated[int, Field(ge=1_000_000)] = 1_000_100
    """Seed of the training scenes and of the weights; the held-out scenes have the next one."""
    scenes: Annotated[int, Field(gt=0)] = 2000
    """Training scenes."""
    held_out: Annotated[int, Field(gt=0)] = 120
    """Scenes on which recall is measured."""
    steps: Annotated[int, Field(gt=0)] = 1200
    """Optimizer steps."""
    batch: Annotated[int, Field(gt=0)] = 8
    """Pictures per step."""
    lr: Annotated[float, Field(gt=0)] = 2e-3
    """Peak of the one-cycle learning rate (AdamW)."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.02
    """AdamW's."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that draw the scenes; 0: one per core."""


def train_vinvl(out: Path, params: VinvlPretrainParams, device: str) -> dict[str, Any]:
    """Train, write OUT/vinvl.safetensors and OUT/vinvl.json, and return what was measured.

    Recall is the share of true boxes of held-out scenes that some region meets with IoU >= 0.5.
    """
    start = time.monotonic()
    examples = draw_examples(params.seed, params.scenes, SMALL, params.workers)
    held_out = draw_examples(params.seed + 1, params.held_out, SMALL, params.workers)
    torch.manual_seed(params.seed)
    model = thaw(AttrRCNN(SMALL, LABELS, ATTRIBUTES)).train()
    model = model.to(device).to(memory_format=torch.channels_last)
    curve = fit_vinvl(model, examples, params, device)
    frozen = freeze(model).eval()
    frozen.save(out / "vinvl")
    metrics = measure(frozen, held_out)
    return metrics | {
        "parameters": sum(p.numel() for p in frozen.parameters()),
        "loss_first": curve[0],
        "loss_last": float(np.mean(curve[-3:])),
        "seconds": round(time.monotonic() - start, 1),
    }


def fit_vinvl(
    model: AttrRCNN, examples: Sequence[Example], params: VinvlPretrainParams, device: str
) -> list[float]:
    """Run the optimizer; returns the loss about twenty times along the way."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=params.lr, weight_decay=params.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, params.lr, total_steps=params.steps, pct_start=0.1
    )
    curve: list[float] = []
    stream = batches(examples, params, device)
    for step in range(params.steps):
        batch = next(stream)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            found = losses(model, batch, Sampling())
        loss = torch.stack(list(found.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % max(1, params.steps // 20) == 0 or step == params.steps - 1:
            curve.append(loss.item())
            parts = ", ".join(f"{name} {value.item():.3f}" for name, value in found.items())
            print(f"vinvl: step {step}/{params.steps}, loss {curve[-1]:.3f} ({parts})", flush=True)
    return curve


def thaw(model: AttrRCNN) -> AttrRCNN:
    """Replace frozen batch norm by one that learns, in place."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, FrozenBatchNorm2d):
                setattr(module, name, nn.BatchNorm2d(len(child.weight)))
            elif isinstance(child, nn.Conv2d) and child.bias is None:
                nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")
    return model


def freeze(model: AttrRCNN) -> AttrRCNN:
    """A copy with batch norm folded to constants; eps joins the variance, for frozen norm has none."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                constant = FrozenBatchNorm2d(child.num_features).to(child.weight)
                state = child.state_dict()
                del state["num_batches_tracked"]
                state["running_var"] = state["running_var"] + child.eps
                constant.load_state_dict(state)
                setattr(module, name, constant)
    return model.requires_grad_(False)


# ---- batches -----------------------------------------------------------------------------------------


def batches(
    examples: Sequence[Example], params: VinvlPretrainParams, device: str
) -> Iterator[DetectionBatch]:
    """Endless augmented batches; all pictures wait on the device, landscape and portrait apart."""
    groups = [to_tensors(group, device) for group in by_orientation(examples)]
    share = np.array([len(group.labels) for group in groups], np.float64)
    rng = np.random.default_rng(params.seed)
    decks: list[list[int]] = [[] for _ in groups]
    while True:
        g = int(rng.choice(len(groups), p=share / share.sum()))
        while len(decks[g]) < params.batch:
            decks[g] += rng.permutation(len(groups[g].labels)).tolist()
        chosen, decks[g] = decks[g][: params.batch], decks[g][params.batch :]
        yield augment(take(groups[g], torch.tensor(chosen, device=device)))


def to_tensors(examples: Sequence[Example], device: str) -> DetectionBatch:
    """All examples padded to their common size; pictures stay RGB uint8 (N, 3, H, W) until `augment`."""
    sizes = np.array([example.image.shape[:2] for example in examples])
    images = np.zeros((len(examples), *sizes.max(axis=0), 3), np.uint8)
    most = max(len(example.labels) for example in examples)
    boxes = np.zeros((len(examples), most, 4), np.float32)
    labels, attributes = np.zeros((2, len(examples), most), np.int64)
    for i, example in enumerate(examples):
        height, width = example.image.shape[:2]
        images[i, :height, :width] = example.image
        count = len(example.labels)
        boxes[i, :count], labels[i, :count] = example.boxes, example.labels
        attributes[i, :count] = example.attributes
    pictures = torch.from_numpy(images).permute(0, 3, 1, 2)
    arrays = (torch.from_numpy(a) for a in (sizes, boxes, labels, attributes))
    return DetectionBatch(pictures.to(device), *(a.to(device) for a in arrays))


def take(group: DetectionBatch, index: Tensor) -> DetectionBatch:
    """Some rows of a batch."""
    return DetectionBatch(*(getattr(group, field.name)[index] for field in dataclasses.fields(group)))


def augment(batch: DetectionBatch) -> DetectionBatch:
    """Mirror half of the pictures and vary their light, then normalise as the detector does."""
    count, _, height, width = batch.images.shape
    device = batch.images.device
    mirrored = torch.rand(count, device=device) < 0.5
    columns = torch.arange(width, device=device).expand(count, -1)
    last = batch.sizes[:, 1:] - 1
    columns = torch.where(mirrored[:, None] & (columns <= last), last - columns, columns)
    images = batch.images.gather(3, columns[:, None, None, :].expand(-1, 3, height, -1)).float()
    gain = 0.85 + 0.3 * torch.rand(count, 3, 1, 1, device=device)
    images = (images * gain + 30 * (torch.rand(count, 1, 1, 1, device=device) - 0.5)).clamp(0, 255)
    mean = torch.tensor(SMALL.pixel_mean_bgr, device=device)[:, None, None]
    inside = (torch.arange(height, device=device) < batch.sizes[:, :1])[:, None, :, None]
    inside = inside & (torch.arange(width, device=device) < batch.sizes[:, 1:])[:, None, None, :]
    images = ((images.flip(1) - mean) * inside).contiguous(memory_format=torch.channels_last)
    x1, y1, x2, y2 = batch.boxes.unbind(2)
    swapped = torch.stack([last - x2, y1, last - x1, y2], dim=2)
    boxes = torch.where((mirrored[:, None] & (batch.labels > 0))[:, :, None], swapped, batch.boxes)
    return DetectionBatch(images, batch.sizes, boxes, batch.labels, batch.attributes)


# ---- quality -----------------------------------------------------------------------------------------


def measure(model: AttrRCNN, examples: Sequence[Example]) -> dict[str, float]:
    """Recall of motifs and scenery at IoU 0.5, right names and colours among the found, regions a picture."""
    hits: dict[str, list[float]] = {"recall_motifs": [], "recall_scenery": [], "named": [], "coloured": []}
    counts = []
    for example in examples:
        regions = model.propose([example.image])[0]
        counts.append(len(regions.boxes))
        overlap = iou(torch.from_numpy(example.boxes), torch.from_numpy(regions.boxes)).numpy()
        for row, label, colour in zip(overlap, example.labels, example.attributes, strict=True):
            motif = label < FIRST_SCENERY
            best = int(row.argmax())
            hits["recall_motifs" if motif else "recall_scenery"].append(float(row[best] >= 0.5))
            if row[best] >= 0.5 and motif:
                hits["named"].append(float(regions.class_ids[best] == label))
                if colour and regions.attributes is not None:
                    names = [name for name, _ in regions.attributes[best][:1]]
                    hits["coloured"].append(float(names == [ATTRIBUTES[colour]]))
    shares = {name: round(float(np.mean(values)), 4) for name, values in hits.items() if values}
    return shares | {"regions_per_picture": round(float(np.mean(counts)), 1)}
