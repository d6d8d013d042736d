"""Hostile and broken picture files through the real step: each ends as a picture, or a row with a reason."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.backbones import decode_ahead
from pipeline.releases import wikiart
from pipeline.releases.wikiart import BadImage
from pipeline.utterances.step import UtterancesParams, build_utterances
from tests.worlds.hostile import (
    HEIGHT,
    JPEG,
    MIB,
    NOISE,
    PNG,
    WIDTH,
    build_within,
    encoded,
    fates,
    read,
    world,
)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, rows: bytes, ancillary: bytes = b"", depth: int = 8, colour: int = 0
) -> bytes:
    """A PNG from its compressed rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), ancillary, chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    )


def zeros(count: int) -> bytes:
    """A zlib stream of so many zero bytes (a multiple of 1 MiB), made without compressing them all.

    After a full flush a deflate stream starts afresh, so one compressed block can be repeated; the checksum
    of zeros is known.
    """
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = engine.compress(bytes(MIB)) + engine.flush(zlib.Z_FULL_FLUSH)
    end = zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    return b"\x78\xda" + block * (count // MIB) + end + struct.pack(">I", (count % 65521) << 16 | 1)


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[wikiart.ORIENTATION] = orientation
    return tags.tobytes()


def animation(kind: str) -> bytes:
    frames = [Image.fromarray(NOISE), Image.new("RGB", (WIDTH, HEIGHT), "blue")]
    return encoded(kind, frames[0], save_all=True, append_images=frames[1:], **LOSSLESS.get(kind, {}))


LOSSLESS: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}}
GREY16 = Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257)
SIDEWAYS = encoded("JPEG", exif=exif(6), quality=95)
BOMB = chunk(b"zTXt", b"Comment\0\0" + zeros(256 * MIB))
PROFILE = chunk(b"iCCP", b"icc\0\0" + zeros(256 * MIB))
GREY_ROWS = zlib.compress(b"".join(b"\0" + bytes(WIDTH) for _ in range(HEIGHT)))
FILES: dict[str, tuple[bytes, str | tuple[int, int]]] = {
    # name -> bytes of NAME.jpg, and its reject's reason or the upright (width, height)
    "plain": (JPEG, (WIDTH, HEIGHT)),
    "zero-bytes": (b"", "picture-empty"),
    "one-byte": (b"\xff", "picture-not-an-image"),
    "truncated-jpeg": (JPEG[: len(JPEG) // 2], "picture-truncated"),
    "truncated-png": (PNG[: len(PNG) // 2], "picture-truncated"),
    "header-only": (JPEG[:20], "picture-*"),
    "text": (b"I am not a painting", "picture-not-an-image"),
    "html": (b"<html><body>404 Not Found</body></html>", "picture-not-an-image"),
    "zip": (b"PK\x03\x04" + bytes(200), "picture-not-an-image"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="99" height="99"/>', "picture-not-an-image"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "picture-not-an-image"),
    "png-named-jpg": (PNG, (WIDTH, HEIGHT)),
    "gif-named-jpg": (encoded("GIF"), (WIDTH, HEIGHT)),
    "webp-named-jpg": (encoded("WEBP"), (WIDTH, HEIGHT)),
    "tiff-named-jpg": (encoded("TIFF"), (WIDTH, HEIGHT)),
    "bmp-named-jpg": (encoded("BMP"), (WIDTH, HEIGHT)),
    "cmyk": (encoded("JPEG", Image.fromarray(NOISE).convert("CMYK")), (WIDTH, HEIGHT)),
    "16-bit": (encoded("PNG", GREY16), (WIDTH, HEIGHT)),
    "16-bit-tiff": (encoded("TIFF", GREY16), (WIDTH, HEIGHT)),
    "32-bit-float": (encoded("TIFF", Image.fromarray(NOISE[..., 0] / np.float32(255))), (WIDTH, HEIGHT)),
    "palette": (encoded("PNG", Image.fromarray(NOISE).convert("P")), (WIDTH, HEIGHT)),
    "alpha": (encoded("PNG", Image.fromarray(NOISE).convert("RGBA")), (WIDTH, HEIGHT)),
    "grey": (encoded("JPEG", Image.fromarray(NOISE[..., 0])), (WIDTH, HEIGHT)),
    "grey-alpha": (encoded("PNG", Image.fromarray(NOISE).convert("LA")), (WIDTH, HEIGHT)),
    "bilevel": (encoded("PNG", Image.fromarray(NOISE).convert("1")), (WIDTH, HEIGHT)),
    "progressive": (encoded("JPEG", progressive=True), (WIDTH, HEIGHT)),
    "animated-gif": (animation("GIF"), (WIDTH, HEIGHT)),
    "animated-webp": (animation("WEBP"), (WIDTH, HEIGHT)),
    "animated-png": (animation("PNG"), (WIDTH, HEIGHT)),
    "turned": (SIDEWAYS, (HEIGHT, WIDTH)),
    "one-pixel": (encoded("PNG", Image.new("RGB", (1, 1))), "picture-too-small"),
    "a-line": (encoded("PNG", Image.new("RGB", (900, 20))), "picture-too-narrow"),
    "claims-to-be-huge": (png(60_000, 60_000, zlib.compress(b"\0" * 99)), "picture-too-large"),
    "claims-too-much": (png(2**31 - 1, 2**31 - 1, b""), "picture-too-large"),
    "claims-nothing": (png(0, 40, b""), "picture-not-an-image"),
    "huge-gif": (b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b";", "picture-*"),
    "text-bomb": (png(WIDTH, HEIGHT, GREY_ROWS, BOMB), "picture-*"),
    "profile-bomb": (png(WIDTH, HEIGHT, GREY_ROWS, PROFILE), "picture-*"),
    "rows-bomb": (png(WIDTH, HEIGHT, zeros(256 * MIB)), (WIDTH, HEIGHT)),  # more rows than it has: not read
    "wrong-crc": (PNG[:-30] + bytes(30), "picture-*"),
}
"""A reason that ends with * stands for any: what a library finds first in such bytes is its own affair."""


def test_every_kind_of_picture_file_ends_as_a_picture_or_with_a_reason(tmp_path: Path) -> None:
    paths = world(tmp_path, list(FILES))
    for name, (data, _) in FILES.items():
        (paths.wikiart / "Style" / f"{name}.jpg").write_bytes(data)
    metrics = build_utterances(paths, UtterancesParams(num_shards=1))
    found = fates(paths)
    assert found.keys() == FILES.keys()
    for name, (_, expected) in FILES.items():
        if isinstance(expected, str) and expected.endswith("*"):
            assert str(found[name]).startswith(expected[:-1]), name
        else:
            assert found[name] == expected, name
    assert metrics["rows_in"] == len(FILES) == metrics["rows_kept"] + metrics["rows_rejected"]
    rows = read(paths, "artworks")
    for row, image in decode_ahead.pictures(paths.wikiart, rows):  # what every later step reads
        assert not isinstance(image, BadImage), row["painting"]
        assert image.shape == (row["height"], row["width"], 3)
        assert image.dtype == np.uint8


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_bytes(animation(kind))
    image = wikiart.read_image(tmp_path / "a").astype(int)
    assert abs(image - NOISE).mean() < (40 if kind == "GIF" else 1)  # a GIF has 256 colours
    assert abs(image - [0, 0, 255]).mean() > 80


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory as Linux does")
def test_huge_pictures_and_bombs_cost_neither_memory_nor_time(tmp_path: Path) -> None:
    """A true PNG of 60,000 x 60,000 pixels, 3.6 GB decoded, and 10 GiB of text in a chunk."""
    names = ["good", "huge", "text", "profile"]
    paths = world(tmp_path, names)
    side = 60_000
    rows = side * (side + 1)
    padded = -(-rows // MIB) * MIB  # zlib may hold more than the rows; readers stop after the last
    files = {
        "good": JPEG,
        "huge": png(side, side, zeros(padded)),
        "text": png(WIDTH, HEIGHT, GREY_ROWS, chunk(b"zTXt", b"Comment\0\0" + zeros(10 * 1024 * MIB))),
        "profile": png(WIDTH, HEIGHT, GREY_ROWS, chunk(b"iCCP", b"icc\0\0" + zeros(10 * 1024 * MIB))),
    }
    for name, data in files.items():
        (paths.wikiart / "Style" / f"{name}.jpg").write_bytes(data)
    assert len(files["huge"]) < 8 * MIB
    build_within(tmp_path, 600 * MIB)  # the 3.6 GB would not fit
    found = fates(paths)
    assert found["good"] == (WIDTH, HEIGHT)
    assert found["huge"] == "picture-too-large"
    assert str(found["text"]).startswith("picture-") and str(found["profile"]).startswith("picture-")


def test_the_huge_png_is_a_true_one(tmp_path: Path) -> None:
    """The same construction at a size that can be decoded gives a picture."""
    (tmp_path / "a.png").write_bytes(png(1024, 1023, zeros(1 * MIB)[:-4] + zlib_end(1024, 1023)))
    assert wikiart.verify_picture(tmp_path / "a.png")[0] == (1024, 1023)
    assert wikiart.read_image(tmp_path / "a.png").max() == 0


def zlib_end(width: int, height: int) -> bytes:
    """Checksum of the stream that `zeros(1 MiB)` makes; the picture needs (width + 1) * height of it."""
    assert (width + 1) * height <= MIB
    return struct.pack(">I", (MIB % 65521) << 16 | 1)
