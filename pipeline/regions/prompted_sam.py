"""SAM answering prompts: masks of boxes, and masks found on a grid of points, in a picture's own pixels.

Kirillov et al., "Segment Anything", ICCV 2023; prompts, decoder and post-processing are segment_anything's.
The grid of points follows its `SamAutomaticMaskGenerator` over the whole picture (no crops) and gives the
same masks, but scales up only those that SAM thinks well of, a few at a time: the original holds all of a
batch of points at the picture's size, gigabytes for a large painting.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.amg import batched_mask_to_box, build_point_grid, calculate_stability_score
from torch import Tensor
from torchvision.ops import nms

from pipeline.backbones.params import SamParams
from pipeline.backbones.sam import SamEncoder, load_sam_model
from pipeline.backbones.tensors import sizes_beside
from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common import rle
from pipeline.common.fingerprint import fingerprint
from pipeline.common.geometry import pixel_ranges
from pipeline.regions.params import SamMasksParams

PIXELS_AT_ONCE = 1 << 25
"""Mask logits held at the picture's size, over all masks in work: 128 MB, or one mask of a larger picture."""
BOXES_PER_BATCH = 64
"""Boxes decoded at once."""


@dataclass(frozen=True)
class SamMasks:
    """The masks that SAM found in one picture, best first."""

    masks: list[str]
    """As `rle` writes them, in the picture's pixels."""
    boxes: np.ndarray
    """float32 (n, 4): tight, x2 and y2 behind the last pixel."""
    scores: np.ndarray
    """float32 (n,): predicted IoU."""
    weak: int
    """Masks that passed every filter, but were more than wanted."""


