"""Our PNG files against cv2's, byte for byte, and against Pillow's decoder."""

import io
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.masks import png

SIZES = [(1, 1), (256, 1), (1, 256), (127, 256), (128, 256), (256, 128), (256, 171), (256, 256), (700, 512)]


def rectangles(height: int, width: int, count: int, noise: int = 0) -> np.ndarray:
    rng = np.random.default_rng(height * width + count)
    levels = rng.integers(0, noise + 1, (height, width)).astype(np.uint8)
    for _ in range(count):
        (top, bottom), (left, right) = (np.sort(rng.integers(0, n + 1, 2)) for n in (height, width))
        levels[top:bottom, left:right] += np.uint8(rng.integers(1, 40))
    return levels


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("count", "noise"), [(0, 0), (36, 0), (5, 3), (2, 255)])
def test_a_mask_is_the_file_that_cv2_writes(size: tuple[int, int], count: int, noise: int) -> None:
    levels = rectangles(*size, count, noise)
    data = png.encode(levels)
    assert data == cv2.imencode(".png", levels, png.OPTIONS)[1].tobytes()
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), levels)
    np.testing.assert_array_equal(png.encode(np.asfortranarray(levels)), data)


def test_another_zlib_makes_no_other_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for zlib-ng: the same pixels in other bytes."""
    levels, real = rectangles(256, 200, 20), zlib.compressobj
    expected = cv2.imencode(".png", levels, png.OPTIONS)[1].tobytes()

    def other(level: int, *more: Any) -> Any:
        return real(level + 1, *more)

    monkeypatch.setattr(zlib, "compressobj", other)
    png._is_alike.cache_clear()
    try:
        assert png._encode(levels) != expected
        assert png.encode(levels) == expected
    finally:
        png._is_alike.cache_clear()
