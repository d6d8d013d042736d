"""Maps as PNG files."""

import cv2
import numpy as np

OPTIONS = (
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT),
)
"""Maps repeat from row to row, so their differences are runs of zeros. Trying every filter takes half as long
again to write and thrice as long to read; coding runs alone saves a third and takes twice as long to read."""


def png_bytes(levels: np.ndarray) -> bytes:
    """A map of `levels`, uint8 (h, w), as a grey PNG file."""
    return cv2.imencode(".png", levels, OPTIONS)[1].tobytes()
