"""Label Studio's run lengths of brush masks.

A mask is written as the bytes of an RGBA picture, of which only alpha counts, in a stream of bits: their
number (32 bits), bits of a value less one (5), four lengths of numbers, each less one (4 x 4), then blocks. A
block is a bit that says whether one value is repeated, which of the four lengths its size has (2), its size
less one, and the value, or the values (github.com/thi-ng/umbrella, packages/rle-pack).
"""

import numpy as np

SIZES = (3, 4, 8, 16)
"""Bits of a block's size."""
LONGEST = 2 ** SIZES[-1]
CHANNELS = 4
VALUE_BITS = 8


class BadBrush(ValueError):  # noqa: N818 - named for what it says
    """Numbers that are no mask of the picture."""


def encode_brush(mask: np.ndarray) -> list[int]:
    """A mask, bool (h, w), as Label Studio's list of bytes."""
    flat = np.asarray(mask, bool).ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate([[0], edges])
    lengths = np.diff(np.concatenate([starts, [len(flat)]])) * CHANNELS
    bits = [f"{len(flat) * CHANNELS:032b}", f"{VALUE_BITS - 1:05b}", *(f"{size - 1:04b}" for size in SIZES)]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        value = "11111111" if len(flat) and flat[start] else "00000000"
        for first in range(0, length, LONGEST):
            part = min(length - first, LONGEST)
            place = next(number for number, size in enumerate(SIZES) if part <= 2**size)
            bits.append(f"1{place:02b}{part - 1:0{SIZES[place]}b}{value}")
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def decode_brush(numbers: object, height: int, width: int) -> np.ndarray:
    """What `encode_brush`, or Label Studio, wrote as a mask, bool (height, width): alpha above one half.

    Raises `BadBrush` for anything else, the mask of another size included.
    """
    if not isinstance(numbers, list) or not all(isinstance(n, int) and 0 <= n < 256 for n in numbers):
        raise BadBrush("a brush mask is a list of bytes")
    text = "".join(f"{number:08b}" for number in numbers)
    place = 0

    def read(size: int) -> int:
        nonlocal place
        if place + size > len(text):
            raise BadBrush("the mask ends too early")
        place += size
        return int(text[place - size : place], 2)

    total = read(32)
    if total != height * width * CHANNELS:
        raise BadBrush(f"the mask has {total // CHANNELS} pixels, the picture {height}x{width}")
    value_bits = read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    parts: list[np.ndarray] = []
    found = 0
    while found < total:
        repeated = read(1)
        length = read(sizes[read(2)]) + 1
        if found + length > total:
            raise BadBrush("a run is longer than the picture")
        if repeated:
            parts.append(np.full(length, read(value_bits), np.int64))
        else:
            parts.append(np.array([read(value_bits) for _ in range(length)], np.int64))
        found += length
    values = np.concatenate(parts) if parts else np.empty(0, np.int64)
    return values.reshape(height, width, CHANNELS)[:, :, -1] > (2**value_bits - 1) / 2
