"""CLIP: region crops and sentences as unit vectors, and whole pictures as grids of patch tokens.

Models are open_clip's, by name with a local file, or the built-in small one (a json model config, weights and
BPE merges beside each other). Crops are cut and resized on the device from one decoded picture: millions of
crops must not go through Pillow. The result differs from Pillow's bicubic by at most 2 of 255 levels (the
device rounds once, Pillow after each axis; on the CPU both round twice and agree within 1).
"""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.tokenizer import SimpleTokenizer
from torch.nn import functional as F

from pipeline.backbones import verify
from pipeline.backbones.sam import load_strictly, read_state_dict
from pipeline.geometry import pixel_ranges
from pipeline.params import UserError

BPE = "bpe.txt.gz"
"""Merges of the small CLIP's tokenizer, beside its weights, in open_clip's format."""
TEXT_BATCH = 256

Fit = Literal["center", "squash"]
"""How a crop becomes square: `center` is CLIP's own preprocessing (short side to the input size, then the
middle square), `squash` resizes both sides and so keeps all of an elongated region."""


class Clip:
    """A frozen CLIP on a device."""

    def __init__(
        self,
        model: Any,
        tokenizer: Callable[..., torch.Tensor],
        device: str,
        *,
        name: str = "",
        sha256: str = "",
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.sha256 = sha256
        """Hash of the weights file."""
        size = model.visual.image_size
        self.size: int = size if isinstance(size, int) else size[0]
        """Side of the square input, pixels."""
        preprocess = getattr(model.visual, "preprocess_cfg", {})
        mean, std = preprocess.get("mean", OPENAI_DATASET_MEAN), preprocess.get("std", OPENAI_DATASET_STD)
        self.mean = torch.tensor(mean, device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(std, device=self.device).view(1, 3, 1, 1)
        self.truncated = 0
        """Sentences so far that were longer than the model's context and lost their end."""

    def on_device(self, image: np.ndarray) -> torch.Tensor:
        """uint8 RGB (H, W, 3) as a uint8 (3, H, W) tensor on the device."""
        return torch.from_numpy(image).to(self.device).permute(2, 0, 1)

    def crop(self, image: np.ndarray, boxes: np.ndarray, fit: Fit = "center") -> torch.Tensor:
        """Cut boxes from one picture and resize them, antialiased bicubic, on the device.

        Args:
            image: uint8 RGB (H, W, 3).
            boxes: float (N, 4) xyxy, pixels; a box without a pixel of its own takes the nearest one.
            fit: see `Fit`.

        Returns:
            uint8 (N, 3, size, size).
        """
        pixels = self.on_device(image)
        height, width = image.shape[:2]
        ranges = pixel_ranges(boxes, height, width)
        low = np.minimum(ranges[:, :2], [width - 1, height - 1])
        high = np.maximum(ranges[:, 2:], low + 1)
        crops = [
            resize(pixels[:, y1:y2, x1:x2], self.size, fit)
            for (x1, y1), (x2, y2) in zip(low.tolist(), high.tolist(), strict=True)
        ]
        if not crops:
            return torch.empty((0, 3, self.size, self.size), dtype=torch.uint8, device=self.device)
        return torch.stack(crops)

    def normalise(self, crops: torch.Tensor) -> torch.Tensor:
        """uint8 (N, 3, size, size) to the model's float32 input."""
        return (crops.float() / 255.0 - self.mean) / self.std

    @torch.inference_mode()
    def encode_pixels(self, crops: torch.Tensor) -> torch.Tensor:
        """uint8 crops (N, 3, size, size) as L2-normalised float32 (N, D)."""
        features: torch.Tensor = self.model.encode_image(self.normalise(crops), normalize=True)
        return features.float()

    def encode_crops(
        self, image: np.ndarray, boxes: np.ndarray, fit: Fit = "center", batch: int = 256
    ) -> torch.Tensor:
        """Regions of one picture as L2-normalised float32 (N, D); see `crop` for the arguments."""
        crops = self.crop(image, boxes, fit)
        if len(crops) == 0:
            return torch.empty((0, self.model.visual.output_dim), device=self.device)
        return torch.cat([self.encode_pixels(part) for part in crops.split(batch)])

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Sentences as L2-normalised float32 (N, D).

        Longer ones than the context lose their end (the end-of-text token stays) and are counted in
        `truncated`.
        """
        if not texts:
            return torch.empty((0, self.model.visual.output_dim), device=self.device)
        batches = self.tokenize(texts).to(self.device).split(TEXT_BATCH)
        parts = [self.model.encode_text(tokens, normalize=True) for tokens in batches]
        return torch.cat(parts).float()

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """int64 (N, context) token ids; counts the sentences that did not fit."""
        context = self.model.context_length
        longer = self.tokenizer(list(texts), context_length=context + 1)
        self.truncated += int((longer[:, -1] != 0).sum())
        return self.tokenizer(list(texts), context_length=context)

    @torch.inference_mode()
    def patch_tokens(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Grids of whole pictures, squashed to the square input: what the language model attends to.

        Args:
            images: uint8 RGB arrays (H, W, 3) of any sizes.

        Returns:
            float32 (B, patches, width), row-major: the last layer's patch tokens after `ln_post`, without
            the class token and without projection (196 x 768 for ViT-B/16).
        """
        if not images:
            raise ValueError("no images to encode")
        squashed = torch.stack([resize(self.on_device(image), self.size, "squash") for image in images])
        found = self.model.visual.forward_intermediates(
            self.normalise(squashed),
            indices=1,
            normalize_intermediates=True,
            intermediates_only=True,
            output_fmt="NLC",
        )
        tokens: torch.Tensor = found["image_intermediates"][0]
        return tokens.float()


def resize(pixels: torch.Tensor, size: int, fit: Fit) -> torch.Tensor:
    """uint8 (3, h, w) to uint8 (3, size, size), antialiased bicubic; see `Fit`."""
    height, width = pixels.shape[1:]
    target = (size, size)
    if fit == "center":
        short = min(height, width)
        target = (int(size * height / short), int(size * width / short))
    batch = pixels.unsqueeze(0)
    if pixels.is_cuda:  # torch resizes uint8 on the CPU alone
        resized = F.interpolate(batch.float(), target, mode="bicubic", antialias=True, align_corners=False)
        resized = resized.round().clamp(0, 255).to(torch.uint8)
    else:
        resized = F.interpolate(batch, target, mode="bicubic", antialias=True, align_corners=False)
    top, left = (round((side - size) / 2) for side in target)
    return resized[0, :, top : top + size, left : left + size]


def load_clip(name: str, checkpoint: Path, device: str) -> Clip:
    """CLIP from a local file.

    Args:
        name: an open_clip model name (``ViT-B-16``; OpenAI's own weights were trained with another GELU and
            need ``ViT-B-16-quickgelu``), or ``tiny``, with ``clip.json`` and ``bpe.txt.gz`` beside the file.
        checkpoint: state dict; .safetensors, or .pt/.bin read by torch's weights-only unpickler.
        device: torch device name.

    Raises:
        UserError: unknown name, missing file, wrong hash, or weights of another architecture.
    """
    sha256 = verify(checkpoint)
    tokenizer: Callable[..., torch.Tensor]
    if name == "tiny":
        config = checkpoint.with_suffix(".json")
        merges = checkpoint.with_name(BPE)
        verify(config)
        verify(merges)
        model = build_clip(read_config(config))
        tokenizer = SimpleTokenizer(bpe_path=str(merges))
    else:
        if name not in open_clip.list_models():
            raise UserError(f"backbones.clip.name: open_clip has no model {name!r}; try ViT-B-16")
        logging.disable(logging.WARNING)  # it would say that the weights stay random; they come next
        try:
            model = open_clip.create_model(name, load_weights=False, pretrained_text=False)
        finally:
            logging.disable(logging.NOTSET)
        tokenizer = open_clip.get_tokenizer(name)
    load_strictly(model, read_state_dict(checkpoint), f"CLIP {name}", checkpoint)
    return Clip(model, tokenizer, device, name=name, sha256=sha256)


def read_config(path: Path) -> dict[str, Any]:
    """``clip.json``: an open_clip model config. Raises `UserError` when it is no such file."""
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys():
        raise UserError(f"{path} is no open_clip model config: embed_dim, vision_cfg and text_cfg are needed")
    return config


def build_clip(config: dict[str, Any]) -> open_clip.CLIP:
    """An open_clip CLIP from a model config, randomly initialised."""
    vision = open_clip.CLIPVisionCfg(**config["vision_cfg"])
    text = open_clip.CLIPTextCfg(**config["text_cfg"])
    return open_clip.CLIP(config["embed_dim"], vision, text, quick_gelu=config.get("quick_gelu", False))
