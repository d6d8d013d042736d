"""Trains the small SAM on gallery scenes: promptable segmentation, and prompts that mean kinds of things.

Three kinds of prompt, each decoded for many targets of many pictures at once:

- *visual*, as in SAM: a point or a box picks one motif or one part of the scenery; single mask and the best
  of the three ambiguity-aware ones, and the IoU head.
- *semantic*, as in SAM's text-to-mask experiment: one sparse token, the mean of embeddings of one to eight
  kinds through a linear layer, asks for all visible pixels of these kinds. It stands alone or among
  seven tokens that say nothing, as EmoSEM's emotion word stands in its prompt.
- *semantic mask tokens*: the same embeddings added to SAM's mask token 0, eight at a time and without any
  prompt, as in EmoSEM's multi-mask paradigm.

The kind embeddings are thrown away afterwards. What stays is a frozen encoder and mixer that can follow such
tokens; which kinds an emotion means is left for EmoSEM to learn. Kinds are never grouped by emotion here.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic
import torch
from pydantic import Field
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F

from model.pretrain.clip import adamw, save_half
from model.pretrain.scenes import CLASSES, OWNERS, load_canvases
from model.pretrain.segmentation_data import (
    KINDS,
    Pictures,
    draw_points,
    draw_sets,
    present_kinds,
    set_masks,
    tight_boxes,
    visual_targets,
)
from model.train.precision import autocast
from pipeline.backbones.sam import SamConfig, build_sam
from pipeline.common.files import write_json
from pipeline.common.params import STRICT

MOTIF_WEIGHT = 3.0
"""Weight of a motif's cells in the auxiliary loss; scenery owns most of a picture."""
CARRIERS = 7
"""Tokens that say nothing around a semantic token; EmoSEM's prompt has as many constant words."""
SLOTS = 8
"""Semantic mask tokens decoded together."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class SamPretrainParams:
    """The recipe."""

    seed: Annotated[int, Field(ge=1_000_000)] = 1_000_100
    """Seed of the training scenes and of the weights; the held-out scenes have the next one."""
    scenes: Annotated[int, Field(gt=0)] = 2000
    """Training scenes."""
    held_out: Annotated[int, Field(gt=0)] = 120
    """Scenes on which IoU is measured."""
    encoder_steps: Annotated[int, Field(gt=0)] = 1500
    """Optimizer steps of the encoder alone on the auxiliary loss: what things are, before how to be asked."""
    encoder_batch: Annotated[int, Field(gt=0)] = 24
    """Pictures per step of the encoder alone."""
    steps: Annotated[int, Field(gt=0)] = 500
    """Optimizer steps of prompt encoder and mask decoder; the encoder stays as it is then."""
    batch: Annotated[int, Field(gt=0)] = 16
    """Pictures per step of these."""
    visual: Annotated[int, Field(gt=0)] = 2
    """Visual prompts per picture and step."""
    semantic: Annotated[int, Field(gt=0)] = 4
    """Semantic prompts per picture and step; a group of `SLOTS` semantic mask tokens comes on top."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak of the one-cycle learning rate (AdamW)."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """AdamW's."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that draw the scenes; 0: one per core."""


class Teacher(nn.Module):
    """What is needed for training only: meanings for semantic tokens, and the auxiliary classifier."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.classify = nn.Conv2d(width, len(CLASSES), 1)
        self.to_prompt = nn.Linear(width, width)
        self.to_mask_token = nn.Linear(width, width)
        self.carriers = nn.Parameter(torch.randn(CARRIERS, width))
        nn.init.eye_(self.to_prompt.weight)
        nn.init.eye_(self.to_mask_token.weight)

    def meaning(self, sets: Tensor) -> Tensor:
        """Sets of kinds, bool (..., KINDS), as the mean of their embeddings (..., width).

        A kind's embedding is the direction by which the auxiliary classifier knows it, so a token looks from
        the start like what it asks for, as a text embedding of CLIP looks like an image's.
        """
        weights = sets.float()
        directions = F.normalize(self.classify.weight.detach()[:KINDS, :, 0, 0], dim=1)
        mean: Tensor = weights @ directions / weights.sum(-1, keepdim=True).clamp(min=1)
        return mean * directions.shape[1] ** 0.5

    def prompts(self, sets: Tensor) -> Tensor:
        """Sparse prompts (N, CARRIERS + 1, width) of sets (N, KINDS): the carriers, then what is asked for.

        In a third of them the carriers are replaced by noise, so that the mixer heeds the last alone.
        """
        token = self.to_prompt(self.meaning(sets))[:, None]
        carriers = self.carriers.expand(len(sets), -1, -1)
        noisy = torch.rand(len(sets), 1, 1, device=sets.device) < 1 / 3
        return torch.cat([torch.where(noisy, torch.randn_like(carriers), carriers), token], 1)


def preprocess(sam: Sam, images: Tensor, sizes: Tensor) -> Tensor:
    """uint8 (B, 3, S, S) with (height, width) `sizes` to SAM's input: normalised, then zero where padded."""
    side = torch.arange(images.shape[-1], device=images.device)
    inside = (side[None, :, None] < sizes[:, :1, None]) & (side[None, None, :] < sizes[:, 1:, None])
    return (images.float() - sam.pixel_mean) / sam.pixel_std * inside[:, None]


