"""Any picture as 8-bit RGB: grey of more than 8 bits by its full range, transparency over white."""

import numpy as np
from PIL import Image

BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
"""TIFF tags, and a value of the second."""


def to_rgb(image: Image.Image, stored: str = "") -> Image.Image:
    """A loaded picture of any Pillow mode as mode RGB.

    `stored`: Pillow's word for the form of a PNG's values in the file, such as "L;4". Raises `ValueError` for
    a mode that has no way to RGB.
    """
    if image.mode == "F" or image.mode.startswith("I"):  # 16 or 32 bits a value; "I;16", "I;16B" ...
        return _deep_grey(image).convert("RGB")
    if "transparency" in image.info:
        image.info["transparency"] = _as_decoded(image.info["transparency"], stored)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _deep_grey(image: Image.Image) -> Image.Image:
    """Grey values of 16 or 32 bits as mode L by their full range; Pillow's own conversion clips at 255.

    32-bit files do not say their range: the smallest usual one that holds their largest value is taken.
    """
    values = np.asarray(image)
    grey = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    tags = getattr(image, "tag_v2", {})
    # a TIFF of 12 bits is unpacked into 16; everything else fills its type
    ranges = (float(2 ** _bits(tags) - 1),) if image.mode.startswith("I;16") else (1.0, 255.0, 65535.0)
    largest = float(grey.max())
    top = next((limit for limit in ranges if largest <= limit), largest)
    eight = np.clip(grey / top * 255.0 + 0.5, 0, 255).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # Pillow turns such values round at 8 bits only
        eight = 255 - eight
    if "transparency" in image.info:
        eight[values == image.info["transparency"]] = 255
    return Image.fromarray(eight)


def _bits(tags: dict[int, tuple[int, ...]]) -> int:
    """Bits of a grey value in a picture of at most 16; `tags` are a TIFF's, empty for other formats."""
    return min(16, tags.get(BITS_PER_SAMPLE, (16,))[0])


def _as_decoded(colour: object, stored: str) -> object:
    """The transparent colour in the values that Pillow decodes to; a PNG names it in those of the file.

    Pillow stretches grey of 2 and 4 bits to 8, and keeps the upper half of 16-bit colours: all colours that
    share it are then transparent.
    """
    if stored in ("L;2", "L;4") and isinstance(colour, int):
        return colour * (85 if stored == "L;2" else 17)
    if stored == "RGB;16B" and isinstance(colour, tuple):
        return tuple(value >> 8 for value in colour)
    return colour
