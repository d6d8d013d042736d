"""Region proposal network: anchors at stride 16, objectness and box regression, the test path."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms

from pipeline.regions.vinvl.boxes import RPN_WEIGHTS, clip, decode
from pipeline.regions.vinvl.config import VinvlConfig

STRIDE = 16
"""Pixels of the resized image per cell of the feature map: fixed by stem and layers."""


def cells(size: int) -> int:
    """Rows or columns of the feature map of an image side, in pixels of the resized image."""
    return -(-size // STRIDE)


def crop_maps(maps: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Maps (B, C, h, w) of padded images without their padding; sizes: (height, width) in pixels."""
    return [m[:, : cells(height), : cells(width)] for m, (height, width) in zip(maps, sizes, strict=True)]


def cell_anchors(sizes: Sequence[int], ratios: Sequence[float]) -> Tensor:
    """Anchors of the cell at the origin, (ratios * sizes, 4) float32, ratio by ratio.

    As in the first Faster R-CNN: the window (0, 0, 15, 15) is given each ratio with sides rounded to
    whole pixels (half to even), and only then scaled, so a ratio is met only roughly.
    """
    center = (STRIDE - 1) / 2
    rows = []
    for ratio in ratios:
        width = np.round(np.sqrt(STRIDE * STRIDE / ratio))
        height = np.round(width * ratio)
        for size in sizes:
            half_w = (width * size / STRIDE - 1) / 2
            half_h = (height * size / STRIDE - 1) / 2
            rows.append([center - half_w, center - half_h, center + half_w, center + half_h])
    return torch.tensor(rows, dtype=torch.float32)


def grid_anchors(cell: Tensor, height: int, width: int) -> Tensor:
    """Anchors of a map of height x width cells, (height * width * A, 4): y, then x, then anchor."""
    ys = torch.arange(height, device=cell.device, dtype=cell.dtype) * STRIDE
    xs = torch.arange(width, device=cell.device, dtype=cell.dtype) * STRIDE
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
    return (shifts + cell).reshape(-1, 4)


class AnchorGenerator(nn.Module):
    """Keeps the anchors as the buffer `cell_anchors.0`, where checkpoints have them."""

    def __init__(self, config: VinvlConfig) -> None:
        super().__init__()
        self.cell_anchors = nn.Module()
        self.cell_anchors.register_buffer("0", cell_anchors(config.anchor_sizes, config.anchor_ratios))

    @property
    def cell(self) -> Tensor:
        """(A, 4)."""
        return self.cell_anchors.get_buffer("0")


class RPNHead(nn.Module):
    """3x3 convolution, then per anchor one logit and four box offsets."""

    def __init__(self, channels: int, num_anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.cls_logits = nn.Conv2d(channels, num_anchors, 1)
        self.bbox_pred = nn.Conv2d(channels, num_anchors * 4, 1)
        for layer in (self.conv, self.cls_logits, self.bbox_pred):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> logits (B, H, W, A) and deltas (B, H, W, A, 4)."""
        x = F.relu(self.conv(features))
        logits = self.cls_logits(x).permute(0, 2, 3, 1)
        deltas = self.bbox_pred(x).permute(0, 2, 3, 1)
        return logits, deltas.unflatten(-1, (-1, 4))


class RPN(nn.Module):
    """Proposals from the feature map."""

    def __init__(self, config: VinvlConfig) -> None:
        super().__init__()
        self.config = config
        self.anchor_generator = AnchorGenerator(config)
        num_anchors = len(config.anchor_sizes) * len(config.anchor_ratios)
        self.head = RPNHead(config.map_channels, num_anchors)

    def forward(self, features: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Proposals of each image, best first.

        features: (B, C, H, W), zero beyond each image. sizes: (height, width) of each resized image in
        pixels. Returns per image (n, 4) boxes, n <= rpn_post_nms.
        """
        logits, deltas = self.head(features)
        proposals = []
        for i, (height, width) in enumerate(sizes):
            rows, columns = cells(height), cells(width)
            proposals.append(
                self._propose(logits[i, :rows, :columns], deltas[i, :rows, :columns], height, width)
            )
        return proposals

    def _propose(self, logits: Tensor, deltas: Tensor, height: int, width: int) -> Tensor:
        """One image: logits (h, w, A), deltas (h, w, A, 4) -> (n, 4)."""
        anchors = grid_anchors(self.anchor_generator.cell, logits.shape[0], logits.shape[1])
        scores = logits.reshape(-1).sigmoid()
        scores, index = scores.topk(min(self.config.rpn_pre_nms, len(scores)), sorted=True)
        boxes = decode(deltas.reshape(-1, 4)[index], anchors[index], RPN_WEIGHTS)
        boxes = clip(boxes, height, width)
        keep = nms(boxes, scores, self.config.rpn_nms)[: self.config.rpn_post_nms]
        return boxes[keep]
