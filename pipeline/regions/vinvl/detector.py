"""VinVL's detector (AttrRCNN, ResNeXt-C4) in torch and torchvision operators.

Zhang et al., "VinVL: Revisiting Visual Representations in Vision-Language Models", CVPR 2021; behaviour
after microsoft/scene_graph_benchmark, whose conventions are kept where they change a number: batch norm
without eps, corners that belong to the box, BGR values 0-255, Pillow's bilinear resize, table anchors.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.regions.vinvl.boxes import HEAD_WEIGHTS, clip, decode
from pipeline.regions.vinvl.checkpoint import (
    ANCHORS,
    config_of,
    labelmap_of,
    match_names,
    read_labels,
    read_state,
    save_weights,
)
from pipeline.regions.vinvl.config import VinvlConfig
from pipeline.regions.vinvl.postprocess import select
from pipeline.regions.vinvl.resnext import Backbone
from pipeline.regions.vinvl.roi_heads import AttributeHead, RoIHeads
from pipeline.regions.vinvl.rpn import RPN, cell_anchors, crop_maps

MODE_2_REFINED = (
    "nms_mode 2 with ignore_box_regression false: the original then returns boxes of other proposals (it "
    "picks rows of the wrong table). Here each region has its proposal's box as refined for its best class; "
    "features as VinVL published them were made with ignore_box_regression true"
)


@dataclass(frozen=True)
class Regions:
    """What the detector saw in one image; n regions, best score first (mode 0: by class, then score)."""

    boxes: np.ndarray
    """(n, 4) float32, x1 y1 x2 y2 in pixels of the image given to `propose`."""
    scores: np.ndarray
    """(n,) float32."""
    class_ids: np.ndarray
    """(n,) int64, 1 and up."""
    labels: list[str]
    """Class names."""
    features: np.ndarray | None
    """(n, feature_size) float32 when asked for: the proposals' box features."""
    attributes: list[list[tuple[str, float]]] | None
    """Per region its attributes and their probabilities, best first; None without an attribute head."""


@dataclass(frozen=True)
class _Detections:
    """One image's detections in the frame of the resized image."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    features: Tensor


def to_input(image: np.ndarray, config: VinvlConfig) -> Tensor:
    """RGB uint8 (H, W, 3) -> float32 (3, h, w): resized as Pillow does, BGR, 0-255, mean subtracted."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"expected RGB uint8 (H, W, 3), got {image.dtype} {image.shape}")
    height, width = config.resized_size(image.shape[0], image.shape[1])
    picture = Image.fromarray(image)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    bgr = np.asarray(picture)[:, :, ::-1].astype(np.float32) - np.array(config.pixel_mean_bgr, np.float32)
    return torch.from_numpy(bgr).permute(2, 0, 1)


def _stack(inputs: Sequence[Tensor]) -> Tensor:
    """(C, h_i, w_i) -> (B, C, max h, max w), zero at the right and bottom."""
    height, width = max(x.shape[1] for x in inputs), max(x.shape[2] for x in inputs)
    batch = inputs[0].new_zeros(len(inputs), inputs[0].shape[0], height, width)
    for row, x in zip(batch, inputs, strict=True):
        row[:, : x.shape[1], : x.shape[2]] = x
    return batch


