"""The frozen encoders: which weights, checked by their hash, and how pictures and words enter them.

`sam` and `clip` hold the loaders. This module imports no torch, so that params can be read without it.
"""

import functools
import json
from pathlib import Path
from typing import Any, Literal

import pydantic

from pipeline.params import STRICT, UserError, fingerprint
from pipeline.storage import sha256_file

HASHES = "sha256.json"
"""File beside weights that lists, by relative path, the SHA-256 each must have."""


ClipPrecision = Literal["float32", "bf16", "fp16"]


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class SamParams:
    """SAM, the visual encoder of Sec. 3.2."""

    arch: Literal["tiny", "vit_b", "vit_l", "vit_h"] = "tiny"
    """Official architecture, or the built-in small one, whose sizes stand in a json beside its weights."""
    checkpoint: Path = Path("weights/tiny/sam.safetensors")
    """Official ``sam_vit_*.pth``, or ``sam.safetensors`` of the small one."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ClipParams:
    """CLIP, for region-utterance similarity (Sec. 4.1) and as the language model's eyes (Sec. 3.3)."""

    name: str = "tiny"
    """An open_clip model name (the paper's: ViT-B-16; OpenAI's own weights: ViT-B-16-quickgelu), or tiny."""
    checkpoint: Path = Path("weights/tiny/clip.safetensors")
    """A local file: OpenAI's own .pt (TorchScript), or open_clip's .bin, .pt or .safetensors. Nothing is ever
    downloaded."""
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
    """Folder of a GPT-2 as transformers saves it: config.json, model.safetensors, tokenizer files."""
    device: str = "auto"
    """auto (the GPU where there is one), cpu, cuda, cuda:1. Never part of a fingerprint."""

    def torch_device(self) -> str:
        """The device to run on, `auto` resolved. Raises `UserError` when a GPU is asked for and absent."""
        import torch

        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise UserError(f"backbones.device is {self.device}, but torch sees no GPU; use auto or cpu")
        return self.device


def verify(path: Path) -> str:
    """Check a weights file, or a folder of them, against the `sha256.json` beside it.

    The list is looked for in the file's folder and in the one above. Without a list there is nothing to
    compare with, and the hash alone is returned (official weights lie wherever their user put them).

    Args:
        path: a file, or a folder whose listed files are all checked.

    Returns:
        Hex SHA-256 of the file; for a folder, of its listed names and hashes.

    Raises:
        UserError: missing, listed with another hash, or absent from an existing list.
    """
    if not path.exists():
        raise UserError(f"weights {path} do not exist; check the `backbones` section of the params")
    folder = path if path.is_dir() else path.parent
    for root in (folder, folder.parent):
        if (root / HASHES).is_file():
            return _verify_listed(path, root)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return fingerprint({file.relative_to(path).as_posix(): _digest(file) for file in files})
    return _digest(path)


def _verify_listed(path: Path, root: Path) -> str:
    listed = _read_hashes(root / HASHES)
    name = path.relative_to(root).as_posix()
    names = [name] if path.is_file() else sorted(n for n in listed if name == "." or n.startswith(f"{name}/"))
    missing = [n for n in names if n not in listed]
    if not names or missing:
        raise UserError(f"{root / HASHES} does not list {name}; add its hash, or move it to another folder")
    found: dict[str, str] = {}
    for n in names:
        if not (root / n).is_file():
            raise UserError(f"{root / n} is listed in {root / HASHES} but does not exist")
        found[n] = _digest(root / n)
        if found[n] != listed[n]:
            raise UserError(
                f"{root / n} has SHA-256 {found[n]}, but {HASHES} says {listed[n]}: "
                "the file is damaged or was replaced; restore it or update the list"
            )
    return found[name] if path.is_file() else fingerprint(found)


def _read_hashes(path: Path) -> dict[str, str]:
    try:
        listed: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    if not isinstance(listed, dict) or not all(isinstance(value, str) for value in listed.values()):
        raise UserError(f"{path} must map file names to SHA-256 strings")
    return listed


def _digest(path: Path) -> str:
    """SHA-256 of a file, remembered for as long as its size and time stay the same."""
    stat = path.stat()
    return _digest_at(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _digest_at(path: Path, _size: int, _mtime_ns: int) -> str:
    return sha256_file(path)