class PromptedSam:
    """A frozen SAM on a device: image encoder, prompt encoder and mask decoder."""

    def __init__(self, sam: Sam, device: str) -> None:
        """Take over a SAM; its image encoder is run by `SamEncoder`."""
        self.sam = sam.to(device).eval().requires_grad_(False)
        self.encoder = SamEncoder(sam, device)
        self.device = self.encoder.device

    def encode(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 RGB pictures (H, W, 3) to embeddings (B, C, h, w)."""
        return self.encoder.encode(images)

    @torch.inference_mode()
    def box_masks(self, grid: Tensor, boxes: np.ndarray, height: int, width: int) -> list[str | None]:
        """SAM's mask of each box.

        A box leaves little doubt what is meant, so SAM's single mask is taken and not the best of three, as
        its authors advise; what of it lies outside the box is cut off, because CLIP has only seen the box.

        Args:
            grid: (C, h, w) of the picture.
            boxes: (N, 4) xyxy within the picture, pixels.
            height, width: of the picture, pixels.

        Returns:
            N masks as `rle` writes them; None where SAM marks no pixel of the box.
        """
        if not len(boxes):  # the decoder cannot
            return []
        prompts = torch.from_numpy(np.asarray(boxes, np.float32)).to(self.device).reshape(-1, 2, 2)
        prompts = (prompts * self._scale(height, width)).flatten(1)
        ranges = torch.from_numpy(pixel_ranges(boxes, height, width)).to(self.device)
        found: list[str | None] = []
        for part in prompts.split(BOXES_PER_BATCH):
            sparse, dense = self.sam.prompt_encoder(None, part, None)
            low, _ = self._decode(grid, sparse, dense, multimask=False)
            for logits in self._full_size(low[:, 0], height, width):
                masks = logits > self.sam.mask_threshold
                masks &= _inside(ranges[len(found) :][: len(masks)], height, width)
                texts = rle.encode(_to_numpy(masks))
                marked = masks.flatten(1).any(1).tolist()
                found += [text if some else None for text, some in zip(texts, marked, strict=True)]
        return found

    @torch.inference_mode()
    def point_masks(
        self, grid: Tensor, height: int, width: int, params: SamMasksParams, most: int
    ) -> SamMasks:
        """Masks at a grid of points, filtered by SAM's own opinion of them, without near duplicates.

        Args:
            grid: (C, h, w) of the picture.
            height, width: of the picture, pixels.
            params: the filters.
            most: masks to return at most.
        """
        points = torch.from_numpy(build_point_grid(params.points_per_side)).to(self.device, torch.float32)
        points = points * torch.tensor([width, height], device=self.device) * self._scale(height, width)
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        for part in points.split(params.points_per_batch):
            labels = torch.ones(len(part), 1, dtype=torch.int, device=self.device)
            sparse, dense = self.sam.prompt_encoder((part[:, None], labels), None, None)
            low, quality = self._decode(grid, sparse, dense, multimask=True)
            good = quality.flatten() > params.pred_iou_thresh
            kept += self._filter(low.flatten(0, 1)[good], quality.flatten()[good], height, width, params)
        low, quality, boxes = (torch.cat(values) for values in zip(*kept, strict=True))
        distinct = nms(boxes, quality, params.box_nms_thresh)
        best = distinct[:most]
        masks = []
        for logits in self._full_size(low[best], height, width):
            masks += rle.encode(_to_numpy(logits > self.sam.mask_threshold))
        corners = boxes[best] + boxes.new_tensor([0, 0, 1, 1])
        return SamMasks(masks, corners.cpu().numpy(), quality[best].cpu().numpy(), len(distinct) - len(best))

    def _scale(self, height: int, width: int) -> Tensor:
        """(2,): from the picture's x and y to those of SAM's input."""
        rows, columns = self.encoder.input_size(height, width)
        return torch.tensor([columns / width, rows / height], dtype=torch.float32, device=self.device)

    def _decode(self, grid: Tensor, sparse: Tensor, dense: Tensor, multimask: bool) -> tuple[Tensor, Tensor]:
        """Low-resolution logits (P, M, h, w) and predicted IoU (P, M) of P prompts; M is 3 or 1."""
        low, quality = self.sam.mask_decoder(
            image_embeddings=grid[None],
            image_pe=self.sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        return low, quality

    def _full_size(self, low: Tensor, height: int, width: int) -> Iterator[Tensor]:
        """Low-resolution logits (P, h, w) at the picture's size (., height, width), some at a time."""
        for part in low.split(max(1, PIXELS_AT_ONCE // (height * width))):
            size = self.encoder.input_size(height, width)
            yield self.sam.postprocess_masks(part[:, None], size, (height, width))[:, 0]

    def _filter(
        self, low: Tensor, quality: Tensor, height: int, width: int, params: SamMasksParams
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Those of P masks (P, h, w) that are stable and large enough, with their boxes, some at a time.

        Boxes are segment_anything's, as its NMS expects them: to the last pixel, not behind it.
        """
        start = 0
        for logits in self._full_size(low, height, width):
            part = slice(start, start := start + len(logits))
            stability = calculate_stability_score(
                logits, self.sam.mask_threshold, params.stability_score_offset
            )
            masks = logits > self.sam.mask_threshold
            area = masks.sum((-2, -1))
            good = (stability >= params.stability_score_thresh) & (area > 0)
            good &= area >= params.min_area * height * width
            yield low[part][good], quality[part][good], batched_mask_to_box(masks[good]).float()


def _inside(ranges: Tensor, height: int, width: int) -> Tensor:
    """bool (P, height, width): the pixels of ranges (P, 4), see `geometry.pixel_ranges`."""
    rows = torch.arange(height, device=ranges.device)[:, None]
    columns = torch.arange(width, device=ranges.device)
    x1, y1, x2, y2 = ranges[:, :, None, None].unbind(1)
    return (rows >= y1) & (rows < y2) & (columns >= x1) & (columns < x2)


def _to_numpy(masks: Tensor) -> np.ndarray:
    """bool (P, H, W), in memory column by column, as run lengths are counted."""
    return masks.transpose(1, 2).contiguous().cpu().numpy().transpose(0, 2, 1)


@functools.lru_cache(maxsize=1)
def load(params: SamParams, device: str) -> PromptedSam:
    """One SAM per process, however many shards it works on. Raises `UserError`, see `load_sam_model`."""
    return PromptedSam(load_sam_model(params.arch, params.checkpoint), device)


def weights_digest(params: SamParams) -> str:
    """What tells these weights from others: name and hashes. Raises `UserError` when they are not there."""
    sizes = sizes_beside(params.checkpoint)
    hashes = [verify_weights(params.checkpoint), verify_weights(sizes) if params.arch == "tiny" else ""]
    return fingerprint(params.arch, hashes)
