"""What the small SAM can do on scenes it has not seen: IoU by kind of prompt and of motif, and a probe."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn import functional as F

from model.pretrain.pictures import Pictures
from model.pretrain.prompting import Teacher, decode, iou, preprocess, visual_prompts
from model.pretrain.scenes import CLASSES
from model.pretrain.segmentation_data import (
    KINDS,
    SLOTS,
    draw_sets,
    present_kinds,
    set_masks,
    visual_targets,
)

TARGETS = 4
"""Points and boxes asked for per picture."""
PROBED = 200
"""Training pictures whose grid cells the probe learns from."""


@torch.inference_mode()
def evaluate(sam: Sam, teacher: Teacher, pictures: Pictures, batch: int = 8) -> dict[str, Any]:
    """Mean IoU on unseen pictures, in percent.

    ``point``: one point, single mask. ``point_best``: the best of its three. ``box``: the tight box.
    ``semantic``: sets that name kinds of the picture, as prompts. ``multi``: the same as mask tokens.

    Returns:
        ``X_iou`` of each; ``iou_by_kind``: the same by motif, from prompts that ask for one kind alone.
    """
    device = pictures.images.device
    dense_pe = sam.prompt_encoder.get_dense_pe()
    own_tokens = sam.mask_decoder.mask_tokens.weight
    found: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    torch.manual_seed(0)
    for chosen, grids, classes, owners in _encoded(sam, pictures, batch):
        target, owner = visual_targets(pictures, chosen, owners, TARGETS)
        kinds = pictures.classes[chosen].gather(1, owner).flatten()
        target = target.flatten(0, 1)
        many = grids.repeat_interleave(TARGETS, 0)
        tokens = own_tokens.expand(len(many), -1, -1)
        for prompt in ("point", "box"):
            boxed = torch.full((len(target),), prompt == "box", device=device)
            masks, _ = decode(sam, many, tokens, visual_prompts(sam, target, boxed, noise=0.0), dense_pe)
            each = iou(masks, target[:, None])
            found[prompt].append((each[:, 0], kinds))
            if prompt == "point":
                found["point_best"].append((each[:, 1:].amax(1), kinds))
        present = present_kinds(classes)
        sets = draw_sets(present, SLOTS, empty=0.0)
        seen = sets & present[:, None]
        kinds = torch.where(seen.sum(-1) == 1, seen.int().argmax(-1), KINDS).flatten()
        truth = set_masks(sets, classes)
        many = grids.repeat_interleave(SLOTS, 0)
        asked = teacher.prompts(sets.flatten(0, 1))
        masks, _ = decode(sam, many, own_tokens.expand(len(many), -1, -1), asked, dense_pe)
        found["semantic"].append((iou(masks[:, 0], truth.flatten(0, 1)), kinds))
        slots = own_tokens[:1] + teacher.to_mask_token(teacher.meaning(sets))
        masks, _ = decode(sam, grids, slots, grids.new_zeros(len(grids), 0, grids.shape[1]), dense_pe)
        found["multi"].append((iou(masks, truth).flatten(), kinds))
    means: dict[str, Any] = {}
    by_kind: dict[str, dict[str, float]] = {}
    for prompt, parts in found.items():
        values, asked_for = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
        means[f"{prompt}_iou"] = _percent(values)
        for kind in np.unique(asked_for[asked_for < KINDS]):
            by_kind.setdefault(CLASSES[kind], {})[prompt] = _percent(values[asked_for == kind])
    return means | {"iou_by_kind": dict(sorted(by_kind.items()))}


@torch.inference_mode()
def probe(sam: Sam, training: Pictures, held_out: Pictures) -> dict[str, float]:
    """How much a linear classifier of single grid cells knows of what is in them.

    Multinomial logistic regression on standardised grids of `PROBED` training pictures, all classes, fitted
    by L-BFGS with a small ridge. A cell's class is that of most of its pixels; cells that nobody owns are
    left out.

    Returns:
        ``probe_motif_cells``: cells of motifs whose motif it names, of the held-out pictures, in percent;
        ``probe_cells``: the same of all cells, scenery included.
    """
    count = min(PROBED, len(training.images))
    features, labels = _cells(sam, training, count)
    mean, std = features.mean(0), features.std(0) + 1e-6
    with torch.inference_mode(False), torch.enable_grad():
        known = ((features - mean) / std).clone()
        labels = labels.clone()
        weight = torch.zeros(len(CLASSES), known.shape[1], device=known.device, requires_grad=True)
        bias = torch.zeros(len(CLASSES), device=known.device, requires_grad=True)
        fit = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            fit.zero_grad()
            value = F.cross_entropy(F.linear(known, weight, bias), labels) + 1e-4 * weight.square().sum()
            value.backward()
            return value

        fit.step(loss)
    features, labels = _cells(sam, held_out, len(held_out.images))
    right = F.linear((features - mean) / std, weight, bias).argmax(1) == labels
    motif = labels < KINDS
    return {
        "probe_motif_cells": _percent(right[motif].float().cpu().numpy()),
        "probe_cells": _percent(right.float().cpu().numpy()),
    }


def _cells(sam: Sam, pictures: Pictures, count: int) -> tuple[Tensor, Tensor]:
    """Grid cells (N, C) of the first pictures, and the class of most pixels of each, int64 (N,)."""
    features, labels = [], []
    for _, grids, classes, _ in _encoded(sam, pictures, 8, count):
        side = classes.shape[-1] // grids.shape[-1]
        blocks = classes.unfold(1, side, side).unfold(2, side, side).flatten(3)
        owned = blocks.mode(-1).values
        inside = owned < len(CLASSES) - 1
        features.append(grids.permute(0, 2, 3, 1)[inside])
        labels.append(owned[inside])
    return torch.cat(features), torch.cat(labels)


def _encoded(
    sam: Sam, pictures: Pictures, batch: int, count: int | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Batches of the pictures in order: which, their grids float32, class maps and owner maps."""
    for chosen in torch.arange(count or len(pictures.images), device=pictures.images.device).split(batch):
        images, owners, sizes = pictures.batch(chosen, mirror=False)
        grids = sam.image_encoder(preprocess(sam, images, sizes))
        yield chosen, grids, pictures.class_map(chosen, owners), owners


def _percent(values: np.ndarray) -> float:
    return round(100 * float(values.mean()), 2)
