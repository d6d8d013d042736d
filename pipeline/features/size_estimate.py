"""What cached features cost before they are made: bytes an artwork, and whether the disk holds them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.backbones import clip, sam
from pipeline.backbones.params import BackbonesParams
from pipeline.backbones.tensors import sizes_beside
from pipeline.common.errors import UserError
from pipeline.common.machine import existing, free_bytes, shown_bytes
from pipeline.common.progress import duration

if TYPE_CHECKING:
    from pipeline.features.params import FeaturesParams

OFFICIAL_GRID = (256, 64, 64)
"""Channels, rows and columns of vit_b, vit_l and vit_h alike."""
TAR_BLOCK = 512
NPY_HEADER = 128
JSON_BYTES = TAR_BLOCK
"""KEY.json with its hashes and sizes stays below one block."""
PATCH = 16
"""Patch size assumed for a CLIP whose model config does not say (timm's towers)."""


def bytes_per_artwork(params: "FeaturesParams", backbones: BackbonesParams) -> int:
    """Bytes that one artwork takes in a features tar, headers and padding included; no weights are read.

    Raises `UserError` when the built-in encoders' config is missing, or open_clip does not know the name.
    """
    members = [JSON_BYTES]
    if params.sam_dtype != "none":
        channels, height, width = sam_grid(backbones)
        cells = channels * height * width
        members.append(NPY_HEADER + cells * (1 if params.sam_dtype == "int8" else 2))
        if params.sam_dtype == "int8":
            members.append(NPY_HEADER + 4 * channels)
    if params.clip_dtype != "none":
        patches, width = clip_grid(backbones)
        members.append(NPY_HEADER + 2 * patches * width)
    return sum(TAR_BLOCK + -(-size // TAR_BLOCK) * TAR_BLOCK for size in members)


def sam_grid(backbones: BackbonesParams) -> tuple[int, int, int]:
    """(C, h, w) of SAM's embedding."""
    if backbones.sam.arch != "tiny":
        return OFFICIAL_GRID
    config = sam.read_config(sizes_beside(backbones.sam.checkpoint))
    side = config.img_size // config.patch_size
    return config.out_chans, side, side


def clip_grid(backbones: BackbonesParams) -> tuple[int, int]:
    """(patches, width) of CLIP's grid; `PATCH` and the embedding's where its config is silent."""
    name = backbones.clip.name
    if name == "tiny":
        config = clip.read_config(sizes_beside(backbones.clip.checkpoint))
    else:
        config = clip.named_config(name)
    vision = config["vision_cfg"]
    size = vision["image_size"]
    side = (size if isinstance(size, int) else size[0]) // (vision.get("patch_size") or PATCH)
    return side * side, vision.get("width", config["embed_dim"])


def announce_size(
    out: Path, artworks: int, each: int, dtypes: str, replaced: int, rate: float | None
) -> None:
    """Print to stderr what is about to be written, and how long it takes at the measured rate.

    Args:
        out: folder of the shards.
        artworks: to encode now.
        each: `bytes_per_artwork`.
        dtypes: how they are stored, in words.
        replaced: bytes of old shards that this run replaces.
        rate: artworks per second; None when nothing was measured.

    Raises:
        UserError: the disk has no room for that much.
    """
    needed, free = artworks * each, free_bytes(out) + replaced
    time = "" if rate is None else f"; about {duration(artworks / rate)} at {rate:.3g} artworks/s"
    print(
        f"features: {artworks} artworks, {shown_bytes(needed)} as {dtypes} ({shown_bytes(free)} free){time}",
        file=sys.stderr,
        flush=True,
    )
    if needed > free:
        raise UserError(
            f"the features of {artworks} artworks take {shown_bytes(needed)} as {dtypes}, but "
            f"{existing(out)} has room for {shown_bytes(free)}. Free some, name a larger disk in "
            "paths.data, or set features.sam_dtype to int8, which halves SAM's part (docs/features.md)"
        )
