"""SAM's image encoder: RGB pictures in, (C, h, w) grids out.

Official sizes come from `segment_anything`'s builders and its ``sam_vit_*.pth`` files; the built-in small one
is the same classes at the sizes of its ``sam.json``. Preprocessing is the official one (`ResizeLongestSide`,
`Sam.preprocess`): the long side to the input size with Pillow's bilinear, normalise, then zero-pad right and
bottom. Attention is computed by one fused kernel, which changes speed and memory and no result beyond float
noise.
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
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from torch import nn
from torch.nn import functional as F

from pipeline.backbones.params import SamPrecision
from pipeline.backbones.sam_weights import read_sam
from pipeline.backbones.tensors import misfits, shapes_of, sizes_beside
from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common.errors import UserError
from pipeline.common.geometry import frame_size


@dataclasses.dataclass(frozen=True)
class SamConfig:
    """Sizes of a SAM; the defaults are those of the built-in small one (``sam.json``)."""

    img_size: int = 160  # pixels of the padded square input
    patch_size: int = 8  # pixels; the grid is img_size / patch_size a side
    embed_dim: int = 128  # channels inside the vision transformer
    depth: int = 4
    num_heads: int = 4
    window_size: int = 10  # patches; windowed attention everywhere but in global_attn_indexes
    global_attn_indexes: tuple[int, ...] = (2,)
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
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} does not describe a SAM: {error!r}") from None


def random_sam(arch: str, checkpoint: Path) -> Sam:
    """A SAM of the size that `arch` names, or for ``tiny`` the json of the checkpoint's stem; not loaded."""
    if arch == "tiny":
        return build_sam(read_config(sizes_beside(checkpoint)))
    sam: Sam = sam_model_registry[arch](checkpoint=None)
    return sam


def load_sam_model(arch: str, checkpoint: Path) -> Sam:
    """The whole SAM (image encoder, prompt encoder, mask decoder) on the CPU, float32, in eval mode.

    Args:
        arch: ``vit_b``, ``vit_l``, ``vit_h`` for the official sizes, or ``tiny`` for those of a json of the
            checkpoint's stem beside it.
        checkpoint: see `sam_weights.read_sam`. Its hash is checked where a `sha256.json` lists it.

    Raises:
        UserError: missing file, wrong hash, or weights of another architecture (differing keys are named).
    """
    verify_weights(checkpoint)
    if arch == "tiny":
        verify_weights(sizes_beside(checkpoint))
    weights, _ = read_sam(checkpoint)
    sam = random_sam(arch, checkpoint)
    load_strictly(sam, weights, f"SAM {arch}", checkpoint)
    return sam.eval()


def load_strictly(model: nn.Module, state: dict[str, torch.Tensor], what: str, checkpoint: Path) -> None:
    """Load every weight, cast to the model's dtype; `UserError` names what is missing, extra or misshapen."""
    if listed := misfits(shapes_of(model.state_dict()), shapes_of(state)):
        raise UserError(f"{checkpoint} is not a checkpoint of {what}:\n{listed}")
    model.load_state_dict(state, strict=True)


class FusedAttention(nn.Module):
    """`segment_anything`'s attention, its decomposed relative positions as the bias of one fused kernel.

    The plain form holds several float32 copies of (batch, heads, 4096, 4096) in each global block of the
    official sizes; this one holds the bias alone.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, h, w, C) to the same shape."""
        batch, height, width, _ = x.shape
        a = self.attention
        qkv = a.qkv(x).reshape(batch, height * width, 3, a.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        grid = q.unflatten(2, (height, width))
        rows = torch.einsum("bnhwc,hkc->bnhwk", grid, get_rel_pos(height, height, a.rel_pos_h))
        columns = torch.einsum("bnhwc,wkc->bnhwk", grid, get_rel_pos(width, width, a.rel_pos_w))
        bias = (rows[..., :, None] + columns[..., None, :]).flatten(4).flatten(2, 3)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=a.scale)
        projected: torch.Tensor = a.proj(out.transpose(1, 2).reshape(batch, height, width, -1))
        return projected


