"""Crops against Pillow and against open_clip's own preprocessing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import image_transform
from PIL import Image

from pipeline.backbones import crops
from pipeline.backbones.clip import load_clip

RNG = np.random.default_rng(1)
SMOOTH = np.array(
    Image.fromarray(RNG.integers(0, 256, (9, 12, 3), np.uint8)).resize((200, 150), Image.Resampling.BICUBIC)
)
SHARP = np.where(np.indices((150, 200)).sum(0)[..., None] // 7 % 3 == [0, 1, 2], SMOOTH, 255 - SMOOTH)
BOXES = np.array(
    [
        [0, 0, 200, 150],
        [10, 20, 90, 140],
        [3, 4, 180, 40],
        [50, 60, 58, 63],
        [199, 149, 200, 150],
        [70, 0, 71, 150],
        [0, 33, 200, 35],
        [120.4, 20.6, 150.5, 60.49],
    ]
)
SIZE = 32
FITS: tuple[crops.Fit, ...] = ("squash", "center")


def pixels(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def two_passes(image: np.ndarray, box: np.ndarray, fit: str) -> np.ndarray:
    """Pillow told to resize along x, then along y; the middle square as torchvision's CenterCrop has it."""
    x1, y1, x2, y2 = np.round(box).astype(int).tolist()
    width, height = x2 - x1, y2 - y1
    wide = high = SIZE
    if fit == "center":
        wide, high = int(SIZE * width / min(width, height)), int(SIZE * height / min(width, height))
    region = Image.fromarray(image).crop((x1, y1, x2, y2))
    across = region.resize((wide, height), Image.Resampling.BICUBIC)
    whole = np.array(across.resize((wide, high), Image.Resampling.BICUBIC))
    left, top = round((wide - SIZE) / 2), round((high - SIZE) / 2)
    return whole[top : top + SIZE, left : left + SIZE].transpose(2, 0, 1)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("image", [SMOOTH, SHARP], ids=["smooth", "sharp"])
def test_both_ways_are_pillows_two_passes(image: np.ndarray, fit: crops.Fit) -> None:
    axes = crops.windows(BOXES, 150, 200, SIZE, fit)
    expected = torch.from_numpy(np.stack([two_passes(image, box, fit) for box in BOXES])).int()
    each = crops.resize_each(pixels(image), axes, SIZE)
    together = crops.resize_all(pixels(image), axes, SIZE, crops.CHUNK)
    for found in (each, together):
        assert found.dtype == torch.uint8
        assert (found.int() - expected).abs().max() <= 2
    assert ((together.int() - expected) == 0).float().mean() > 0.995


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 5), st.integers(1, 40), st.sampled_from(FITS))
def test_chunks_change_nothing(height: int, width: int, count: int, size: int, fit: crops.Fit) -> None:
    """Every chunking gives the same bytes, and both ways agree on any sizes."""
    rng = np.random.default_rng(height * 61 + width)
    image = pixels(rng.integers(0, 256, (height, width, 3), np.uint8))
    boxes = np.sort(rng.uniform(-0.1, 1.1, (count, 2, 2)), 1).reshape(-1, 4) * [width, height, width, height]
    axes = crops.windows(boxes, height, width, size, fit)
    together = crops.resize_all(image, axes, size, 1 << 30)
    assert together.shape == (count, 3, size, size)
    for limit in (1, 3 * size * height * 2):
        torch.testing.assert_close(crops.resize_all(image, axes, size, limit), together, atol=0, rtol=0)
    each = crops.resize_each(image, axes, size)
    assert count == 0 or (each.int() - together.int()).abs().max() <= 2


@pytest.mark.parametrize("fit", FITS)
def test_close_to_open_clips_own_preprocessing(fit: crops.Fit) -> None:
    """Whatever order the installed Pillow takes the passes in: nearly all values, and all features."""
    clip = load_clip("tiny", Path("weights/tiny/clip.safetensors"), "cpu")
    mode = {"squash": "squash", "center": "shortest"}[fit]
    reference = image_transform(
        clip.size, is_train=False, resize_mode=mode, mean=(0, 0, 0), std=(1, 1, 1), interpolation="bicubic"
    )
    for image in (SMOOTH, SHARP):
        regions = [Image.fromarray(image).crop(tuple(np.round(box).astype(int))) for box in BOXES]
        expected = torch.stack([reference(region) * 255 for region in regions]).round()
        found = clip.crop(image, BOXES, fit)
        difference = (found.float() - expected).abs()
        assert difference.mean() < 0.15
        assert (difference <= 1.001).float().mean() > 0.99
        cosines = (clip.encode_pixels(found) * clip.encode_pixels(expected.to(torch.uint8))).sum(1)
        assert cosines.min() > 0.9995


def test_odd_boxes() -> None:
    outside = np.array(
        [[-50, -50, 20, 20], [190, 140, 900, 900], [500, 500, 600, 600], [20.2, 30.2, 20.3, 30.3]]
    )
    found = crops.crop(pixels(SMOOTH), outside, SIZE, "squash")
    assert found.shape == (4, 3, SIZE, SIZE)
    corner = np.array([[0, 0, 20, 20], [190, 140, 200, 150]])
    torch.testing.assert_close(found[:2], crops.crop(pixels(SMOOTH), corner, SIZE, "squash"))
    assert (found[2] == torch.from_numpy(SMOOTH[149, 199])[:, None, None]).all()
    assert (found[3] == torch.from_numpy(SMOOTH[30, 20])[:, None, None]).all()
    assert crops.crop(pixels(SMOOTH), np.empty((0, 4)), SIZE).shape == (0, 3, SIZE, SIZE)


def test_a_picture_of_one_pixel() -> None:
    image = np.array([[[7, 80, 200]]], np.uint8)
    for fit in FITS:
        found = crops.crop(pixels(image), np.array([[0, 0, 1, 1], [5, 5, 9, 9]]), SIZE, fit)
        assert (found == torch.tensor([7, 80, 200], dtype=torch.uint8)[:, None, None]).all()


def test_the_middle_of_a_thread_costs_no_more_than_a_square() -> None:
    """CLIP's preprocessing of 1 x 20,000 pixels would make 640,000 x 32 and keep 32 x 32 of them."""
    thread = pixels(RNG.integers(0, 256, (20_000, 1, 3), np.uint8))
    found = crops.crop(thread, np.array([[0, 0, 1, 20_000]]), SIZE, "center")
    middle = crops.crop(thread, np.array([[0, 9_990, 1, 10_010]]), SIZE, "center")
    assert (found.int() - middle.int()).abs().max() <= 1


def test_resize_is_the_whole_picture() -> None:
    whole = crops.crop(pixels(SMOOTH), np.array([[0, 0, 200, 150]]), 20, "center")[0]
    torch.testing.assert_close(crops.resize(pixels(SMOOTH), 20, "center"), whole)
