"""Made-up artworks for the rows that need pictures: smooth shapes with a brush's texture, at real sizes."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from model.bench.score import SIZES, blobs

TINY = tuple((height // 16, width // 16) for height, width in SIZES)


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """uint8 RGB (height, width, 3)."""
    colours = np.stack([blobs(rng, height, width) for _ in range(3)], axis=2)
    texture = rng.normal(0, 0.05, (height // 4 + 1, width // 4 + 1, 1)).astype(np.float32)
    strokes = cv2.resize(texture, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    return (np.clip(colours + strokes, 0, 1) * 255).astype(np.uint8)


def boxes(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """float64 (count, 4) xyxy, whole pixels, from a twentieth of a side up to all of it."""
    sides = rng.uniform(0.05, 1.0, (count, 2)) ** 1.5 * [width, height]
    sides = np.maximum(sides.round(), 2)
    corners = (rng.random((count, 2)) * ([width, height] - sides)).round()
    return np.concatenate([corners, corners + sides], axis=1)


def write(
    folder: Path, count: int, regions: int, tiny: bool
) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """JPEG files in `folder`, and the rows (as `tables.read_artworks` gives them) and boxes of each."""
    rng = np.random.default_rng(0)
    sizes = TINY if tiny else SIZES
    rows, found = [], []
    for number in range(count):
        height, width = sizes[number % len(sizes)]
        name = f"{number:03d}.jpg"
        Image.fromarray(picture(rng, height, width)).save(folder / name, quality=95)
        rows.append({"key": f"{number:016x}", "path": name, "height": height, "width": width})
        found.append(boxes(rng, regions, height, width))
    return rows, found
