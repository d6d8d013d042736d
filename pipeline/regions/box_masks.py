"""SAM's mask of every box that another source found, stored beside the boxes for `masks.support: sam`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from pipeline.backbones import decode_ahead
from pipeline.backbones.params import BackbonesParams
from pipeline.common.code import code_fingerprint
from pipeline.common.fingerprint import fingerprint
from pipeline.common.params import Paths
from pipeline.regions import prompted_sam
from pipeline.regions.region_row import Found, Rejected, clip_boxes
from pipeline.regions.sources.source import Answers, Artwork
from pipeline.releases.wikiart import BadImage


def add_masks(
    answers: Answers, works: Sequence[Artwork], paths: Paths, backbones: BackbonesParams, batch: int
) -> Answers:
    """Yield a source's answers to `works` with SAM's mask of every box; answers that have masks keep them.

    `batch` pictures are encoded at once; the boxes of each are prompts to its one grid. A box that holds no
    pixel, or in which SAM marks none, has no mask. An artwork whose picture cannot be read is rejected, as
    the similarity step would.
    """
    model = prompted_sam.load(backbones.sam, backbones.torch_device())
    stream = zip(answers, decode_ahead.pictures(paths.wikiart, works), strict=True)
    while part := list(itertools.islice(stream, batch)):
        readable = [
            image
            for (_, found), (_, image) in part
            if isinstance(found, Found) and found.masks is None and not isinstance(image, BadImage)
        ]
        embeddings = iter(model.encode(readable) if readable else ())
        for (artwork, found), (_, image) in part:
            if isinstance(found, Rejected) or found.masks is not None:
                yield artwork, found
            elif isinstance(image, BadImage):
                yield artwork, Rejected(image.reason, image.detail)
            else:
                height, width = image.shape[:2]
                boxes, usable = clip_boxes(found.boxes.reshape(-1, 4), height, width)
                texts = iter(model.box_masks(next(embeddings), boxes[usable], height, width))
                masks = [next(texts) if there else None for there in usable.tolist()]
                yield artwork, dataclasses.replace(found, masks=masks)


def identity(backbones: BackbonesParams) -> str:
    """Weights and code: part of the fingerprint of every shard."""
    code = code_fingerprint(__name__)
    return fingerprint("sam_support", prompted_sam.weights_digest(backbones.sam), code)