class PointwiseConv(nn.Module):
    """A 1 x 1 convolution without bias as one product of matrices.

    On a CPU the convolution's own kernel splits its sum over the channels between the threads, so that their
    number decides the last bits: it was the encoder's only operation that did.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = conv.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) to (B, C', h, w)."""
        return torch.matmul(self.weight.flatten(1), x.flatten(2)).unflatten(2, x.shape[2:])


class SamEncoder:
    """A frozen SAM image encoder on a device. On a CPU its grids do not depend on the number of threads."""

    def __init__(
        self,
        sam: Sam,
        device: str,
        arch: str = "",
        sha256: str = "",
        *,
        precision: SamPrecision = "float32",
        compiled: bool = False,
    ) -> None:
        """Take over a SAM's image encoder, whose attention modules are replaced by `FusedAttention`.

        Args:
            sam: the model; do not use its own forward afterwards.
            device: torch device name.
            arch, sha256: what weights they are, and the hash of their file.
            precision: see `SamPrecision`.
            compiled: let `torch.compile` fuse the transformer. Takes a minute at first, and is left out on
                the CPU, where there is nothing to gain.
        """
        self.device = torch.device(device)
        self.encoder = sam.image_encoder.to(self.device).eval().requires_grad_(False)
        for block in self.encoder.blocks:
            if isinstance(block.attn, Attention):
                block.attn = FusedAttention(block.attn)
        if self.device.type == "cpu":
            self.encoder.neck[0] = PointwiseConv(self.encoder.neck[0])
        self.mean = sam.pixel_mean.to(self.device)
        self.std = sam.pixel_std.to(self.device)
        self.img_size: int = sam.image_encoder.img_size
        self.arch = arch
        self.sha256 = sha256
        self.precision = precision
        self._transformer = self._run_transformer
        self._batch = 1
        """Pictures of a compiled call; its shape is fixed, and smaller batches are filled up."""
        self._compiled = compiled and self.device.type == "cuda"
        if self._compiled:
            self._transformer = torch.compile(self._run_transformer, dynamic=False)

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) in the padded square input of a picture of this size; the rest is padding."""
        return frame_size(height, width, self.img_size)

    def resize(self, image: np.ndarray) -> np.ndarray:
        """uint8 RGB (H, W, 3) at its `input_size`, uint8, as `ResizeLongestSide.apply_image`.

        Pillow's work on the CPU, safe on any thread; `encode` leaves pictures of this size as they are.
        """
        height, width = self.input_size(*image.shape[:2])
        if image.shape[:2] == (height, width):
            return image
        return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))

    def preprocess(self, image: np.ndarray) -> torch.Tensor:
        """uint8 RGB (H, W, 3) to the normalised, padded float32 input (3, img_size, img_size)."""
        resized = self.resize(image)
        height, width = resized.shape[:2]
        pixels = torch.from_numpy(resized).to(self.device).permute(2, 0, 1).float()
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
        pixels = torch.stack([self.preprocess(image) for image in images])
        if self._compiled:
            self._batch = max(self._batch, len(images))
            pixels = F.pad(pixels, (0, 0, 0, 0, 0, 0, 0, self._batch - len(images)))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            tokens = self._transformer(pixels)[: len(images)]
        grids: torch.Tensor = self.encoder.neck(tokens.float().permute(0, 3, 1, 2))
        return grids

    def _run_transformer(self, pixels: torch.Tensor) -> torch.Tensor:
        """`ImageEncoderViT.forward` up to its neck: (B, 3, S, S) to (B, h, w, embed_dim)."""
        tokens = self.encoder.patch_embed(pixels) + self.encoder.pos_embed
        for block in self.encoder.blocks:
            tokens = block(tokens)
        return tokens


def load_sam(
    arch: str, checkpoint: Path, device: str, *, precision: SamPrecision = "float32", compiled: bool = False
) -> SamEncoder:
    """SAM's image encoder from a checkpoint; arguments and errors as in `load_sam_model` and `SamEncoder`."""
    model = load_sam_model(arch, checkpoint)
    return SamEncoder(model, device, arch, verify_weights(checkpoint), precision=precision, compiled=compiled)
