"""What a picture looks like in 64 bits: copies that were resized or compressed again differ in a few of them.

The difference hash (N. Krawetz, hackerfactor.com, 2013): each bit says whether brightness rises from one of
9 x 8 areas to its right neighbour.
"""

from collections.abc import Callable

import cv2
import numpy as np

TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda grey: np.rot90(grey, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda grey: np.rot90(grey, 3),
    7: lambda grey: np.rot90(grey.T, 2),
    8: np.rot90,
}
"""EXIF orientation -> what makes the stored pixels upright."""


def perceptual_hash(grey: np.ndarray, orientation: int = 1) -> str:
    """The hash of a picture as 16 hex digits, the top left bit first.

    Args:
        grey: uint8 (h, w) brightness of any size, or (h, w, inks), whose mean is taken.
        orientation: EXIF's, of the pixels given.
    """
    if grey.ndim == 3:
        grey = grey.mean(2).astype(np.uint8) if grey.shape[2] > 1 else grey[..., 0]
    upright = TURNED[orientation](grey) if orientation in TURNED else grey
    small = cv2.resize(np.ascontiguousarray(upright), (9, 8), interpolation=cv2.INTER_AREA)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex()
