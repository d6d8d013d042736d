"""SAM's mask of every box that another source found, stored beside the boxes for `masks.support: sam`."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Sequence

from pipeline import artworks, geometry, rle, storage
from pipeline.artworks import BadImage
from pipeline.backbones import BackbonesParams, pictures, sam
from pipeline.params import Paths, fingerprint
from pipeline.regions import sam_prompts, table
from pipeline.regions.sources import Answers, Artwork
from pipeline.regions.table import Found, Rejected, clip_boxes


def add_masks(
    answers: Answers, works: Sequence[Artwork], paths: Paths, backbones: BackbonesParams, batch: int
) -> Answers:
    """Yield a source's answers to `works` with SAM's mask of every box; answers that have masks keep them.

    `batch` pictures are encoded at once; the boxes of each are prompts to its one grid. A box that holds no
    pixel, or in which SAM marks none, has no mask. An artwork whose picture cannot be read is rejected, as
    the similarity step would.
    """
    model = sam_prompts.load(backbones.sam, backbones.torch_device())
    stream = zip(answers, pictures.pictures(paths.wikiart, works), strict=True)
    while part := list(itertools.islice(stream, batch)):
        asked = [
            image
            for (_, found), (_, image) in part
            if isinstance(found, Found) and found.masks is None and not isinstance(image, BadImage)
        ]
        grids = iter(model.encode(asked) if asked else ())
        for (artwork, found), (_, image) in part:
            if isinstance(found, Rejected) or found.masks is not None:
                yield artwork, found
            elif isinstance(image, BadImage):
                yield artwork, Rejected(image.reason, image.detail)
            else:
                height, width = image.shape[:2]
                boxes, usable = clip_boxes(found.boxes.reshape(-1, 4), height, width)
                texts = iter(model.box_masks(next(grids), boxes[usable], height, width))
                masks = [next(texts) if there else None for there in usable.tolist()]
                yield artwork, dataclasses.replace(found, masks=masks)


def identity(backbones: BackbonesParams) -> str:
    """Weights and code: part of the fingerprint of every shard."""
    code = storage.code_version(
        artworks, geometry, pictures, rle, sam, sam_prompts, table, sys.modules[__name__]
    )
    return fingerprint("sam_support", sam_prompts.weights_digest(backbones.sam), code)
