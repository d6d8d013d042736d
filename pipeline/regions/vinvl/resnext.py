"""The detector's convolutional parts: frozen batch norm, stem, bottlenecks, layer1-3 and layer4.

Module names give the original state-dict names (`backbone.body.layer1.0.conv1.weight`).

Images of different size share a batch by zero padding at the right and bottom. A convolution wider
than 1x1 would then read, at an image's edge, what biases made of the padding instead of zeros; so the
padding is set back to zero before each of them, and a padded image gives what it gives alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.regions.vinvl.config import VinvlConfig


class FrozenBatchNorm2d(nn.Module):
    """Batch norm as four constants, without the eps of torchvision's class of the same name."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        scale = self.weight * self.running_var.rsqrt()
        shift = self.bias - self.running_mean * scale
        return (x * scale[:, None, None]).add_(shift[:, None, None])


def valid_mask(sizes: Tensor, like: Tensor) -> Tensor:
    """1 inside each image, 0 in its padding: (B, 1, H, W) from sizes (B, 2) as (height, width)."""
    rows = torch.arange(like.shape[-2], device=like.device)
    columns = torch.arange(like.shape[-1], device=like.device)
    inside = (rows < sizes[:, :1])[:, :, None] & (columns < sizes[:, 1:])[:, None, :]
    return inside[:, None].to(like.dtype)


def halve(sizes: Tensor) -> Tensor:
    """Map sizes after a stride-2 convolution or pooling with this network's paddings."""
    return (sizes + 1) // 2


class Stem(nn.Module):
    """7x7/2 convolution, norm, ReLU, 3x3/2 max pooling: stride 4."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn1: nn.Module = FrozenBatchNorm2d(channels)

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, C, ceil(H/4), ceil(W/4))."""
        x = F.relu_(self.bn1(self.conv1(x)))
        if sizes is not None:
            x = x * valid_mask(halve(sizes), x)
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


class Bottleneck(nn.Module):
    """1x1, grouped 3x3 (which holds the stride), 1x1, with a residual."""

    def __init__(self, channels_in: int, width: int, channels_out: int, groups: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1: nn.Module = FrozenBatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2: nn.Module = FrozenBatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3: nn.Module = FrozenBatchNorm2d(channels_out)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, Cin, H, W) -> (B, Cout, H/stride, W/stride); mask (B, 1, H, W) marks the valid cells."""
        out = F.relu_(self.bn1(self.conv1(x)))
        if mask is not None:
            out = out * mask
        out = F.relu_(self.bn2(self.conv2(out)))
        return F.relu_(self.bn3(self.conv3(out)).add_(self.identity(x)))

    def identity(self, x: Tensor) -> Tensor:
        """The residual branch."""
        return x


class DownsampleBottleneck(Bottleneck):
    """The first block of a layer: its residual is a strided 1x1 convolution and a norm."""

    def __init__(self, channels_in: int, width: int, channels_out: int, groups: int, stride: int) -> None:
        super().__init__(channels_in, width, channels_out, groups, stride)
        self.downsample = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False),
            FrozenBatchNorm2d(channels_out),
        )

    def identity(self, x: Tensor) -> Tensor:
        """The residual branch, brought to the block's output shape."""
        residual: Tensor = self.downsample(x)
        return residual


def make_layer(config: VinvlConfig, index: int) -> nn.Sequential:
    """Layer 1, 2, 3 or 4 as its blocks. All but layer1 halve the map in their first block."""
    width = config.groups * config.width_per_group * 2 ** (index - 1)
    channels_out = config.stage_channels * 2 ** (index - 1)
    channels_in = config.stem_channels if index == 1 else channels_out // 2
    stride = 1 if index == 1 else 2
    first = DownsampleBottleneck(channels_in, width, channels_out, config.groups, stride)
    rest = [
        Bottleneck(channels_out, width, channels_out, config.groups, 1)
        for _ in range(config.blocks[index - 1] - 1)
    ]
    return nn.Sequential(first, *rest)


class Body(nn.Module):
    """Stem and layers 1-3: one map at stride 16."""

    def __init__(self, config: VinvlConfig) -> None:
        super().__init__()
        self.stem = Stem(config.stem_channels)
        self.layer1 = make_layer(config, 1)
        self.layer2 = make_layer(config, 2)
        self.layer3 = make_layer(config, 3)

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Normalised images (B, 3, H, W) -> map (B, C, ceil(H/16), ceil(W/16)), zero in the padding.

        sizes: (B, 2) height and width of each image within the batch; None when none is padded.
        """
        x = self.stem(x, sizes)
        if sizes is not None:
            sizes = halve(halve(sizes))
        mask = None if sizes is None else valid_mask(sizes, x)
        for layer in (self.layer1, self.layer2, self.layer3):
            for block in layer:
                before = x.shape
                x = block(x, mask)
                if sizes is not None and x.shape[-2:] != before[-2:]:
                    sizes = halve(sizes)
                    mask = valid_mask(sizes, x)
        return x if mask is None else x * mask


class Backbone(nn.Module):
    """Holds the body under the original's name."""

    def __init__(self, config: VinvlConfig) -> None:
        super().__init__()
        self.body = Body(config)

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """See `Body.forward`."""
        features: Tensor = self.body(x, sizes)
        return features