class AttrRCNN(nn.Module):
    """The detector. With the default config: X152-C4, 841 tensors in its state dict."""

    def __init__(
        self, config: VinvlConfig, labels: Sequence[str] = (), attributes: Sequence[str] = ()
    ) -> None:
        """labels, attributes: names by number, 0 included; without them the numbers are the names."""
        super().__init__()
        self.config = config
        self.labels = list(labels) or [str(i) for i in range(config.num_classes)]
        self.attributes = list(attributes) or [str(i) for i in range(config.num_attributes)]
        self.backbone = Backbone(config)
        self.rpn = RPN(config)
        self.roi_heads = RoIHeads(config)
        if config.num_attributes:
            self.attribute = AttributeHead(config, self.roi_heads.box.feature_extractor)

    @torch.inference_mode()
    def propose(
        self, images: Sequence[np.ndarray], *, features: bool = False, attributes: bool = True
    ) -> list[Regions]:
        """Regions of each image.

        images: RGB uint8 (H, W, 3), upright, any sizes; they run as one batch, and each gives what it
        gives alone up to float noise. features: also return the box features.
        """
        if not images:
            return []
        weight = next(self.parameters())
        inputs = [to_input(image, self.config) for image in images]
        sizes = [(x.shape[1], x.shape[2]) for x in inputs]
        batch = self._maps(_stack(inputs).to(weight), sizes)
        proposals = self.rpn(batch, sizes)
        maps = crop_maps(batch, sizes)
        detections = self._detect(maps, proposals, sizes)
        wanted = attributes and self.config.num_attributes > 0
        tables = self._attributes(maps, detections) if wanted else [None] * len(images)
        return [
            self._regions(found, table, size, image.shape[:2], features)
            for found, table, size, image in zip(detections, tables, sizes, images, strict=True)
        ]

    def _maps(self, batch: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Feature maps (B, C, h, w) of a padded batch, zero beyond each image."""
        padded = len(set(sizes)) > 1
        valid = torch.tensor(sizes, device=batch.device) if padded else None
        maps: Tensor = self.backbone(batch, valid)
        return maps

    def _detect(
        self, maps: list[Tensor], proposals: list[Tensor], sizes: list[tuple[int, int]]
    ) -> list[_Detections]:
        """The box head and its post-processing."""
        head = self.roi_heads.box
        features = head.feature_extractor(maps, proposals)
        logits, deltas = head.predictor(features)
        counts = [len(p) for p in proposals]
        parts = [torch.split(t, counts) for t in (logits.softmax(-1), deltas, features)]
        detections = []
        for probability, delta, feature, boxes, (height, width) in zip(*parts, proposals, sizes, strict=True):
            if self.config.ignore_box_regression:
                refined = boxes[:, None].expand(-1, self.config.num_classes, -1)
            else:
                refined = decode(delta, boxes[:, None], HEAD_WEIGHTS)
            refined = clip(refined, height, width)
            rows, labels = select(probability, refined, self.config)
            detections.append(
                _Detections(refined[rows, labels], probability[rows, labels], labels, feature[rows])
            )
        return detections

    def _attributes(self, maps: list[Tensor], detections: list[_Detections]) -> list[Tensor]:
        """Attribute probabilities (n, attributes) per image."""
        labels = torch.cat([found.labels for found in detections])
        tables: list[Tensor] = self.attribute(maps, [found.boxes for found in detections], labels)
        return tables

    def _regions(
        self,
        found: _Detections,
        table: Tensor | None,
        size: tuple[int, int],
        original: tuple[int, ...],
        features: bool,
    ) -> Regions:
        """Back to the original's pixels, names for numbers."""
        (height, width), (full_height, full_width) = size, original
        ratios = found.boxes.new_tensor([full_width / width, full_height / height] * 2)
        class_ids = found.labels.cpu().numpy()
        return Regions(
            boxes=(found.boxes * ratios).float().cpu().numpy(),
            scores=found.scores.float().cpu().numpy(),
            class_ids=class_ids,
            labels=[self.labels[i] for i in class_ids],
            features=found.features.float().cpu().numpy() if features else None,
            attributes=None if table is None else self._attribute_names(table),
        )

    def _attribute_names(self, table: Tensor) -> list[list[tuple[str, float]]]:
        """The best few attributes of each row, without the zeros that fill the original's tables."""
        count = min(self.config.attributes_per_box, table.shape[1])
        values, index = table.topk(count, dim=1)
        return [
            [(self.attributes[i], v) for v, i in zip(row, ids, strict=True) if v > 0]
            for row, ids in zip(values.tolist(), index.tolist(), strict=True)
        ]

    def save(self, path: Path) -> None:
        """Write weights (float16) and sizes as PATH.safetensors and PATH.json."""
        save_weights(path, self.state_dict(), self.config.to_json(), self.labels, self.attributes)


def load_vinvl(
    checkpoint: Path | str,
    labelmap: Path | str | None = None,
    config: VinvlConfig | None = None,
    device: str = "cpu",
) -> AttrRCNN:
    """The detector with a checkpoint's weights, in eval mode.

    Args:
        checkpoint: the official .pth (names as published, or a unique suffix of them) or a .safetensors.
        labelmap: JSON with `label_to_idx` and `attribute_to_idx`; by default the checkpoint's own .json
            or the official file beside it. Without any, labels are class numbers.
        config: sizes and settings; by default the checkpoint's own .json, else the true size.
        device: "cpu", "cuda", ... or "auto".

    Raises UserError when a file is missing or does not fit; nothing is ever left at random. Warns of
    `nms_mode` 2 with box regression, where the original's answer is not to be had (nor wanted).
    """
    checkpoint = Path(checkpoint)
    config = config or config_of(checkpoint)
    if config.nms_mode == 2 and not config.ignore_box_regression:
        warnings.warn(MODE_2_REFINED, stacklevel=2)
    if labelmap is None:
        labelmap = labelmap_of(checkpoint)
    labels = attributes = None
    if labelmap is not None:
        labels = read_labels(Path(labelmap), "label_to_idx", config.num_classes)
        if config.num_attributes:
            attributes = read_labels(Path(labelmap), "attribute_to_idx", config.num_attributes)
    with torch.device("meta"):  # no time spent on random weights that are replaced at once
        model = AttrRCNN(config, labels or (), attributes or ())
    wanted = model.state_dict()
    wanted[ANCHORS] = cell_anchors(config.anchor_sizes, config.anchor_ratios)
    state = match_names(wanted, read_state(checkpoint))
    state = {name: tensor.to(torch.float32, copy=True) for name, tensor in state.items()}
    model.load_state_dict(state, strict=True, assign=True)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.requires_grad_(False).eval().to(device)