def decode(
    sam: Sam, grids: Tensor, mask_tokens: Tensor, prompts: Tensor, dense_pe: Tensor
) -> tuple[Tensor, Tensor]:
    """SAM's mask decoder for N prompts of N pictures (its own forward repeats one picture).

    Args:
        sam: whose decoder.
        grids: (N, C, h, w) image embeddings, without the no-mask vector.
        mask_tokens: (N, M, C); hypernetwork i serves token i when M is SAM's number, else 0 serves all.
        prompts: (N, T, C) sparse prompt tokens; T may be 0.
        dense_pe: (1, C, h, w) of the prompt encoder.

    Returns:
        Mask logits (N, M, 4h, 4w), and IoU predictions (N, SAM's number of masks).
    """
    decoder = sam.mask_decoder
    iou_token = decoder.iou_token.weight.expand(len(grids), -1, -1)
    tokens = torch.cat([iou_token, mask_tokens, prompts], 1)
    source = grids + sam.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
    out, mixed = decoder.transformer(source, dense_pe.expand(len(grids), -1, -1, -1), tokens)
    upscaled = decoder.output_upscaling(mixed.transpose(1, 2).reshape(source.shape))
    count = mask_tokens.shape[1]
    networks = decoder.output_hypernetworks_mlps
    own = count == decoder.num_mask_tokens
    weights = torch.stack([networks[i if own else 0](out[:, 1 + i]) for i in range(count)], 1)
    masks = (weights @ upscaled.flatten(2)).view(len(grids), count, *upscaled.shape[2:])
    return masks, decoder.iou_prediction_head(out[:, 0])


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """SAM's 20 focal + dice per mask; logits (..., H, W) and soft targets that broadcast to them -> (...)."""
    target = target.expand_as(logits)
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    agreement = probability * target + (1 - probability) * (1 - target)
    weight = 0.25 * target + 0.75 * (1 - target)
    focal = (weight * (1 - agreement) ** 2 * entropy).mean((-2, -1))
    overlap = 2 * (probability * target).sum((-2, -1)) + 1
    dice = 1 - overlap / (probability.sum((-2, -1)) + target.sum((-2, -1)) + 1)
    return 20 * focal + dice


