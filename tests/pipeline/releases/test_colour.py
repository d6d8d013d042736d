"""Deep grey, transparency and odd modes as 8-bit RGB, against values worked out from the formats."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.releases import wikiart


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed(row: np.ndarray, bits: int) -> bytes:
    """Samples of so many bits one after the other, the last byte filled up with zeros."""
    text = "".join(f"{int(value):0{bits}b}" for value in row.reshape(-1))
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def png(samples: np.ndarray, bits: int, transparent: np.ndarray) -> bytes:
    """A PNG of samples (H, W, 1 or 3) with one transparent colour, as its specification says."""
    height, width, channels = samples.shape
    header = struct.pack(">IIBBBBB", width, height, bits, {1: 0, 3: 2}[channels], 0, 0, 0)
    colour = struct.pack(f">{channels}H", *transparent.tolist())
    rows = zlib.compress(b"".join(b"\0" + packed(row, bits) for row in samples))
    chunks = ((b"IHDR", header), (b"tRNS", colour), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in chunks)


@pytest.mark.parametrize(("channels", "bits"), [(1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (3, 8), (3, 16)])
def test_the_transparent_colour_of_a_png_is_white_at_every_depth(
    tmp_path: Path, channels: int, bits: int
) -> None:
    top = 2**bits - 1
    samples = np.random.default_rng(bits).integers(0, top + 1, (9, 7, channels))
    clear = samples[3, 4].copy()
    samples[5, 5] = clear
    if bits == 16 and channels == 1:
        samples[0, 0] = clear ^ 1  # the neighbouring value stays as it is
    (tmp_path / "a.png").write_bytes(png(samples, bits, clear))
    expected = np.where((samples == clear).all(-1, keepdims=True), 255.0, samples / top * 255.0)
    image = wikiart.read_image(tmp_path / "a.png")
    assert (
        abs(image - np.broadcast_to(expected, image.shape)).max() <= 1
    )  # Pillow keeps a colour's upper half
    assert wikiart.verify_picture(tmp_path / "a.png")[0] == (7, 9)


def tiff(rows: bytes, width: int, height: int, bits: int, photometric: int) -> bytes:
    """An uncompressed little-endian TIFF of one grey channel."""
    tags = (256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1)
    tags = (*tags, (278, height), (279, len(rows)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    place = 8 + len(rows) + len(rows) % 2
    body = rows + bytes(len(rows) % 2) + struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", place) + body


@pytest.mark.parametrize(("bits", "photometric"), [(12, 1), (16, 1), (16, 0)])
def test_deep_tiffs_keep_their_range_and_their_white(tmp_path: Path, bits: int, photometric: int) -> None:
    values = np.linspace(0, 2**bits - 1, 48).astype(np.uint16).reshape(6, 8)
    rows = b"".join(packed(row, 12) for row in values) if bits == 12 else values.astype("<u2").tobytes()
    (tmp_path / "a.tif").write_bytes(tiff(rows, 8, 6, bits, photometric))
    expected = values / (2**bits - 1) * 255
    if photometric == 0:  # white is zero
        expected = 255 - expected
    image = wikiart.read_image(tmp_path / "a.tif")
    assert abs(image[..., 0] - expected).max() <= 1 and (image == image[..., :1]).all()


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I", "F", "I;16", "I;16B"]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_verified_can_be_read(tmp_path: Path, mode: str) -> None:
    packed = (
        {"compression": "tiff_lzw"} if mode == "YCbCr" else {}
    )  # Pillow < 13 writes it plain, but cut short
    Image.new(mode, (6, 4)).save(tmp_path / "a.tif", **packed)
    assert wikiart.verify_picture(tmp_path / "a.tif")[0] == (6, 4)
    assert wikiart.read_image(tmp_path / "a.tif").shape == (4, 6, 3)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_cannot_be_read_is_not_verified(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever Pillow learns to open: a mode that it cannot convert is refused by both."""
    Image.new(mode, (6, 4)).save(tmp_path / "a.png")
    original = Image.Image.convert

    def refuse(image: Image.Image, *args: object) -> Image.Image:
        if image.mode == mode:
            raise ValueError(f"conversion from {mode} to RGB not supported")
        return original(image, *args)

    monkeypatch.setattr(Image.Image, "convert", refuse)
    for call in (wikiart.verify_picture, wikiart.read_image):
        with pytest.raises(wikiart.BadImage, match="not supported"):
            call(tmp_path / "a.png")
