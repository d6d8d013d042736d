"""Picture files: where an artwork lies, how large it is, and its pixels as upright RGB.

Everyone who opens a picture comes through here, so that a broken, huge or oddly encoded file means the same
thing in every step: a `BadImage` with a reason, never a crash and never a silent skip.
"""

import functools
import os
import re
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
"""What is decoded, by content and not by extension. A short list: fewer decoders face hostile bytes."""
EXTENSIONS = (".jpg", ".jpeg", ".png")
MAX_PIXELS = 120_000_000
"""Default cap on width x height. The largest WikiArt scans have 107 million pixels."""
PILLOW_CEILING = 178_956_970
"""Pillow refuses more by itself (twice `Image.MAX_IMAGE_PIXELS`); caps above it would promise too much."""
ORIENTATION = 0x0112
"""EXIF tag: 1 upright, 2-4 mirrored or turned by 180 degrees, 5-8 with width and height swapped."""

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and the surrogates that stand for bytes that are no UTF-8."""

# Below its own ceiling Pillow only warns; `max_pixels` has already decided those sizes from the header.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
# Damaged metadata of a picture that can be read: a line per file would bury everything else.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class BadImage(Exception):  # noqa: N818 - named for what it says
    """A picture that cannot be used; `reason` is one of the short words below, `detail` is for people.

    Reasons: missing, ambiguous-name, empty, unreadable, not-an-image, too-large, truncated, corrupt.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def unsafe_name(name: str) -> str | None:
    """Why `name` must not become one component of a path, or None when it may.

    Names come from a csv: one with a separator or a leading dot could leave its folder.
    """
    if not name:
        return "is empty"
    if "/" in name or "\\" in name:
        return "holds a path separator"
    if name.startswith("."):
        return "starts with a dot"
    if _UNPRINTABLE.search(name):
        return "holds a control character"
    if len(name.encode()) > 240:
        return "is longer than a file name may be"
    return None


MOJIBAKE = re.compile("[Ãã]([\x80-\xbf])")
"""UTF-8 of a letter from À to ÿ read as Latin-1, and perhaps lower-cased: 0xC3 and a continuation byte."""


def mend_mojibake(name: str) -> str:
    """Undo UTF-8 read as Latin-1 and then lower-cased: "eugã¨ne" -> "eugène". Other names are unchanged."""
    return MOJIBAKE.sub(lambda pair: bytes((0xC3, ord(pair[1]))).decode(), name)


def plain_name(name: str) -> str:
    """What two spellings of one painting's name have in common: mended, unaccented, ``#`` as ``.``."""
    return unaccented(mend_mojibake(name).replace("#", ".").casefold())


def unaccented(text: str) -> str:
    """Letters without their accents."""
    letters = unicodedata.normalize("NFKD", text)
    return "".join(char for char in letters if not unicodedata.combining(char))


def find(wikiart: Path, art_style: str, painting: str) -> Path:
    """The file ``ART_STYLE/PAINTING.jpg`` under `wikiart`.

    Also tries ``.jpeg`` and ``.png``, and the name's composed and decomposed Unicode forms (archives made
    on macOS decompose accents). Last, the only file whose `plain_name` is the same: other case (``.JPG``),
    accents lost or garbled by an unpacker. Raises `BadImage`: unsafe-name, missing, ambiguous-name.
    """
    for name in (art_style, painting):
        if (why := unsafe_name(name)) is not None:
            raise BadImage("unsafe-name", f"{name!r} {why}")
    folder = wikiart / art_style
    forms = dict.fromkeys([painting, *(unicodedata.normalize(form, painting) for form in ("NFC", "NFD"))])
    for form in forms:
        for extension in EXTENSIONS:
            path = f"{folder}/{form}{extension}"
            if os.path.isfile(path):  # noqa: PTH113 - unlike Path.is_file, false for whatever cannot be
                return Path(path)
    near = _plain_files(wikiart, art_style).get(plain_name(painting), [])
    if len(near) > 1:
        raise BadImage("ambiguous-name", f"{art_style}/{painting} could be {' or '.join(map(repr, near))}")
    if near:
        return wikiart / near[0]
    raise BadImage("missing", f"no {art_style}/{painting}.jpg (nor .jpeg, .png) in {wikiart}")


def _plain_files(wikiart: Path, art_style: str) -> dict[str, list[str]]:
    """Plain name of a painting -> its files below `wikiart`, in every folder named like the art style."""
    plain = plain_name(art_style)
    found: dict[str, list[str]] = {}
    for folder in (name for name in _listing(wikiart, _modified(wikiart)) if plain_name(name) == plain):
        for stem, files in _by_plain_stem(wikiart / folder, _modified(wikiart / folder)).items():
            found.setdefault(stem, []).extend(f"{folder}/{file}" for file in files)
    return found


