"""Label Studio's run lengths, against the reader of its own SDK where that is installed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.export_masks.brush_rle import BadBrush, decode_brush, encode_brush

masks = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda shape: arrays(bool, shape))


@given(masks)
@settings(max_examples=60)
def test_a_mask_comes_back(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), *mask.shape), mask)


@given(masks)
@settings(max_examples=30)
def test_the_sdk_reads_the_same(mask: np.ndarray) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    read = brush.decode_rle(encode_brush(mask)).reshape(*mask.shape, 4)
    np.testing.assert_array_equal(read, np.repeat(mask[..., None], 4, -1) * 255)
    np.testing.assert_array_equal(decode_brush(brush.encode_rle(read.ravel()), *mask.shape), mask)


def test_one_pixel_by_hand() -> None:
    """4 bytes, words of 8 bits, sizes of 3, 4, 8 and 16 bits, then one run of 4 in 3 bits, of 255."""
    bits = (
        "0" * 29
        + "100"
        + "00111"
        + "0010"
        + "0011"
        + "0111"
        + "1111"
        + "1"
        + "00"
        + "011"
        + "1" * 8
        + "0" * 5
    )
    assert encode_brush(np.ones((1, 1), bool)) == [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def test_a_long_run_is_split() -> None:
    mask = np.zeros((400, 500), bool)
    mask[-1, -1] = True
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), 400, 500), mask)


@pytest.mark.parametrize(
    "numbers", [[], [0], "x", [300], [1.5], None, encode_brush(np.ones((2, 3), bool))[:-2]]
)
def test_what_is_no_mask_is_refused(numbers: object) -> None:
    with pytest.raises(BadBrush):
        decode_brush(numbers, 2, 3)


def test_another_size_is_refused() -> None:
    with pytest.raises(BadBrush, match="6 pixels"):
        decode_brush(encode_brush(np.ones((2, 3), bool)), 3, 3)
