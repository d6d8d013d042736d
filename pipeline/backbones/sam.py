"""SAM's image encoder: RGB pictures in, (C, h, w) grids out.

Official sizes come from `segment_anything`'s builders and its ``sam_vit_*.pth`` files; the built-in small one
is the same classes at the sizes of its ``sam.json``. Preprocessing is the official one (`ResizeLongestSide`,
`Sam.preprocess`): the long side to the input size with Pillow's bilinear, normalise, then zero-pad right and
bottom.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn
from torch.nn import functional as F

from pipeline.backbones import verify
from pipeline.geometry import frame_size
from pipeline.params import UserError


@dataclasses.dataclass(frozen=True)
class SamConfig:
    """Sizes of a SAM; the defaults are those of the built-in small one (``sam.json``)."""

    img_size: int = 256  # pixels of the padded square input
    patch_size: int = 16  # pixels; the grid is img_size / patch_size a side
    embed_dim: int = 128  # channels inside the vision transformer
    depth: int = 4
    num_heads: int = 4
    window_size: int = 8  # patches; windowed attention everywhere but in global_attn_indexes
    global_attn_indexes: tuple[int, ...] = (1, 3)
    out_chans: int = 128  # channels of the grid, and width of prompts and mask decoder
    mask_in_chans: int = 16
    decoder_depth: int = 2
    decoder_num_heads: int = 4
    decoder_mlp_dim: int = 512
    iou_head_hidden_dim: int = 128


def build_sam(config: SamConfig) -> Sam:
    """A `segment_anything` SAM of any size, randomly initialised, wired as its official builder wires it."""
    grid = config.img_size // config.patch_size
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=config.img_size,
            patch_size=config.patch_size,
            embed_dim=config.embed_dim,
            depth=config.depth,
            num_heads=config.num_heads,
            mlp_ratio=4.0,
            out_chans=config.out_chans,
            qkv_bias=True,
            norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=config.window_size,
            global_attn_indexes=config.global_attn_indexes,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=config.out_chans,
            image_embedding_size=(grid, grid),
            input_image_size=(config.img_size, config.img_size),
            mask_in_chans=config.mask_in_chans,
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=config.out_chans,
            transformer=TwoWayTransformer(
                depth=config.decoder_depth,
                embedding_dim=config.out_chans,
                num_heads=config.decoder_num_heads,
                mlp_dim=config.decoder_mlp_dim,
            ),
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=config.iou_head_hidden_dim,
        ),
    )


def read_config(path: Path) -> SamConfig:
    """``sam.json`` beside the small SAM's weights. Raises `UserError` when it is no such file."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values["global_attn_indexes"] = tuple(values["global_attn_indexes"])
        return SamConfig(**values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not describe a SAM: {error!r}") from None


def load_sam_model(arch: str, checkpoint: Path) -> Sam:
    """The whole SAM (image encoder, prompt encoder, mask decoder) on the CPU, float32, in eval mode.

    Args:
        arch: ``vit_b``, ``vit_l``, ``vit_h`` for an official .pth, or ``tiny`` for ``sam.safetensors`` with
            ``sam.json`` beside it.
        checkpoint: the file. Its hash is checked where a `sha256.json` lists it.

    Raises:
        UserError: missing file, wrong hash, or weights of another architecture (differing keys are named).
    """
    verify(checkpoint)
    if arch == "tiny":
        config = checkpoint.with_suffix(".json")
        verify(config)
        sam = build_sam(read_config(config))
    else:
        sam = sam_model_registry[arch](checkpoint=None)
    load_strictly(sam, read_state_dict(checkpoint), f"SAM {arch}", checkpoint)
    return sam.eval()


def read_state_dict(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Tensors of a .safetensors, or of a .pth/.pt/.bin by torch's weights-only unpickler, on the CPU."""
    try:
        if checkpoint.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(checkpoint)
        state: Any = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # unpicklers and archive readers answer a damaged file with almost anything
        raise UserError(f"weights {checkpoint} cannot be read: {error}") from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"weights {checkpoint} hold no state dict (a mapping of names to tensors)")
    return state


def load_strictly(model: nn.Module, state: dict[str, torch.Tensor], what: str, checkpoint: Path) -> None:
    """Load every weight, cast to the model's dtype; `UserError` names what is missing, extra or misshapen."""
    own = model.state_dict()
    missing = sorted(own.keys() - state.keys())
    extra = sorted(state.keys() - own.keys())
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(own.keys() & state.keys())
        if own[name].shape != state[name].shape
    ]
    if missing or extra or shapes:
        listed = "\n".join(
            f"  {title}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
            for title, names in (("missing", missing), ("not expected", extra), ("misshapen", shapes))
            if names
        )
        raise UserError(f"{checkpoint} is not a checkpoint of {what}:\n{listed}")
    model.load_state_dict(state, strict=True)


class SamEncoder:
    """A frozen SAM image encoder on a device."""

    def __init__(self, sam: Sam, device: str, arch: str = "", sha256: str = "") -> None:
        self.device = torch.device(device)
        self.encoder = sam.image_encoder.to(self.device).eval().requires_grad_(False)
        self.mean = sam.pixel_mean.to(self.device)
        self.std = sam.pixel_std.to(self.device)
        self.img_size: int = sam.image_encoder.img_size
        self.arch = arch
        self.sha256 = sha256
        """Hash of the weights file."""

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in the padded square input of a picture of this size; the rest is padding."""
        return frame_size(height, width, self.img_size)

    def preprocess(self, image: np.ndarray) -> torch.Tensor:
        """uint8 RGB (H, W, 3) to the normalised, padded float32 input (3, img_size, img_size)."""
        height, width = self.input_size(*image.shape[:2])
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(resized)).to(self.device).permute(2, 0, 1).float()
        normalised = (pixels - self.mean) / self.std
        return F.pad(normalised, (0, self.img_size - width, 0, self.img_size - height))

    @torch.inference_mode()
    def encode(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Grids of pictures of any sizes.

        Args:
            images: uint8 RGB arrays (H, W, 3).

        Returns:
            float32 (B, C, h, w) on the device: 256x64x64 at the official sizes. Cells to the right of and
            below a picture's `input_size` saw padding.
        """
        if not images:
            raise ValueError("no images to encode")
        grids: torch.Tensor = self.encoder(torch.stack([self.preprocess(image) for image in images]))
        return grids


def load_sam(arch: str, checkpoint: Path, device: str) -> SamEncoder:
    """SAM's image encoder from a checkpoint; see `load_sam_model` for arguments and errors."""
    return SamEncoder(load_sam_model(arch, checkpoint), device, arch, verify(checkpoint))
