"""SAM and CLIP loaded, and a picture's features as they are stored."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from pipeline.backbones import sam
from pipeline.backbones.clip import Clip, load_clip
from pipeline.backbones.crops import resize
from pipeline.backbones.params import BackbonesParams
from pipeline.backbones.sam import SamEncoder
from pipeline.features.params import FeaturesParams


class Prepared(NamedTuple):
    """What the encoders need of a picture, which may itself be large."""

    sam: np.ndarray | None
    """uint8 RGB at `SamEncoder.input_size`."""
    clip: np.ndarray | None
    """uint8 RGB, squashed to CLIP's square input."""


Encoded = tuple[str, dict[str, np.ndarray], dict[str, Any]]
"""Key, arrays by member name, and the card ``KEY.json``."""


class Encoders:
    """The frozen encoders that the params ask for, on the device."""

    def __init__(self, params: FeaturesParams, backbones: BackbonesParams) -> None:
        self.params = params
        self.device = backbones.torch_device()
        self.sam: SamEncoder | None = None
        self.clip: Clip | None = None
        if params.sam_dtype != "none":
            self.sam = sam.load_sam(
                backbones.sam.arch,
                backbones.sam.checkpoint,
                self.device,
                precision=params.precision,
                compiled=params.compile,
            )
        if params.clip_dtype != "none":
            self.clip = load_clip(
                backbones.clip.name,
                backbones.clip.checkpoint,
                self.device,
                precision=backbones.clip.precision,
            )

    def prepare(self, image: np.ndarray) -> Prepared:
        """Resize a picture for both encoders, on the calling thread; they take it as it is then."""
        squashed = None
        if self.clip is not None:
            pixels = torch.from_numpy(image).permute(2, 0, 1)
            squashed = resize(pixels, self.clip.size, "squash").permute(1, 2, 0).numpy()
        return Prepared(None if self.sam is None else self.sam.resize(image), squashed)

    def encode(self, batch: Sequence[tuple[dict[str, Any], Prepared]]) -> list[Encoded]:
        """Arrays and cards of a batch of artworks: rows of `schema.ARTWORKS` with their pictures."""
        columns: dict[str, np.ndarray] = {}
        if self.sam is not None:
            embeddings = self.sam.encode([picture.sam for _, picture in batch if picture.sam is not None])
            if self.params.sam_dtype == "int8":
                codes, scales = quantise(embeddings)
                columns |= {"sam": codes.cpu().numpy(), "sam_scale": scales.cpu().numpy()}
            else:
                columns["sam"] = embeddings.half().cpu().numpy()
        if self.clip is not None:
            squashed = [picture.clip for _, picture in batch if picture.clip is not None]
            tokens = self.clip.patch_tokens(squashed, self.params.clip_normalisation)
            columns["clip"] = tokens.half().cpu().numpy()
        return [
            (row["key"], {name: values[at] for name, values in columns.items()}, self._card(row))
            for at, (row, _) in enumerate(batch)
        ]

    def _card(self, row: dict[str, Any]) -> dict[str, Any]:
        card: dict[str, Any] = {"height": row["height"], "width": row["width"]}
        if self.sam is not None:
            card["sam"] = {
                "arch": self.sam.arch,
                "sha256": self.sam.sha256,
                "dtype": self.params.sam_dtype,
                "precision": self.sam.precision,
                "img_size": self.sam.img_size,
                # (height, width) of the picture in the padded square
                "input_size": self.sam.input_size(row["height"], row["width"]),
            }
        if self.clip is not None:
            card["clip"] = {
                "name": self.clip.name,
                "sha256": self.clip.sha256,
                "dtype": self.params.clip_dtype,
                "precision": self.clip.precision,
                "normalisation": self.params.clip_normalisation,
            }
        return card


@functools.lru_cache(maxsize=1)
def load_encoders(params: FeaturesParams, backbones: BackbonesParams) -> Encoders:
    """One set of encoders per process, however many shards it works on."""
    return Encoders(params, backbones)


def quantise(embeddings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric int8 with one scale per picture and channel.

    Args:
        embeddings: float32 (B, C, h, w).

    Returns:
        int8 codes (B, C, h, w) in [-127, 127] and float32 scales (B, C): ``codes * scale`` is off by at most
        half a scale, a 254th of the channel's largest magnitude.
    """
    largest = embeddings.abs().amax(dim=(2, 3))
    scales = torch.where(largest > 0, largest / 127, 1.0)
    return (embeddings / scales[:, :, None, None]).round().to(torch.int8), scales
