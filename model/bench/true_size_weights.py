"""Random weights of the paper's sizes in the official formats: speed can be measured without the real files.

What they find means nothing; how long they take is what the real ones take, as far as their proposals and
regions are as many.
"""

import dataclasses
import logging
from pathlib import Path
from typing import Literal

import open_clip
import torch
from safetensors.torch import save_file
from segment_anything import sam_model_registry

from pipeline.backbones.params import BackbonesParams
from pipeline.regions.vinvl.config import VinvlConfig
from pipeline.regions.vinvl.detector import AttrRCNN
from pipeline.regions.vinvl.resnext import FrozenBatchNorm2d

CLIP = "ViT-B-16"
SamArch = Literal["vit_b", "vit_l", "vit_h"]
RESIDUAL = 0.2
"""Scale of what each VinVL block adds: fifty random blocks at 1 would overflow."""


def write(folder: Path, backbones: BackbonesParams, seed: int = 0) -> BackbonesParams:
    """Write SAM ViT-B (.pth), CLIP ViT-B/16 (.safetensors) and VinVL X152-C4 (.pth), 1.6 GB in all.

    Args:
        folder: made when absent.
        backbones: params that keep everything but names and files: device, precision ...
        seed: of the weights.
    """
    torch.manual_seed(seed)
    return write_vinvl(folder, write_clip(folder, write_sam(folder, backbones)))


def write_sam(folder: Path, backbones: BackbonesParams, arch: SamArch = "vit_b") -> BackbonesParams:
    """One of SAM's official sizes (0.4, 1.2, 2.6 GB); arguments as of `write`."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"sam_{arch}.pth"
    torch.save(sam_model_registry[arch](checkpoint=None).state_dict(), file)
    return dataclasses.replace(backbones, sam=dataclasses.replace(backbones.sam, arch=arch, checkpoint=file))


def write_clip(folder: Path, backbones: BackbonesParams) -> BackbonesParams:
    """CLIP ViT-B/16 (0.6 GB); arguments as of `write`."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "clip.safetensors"
    save_file(random_clip().state_dict(), file)
    return dataclasses.replace(
        backbones, clip=dataclasses.replace(backbones.clip, name=CLIP, checkpoint=file)
    )


def write_vinvl(folder: Path, backbones: BackbonesParams) -> BackbonesParams:
    """VinVL X152-C4 (0.7 GB); arguments as of `write`."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "vinvl_vg_x152c4.pth"
    torch.save({"model": _detector().state_dict()}, file)
    return dataclasses.replace(backbones, vinvl=dataclasses.replace(backbones.vinvl, checkpoint=file))


def random_clip() -> torch.nn.Module:
    """A random CLIP, without open_clip's warning that it is one."""
    logging.disable(logging.WARNING)
    try:
        return open_clip.create_model(CLIP, load_weights=False, pretrained_text=False)
    finally:
        logging.disable(logging.NOTSET)


def _detector() -> AttrRCNN:
    """A random X152-C4 whose activations stay finite."""
    model = AttrRCNN(VinvlConfig())
    for name, module in model.named_modules():
        if isinstance(module, FrozenBatchNorm2d) and name.endswith("bn3"):
            module.weight.fill_(RESIDUAL)
    return model
