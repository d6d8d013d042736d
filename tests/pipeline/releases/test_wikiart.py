"""Pictures: every broken file has its reason, every odd encoding becomes upright RGB."""

import io
import struct
import unicodedata
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from pipeline.releases import names, wikiart
from pipeline.releases.wikiart import BadImage


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def reason(path: Path, call=wikiart.read_image, **options: int) -> str:
    with pytest.raises(BadImage) as caught:
        call(path, **options)
    assert caught.value.detail
    return caught.value.reason


def png_header(width: int, height: int) -> bytes:
    """A PNG that says its size and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_png_pixels_are_exact(tmp_path: Path) -> None:
    pixels = noise(20, 30)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = wikiart.read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8 and image.flags.writeable
    np.testing.assert_array_equal(image, pixels)
    assert wikiart.probe_picture(tmp_path / "a.png") == (30, 20)
    assert wikiart.verify_picture(tmp_path / "a.png")[0] == (30, 20)


def test_content_counts_not_extension(tmp_path: Path) -> None:
    pixels = noise(20, 30)
    path = tmp_path / "really-a-png.jpg"
    Image.fromarray(pixels).save(path, format="PNG")
    np.testing.assert_array_equal(wikiart.read_image(path), pixels)


def test_missing_empty_folder_and_text(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("this is not a painting")
    (tmp_path / "folder.jpg").mkdir()
    for call in (wikiart.read_image, wikiart.probe_picture, wikiart.verify_picture):
        assert reason(tmp_path / "nowhere.jpg", call) == "missing"
        assert reason(tmp_path / "folder.jpg", call) == "missing"
        assert reason(tmp_path / "empty.jpg", call) == "empty"
        assert reason(tmp_path / "text.jpg", call) == "not-an-image"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated_passes_the_probe_and_fails_the_decode(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 48)).save(buffer, format=kind)
    path = tmp_path / "cut.jpg"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    assert wikiart.probe_picture(path) == (48, 64)
    assert reason(path, wikiart.verify_picture) == "truncated"
    assert reason(path) == "truncated"


def test_png_with_flipped_bytes_is_corrupt(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 48)).save(buffer, format="PNG")
    data = bytearray(buffer.getvalue())
    data[200:300] = bytes(100)
    (tmp_path / "a.png").write_bytes(bytes(data))
    assert reason(tmp_path / "a.png", wikiart.verify_picture) in ("corrupt", "truncated")


def test_a_bomb_costs_its_header_only(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(60_000, 60_000))
    for call in (wikiart.read_image, wikiart.probe_picture, wikiart.verify_picture):
        assert reason(path, call) == "too-large"
    path.write_bytes(png_header(1001, 1000))
    assert reason(path, wikiart.probe_picture, max_pixels=1_000_000) == "too-large"
    assert wikiart.probe_picture(path, max_pixels=1_001_000) == (1001, 1000)


SAVED: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "TIFF, packed": {"compression": "tiff_lzw"},
}
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


def turned(kind: str, orientation: int, xmp: bool) -> bytes:
    """A picture of blocks, which survive JPEG and any turn, with an orientation in EXIF or XMP."""
    pixels = np.kron(noise(6, 4), np.ones((8, 8, 1), np.uint8))
    exif = Image.Exif()
    exif[wikiart.ORIENTATION] = orientation
    options: dict[str, Any] = {"exif": exif}
    if xmp:
        text = XMP % orientation
        options = {"xmp": text.encode()}
        if kind == "PNG":
            options = {"pnginfo": PngInfo()}
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", text)
        if kind.startswith("TIFF"):
            options = {"tiffinfo": {700: text.encode()}}
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind.partition(",")[0], **SAVED[kind], **options)
    return buffer.getvalue()


@pytest.mark.parametrize("xmp", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", SAVED)
def test_orientation(tmp_path: Path, orientation: int, kind: str, xmp: bool) -> None:
    path = tmp_path / "turned.jpg"
    path.write_bytes(turned(kind, orientation, xmp))
    with Image.open(path) as reference:
        expected = np.asarray(ImageOps.exif_transpose(reference))
    assert expected.shape[:2] == ((32, 48) if orientation > 4 else (48, 32))
    image = wikiart.read_image(path)
    np.testing.assert_array_equal(image, expected)
    assert wikiart.probe_picture(path) == (image.shape[1], image.shape[0])
    assert wikiart.verify_picture(path)[0] == (image.shape[1], image.shape[0])


def test_a_png_may_say_its_orientation_behind_its_pixels(tmp_path: Path) -> None:
    early = turned("PNG", 6, xmp=False)
    start = early.index(b"eXIf") - 4
    length = 12 + int.from_bytes(early[start : start + 4])
    end = len(early) - 12  # IEND
    late = early[:start] + early[start + length : end] + early[start : start + length] + early[end:]
    (tmp_path / "a.png").write_bytes(late)
    with Image.open(tmp_path / "a.png") as reference:
        expected = np.asarray(ImageOps.exif_transpose(reference))
    np.testing.assert_array_equal(wikiart.read_image(tmp_path / "a.png"), expected)
    assert wikiart.probe_picture(tmp_path / "a.png") == (48, 32)
    assert wikiart.verify_picture(tmp_path / "a.png")[0] == (48, 32)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"\0" * 30])
def test_damaged_exif_is_upright(tmp_path: Path, exif: bytes) -> None:
    for kind in ("JPEG", "PNG"):
        Image.fromarray(noise(20, 30)).save(tmp_path / "a.jpg", format=kind, exif=exif)
        assert wikiart.read_image(tmp_path / "a.jpg").shape == (20, 30, 3)
        assert wikiart.probe_picture(tmp_path / "a.jpg") == (30, 20)


@pytest.mark.parametrize("value", [0, 9, 77])
def test_orientations_that_exif_does_not_know_are_upright(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif[wikiart.ORIENTATION] = value
    Image.fromarray(noise(20, 30)).save(tmp_path / "a.jpg", exif=exif.tobytes())
    assert wikiart.read_image(tmp_path / "a.jpg").shape == (20, 30, 3)


def test_palette_grey_alpha_cmyk_and_bilevel(tmp_path: Path) -> None:
    rgb = Image.fromarray(noise(12, 10))
    for mode in ("L", "P", "1"):
        rgb.convert(mode).save(tmp_path / "a.png")
        np.testing.assert_array_equal(
            wikiart.read_image(tmp_path / "a.png"), np.asarray(rgb.convert(mode).convert("RGB"))
        )
    flat = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta + yellow ink: red
    flat.save(tmp_path / "cmyk.jpg", quality=95)
    red = wikiart.read_image(tmp_path / "cmyk.jpg").astype(int)
    assert red.shape == (16, 16, 3)
    assert (red[..., 0] > 240).all() and (red[..., 1:] < 15).all()


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2] = (200, 0, 0, 255)
    pixels[2] = (200, 0, 0, 0)
    pixels[3] = (0, 0, 0, 127)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = wikiart.read_image(tmp_path / "a.png")
    assert (image[:2] == (200, 0, 0)).all()
    assert (image[2] == 255).all()
    assert (abs(image[3].astype(int) - 128) <= 1).all()
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "p.png", transparency=1)
    assert wikiart.read_image(tmp_path / "p.png").tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_sixteen_bits_keep_their_range(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32_768, 65_535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = wikiart.read_image(tmp_path / "a.png")
    assert image[0, :, 0].tolist() == [0, 1, 128, 255]
    Image.fromarray(np.array([[0, 100]], np.uint16)).save(tmp_path / "dark.png")
    assert wikiart.read_image(tmp_path / "dark.png").max() == 0


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (wikiart.read_image(tmp_path / "a.gif") == (255, 0, 0)).all()


@given(st.binary(max_size=200), st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", ""]))
@settings(max_examples=150)
@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, kind: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.bin"
    start = io.BytesIO()
    if kind:
        Image.fromarray(noise(9, 7)).save(start, format=kind)
    cut = len(start.getvalue()) * (len(tail) % 7) // 7
    path.write_bytes(start.getvalue()[:cut] + tail)
    try:
        image = wikiart.read_image(path, max_pixels=10_000)
    except BadImage:
        return
    assert image.ndim == 3 and image.shape[2] == 3
    assert wikiart.probe_picture(path, max_pixels=10_000) == (image.shape[1], image.shape[0])


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "a\\b", "/etc/passwd", "a\0b", "a\nb", ".hidden", "x" * 300]
)
def test_names_that_could_leave_the_folder(tmp_path: Path, name: str) -> None:
    for style, painting in ((name, "a"), ("a", name)):
        with pytest.raises(BadImage) as caught:
            wikiart.find(tmp_path, style, painting)
        assert caught.value.reason == "unsafe-name"


def test_find_knows_dots_accents_and_extensions(tmp_path: Path) -> None:
    folder = tmp_path / "Romanticism"
    folder.mkdir()
    for name in ("j.m.w.-turner_no.-5.jpg", "eugã¨ne_a.jpg", "cafe\u0301_b.png"):
        (folder / name).touch()
    assert wikiart.find(tmp_path, "Romanticism", "j.m.w.-turner_no.-5").name == "j.m.w.-turner_no.-5.jpg"
    assert wikiart.find(tmp_path, "Romanticism", "eugã¨ne_a").name == "eugã¨ne_a.jpg"
    assert wikiart.find(tmp_path, "Romanticism", "caf\u00e9_b").name == "cafe\u0301_b.png"
    with pytest.raises(BadImage, match="missing"):
        wikiart.find(tmp_path, "Romanticism", "nobody_nothing")


def test_a_name_with_its_extension_is_told_apart_from_a_missing_picture(tmp_path: Path) -> None:
    (tmp_path / "Cubism").mkdir()
    (tmp_path / "Cubism" / "mill.jpg").touch()
    for name, reason in (
        ("mill.jpg", "extension-in-name"),
        ("Mill.JPG", "extension-in-name"),
        ("port.jpg", "missing"),
    ):
        with pytest.raises(BadImage, match=reason):
            wikiart.find(tmp_path, "Cubism", name)
    (tmp_path / "Cubism" / "mill.jpg.jpg").touch()  # a painting may be called so
    assert wikiart.find(tmp_path, "Cubism", "mill.jpg").name == "mill.jpg.jpg"


def test_a_forgiving_file_system_gives_one_path_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS and Windows a file is there under other cases and Unicode forms of its name."""
    (tmp_path / "Cubism").mkdir()
    (tmp_path / "Cubism" / "Caf\u00e9.jpg").touch()

    def forgiving(path: str) -> bool:
        wanted = unicodedata.normalize("NFC", str(path)).casefold()
        return any(unicodedata.normalize("NFC", str(f)).casefold() == wanted for f in tmp_path.rglob("*.*"))

    monkeypatch.setattr(wikiart.os.path, "isfile", forgiving)
    for style, name in (("Cubism", "Caf\u00e9"), ("cubism", "caf\u00e9"), ("CUBISM", "cafe\u0301")):
        assert wikiart.find(tmp_path, style, name) == tmp_path / "Cubism" / "Caf\u00e9.jpg"


def test_real_paintings(real_art: Path) -> None:
    paths = sorted((real_art / "wikiart").rglob("*.jpg"))
    assert len(paths) == 7
    for path in paths:
        (width, height), _, _ = wikiart.verify_picture(path)
        assert wikiart.read_image(path).shape == (height, width, 3)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=0x17F, exclude_characters="ãÃ#"), max_size=20))
def test_mojibake_is_undone_and_other_names_are_left_alone(name: str) -> None:
    assert names.mend_mojibake(name) == name
    latin = "".join(char for char in name if 0xE0 <= ord(char) <= 0xFF and ord(char) != 0xF7)
    assert names.mend_mojibake(latin.encode().decode("latin-1").lower()) == latin.lower()
