"""Gallery scenes as detection examples: a small picture, its boxes and what they show.

Imports no torch, so that the processes which draw start quickly.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from model.pretrain.scenes import load_scenes
from pipeline.gallery.world import COLOURS, KINDS, SCENERY, Scene
from pipeline.regions.vinvl.config import VinvlConfig

LABELS = ("__background__", *KINDS, *SCENERY)
"""Class names by number."""
FIRST_SCENERY = 1 + len(KINDS)
"""Classes from here on are scenery."""
ATTRIBUTES = ("__no_attribute__", *COLOURS)
"""Attribute names by number: the colours of motifs."""
MIN_SIDE = 4.0
"""Boxes thinner than this after resizing, in pixels, are not taught."""


@dataclass(frozen=True)
class Example:
    """One picture as the detector meets it, and what is on it."""

    image: np.ndarray
    """uint8 (h, w, 3) RGB, resized by the detector's own rule."""
    boxes: np.ndarray
    """float32 (n, 4): x1 y1 x2 y2, the corners being pixels of the box; motifs and scenery."""
    labels: np.ndarray
    """int64 (n,) into `LABELS`."""
    attributes: np.ndarray
    """int64 (n,) into `ATTRIBUTES`; 0 where no colour is named."""


def to_example(drawn: Scene, config: VinvlConfig) -> Example:
    """Resize a scene and turn its motifs and scenery into boxes."""
    full_height, full_width = drawn.image.shape[:2]
    height, width = config.resized_size(full_height, full_width)
    image = Image.fromarray(drawn.image).resize((width, height), Image.Resampling.BILINEAR)
    found = [(motif.box, motif.kind, ATTRIBUTES.index(motif.look.colour)) for motif in drawn.motifs]
    found += [(_tight_box(mask), name, 0) for name, mask in sorted(drawn.scenery.items()) if mask.any()]
    scale = np.array([width / full_width, height / full_height] * 2)
    boxes = np.array([box for box, _, _ in found], np.float64).reshape(-1, 4) * scale
    boxes[:, 2:] -= 1
    keep = (boxes[:, 2:] - boxes[:, :2] + 1 >= MIN_SIDE).all(axis=1)
    return Example(
        np.asarray(image),
        boxes[keep].astype(np.float32),
        np.array([LABELS.index(kind) for _, kind, _ in found], np.int64)[keep],
        np.array([colour for _, _, colour in found], np.int64)[keep],
    )


def _tight_box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """x1 y1 x2 y2 around the True pixels; x2 and y2 exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def draw_examples(seed: int, count: int, config: VinvlConfig, workers: int) -> list[Example]:
    """Examples of the scenes 0 .. count - 1 of a seed; see `data.load_scenes`."""
    return load_scenes(seed, count, workers, functools.partial(_small, config=config))


def _small(drawn: Scene, _index: int, config: VinvlConfig) -> Example:
    return to_example(drawn, config)


def by_orientation(examples: Sequence[Example]) -> list[list[Example]]:
    """Landscape and portrait apart, so that a batch pads little; empty groups are left out."""
    groups: list[list[Example]] = [[], []]
    for example in examples:
        groups[example.image.shape[0] > example.image.shape[1]].append(example)
    return [group for group in groups if group]