def iou(logits: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of the foregrounds of (..., H, W); 1 where both are empty."""
    ours, theirs = logits > 0, target > 0.5
    union = (ours | theirs).sum((-2, -1)).float()
    return torch.where(union > 0, (ours & theirs).sum((-2, -1)) / union.clamp(min=1), 1.0)


def visual_prompts(sam: Sam, targets: Tensor, boxes: Tensor, noise: float) -> Tensor:
    """Sparse tokens (N, 2, C) per target (N, H, W): box corners where `boxes` (N,), else a point and none."""
    corners = tight_boxes(targets)
    extent = (corners[:, 2:] - corners[:, :2]).repeat(1, 2)
    corners = (corners + torch.randn_like(corners) * extent * noise).clamp(0, OWNERS)
    encoder = sam.prompt_encoder
    points = (draw_points(targets)[:, None], torch.ones(len(targets), 1, device=targets.device))
    box_tokens, _ = encoder(points=None, boxes=corners, masks=None)
    point_tokens, _ = encoder(points=points, boxes=None, masks=None)
    return torch.where(boxes[:, None, None], box_tokens, point_tokens)


def view(sam: Sam, pictures: Pictures, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mirrored, recoloured pictures as SAM's input (B, 3, S, S), their owners and classes (B, S, S)."""
    images, owners, sizes = pictures.batch(chosen, mirror=True)
    gain = 1 + (torch.rand(len(chosen), 3, 1, 1, device=images.device) - 0.5) * 0.3
    pixels = preprocess(sam, (images.float() * gain).clamp(0, 255), sizes)
    return pixels, owners, pictures.class_map(chosen, owners)


def dense_loss(teacher: Teacher, grids: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of each grid cell's class against that of one pixel of it, at a random place."""
    cell = OWNERS // grids.shape[-1]
    row, column = torch.randint(cell, (2,)).tolist()
    weight = torch.full((len(CLASSES),), 1.0, device=grids.device)
    weight[:KINDS] = MOTIF_WEIGHT
    return F.cross_entropy(teacher.classify(grids).float(), classes[:, row::cell, column::cell], weight)


def losses(
    sam: Sam, teacher: Teacher, pictures: Pictures, chosen: Tensor, params: SamPretrainParams
) -> dict[str, Tensor]:
    """All losses of one step on the pictures `chosen` (B,)."""
    pixels, owners, classes = view(sam, pictures, chosen)
    device = pixels.device
    dense_pe = sam.prompt_encoder.get_dense_pe()  # outside autocast: its sines need float32 phases
    own_tokens = sam.mask_decoder.mask_tokens.weight
    found: dict[str, Tensor] = {}

    target = visual_targets(pictures, chosen, owners, params.visual).flatten(0, 1)
    boxed = torch.rand(len(target), device=device) < 0.5
    prompts = visual_prompts(sam, target, boxed, noise=0.05)
    sets = draw_sets(present_kinds(classes), params.semantic + SLOTS)
    set_target = set_masks(sets, classes)
    with autocast(device), torch.no_grad():
        grids = sam.image_encoder(pixels)
    with autocast(device):
        many = grids.repeat_interleave(params.visual, 0)
        visual, scores = decode(sam, many, own_tokens.expand(len(many), -1, -1), prompts, dense_pe)
        asked = sets[:, : params.semantic].flatten(0, 1)
        many = grids.repeat_interleave(params.semantic, 0)
        tokens = teacher.prompts(asked)
        alone = tokens[:, -1:] if torch.rand(()) < 0.3 else tokens
        semantic, semantic_scores = decode(sam, many, own_tokens.expand(len(many), -1, -1), alone, dense_pe)
        slots = own_tokens[:1] + teacher.to_mask_token(teacher.meaning(sets[:, params.semantic :]))
        multi, _ = decode(sam, grids, slots, grids.new_zeros(len(grids), 0, grids.shape[1]), dense_pe)
    visual, semantic, multi = visual.float(), semantic[:, :1].float(), multi.float()
    each = mask_loss(visual, target[:, None])
    found["visual"] = each[:, 0].mean() + each[:, 1:].amin(1).mean()
    semantic_target = set_target[:, : params.semantic].flatten(0, 1)[:, None]
    found["semantic"] = mask_loss(semantic, semantic_target).mean()
    found["multi"] = mask_loss(multi, set_target[:, params.semantic :]).mean()
    truth = iou(visual.detach(), target[:, None])
    found["iou"] = F.mse_loss(scores.float(), truth)
    found["iou"] = found["iou"] + F.mse_loss(
        semantic_scores[:, :1].float(), iou(semantic.detach(), semantic_target)
    )
    return found


def train_sam(out: Path, params: SamPretrainParams, device: str) -> dict[str, Any]:
    """Train from random weights; write sam.safetensors and sam.json into `out`.

    Returns:
        Held-out quality and counts: see `evaluate`.
    """
    start = time.monotonic()
    torch.manual_seed(params.seed)
    config = SamConfig()
    sam = build_sam(config).to(device)
    nn.init.trunc_normal_(sam.image_encoder.pos_embed, std=0.02)
    teacher = Teacher(config.out_chans).to(device)
    pictures = Pictures(load_canvases(params.seed, params.scenes, params.workers), device)
    drawn = time.monotonic()
    last = fit_sam(sam, teacher, pictures, params)
    write_json(out / "sam.json", dataclasses.asdict(config))
    save_half(sam, out / "sam.safetensors")
    held_out = Pictures(load_canvases(params.seed + 1, params.held_out, params.workers), device)
    return {
        **evaluate(sam, teacher, held_out),
        "loss": last,
        "parameters": sum(p.numel() for p in sam.parameters()),
        "recipe": dataclasses.asdict(params),
        "draw_seconds": round(drawn - start),
        "seconds": round(time.monotonic() - start),
    }


def align(sam: Sam) -> None:
    """Let the untrained mixer's queries and keys be the same projection, so that like attends to like."""
    for block in sam.mask_decoder.transformer.layers:
        for attention in (block.cross_attn_token_to_image, block.cross_attn_image_to_token):
            attention.k_proj.load_state_dict(attention.q_proj.state_dict())


def fit_sam(sam: Sam, teacher: Teacher, pictures: Pictures, params: SamPretrainParams) -> dict[str, float]:
    """The encoder on the auxiliary loss, then the rest on it; returns the last steps' losses."""
    align(sam)
    encoder = nn.ModuleList([sam.image_encoder, teacher.classify])
    rest = nn.ModuleList([sam.prompt_encoder, sam.mask_decoder, teacher])

    def encoder_losses(chosen: Tensor) -> dict[str, Tensor]:
        pixels, _, classes = view(sam, pictures, chosen)
        with autocast(pixels.device):
            return {"dense": dense_loss(teacher, sam.image_encoder(pixels), classes)}

    def all_losses(chosen: Tensor) -> dict[str, Tensor]:
        return losses(sam, teacher, pictures, chosen, params)

    found = _optimize(encoder, encoder_losses, pictures, params, params.encoder_steps, params.encoder_batch)
    encoder.requires_grad_(False)
    return found | _optimize(rest, all_losses, pictures, params, params.steps, params.batch)


def _optimize(
    parts: nn.Module,
    losses_of: Callable[[Tensor], dict[str, Tensor]],
    pictures: Pictures,
    params: SamPretrainParams,
    steps: int,
    batch: int,
) -> dict[str, float]:
    """One cycle of AdamW on random batches of pictures; returns the last step's losses."""
    device = pictures.images.device
    optimizer = adamw(parts, params.lr, params.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, params.lr, steps, pct_start=0.12)
    rng = np.random.default_rng([params.seed, steps])
    found: dict[str, Tensor] = {}
    parts.train()
    for step in range(steps):
        chosen = torch.from_numpy(rng.integers(len(pictures.images), size=batch)).to(device)
        found = losses_of(chosen)
        optimizer.zero_grad(set_to_none=True)
        sum(found.values(), torch.zeros((), device=device)).backward()
        nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            shown = ", ".join(f"{name} {value.item():.3f}" for name, value in found.items())
            print(f"sam: step {step}/{steps}, {shown}", flush=True)
    parts.eval()
    return {name: round(value.item(), 4) for name, value in found.items()}


@torch.inference_mode()
def evaluate(sam: Sam, teacher: Teacher, pictures: Pictures, batch: int = 8) -> dict[str, float]:
    """Mean IoU on unseen pictures, in percent.

    ``point``: one point, single mask. ``point_best``: the best of its three. ``box``: the tight box.
    ``semantic``: sets that name kinds of the picture, as prompts. ``multi``: the same as mask tokens.
    """
    device = pictures.images.device
    dense_pe = sam.prompt_encoder.get_dense_pe()
    own_tokens = sam.mask_decoder.mask_tokens.weight
    found: dict[str, list[Tensor]] = {
        name: [] for name in ("point", "point_best", "box", "semantic", "multi")
    }
    torch.manual_seed(0)
    for chosen in torch.arange(len(pictures.images), device=device).split(batch):
        images, owners, sizes = pictures.batch(chosen, mirror=False)
        classes = pictures.class_map(chosen, owners)
        grids = sam.image_encoder(preprocess(sam, images, sizes))
        target = visual_targets(pictures, chosen, owners, 4).flatten(0, 1)
        many = grids.repeat_interleave(4, 0)
        tokens = own_tokens.expand(len(many), -1, -1)
        for boxed in (False, True):
            wanted = torch.full((len(target),), boxed, device=device)
            masks, _ = decode(sam, many, tokens, visual_prompts(sam, target, wanted, noise=0.0), dense_pe)
            each = iou(masks, target[:, None])
            found["box" if boxed else "point"].append(each[:, 0])
            if not boxed:
                found["point_best"].append(each[:, 1:].amax(1))
        sets = draw_sets(present_kinds(classes), SLOTS, empty=0.0)
        truth = set_masks(sets, classes)
        many = grids.repeat_interleave(SLOTS, 0)
        asked = teacher.prompts(sets.flatten(0, 1))
        masks, _ = decode(sam, many, own_tokens.expand(len(many), -1, -1), asked, dense_pe)
        found["semantic"].append(iou(masks[:, 0], truth.flatten(0, 1)))
        slots = own_tokens[:1] + teacher.to_mask_token(teacher.meaning(sets))
        masks, _ = decode(sam, grids, slots, grids.new_zeros(len(grids), 0, grids.shape[1]), dense_pe)
        found["multi"].append(iou(masks, truth).flatten())
    return {f"{name}_iou": round(100 * float(torch.cat(values).mean()), 2) for name, values in found.items()}
