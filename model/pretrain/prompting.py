"""How the small SAM is asked in its training, and what it loses: batched prompts, targets, losses.

B pictures, N prompts, S the side of SAM's input in pixels; masks have S / `CELL`.
"""

import math

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F

from model.pretrain.pictures import SIDE, Pictures
from model.pretrain.scenes import CLASSES
from model.pretrain.segmentation_data import KINDS, draw_points, tight_boxes

MOTIF_WEIGHT = 3.0
"""Weight of a motif's pixels in the auxiliary loss; scenery owns most of a picture."""
FOREGROUND_WEIGHT, ENTROPY_WEIGHT = 3.0, 4.0
"""In `mask_loss`: of the foreground beside the background, and of the cross-entropy beside the dice loss."""
SUBCELLS = 2
"""The auxiliary classifier names SUBCELLS x SUBCELLS parts of each grid cell, so that a cell has to know
where in it a thing ends."""
ZOOM = (math.log(0.8), math.log(1.3))
"""Least and largest logarithm of a zoomed picture's scale."""
CARRIERS = 7
"""Tokens that say nothing around a semantic token; EmoSEM's prompt has as many constant words."""


class Teacher(nn.Module):
    """What is needed for training only: meanings for semantic tokens, and the auxiliary classifier."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.classify = nn.Conv2d(width, len(CLASSES) * SUBCELLS**2, 1)
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
        by_class = self.classify.weight.detach().view(len(CLASSES), SUBCELLS**2, -1).mean(1)
        directions = F.normalize(by_class[:KINDS], dim=1)
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
    """Cross-entropy and dice per mask; logits (..., H, W) and soft targets that broadcast to them -> (...).

    SAM's own loss, 20 focal + dice, gives the foreground a quarter of the weight and little to what is half
    learnt: a short training then ends in empty masks. Here the foreground has three times the weight.
    """
    target = target.expand_as(logits)
    probability = logits.sigmoid()
    weight = logits.new_tensor(FOREGROUND_WEIGHT)
    entropy = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
    overlap = 2 * (probability * target).sum((-2, -1)) + 1
    dice = 1 - overlap / (probability.sum((-2, -1)) + target.sum((-2, -1)) + 1)
    return ENTROPY_WEIGHT * entropy.mean((-2, -1)) + dice


def iou(logits: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of the foregrounds of (..., H, W); 1 where both are empty."""
    ours, theirs = logits > 0, target > 0.5
    union = (ours | theirs).sum((-2, -1)).float()
    return torch.where(union > 0, (ours & theirs).sum((-2, -1)) / union.clamp(min=1), 1.0)


def visual_prompts(sam: Sam, targets: Tensor, boxes: Tensor, noise: float) -> Tensor:
    """Sparse tokens (N, 2, C) per target (N, H, W): box corners where `boxes` (N,), else a point and none."""
    corners = tight_boxes(targets)
    extent = (corners[:, 2:] - corners[:, :2]).repeat(1, 2)
    corners = (corners + torch.randn_like(corners) * extent * noise).clamp(0, SIDE)
    encoder = sam.prompt_encoder
    points = (draw_points(targets)[:, None], torch.ones(len(targets), 1, device=targets.device))
    box_tokens, _ = encoder(points=None, boxes=corners, masks=None)
    point_tokens, _ = encoder(points=points, boxes=None, masks=None)
    return torch.where(boxes[:, None, None], box_tokens, point_tokens)


def view(sam: Sam, pictures: Pictures, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mirrored, zoomed, recoloured pictures as SAM's input (B, 3, S, S); owners and classes (B, S, S)."""
    images, owners, sizes = zoom(*pictures.batch(chosen, mirror=True))
    gain = 1 + (torch.rand(len(chosen), 3, 1, 1, device=images.device) - 0.5) * 0.3
    pixels = preprocess(sam, (images * gain).clamp(0, 255), sizes)
    return pixels, owners, pictures.class_map(chosen, owners)


def zoom(images: Tensor, owners: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Half of the pictures somewhat smaller, or larger and cut at random; padding stays right and below.

    Args:
        images: uint8 (B, 3, S, S).
        owners: uint8 (B, S, S).
        sizes: int64 (B, 2): (height, width), pixels.

    Returns:
        The same, images float32 0..255.
    """
    count, side, device = len(images), images.shape[-1], images.device
    factor = torch.exp(torch.empty(count, 1, device=device).uniform_(*ZOOM))
    factor = torch.where(torch.rand(count, 1, device=device) < 0.5, 1.0, factor)
    room = (sizes - side / factor).clamp(min=0)
    offset = (torch.rand(count, 2, device=device) * room).floor()
    pixel = torch.arange(side, device=device) + 0.5
    rows, columns = (pixel / factor[:, :, None] + offset[:, :, None]).unbind(1)
    place = torch.stack(torch.broadcast_tensors(columns[:, None], rows[:, :, None]), -1) * (2 / side) - 1
    sampled = F.grid_sample(images.float(), place, padding_mode="border", align_corners=False)
    nearest = F.grid_sample(owners[:, None].float(), place, mode="nearest", align_corners=False)
    seen = ((sizes - offset) * factor).round().clamp(max=side).long()
    return sampled, nearest[:, 0].to(owners.dtype), seen


def dense_loss(teacher: Teacher, grids: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of each part of a grid cell against the class of one pixel of it, at a random place.

    Args:
        teacher: whose classifier.
        grids: (B, C, h, w).
        classes: int64 (B, S, S), S a multiple of h * `SUBCELLS`.
    """
    logits = F.pixel_shuffle(teacher.classify(grids), SUBCELLS).float()
    part = classes.shape[-1] // logits.shape[-1]
    row, column = torch.randint(part, (2,)).tolist()
    weight = torch.full((len(CLASSES),), 1.0, device=grids.device)
    weight[:KINDS] = MOTIF_WEIGHT
    return F.cross_entropy(logits, classes[:, row::part, column::part], weight)
