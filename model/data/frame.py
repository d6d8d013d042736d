"""SAM's low-resolution frame: where a picture's mask lies in it."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Frame:
    """SAM's padded square: `image_size` pixels a side as input, `side` pixels a side as mask logits."""

    image_size: int
    side: int

    def valid_size(self, input_height: int, input_width: int) -> tuple[int, int]:
        """(height, width) in logit pixels of a picture of this size in the input; the rest is padding."""
        scale = self.side / self.image_size
        return max(1, round(input_height * scale)), max(1, round(input_width * scale))

    def place(self, mask: np.ndarray, input_height: int, input_width: int, out: np.ndarray) -> None:
        """Write a uint8 mask (h, w) of the artwork, any size, into `out`: uint8 (side, side) of zeros."""
        height, width = self.valid_size(input_height, input_width)
        if mask.shape != (
            height,
            width,
        ):  # by a pixel, one picture in eight: it is rounded once more
            how = cv2.INTER_AREA if height * width < mask.size else cv2.INTER_LINEAR
            mask = cv2.resize(mask, (width, height), interpolation=how)
        out[:height, :width] = mask
