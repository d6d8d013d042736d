"""Where boxes and resized pictures lie in pixels: the two conventions that every step shares."""

import numpy as np


def frame_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """(height, width) of a picture whose long side was resized to `long_side`: SAM's rounding, at least 1."""
    scale = long_side / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def pixel_ranges(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels that boxes cover, clipped to the picture.

    A pixel is covered when its centre is: column c for x1 <= c + 0.5 < x2, rows alike. A box that holds no
    centre covers nothing (x1 == x2 or y1 == y2).

    Args:
        boxes: (N, 4) xyxy, pixels.
        height, width: of the picture, pixels.

    Returns:
        int64 (N, 4): x1, y1, x2, y2 with x2 and y2 exclusive.
    """
    edges = np.ceil(np.asarray(boxes, np.float64).reshape(-1, 4) - 0.5)
    clipped = np.clip(edges, 0, [width, height, width, height]).astype(np.int64)
    clipped[:, 2:] = np.maximum(clipped[:, 2:], clipped[:, :2])
    return clipped
