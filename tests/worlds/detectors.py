"""A small VinVL detector with random weights, and pictures for it."""

import numpy as np
import torch

from pipeline.regions.vinvl.config import VinvlConfig
from pipeline.regions.vinvl.detector import AttrRCNN
from pipeline.regions.vinvl.resnext import FrozenBatchNorm2d

SMALL = VinvlConfig(
    stem_channels=8,
    groups=2,
    width_per_group=4,
    stage_channels=16,
    blocks=(1, 2, 1, 1),
    roi_resolution=6,
    num_classes=6,
    num_attributes=5,
    class_embedding=3,
    attribute_hidden=7,
    short_side=96,
    long_side=160,
    rpn_pre_nms=300,
    rpn_post_nms=40,
    max_detections=20,
    ignore_box_regression=False,
)


def detector(seed: int = 0, config: VinvlConfig = SMALL) -> AttrRCNN:
    """A small detector whose every constant matters: norms have random means and biases."""
    torch.manual_seed(seed)
    model = AttrRCNN(config)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.uniform_(0.7, 1.5)
            module.running_var.uniform_(0.3, 1.2)
            module.bias.normal_(std=0.3)
            module.running_mean.normal_(std=0.3)
    for name, parameter in model.named_parameters():
        if name.endswith(("cls_score.weight", "cls_logits.weight", "attr_score.weight", "fc_attr.weight")):
            torch.nn.init.normal_(parameter, std=0.5)
        if name.endswith("bbox_pred.weight"):
            torch.nn.init.normal_(parameter, std=0.05)
    return model.eval().requires_grad_(False)


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [
        np.kron(
            rng.integers(0, 256, (h // 20 + 1, w // 20 + 1, 3), dtype=np.uint8),
            np.ones((20, 20, 1), np.uint8),
        )[:h, :w]
        for h, w in sizes
    ]
