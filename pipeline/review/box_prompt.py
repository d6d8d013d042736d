"""SAM's mask of a box that a reviewer drew: prompt encoder and decoder on the cached features, on a CPU."""

import json
import threading
from typing import Any

import cv2
import numpy as np

from pipeline.backbones.params import SamParams
from pipeline.common import rle
from pipeline.common.arrays import parse_npy
from pipeline.common.errors import UserError
from pipeline.masks.reviewed import mask_of_runs
from pipeline.reader.index import Index


class BoxPrompt:
    """Answers one box at a time; SAM is read when the first is drawn."""

    def __init__(self, index: Index, params: SamParams) -> None:
        self._index, self._params = index, params
        self._lock = threading.Lock()

    def mask(self, key: str, box: tuple[float, float, float, float], tall: int, wide: int) -> np.ndarray:
        """SAM's mask of a box at a stored mask's size.

        Args:
            key: of the artwork, whose SAM features are cached.
            box: xyxy, as shares of the picture.
            tall, wide: of the answer, pixels.

        Returns:
            bool (tall, wide); empty where SAM marks nothing.

        Raises:
            UserError: a box without an inside, no features, or those of another SAM.
        """
        import torch  # seconds, which only a reviewer who draws a box waits for

        from pipeline.regions.prompted_sam import load

        masks = json.loads(self._index.read(key, "masks/json"))
        height, width = int(masks["height"]), int(masks["width"])
        x1, y1, x2, y2 = (min(max(side, 0.0), 1.0) for side in box)
        if not (x2 - x1) * width >= 1 or not (y2 - y1) * height >= 1:
            raise UserError("the box is smaller than a pixel of the picture; draw a larger one")
        with self._lock:  # one box at a time is fast enough, and keeps the machine for others
            grid = torch.from_numpy(self._grid(key))
            sam = load(self._params, "cpu")
            boxes = np.array([[x1 * width, y1 * height, x2 * width, y2 * height]], np.float32)
            (text,) = sam.box_masks(grid, boxes, height, width)
        if text is None:
            return np.zeros((tall, wide), bool)
        full = mask_of_runs(rle.decode(text, height, width), height, width)
        return np.asarray(cv2.resize(full, (wide, tall), interpolation=cv2.INTER_AREA) > 127)

    def _grid(self, key: str) -> np.ndarray:
        """float32 (C, h, w). Raises `UserError`."""
        card: dict[str, Any] = json.loads(self._index.read(key, "features/json")).get("sam") or {}
        from pipeline.backbones.weight_hashes import verify_weights

        made_with = card.get("sha256")
        if made_with and made_with != verify_weights(self._params.checkpoint):
            raise UserError(
                f"the features of {key} are not those of {self._params.checkpoint}; use the brush"
            )
        self._index.check(key)
        try:
            grid = np.array(parse_npy(self._index.view(key, "sam.npy")), np.float32)
            if "sam_scale.npy" in {name.rpartition("/")[2] for name in self._index.members(key)}:
                grid *= parse_npy(self._index.view(key, "sam_scale.npy"))[:, None, None]
        except KeyError:
            raise UserError(f"no SAM features of {key} are cached; use the brush") from None
        return grid
