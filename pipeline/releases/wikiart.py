"""Picture files: where an artwork lies, how large it is, and its pixels as upright RGB.

Everyone who opens a picture comes through here, so that a broken, huge or oddly encoded file means the same
thing in every step: a `BadImage` with a reason, never a crash and never a silent skip.
"""

import bisect
import functools
import hashlib
import os
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.releases import strict_jpeg
from pipeline.releases.colour import to_rgb
from pipeline.releases.names import UNPRINTABLE, plain_name, unsafe_name
from pipeline.releases.perceptual_hash import perceptual_hash

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
"""What is decoded, by content and not by extension. A short list: fewer decoders face hostile bytes."""
JPEG = ("JPEG", "MPO")
"""Pillow's words for a JPEG, of one picture and of several."""
EXTENSIONS = (".jpg", ".jpeg", ".png")
MAX_PIXELS = 120_000_000
"""Default cap on width x height. The largest WikiArt scans have 107 million pixels."""
PILLOW_CEILING = 178_956_970
"""Pillow refuses more by itself (twice `Image.MAX_IMAGE_PIXELS`); caps above it would promise too much."""
MAX_BYTES = 2**30
"""Larger files are refused: a sound JPEG of that many pixels is a third of it, and it is read whole."""
ORIENTATION = 0x0112
"""EXIF tag: 1 upright, 2-4 mirrored or turned by 180 degrees, 5-8 with width and height swapped."""

# Below its own ceiling Pillow only warns; `max_pixels` has already decided those sizes from the header.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
# Damaged metadata of a picture that can be read: a line per file would bury everything else.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class BadImage(Exception):  # noqa: N818 - named for what it says
    """A picture that cannot be used; `reason` is one of the short words below, `detail` is for people.

    Reasons: missing, ambiguous-name, extension-in-name, empty, unreadable, not-an-image, too-large,
    truncated, corrupt, changed-content.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def find(wikiart: Path, art_style: str, painting: str) -> Path:
    """The file ``ART_STYLE/PAINTING.jpg`` under `wikiart`, spelt as in its folder: one path for one file.

    Also tries ``.jpeg`` and ``.png``, and the name's composed and decomposed Unicode forms (archives made
    on macOS decompose accents). Last, the only file whose `plain_name` is the same: other case (``.JPG``),
    accents lost or garbled by an unpacker. Raises `BadImage`: unsafe-name, missing, ambiguous-name,
    extension-in-name.
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
                listed = wikiart / _as_listed(wikiart, art_style)
                return listed / _as_listed(listed, f"{form}{extension}")
    near = _plain_files(wikiart, art_style).get(plain_name(painting), [])
    if len(near) > 1:
        raise BadImage("ambiguous-name", f"{art_style}/{painting} could be {' or '.join(map(repr, near))}")
    if near:
        return wikiart / near[0]
    stem, extension = os.path.splitext(painting)  # noqa: PTH122 - a name, not a path
    if extension.lower() in EXTENSIONS and _plain_files(wikiart, art_style).get(plain_name(stem)):
        detail = f"the csv says {art_style}/{painting}; it must name paintings without {extension}"
        raise BadImage("extension-in-name", detail)
    shown = repr(f"{art_style}/{painting}.jpg")  # some characters cannot be seen
    raise BadImage("missing", f"no {shown} (nor .jpeg, .png) in {wikiart}")


def _as_listed(folder: Path, name: str) -> str:
    """A file's name as its folder has it: some file systems find it by another case or Unicode form too."""
    names = _listing(folder, _modified(folder))
    place = bisect.bisect_left(names, name)
    if place < len(names) and names[place] == name:
        return name
    wanted = unicodedata.normalize("NFC", name).casefold()
    near = [listed for listed in names if unicodedata.normalize("NFC", listed).casefold() == wanted]
    return near[0] if len(near) == 1 else name


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
        return tuple(sorted(name for name in os.listdir(folder) if not UNPRINTABLE.search(name)))  # noqa: PTH208
    except OSError:
        return ()


