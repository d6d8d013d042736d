"""Sizes and test-time settings of the VinVL detector, true size by default.

The defaults are `sgg_configs/vgattr/vinvl_x152c4.yaml` of microsoft/scene_graph_benchmark with the
overrides of its README for feature extraction, but for one: boxes are refined (`ignore_box_regression`), as
in the step `regions`. The gallery's small detector is the same class with other numbers, kept in a JSON file
beside its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from pipeline.common.errors import UserError

NmsMode = Literal[0, 1, 2]


@dataclass(frozen=True)
class VinvlConfig:
    """Everything that shapes an `AttrRCNN`: what the weights need, then what may change per run."""

    stem_channels: int = 64
    """Output channels of the 7x7 stem."""
    groups: int = 32
    """Groups of every 3x3 convolution (ResNeXt's cardinality)."""
    width_per_group: int = 8
    """Channels per group in layer1; doubled in each following layer."""
    stage_channels: int = 256
    """Output channels of layer1; doubled in each following layer (layer4: the region feature)."""
    blocks: tuple[int, int, int, int] = (3, 8, 36, 3)
    """Bottlenecks in layer1, layer2, layer3 (the map) and layer4 (the box head)."""
    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Side of the square anchors, in pixels of the resized image."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width of the anchors."""
    roi_resolution: int = 14
    """Side of the pooled grid that enters layer4."""
    num_classes: int = 1595
    """Classes, counting the background (0)."""
    num_attributes: int = 525
    """Attributes, counting "none" (0). 0: no attribute head."""
    class_embedding: int = 256
    """Width of the class embedding that the attribute head reads."""
    attribute_hidden: int = 512
    """Hidden width of the attribute head."""

    short_side: int = 600
    """Length the shorter side is resized to, in pixels..."""
    long_side: int = 1000
    """... unless the longer side would then pass this."""
    pixel_mean_bgr: tuple[float, float, float] = (103.530, 116.280, 123.675)
    """Subtracted from 0-255 values in BGR order; the standard deviation is 1."""
    rpn_pre_nms: int = 6000
    """Anchors decoded per image, best objectness first."""
    rpn_nms: float = 0.7
    """IoU above which the weaker of two proposals goes."""
    rpn_post_nms: int = 300
    """Proposals per image that reach the box head."""
    nms_mode: NmsMode = 1
    """Post-processing (NMS_FILTER): 0 per class, 1 one label per proposal, 2 one class-agnostic pass."""
    score_threshold: float = 0.2
    """Detections below this go, but never below `min_detections`."""
    nms: float = 0.5
    """IoU of the final suppression in modes 0 and 2 (mode 1 has its own, 0.3)."""
    min_detections: int = 10
    """Fewest detections per image, as far as there are proposals."""
    max_detections: int = 100
    """Most detections per image."""
    ignore_box_regression: bool = False
    """False: regions are refined per class by the box head, the original's own default. True: they are the
    raw proposals, which its README chooses where features are extracted."""
    attribute_threshold: float = 0.05
    """Attributes at or below this probability are left out."""
    attributes_per_box: int = 16
    """Most attributes per region."""
    attributes_per_image: int = 100
    """Most attributes per image, as the original counts them; 0: no limit. See `roi_heads.cap_attributes`."""

    def __post_init__(self) -> None:
        width = self.groups * self.width_per_group
        problems = []
        if self.nms_mode not in (0, 1, 2):
            problems.append(f"nms_mode must be 0, 1 or 2, not {self.nms_mode}")
        if len(self.blocks) != 4 or min(self.blocks) < 1:
            problems.append(f"blocks must name four layers of at least one block, not {self.blocks}")
        if width < 1 or self.stage_channels < 1:
            problems.append("groups, width_per_group and stage_channels must be positive")
        if self.num_classes < 2:
            problems.append(f"num_classes counts the background, so it is at least 2, not {self.num_classes}")
        if not 0 <= self.min_detections <= self.max_detections or self.max_detections < 1:
            problems.append(
                f"0 <= min_detections <= max_detections, and 1 <= max_detections, does not hold: "
                f"{self.min_detections}, {self.max_detections}"
            )
        if not (0 < self.nms <= 1 and 0 < self.rpn_nms <= 1):
            problems.append(f"nms and rpn_nms lie between 0 and 1, not {self.nms} and {self.rpn_nms}")
        if not 0 < self.short_side <= self.long_side:
            problems.append(f"0 < short_side <= long_side does not hold: {self.short_side}, {self.long_side}")
        if problems:
            raise UserError("VinVL config: " + "; ".join(problems))

    @property
    def map_channels(self) -> int:
        """Channels of the stride-16 feature map (layer3's output)."""
        return self.stage_channels * 4

    @property
    def feature_size(self) -> int:
        """Length of a region's feature (layer4's output): 2048 at true size."""
        return self.stage_channels * 8

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image after the original's resize rule, each at least 1."""
        short, long = min(height, width), max(height, width)
        side = self.short_side
        if long / short * side > self.long_side:
            side = max(1, round(self.long_side * short / long))
        if short == side:
            return height, width
        scaled = int(side * long / short)
        return (side, scaled) if height <= width else (scaled, side)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> VinvlConfig:
        """The inverse of `to_json`. Raises UserError on unknown names."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise UserError(f"VinVL config: unknown settings {unknown}")
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**plain)
