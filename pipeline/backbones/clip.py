"""CLIP: region crops and sentences as unit vectors, and whole pictures as grids of patch tokens.

Models are open_clip's, by name with a local file (`clip_weights` says which), or the built-in small one (a
json model config, weights and BPE merges beside each other). Regions are cut and resized on the device
(`crops`).
"""

import contextlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.constants import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    OPENAI_DATASET_MEAN,
    OPENAI_DATASET_STD,
)
from open_clip.tokenizer import SimpleTokenizer
from torch.nn import functional as F
from torchvision.ops import roi_align

from pipeline.backbones import clip_weights, crops
from pipeline.backbones.crops import Fit, resize
from pipeline.backbones.params import ClipPrecision, Normalisation
from pipeline.backbones.sam import load_strictly
from pipeline.backbones.tensors import sizes_beside, weight_files
from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common.errors import UserError

__all__ = [
    "BPE",
    "Clip",
    "Fit",
    "build_clip",
    "load_clip",
    "read_config",
    "resize",
]

BPE = "bpe.txt.gz"
"""Merges of the small CLIP's tokenizer, beside its weights, in open_clip's format."""
CPU_PIXELS = 12 * 224**2
"""Pixels of crops encoded at once on a processor, whose caches their activations fill: twelve crops of
ViT-B/16 at a time are a tenth faster than 144."""
TEXT_BATCH = 256
LONGEST_TEXT = 4096
"""Characters of a sentence that are read. 77 tokens are 2,464 bytes at most (the longest has 32), so the rest
could not matter, and a word of megabytes would take the tokenizer hours."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
        precision: ClipPrecision = "float32",
        preprocess: Mapping[str, Any] | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.sha256 = sha256
        """Hash of the weights file."""
        self.precision = precision
        size = model.visual.image_size
        self.size: int = size if isinstance(size, int) else size[0]
        """Side of the square input, pixels."""
        stated = {**getattr(model.visual, "preprocess_cfg", {}), **(preprocess or {})}
        self.mean = self._per_channel(stated.get("mean") or OPENAI_DATASET_MEAN)
        self.std = self._per_channel(stated.get("std") or OPENAI_DATASET_STD)
        self._imagenet = self._per_channel(IMAGENET_MEAN), self._per_channel(IMAGENET_STD)
        self.truncated = 0
        """Sentences so far that were longer than the model's context and lost their end."""

    def _per_channel(self, values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, device=self.device).view(1, 3, 1, 1)

    def on_device(self, image: np.ndarray) -> torch.Tensor:
        """uint8 RGB (H, W, 3) as a uint8 (3, H, W) tensor on the device."""
        return crops.to_device(image, self.device)

    def crop(self, image: np.ndarray, boxes: np.ndarray, fit: Fit = "center") -> torch.Tensor:
        """Cut boxes from one picture and resize them on the device; see `crops.crop`.

        Args:
            image: uint8 RGB (H, W, 3).
            boxes: float (N, 4) xyxy, pixels; a box without a pixel of its own takes the nearest one.
            fit: see `crops.Fit`.

        Returns:
            uint8 (N, 3, size, size).
        """
        return crops.crop(self.on_device(image), boxes, self.size, fit)

    def normalise(self, pixels: torch.Tensor, by: Normalisation = "clip") -> torch.Tensor:
        """uint8 (N, 3, size, size) to the model's float32 input."""
        mean, std = self._imagenet if by == "imagenet" else (self.mean, self.std)
        return (pixels.float() / 255.0 - mean) / std

    def _arithmetic(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.precision])

    @torch.inference_mode()
    def encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 crops (N, 3, size, size) as L2-normalised float32 (N, D)."""
        at_once = CPU_PIXELS // self.size**2 if self.device.type == "cpu" else len(pixels)
        with self._arithmetic():
            parts = [self.model.encode_image(self.normalise(part)) for part in pixels.split(max(1, at_once))]
        return F.normalize(torch.cat(parts).float(), dim=-1)

    def encode_crops(
        self, image: np.ndarray, boxes: np.ndarray, fit: Fit = "center", batch: int = 256
    ) -> torch.Tensor:
        """Regions of one picture as L2-normalised float32 (N, D); see `crop` for the arguments."""
        regions = self.crop(image, boxes, fit)
        if len(regions) == 0:
            return torch.empty((0, self.model.visual.output_dim), device=self.device)
        return torch.cat([self.encode_pixels(part) for part in regions.split(batch)])

    @torch.inference_mode()
    def pool_regions(self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Regions without crops: RoIAlign over the projected patch tokens of the squashed picture.

        One encoding a picture instead of one a region; each region is seen in its surroundings and at the
        grid's resolution (14 x 14 for ViT-B/16), and CLIP was never trained to describe single patches.

        Args:
            images: uint8 RGB arrays (H, W, 3).
            boxes: for each, float (N, 4) xyxy, pixels.

        Returns:
            For each picture L2-normalised float32 (N, D).

        Raises:
            UserError: a CLIP whose visual tower is no plain vision transformer.
        """
        projection = getattr(self.model.visual, "proj", None)
        if not isinstance(projection, torch.Tensor):
            raise UserError(f"CLIP {self.name} has no patch tokens to pool; set similarity.regions: crop")
        tokens = self.patch_tokens(images) @ projection
        side = math.isqrt(tokens.shape[1])
        grids = tokens.transpose(1, 2).unflatten(2, (side, side))
        scaled = [
            torch.from_numpy(part * np.tile(side / np.array(image.shape[1::-1]), 2)).to(grids)
            for image, part in zip(images, boxes, strict=True)
        ]
        pooled = roi_align(grids, scaled, output_size=1, aligned=True).flatten(1)
        return list(F.normalize(pooled, dim=-1).split([len(part) for part in boxes]))

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Sentences as L2-normalised float32 (N, D).

        Longer ones than the context lose their end (the end-of-text token stays) and are counted in
        `truncated`. One that holds nothing for the tokenizer is encoded as the empty sentence.
        """
        if not texts:
            return torch.empty((0, self.model.visual.output_dim), device=self.device)
        parts = []
        for start in range(0, len(texts), TEXT_BATCH):
            tokens = self.tokenize(texts[start : start + TEXT_BATCH]).to(self.device)
            with self._arithmetic():
                features = self.model.encode_text(tokens)
            parts.append(F.normalize(features.float(), dim=-1))
        return torch.cat(parts)

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """int64 (N, context) token ids; counts the sentences that did not fit."""
        context = self.model.context_length
        readable = [" ".join(text.split())[:LONGEST_TEXT] for text in texts]
        longer = self.tokenizer(readable, context_length=context + 1)
        cut = longer[:, -1] != 0  # then it is the end-of-text token, which must stay the last one
        self.truncated += int(cut.sum())
        tokens: torch.Tensor = longer[:, :context].clone()
        tokens[cut, -1] = longer[cut, -1]
        return tokens

    @torch.inference_mode()
    def patch_tokens(
        self, images: Sequence[np.ndarray], normalisation: Normalisation = "clip"
    ) -> torch.Tensor:
        """Grids of whole pictures, squashed to the square input: what the language model attends to.

        Args:
            images: uint8 RGB arrays (H, W, 3) of any sizes.
            normalisation: of the pixels. SEVLM, whose captioner EmoSEM follows, normalises by ImageNet's.

        Returns:
            float32 (B, patches, width), row-major: the last layer's patch tokens after `ln_post`, without
            the class token and without projection (196 x 768 for ViT-B/16).
        """
        if not images:
            raise ValueError("no images to encode")
        squashed = torch.stack([resize(self.on_device(image), self.size, "squash") for image in images])
        with self._arithmetic():
            found = self.model.visual.forward_intermediates(
                self.normalise(squashed, normalisation),
                indices=1,
                normalize_intermediates=True,
                intermediates_only=True,
                output_fmt="NLC",
            )
        tokens: torch.Tensor = found["image_intermediates"][0]
        return tokens.float()


def load_clip(name: str, checkpoint: Path, device: str, *, precision: ClipPrecision = "float32") -> Clip:
    """CLIP from a local file.

    Args:
        name: an open_clip model name (``ViT-B-16``; OpenAI's own weights were trained with another GELU and
            need ``ViT-B-16-quickgelu``), or ``tiny``, with ``clip.json`` and ``bpe.txt.gz`` beside the file.
        checkpoint: the weights, in any of `clip_weights`' formats.
        device: torch device name.
        precision: arithmetic of the transformers, by autocast; what comes out is float32.

    Raises:
        UserError: unknown name, missing file, wrong hash, or weights of another architecture.
    """
    described = None if name == "tiny" else named_config(name)
    sha256 = verify_weights(checkpoint)
    weights = clip_weights.read_weights(checkpoint, sha256)
    tokenizer: Callable[..., torch.Tensor]
    if described is None:
        merges = weight_files(checkpoint)[0].with_name(BPE)
        verify_weights(sizes_beside(checkpoint))
        verify_weights(merges)
        config = read_config(sizes_beside(checkpoint))
        clip_weights.check_activation(weights, config, name, checkpoint)
        model = build_clip(config)
        tokenizer = SimpleTokenizer(bpe_path=str(merges))
    else:
        clip_weights.check_activation(weights, described, name, checkpoint)
        logging.disable(logging.WARNING)  # it would say that the weights stay random; they come next
        try:
            model = open_clip.create_model(name, load_weights=False, pretrained_text=False)
        finally:
            logging.disable(logging.NOTSET)
        tokenizer = open_clip.get_tokenizer(name)
    load_strictly(model, clip_weights.fitted(weights.tensors, model), f"CLIP {name}", checkpoint)
    return Clip(
        model,
        tokenizer,
        device,
        name=name,
        sha256=sha256,
        precision=precision,
        preprocess=weights.preprocess,
    )


def named_config(name: str) -> dict[str, Any]:
    """open_clip's own config of a model. Raises `UserError` for unknown names and those that need the hub."""
    known = name in open_clip.list_models()  # of "hf-hub:..." the hub would be asked
    config: dict[str, Any] | None = open_clip.get_model_config(name) if known else None
    if config is None:
        raise UserError(f"backbones.clip.name: open_clip has no model {name!r}; try ViT-B-16")
    text = config["text_cfg"]
    if elsewhere := text.get("hf_model_name") or text.get("hf_tokenizer_name"):
        raise UserError(
            f"backbones.clip.name: {name} takes its tokenizer from the hub ({elsewhere}), and nothing is "
            "downloaded here; use a model with CLIP's own tokenizer, such as ViT-B-16 or ViT-L-14"
        )
    return config


def read_config(path: Path) -> dict[str, Any]:
    """``clip.json``: an open_clip model config. Raises `UserError` when it is no such file."""
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= config.keys():
        raise UserError(f"{path} is no open_clip model config: embed_dim, vision_cfg and text_cfg are needed")
    return config


def build_clip(config: dict[str, Any]) -> open_clip.CLIP:
    """An open_clip CLIP from a model config, randomly initialised."""
    vision = open_clip.CLIPVisionCfg(**config["vision_cfg"])
    text = open_clip.CLIPTextCfg(**config["text_cfg"])
    return open_clip.CLIP(config["embed_dim"], vision, text, quick_gelu=config.get("quick_gelu", False))