@functools.lru_cache(maxsize=256)
def _by_plain_stem(folder: Path, modified: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in _listing(folder, modified):
        stem, extension = os.path.splitext(name)  # noqa: PTH122 - names, not paths
        if extension.lower() in EXTENSIONS:
            found.setdefault(plain_name(stem), []).append(name)
    return found


@functools.lru_cache(maxsize=256)
def _listing(folder: Path, _modified: int) -> tuple[str, ...]:
    """Names in a folder, sorted, as far as they are text; none where it cannot be read."""
    try:
        return tuple(sorted(name for name in os.listdir(folder) if not _UNPRINTABLE.search(name)))  # noqa: PTH208
    except OSError:
        return ()


def _modified(folder: Path) -> int:
    """When a folder last changed, nanoseconds; 0 where that cannot be known."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


@contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """Open by header only; whatever goes wrong inside the block becomes a `BadImage`."""
    try:
        if not path.is_file():
            raise BadImage("missing", f"{path} is not a file")
        if path.stat().st_size == 0:
            raise BadImage("empty", f"{path} has no bytes")
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width < 1 or height < 1:
                raise BadImage("not-an-image", f"{path} says it is {width}x{height} pixels")
            if width * height > max_pixels:
                raise BadImage("too-large", f"{path} has {width}x{height} pixels, the cap is {max_pixels}")
            yield image
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage("not-an-image", f"{path} holds none of {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError as error:
        raise BadImage("too-large", f"{path}: {error}") from None
    except MemoryError:
        raise BadImage("too-large", f"{path} does not fit into memory") from None
    except Exception as error:  # decoders answer damaged bytes with almost any exception
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, where Pillow's have none
            raise BadImage("unreadable", str(error)) from None
        cut = "truncated" in str(error).lower() or isinstance(error, EOFError)
        raise BadImage("truncated" if cut else "corrupt", f"{path}: {error}") from None


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, from what the header already gave.

    Pillow decodes a whole PNG to look for EXIF after the pixels; a header probe must not, and `read_image`
    must agree with it, so such late EXIF counts as upright.
    """
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF raises anything, and is no reason to lose a sound picture
        return 1
    return orientation if orientation in range(1, 9) else 1


def probe_picture(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) of the upright picture, in pixels, from the header alone.

    Raises `BadImage` for what a header shows: missing, empty, unreadable, not-an-image, too-large. A file
    that is cut after its header passes; `verify` finds it.
    """
    with _opened(path, max_pixels) as image:
        return _upright_size(image)


def verify_picture(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """As `probe`, and every byte decoded, so that truncated and corrupt files raise here and not later.

    JPEG is decoded at an eighth of its size: the entropy decoder, where a cut shows, still reads it all.
    """
    with _opened(path, max_pixels) as image:
        size = _upright_size(image)
        image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
    return size


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if _orientation(image) in (5, 6, 7, 8) else (width, height)


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The picture as uint8 (H, W, 3) RGB, upright by its EXIF orientation; the first frame of several.

    Grey, palette, CMYK and 16-bit pictures are converted; transparency is laid over white, as on paper.
    The cap is checked on the header, before any pixel is decoded. Raises `BadImage`.
    """
    with _opened(path, max_pixels) as image:
        orientation = _orientation(image)
        image.load()
        upright = _transpose(_to_rgb(image), orientation)
        return np.array(upright, dtype=np.uint8)  # a copy: writable, and free of Pillow's buffer


def _transpose(image: Image.Image, orientation: int) -> Image.Image:
    """Turn stored pixels upright. `ImageOps` reads the orientation from the picture's own EXIF."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image.info = {"exif": exif.tobytes()}
    turned: Image.Image = ImageOps.exif_transpose(image)
    return turned


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode as mode RGB."""
    if image.mode == "F" or image.mode.startswith("I"):  # 16 or 32 bits a value; "I;16", "I;16B" ...
        return Image.fromarray(_eight_bit(np.asarray(image), image.mode)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _eight_bit(values: np.ndarray, mode: str) -> np.ndarray:
    """Grey values of 16 or 32 bits as uint8 by their full range; Pillow's own conversion clips at 255.

    32-bit files do not say their range: the smallest usual one that holds their largest value is taken.
    """
    grey = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    ranges = (65535.0,) if mode.startswith("I;16") else (1.0, 255.0, 65535.0)
    largest = float(grey.max())
    top = next((limit for limit in ranges if largest <= limit), largest)
    return np.clip(grey / top * 255.0 + 0.5, 0, 255).astype(np.uint8)