def _modified(folder: Path) -> int:
    """When a folder last changed, nanoseconds; 0 where that cannot be known."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


@contextmanager
def _opened(
    path: Path, max_pixels: int, sha256: str | None = None
) -> Iterator[tuple[Image.Image, IO[bytes]]]:
    """Open by header only; whatever goes wrong inside the block becomes a `BadImage`."""
    try:
        if not path.is_file():
            raise BadImage("missing", f"{path} is not a file")
        size = path.stat().st_size
        if size == 0:
            raise BadImage("empty", f"{path} has no bytes")
        if size > MAX_BYTES:
            raise BadImage("too-large", f"{path} has {size:,} bytes, the cap is {MAX_BYTES:,}")
        with path.open("rb") as file:
            if sha256 is not None and _digest(file) != sha256:
                raise BadImage("changed-content", f"{path} is not the file that the utterances step saw")
            with Image.open(file, formats=FORMATS) as image:
                _check_size(path, image.size, max_pixels)
                yield image, file
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
        words = str(error).lower()
        cut = "truncated" in words or "premature end" in words or isinstance(error, EOFError)
        raise BadImage("truncated" if cut else "corrupt", f"{path}: {error}") from None


def _check_size(path: Path, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise BadImage("not-an-image", f"{path} says it is {width}x{height} pixels")
    if width * height > max_pixels:
        raise BadImage("too-large", f"{path} has {width}x{height} pixels, the cap is {max_pixels}")


def _digest(file: IO[bytes]) -> str:
    """SHA-256 of an open file, which is left at its start."""
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    file.seek(0)
    return digest


def _orientation(image: Image.Image) -> int:
    """What is still to be turned: EXIF's orientation, or XMP's. Pillow turns a TIFF when it loads it.

    For a PNG that is not loaded yet, Pillow loads it: its EXIF may stand behind the pixels.
    """
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF raises anything, and is no reason to lose a sound picture
        return 1
    return orientation if orientation in range(1, 9) else 1


def probe_picture(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) of the upright picture, in pixels, from the header alone (of a PNG, from all of it).

    Raises `BadImage` for what a header shows: missing, empty, unreadable, not-an-image, too-large. A file
    that is cut after its header passes; `verify_picture` finds it.
    """
    with _opened(path, max_pixels) as (image, _):
        width, height = image.size
        if image.format == "TIFF":  # its size in Pillow is partly turned already
            width, height = image.tag_v2[256], image.tag_v2[257]  # type: ignore[attr-defined]
        return (height, width) if _orientation(image) in (5, 6, 7, 8) else (width, height)


class VerifiedPicture(NamedTuple):
    """A picture all of whose bytes can be decoded."""

    size: tuple[int, int]
    """Upright (width, height), pixels."""
    sha256: str
    """Of the file."""
    phash: str
    """`perceptual_hash` of the upright picture."""


def verify_picture(path: Path, max_pixels: int = MAX_PIXELS) -> VerifiedPicture:
    """Size as `probe_picture`, and hashes, with every byte decoded.

    So truncated and corrupt files raise here and not later: what passes, `read_image` reads. A JPEG is
    decoded at an eighth of its size. Raises `BadImage`.
    """
    with _opened(path, max_pixels) as (image, file):
        if image.format in JPEG:
            (width, height), orientation = image.size, _orientation(image)
            small = _sound_jpeg(file)
            if small is None:
                image.draft(None, (max(1, width // 8), max(1, height // 8)))
                small = np.asarray(image.convert("L"))
            size = (height, width) if orientation in (5, 6, 7, 8) else (width, height)
            return VerifiedPicture(size, _digest(file), perceptual_hash(small, orientation))
        _check_png(image, file)
        upright = _upright(image)
        return VerifiedPicture(upright.size, _digest(file), perceptual_hash(np.asarray(upright.convert("L"))))


def read_image(path: Path, max_pixels: int = MAX_PIXELS, sha256: str | None = None) -> np.ndarray:
    """The picture as uint8 (H, W, 3) RGB, upright by its EXIF orientation; the first frame of several.

    Grey, palette, CMYK and 16-bit pictures are converted; transparency is laid over white, as on paper.
    The cap is checked on the header, before any pixel is decoded. `sha256`: of the file when `verify_picture`
    found it sound; another file is "changed-content", and without it the bytes are checked here.
    Raises `BadImage`.
    """
    with _opened(path, max_pixels, sha256) as (image, file):
        if sha256 is None and image.format in JPEG:
            _sound_jpeg(file)
        elif sha256 is None:
            _check_png(image, file)
        return np.array(_upright(image), dtype=np.uint8)  # a copy: writable, and free of Pillow's buffer


def _sound_jpeg(file: IO[bytes]) -> np.ndarray | None:
    """`strict_jpeg.decode_small` of an opened file; raises where its decoder warns, as Pillow's does not."""
    position = file.tell()
    file.seek(0)
    try:
        return strict_jpeg.decode_small(file.read())
    finally:
        file.seek(position)


def _check_png(image: Image.Image, file: IO[bytes]) -> None:
    """Raise where a PNG's checksums, at which Pillow does not look, are wrong; other formats have none."""
    if image.format != "PNG":
        return
    position = file.tell()
    file.seek(0)
    try:
        with Image.open(file, formats=("PNG",)) as twin:
            twin.verify()
    finally:
        file.seek(position)


def _upright(image: Image.Image) -> Image.Image:
    """All of an opened picture as mode RGB, upright."""
    stored = image.tile[0].args if image.format == "PNG" and image.tile else ""  # type: ignore[attr-defined]
    image.load()
    orientation = _orientation(image)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    upright = to_rgb(image, stored if isinstance(stored, str) else "")
    upright.info = {"exif": exif.tobytes()}
    turned: Image.Image = ImageOps.exif_transpose(upright)
    return turned
