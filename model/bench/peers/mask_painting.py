"""Pseudo-masks against what one writes first: a loop over emotions and boxes that adds to the picture."""

from collections.abc import Sequence

import cv2
import numpy as np

from model.bench.peers.pair import Differ, Job, Pair
from model.bench.peers.pictures import TINY, boxes
from model.bench.score import SIZES
from pipeline.common.geometry import frame_size
from pipeline.masks.recipe import MasksParams, pseudo_masks

EMOTIONS, BOXES = 3, 36
"""Of an artwork, as ArtEmis and VinVL have them."""


def prepare(job: Job) -> Pair:
    """Masks of one artwork of each size."""
    rng = np.random.default_rng(0)
    sizes = TINY if job.tiny else SIZES
    found = [boxes(rng, BOXES, *size) + rng.uniform(-0.4, 0.4, (BOXES, 4)) for size in sizes]
    scores = [rng.uniform(0.1, 0.4, (EMOTIONS, BOXES)).astype(np.float32) for _ in sizes]
    works = list(zip(found, scores, sizes, strict=True))
    params = MasksParams()

    def ours() -> list[np.ndarray]:
        return [pseudo_masks(b, s, *size, params) for b, s, size in works]

    def theirs() -> list[np.ndarray]:
        return [looped(b, s, *size, params.long_side) for b, s, size in works]

    return Pair(
        f"{EMOTIONS} masks of {BOXES} boxes for each of {len(works)} artworks, 256 pixels long",
        "artworks",
        len(works),
        ours,
        theirs,
        lambda: _check(ours(), theirs()),
    )


def looped(boxes: np.ndarray, scores: np.ndarray, height: int, width: int, long_side: int) -> np.ndarray:
    """uint8 (E, h, w) of boxes (N, 4) and cosines (E, N): sums at full size, scaled to [0, 1], shrunk."""
    masks = []
    for emotion in range(len(scores)):
        total = np.zeros((height, width))
        for (x1, y1, x2, y2), score in zip(boxes, scores[emotion], strict=True):
            left, top, right, bottom = (max(0, int(np.ceil(edge - 0.5))) for edge in (x1, y1, x2, y2))
            total[top:bottom, left:right] += max(score, 0)
        span = total.max() - total.min()
        unit = (total - total.min()) / span if span else np.zeros_like(total)
        tall, wide = frame_size(height, width, long_side)
        small = cv2.resize(unit, (wide, tall), interpolation=cv2.INTER_AREA)
        masks.append((small * 255 + 0.5).astype(np.uint8))
    return np.stack(masks)


def _check(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> str:
    """Where rounding tips over, a level of 255 apart."""
    shapes = [[masks.shape for masks in side] for side in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise Differ(f"masks have the shapes {shapes[0]} and {shapes[1]}")
    apart = np.concatenate(
        [np.abs(a.astype(int) - b.astype(int)).ravel() for a, b in zip(ours, theirs, strict=True)]
    )
    if apart.max() > 1:
        raise Differ(f"masks differ by up to {apart.max()} of 255 levels")
    if not apart.any():
        return f"masks equal in all {apart.size:,} pixels"
    return f"masks equal but for {np.count_nonzero(apart)} of {apart.size:,} pixels, by one level of 255"
