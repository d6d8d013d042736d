"""The frozen encoders: which weights, checked by their hash, and how pictures and words enter them.

`sam` and `clip` hold the loaders. This module imports no torch, so that params can be read without it.
"""

from pathlib import Path
from typing import Literal

import pydantic

from pipeline.common import machine
from pipeline.common.params import STRICT

ClipPrecision = Literal["float32", "bf16", "fp16"]
Normalisation = Literal["clip", "imagenet"]
"""Mean and standard deviation that pixels are normalised by: CLIP's own, or ImageNet's."""
SamPrecision = Literal["float32", "bf16"]
"""Arithmetic of SAM's transformer. With bf16 its residual stream and its neck stay float32: the neck, less
than a percent of the work, normalises last, so its rounding would go straight into the grid."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class SamParams:
    """SAM, the visual encoder of Sec. 3.2."""

    arch: Literal["tiny", "vit_b", "vit_l", "vit_h"] = "tiny"
    """Official architecture, or the built-in small one, whose sizes stand in a json beside its weights."""
    checkpoint: Path = Path("weights/tiny/sam.safetensors")
    """Official ``sam_vit_*.pth``, ``sam.safetensors`` of the small one, or transformers' folder of it."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ClipParams:
    """CLIP, for region-utterance similarity (Sec. 4.1) and as the language model's eyes (Sec. 3.3)."""

    name: str = "tiny"
    """An open_clip model name (the paper's: ViT-B-16; OpenAI's own weights: ViT-B-16-quickgelu), or tiny."""
    checkpoint: Path = Path("weights/tiny/clip.safetensors")
    """OpenAI's own .pt (TorchScript), open_clip's .bin, .pt or .safetensors, or transformers' folder of a
    CLIPModel. Nothing is ever downloaded."""
    precision: ClipPrecision = "float32"
    """Arithmetic of CLIP's transformers. fp16 (OpenAI's own on a GPU) and bf16 are for GPUs; they move the
    gallery's cosines by at most 0.001 and 0.007."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class VinvlParams:
    """The VinVL detector, which proposes the regions (Sec. 4.1)."""

    checkpoint: Path = Path("weights/tiny/vinvl.safetensors")
    """Weights; the sizes and the label map of the built-in small one stand in a json beside them."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class FasterRcnnParams:
    """torchvision's Faster R-CNN, another proposer of regions (80 kinds of everyday things)."""

    name: Literal["fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2"] = "fasterrcnn_resnet50_fpn"
    """torchvision's name of the network."""
    checkpoint: Path = Path("weights/fasterrcnn_resnet50_fpn_coco-258fb6c6.pth")
    """Its official COCO weights; v2's are fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class BackbonesParams:
    """Which pretrained weights the steps use, and where they run."""

    sam: SamParams = SamParams()
    clip: ClipParams = ClipParams()
    vinvl: VinvlParams = VinvlParams()
    faster_rcnn: FasterRcnnParams = FasterRcnnParams()
    language_model: Path = Path("weights/tiny/gpt2")
    """Folder of a GPT-2 as transformers saves it: config.json, weights, tokenizer files."""
    device: str = "auto"
    """auto (the GPU where there is one), cpu, cuda, cuda:1. Never part of a fingerprint."""

    def torch_device(self) -> str:
        """See `machine.torch_device`."""
        return machine.torch_device(self.device, "backbones.device")
