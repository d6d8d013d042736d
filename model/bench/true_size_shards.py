"""Random stand-ins of the paper's sizes for timing: model, encoders, shards. No file of weights is needed."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from model.emosem.config import EmoSEMConfig
from model.emosem.network import EmoSEM, build_emosem
from pipeline.common.emotions import EMOTIONS
from pipeline.common.files import write_parquet
from pipeline.common.schema import INDEX, shard_stem
from pipeline.common.tars import list_members, npy_bytes, read_tar, write_tar
from pipeline.masks.png import png_bytes
from pipeline.reader.index import Index

PAPER = EmoSEMConfig()
PATCHES = 196
"""CLIP's patch tokens of a picture."""
EMOTIONS_EACH, UTTERANCES_EACH = 3, 2
"""Of an artwork and of its emotions; ArtEmis has 3.1 and 1.6."""
WORDS = "the calm colours of this quiet field make me feel at home and hopeful"
"""An utterance of ArtEmis' usual length."""


class Encoders(nn.Module):
    """SAM's ViT-B at 1024 x 1024 and CLIP's ViT-B/16 at 224 x 224, frozen; or others of their classes."""

    def __init__(self, sam: ImageEncoderViT | None = None, clip: CLIPVisionModel | None = None) -> None:
        super().__init__()
        self.sam = sam or sam_model_registry["vit_b"](checkpoint=None).image_encoder
        self.clip = clip or CLIPVisionModel(CLIPVisionConfig(patch_size=16))
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, pictures: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """SAM grids (B, 256, 64, 64) and CLIP patch tokens (B, 196, 768), float32, of so many pictures."""
        sam = self.sam(torch.zeros(pictures, 3, 1024, 1024, device=device))
        clip = self.clip(torch.zeros(pictures, 3, 224, 224, device=device)).last_hidden_state[:, 1:]
        return sam.float(), clip.float()


def random_emosem(seed: int = 0) -> EmoSEM:
    """EmoSEM Single-Mask of the paper's sizes."""
    torch.manual_seed(seed)
    return build_emosem(EmoSEMConfig())


def write_shards(
    folder: Path,
    artworks: int,
    seed: int = 0,
    grids: Mapping[str, np.ndarray] | None = None,
    side: int = 1024,
    config: EmoSEMConfig = PAPER,
    int8: bool = False,
) -> Index:
    """Features, masks and an index of so many training artworks, 2.4 MB each (int8: 1.4 MB).

    Args:
        grids: of every artwork, ``sam.npy`` and ``clip.npy``; None for random ones, other ones for each.
        side: of SAM's padded input, pixels.
        config: of the network that is to read random grids.
        int8: SAM's random grids as codes with scales, not float16.
    """
    rng = np.random.default_rng(seed)
    keys = [f"{number:016x}" for number in range(artworks)]
    counts = [UTTERANCES_EACH] * EMOTIONS_EACH
    members: dict[str, list[dict[str, object]]] = {key: [] for key in keys}
    digests = {key: hashlib.sha256() for key in keys}
    for file, samples in (
        ("features", _features(rng, keys, grids, side, config, int8)),
        ("masks", _masks(rng, keys)),
    ):
        tar = folder / file / f"{shard_stem(0)}.tar"
        write_tar(tar, samples)
        for m in list_members(tar):
            members[m.key].append({"file": file, "name": m.name, "offset": m.offset, "size": m.size})
        for key, files in read_tar(tar):
            for data in files.values():
                digests[key].update(data)
    rows = [
        {
            "key": key,
            "shard": 0,
            "split": "train",
            "emotions": list(EMOTIONS[:EMOTIONS_EACH]),
            "utterance_counts": counts,
            "members": members[key],
            "sha256": digests[key].hexdigest(),
        }
        for key in keys
    ]
    write_parquet(folder / "shards" / "index.parquet", pa.Table.from_pylist(rows, schema=INDEX))
    return Index.load(folder / "shards")


def _features(
    rng: np.random.Generator,
    keys: list[str],
    grids: Mapping[str, np.ndarray] | None,
    side: int,
    config: EmoSEMConfig,
    int8: bool,
) -> Iterator[tuple[str, dict[str, bytes]]]:
    for key in keys:
        own = grids or _random_grids(rng, config, int8)
        stored = own if int8 else {name: grid.astype(np.float16) for name, grid in own.items()}
        files = {name: npy_bytes(grid) for name, grid in stored.items()}
        size = [side, round(side * 820 / 1024)]
        yield key, files | {"json": json.dumps({"sam": {"input_size": size}}).encode()}


def _random_grids(rng: np.random.Generator, config: EmoSEMConfig, int8: bool) -> dict[str, np.ndarray]:
    sam = rng.normal(0, 0.1, (config.dim, config.grid, config.grid))
    clip = rng.normal(size=(PATCHES, config.visual_dim))
    if not int8:
        return {"sam.npy": sam, "clip.npy": clip}
    scale = np.abs(sam).max((1, 2)) / 127
    codes = np.round(sam / scale[:, None, None]).astype(np.int8)
    return {"sam.npy": codes, "sam_scale.npy": scale.astype(np.float32), "clip.npy": clip.astype(np.float16)}


def _masks(rng: np.random.Generator, keys: list[str]) -> Iterator[tuple[str, dict[str, bytes]]]:
    words = {emotion: {"utterances": [WORDS] * UTTERANCES_EACH} for emotion in EMOTIONS[:EMOTIONS_EACH]}
    for key in keys:
        files = {"json": json.dumps({"key": key, "emotions": words}).encode()}
        for emotion in words:
            mask = np.zeros((256, 205), dtype=np.uint8)
            for x, y in rng.integers(0, 200, (6, 2)):  # boxes over each other, as similarities are spread
                mask[y : y + 60, x : x + 60] = np.maximum(mask[y : y + 60, x : x + 60], rng.integers(256))
            files[f"{emotion}.png"] = png_bytes(mask)
        yield key, files
