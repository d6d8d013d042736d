"""Sources that look at the pictures: decode, run in batches, and spread the answers over the artworks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pipeline.backbones.decode_ahead import pictures
from pipeline.regions.region_row import Found, Rejected
from pipeline.regions.sources.source import Answers, Artwork
from pipeline.releases.wikiart import BadImage


def detect(
    wikiart: Path, works: Sequence[Artwork], batch: int, propose: Callable[[list[np.ndarray]], list[Found]]
) -> Answers:
    """Yield every artwork with what `propose` finds in its picture.

    wikiart: folder of the pictures. batch: most pictures in one call. propose: RGB uint8 (H, W, 3) pictures
    -> one `Found` each, boxes in their pixels. A picture that cannot be read is rejected with its reason.
    """
    stream = pictures(wikiart, works)
    while part := list(itertools.islice(stream, batch)):
        images = [image for _, image in part if not isinstance(image, BadImage)]
        answers = iter(propose(images) if images else [])
        for artwork, image in part:
            if isinstance(image, BadImage):
                yield artwork, Rejected(image.reason, image.detail)
            else:
                yield artwork, next(answers)
