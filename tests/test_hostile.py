"""Hostile and broken inputs through the real steps: each ends as a picture, or as a row with a reason.

Nothing here may crash a run, leave the folder it belongs to, or cost memory that its size does not explain.
"""

import csv
import io
import os
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline import artworks, schema, utterances
from pipeline.artworks import BadImage
from pipeline.backbones import pictures
from pipeline.emotions import ALL_EMOTIONS
from pipeline.params import Paths, UserError
from pipeline.utterances import UtterancesParams

HEIGHT, WIDTH = 40, 30
NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
MIB = 2**20


def encoded(kind: str, picture: Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (picture or Image.fromarray(NOISE)).save(buffer, format=kind, **options)
    return buffer.getvalue()


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
    tags[artworks.ORIENTATION] = orientation
    return tags.tobytes()


def animation(kind: str) -> bytes:
    frames = [Image.fromarray(NOISE), Image.new("RGB", (WIDTH, HEIGHT), "blue")]
    return encoded(kind, frames[0], save_all=True, append_images=frames[1:], **LOSSLESS.get(kind, {}))


LOSSLESS: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}}
JPEG, PNG = encoded("JPEG"), encoded("PNG")
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


def world(root: Path, names: list[str]) -> Paths:
    """A csv that says one thing about every name; no pictures yet."""
    paths = Paths(
        artemis=root / "a.csv", wikiart=root / "wikiart", apolo=root / "no-apolo", data=root / "data"
    )
    (paths.wikiart / "Style").mkdir(parents=True)
    with paths.artemis.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("art_style", "painting", "emotion", "utterance", "repetition"))
        writer.writerows(("Style", name, "awe", "so grand", 1) for name in names)
    return paths


def read(paths: Paths, name: str) -> list[dict[str, Any]]:
    return pq.read_table(paths.step("utterances") / f"{name}.parquet").to_pylist()


def fates(paths: Paths) -> dict[str, str | tuple[int, int]]:
    """Painting -> its reject's reason, or the size that the step saw."""
    found: dict[str, str | tuple[int, int]] = {
        row["source"].partition("/")[2]: row["reason"] for row in read(paths, "rejects") if row["row"] == -1
    }
    return found | {row["painting"]: (row["width"], row["height"]) for row in read(paths, "artworks")}


# ---- pictures


def test_every_kind_of_picture_file_ends_as_a_picture_or_with_a_reason(tmp_path: Path) -> None:
    paths = world(tmp_path, list(FILES))
    for name, (data, _) in FILES.items():
        (paths.wikiart / "Style" / f"{name}.jpg").write_bytes(data)
    metrics = utterances.build(paths, UtterancesParams(num_shards=1))
    found = fates(paths)
    assert found.keys() == FILES.keys()
    for name, (_, expected) in FILES.items():
        if isinstance(expected, str) and expected.endswith("*"):
            assert str(found[name]).startswith(expected[:-1]), name
        else:
            assert found[name] == expected, name
    assert metrics["rows_in"] == len(FILES) == metrics["rows_kept"] + metrics["rows_rejected"]
    rows = read(paths, "artworks")
    for row, image in pictures.pictures(paths.wikiart, rows):  # what every later step reads
        assert not isinstance(image, BadImage), row["painting"]
        assert image.shape == (row["height"], row["width"], 3)
        assert image.dtype == np.uint8


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_bytes(animation(kind))
    image = artworks.read_image(tmp_path / "a").astype(int)
    assert abs(image - NOISE).mean() < (40 if kind == "GIF" else 1)  # a GIF has 256 colours
    assert abs(image - [0, 0, 255]).mean() > 80


CHILD = """
import resource, sys
from pathlib import Path
from pipeline import utterances
from pipeline.params import Paths
root = Path(sys.argv[1])
paths = Paths(artemis=root / "a.csv", wikiart=root / "wikiart", apolo=root / "x", data=root / "data")
held = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (held + int(sys.argv[2]), held + int(sys.argv[2])))
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
utterances.build(paths, utterances.UtterancesParams(num_shards=1))
"""


def build_within(root: Path, memory: int) -> None:
    """Run the step in a process that may take `memory` bytes more than it starts with."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(root), str(memory)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


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
    assert artworks.verify(tmp_path / "a.png") == (1024, 1023)
    assert artworks.read_image(tmp_path / "a.png").max() == 0


def zlib_end(width: int, height: int) -> bytes:
    """Checksum of the stream that `zeros(1 MiB)` makes; the picture needs (width + 1) * height of it."""
    assert (width + 1) * height <= MIB
    return struct.pack(">I", (MIB % 65521) << 16 | 1)


# ---- names and places


def test_things_that_are_no_files(tmp_path: Path) -> None:
    names = ["folder", "loop", "dangling", "fifo", "link", "self/../self"]
    paths = world(tmp_path, names)
    folder = paths.wikiart / "Style"
    (folder / "folder.jpg").mkdir()
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(folder / "fifo.jpg")  # opening one waits for a writer for ever
    (tmp_path / "good.jpg").write_bytes(JPEG)
    (folder / "link.jpg").symlink_to(tmp_path / "good.jpg")  # people do link their pictures
    utterances.build(paths, UtterancesParams())
    missing = dict.fromkeys(["folder", "loop", "dangling", "fifo"], "picture-missing")
    assert fates(paths) == missing | {"link": (WIDTH, HEIGHT)}
    assert [row["reason"] for row in read(paths, "rejects") if row["row"] == 5] == ["unsafe-name"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights for a while")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_permission_denied(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = world(tmp_path, ["good", "locked"])
    for path in [tmp_path, *tmp_path.parents]:
        if path.stat().st_uid == 0 and path.stat().st_mode & 0o005 != 0o005 and "pytest" in str(path):
            path.chmod(0o755)
    (paths.wikiart / "Style" / "good.jpg").write_bytes(JPEG)
    path = paths.wikiart / "Style" / "locked.jpg"
    path.write_bytes(JPEG)
    (path if what == "file" else path.parent).chmod(0)
    nobody = 65_534
    os.seteuid(nobody)
    try:
        if what == "file":
            with pytest.raises(BadImage, match="unreadable"):
                artworks.probe(path)
        with pytest.raises(BadImage) as caught:
            artworks.probe(artworks.find(paths.wikiart, "Style", "locked"))
        assert caught.value.reason == ("unreadable" if what == "file" else "missing")
    finally:
        os.seteuid(0)
        path.parent.chmod(0o755)


def test_an_unreadable_file_is_a_reject_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = world(tmp_path, ["good", "locked", "broken-disk"])
    for name in ("good", "locked", "broken-disk"):
        (paths.wikiart / "Style" / f"{name}.jpg").write_bytes(JPEG)
    original = Image.open
    errors = {"locked": PermissionError(13, "Permission denied"), "broken-disk": OSError(5, "I/O error")}

    def refuse(path: Path, **options: Any) -> Image.Image:
        if (error := errors.get(Path(path).stem)) is not None:
            raise error
        return original(path, **options)

    monkeypatch.setattr(Image, "open", refuse)
    utterances.build(paths, UtterancesParams())
    assert fates(paths) == {
        "good": (WIDTH, HEIGHT),
        "locked": "picture-unreadable",
        "broken-disk": "picture-unreadable",
    }


HARMLESS = [
    "-rf",
    "--help",
    "$(reboot)",
    "a b",
    "a;b",
    "*",
    "~",
    "%s",
    "con",
    "'x\"",
    "№5",
    "eugã¨ne_x",
    "風景",
]
UNSAFE = [
    "..",
    ".",
    "...",
    ".hidden",
    "../up",
    "/etc/passwd",
    "a/../../b",
    "a\\b",
    "a\nb",
    "a\rb",
    "a\x7f",
    "\u0085",
]


def test_names_never_leave_the_folder(tmp_path: Path) -> None:
    names = [*HARMLESS, *UNSAFE, "x" * 400, "é" * 120]
    paths = world(tmp_path, names)
    (tmp_path / "up.jpg").write_bytes(JPEG)
    (tmp_path / "wikiart" / "up.jpg").write_bytes(JPEG)
    for name in [*HARMLESS, "é" * 120]:  # the last: too long a name once decomposed
        (paths.wikiart / "Style" / f"{name}.jpg").write_bytes(JPEG)
    utterances.build(paths, UtterancesParams())
    rows = read(paths, "artworks")
    assert {row["painting"] for row in rows} == {*HARMLESS, "é" * 120}
    root = paths.wikiart.resolve()
    for row in rows:
        path = (paths.wikiart / row["path"]).resolve()
        assert path.is_relative_to(root) and path.read_bytes() == JPEG
        assert len(row["key"]) == 16 and set(row["key"]) <= set("0123456789abcdef")
    reasons = {row["reason"] for row in read(paths, "rejects")}
    assert reasons == {"unsafe-name", "control-character"}
    assert len(read(paths, "rejects")) == len(UNSAFE) + 1


@given(style=st.text(max_size=12), painting=st.text(max_size=12))
@settings(max_examples=200, deadline=None)
def test_any_name_stays_below_wikiart_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, style: str, painting: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "names"
    (root / "wikiart").mkdir(parents=True, exist_ok=True)
    (root / ".jpg").write_bytes(JPEG)
    try:
        path = artworks.find(root / "wikiart", style, painting)
    except BadImage as error:
        assert error.reason in ("unsafe-name", "missing")
        return
    assert path.resolve().is_relative_to((root / "wikiart").resolve())


def test_case_accents_and_mojibake_are_forgiven_when_only_one_file_can_be_meant(tmp_path: Path) -> None:
    names = ["Vincent_Iris", "edouard_olympia", "eugã¨ne_sea", "twin_a", "exact", "nobody_here"]
    paths = world(tmp_path, names)
    folder = paths.wikiart / "Style"
    on_disk = [
        *("vincent_iris.JPG", "édouard_olympia.jpeg", "Eugene_Sea.png"),
        *("Twin_A.jpg", "twin_A.jpg", "exact.jpg", "Exact.jpg", "notes.txt", "nobody_here.txt"),
    ]
    for name in on_disk:
        (folder / name).write_bytes(JPEG)
    utterances.build(paths, UtterancesParams())
    assert {row["painting"]: row["path"] for row in read(paths, "artworks")} == {
        "Vincent_Iris": "Style/vincent_iris.JPG",
        "edouard_olympia": "Style/édouard_olympia.jpeg",
        "eugã¨ne_sea": "Style/Eugene_Sea.png",
        "exact": "Style/exact.jpg",
    }
    rejected = {row["source"]: row["reason"] for row in read(paths, "rejects") if row["row"] == -1}
    assert rejected == {
        "Style/twin_a": "picture-ambiguous-name",
        "Style/nobody_here": "picture-missing",
    }
    (paths.wikiart / "Style").rename(paths.wikiart / "STYLE")
    utterances.build(paths, UtterancesParams())
    assert {row["path"].split("/")[0] for row in read(paths, "artworks")} == {"STYLE"}


def test_file_names_that_are_no_text_are_left_alone(tmp_path: Path) -> None:
    paths = world(tmp_path, ["café", "good"])
    (paths.wikiart / "Style" / "good.jpg").write_bytes(JPEG)
    with open(os.fsencode(paths.wikiart / "Style") + b"/caf\xe9.jpg", "wb") as file:  # noqa: PTH123
        file.write(JPEG)
    utterances.build(paths, UtterancesParams())
    assert fates(paths) == {"café": "picture-missing", "good": (WIDTH, HEIGHT)}


def test_the_two_corrupt_files_of_the_official_zip(tmp_path: Path) -> None:
    """Their CRC is wrong in the archive: unpackers leave them out, cut, or with garbage inside."""
    names = ["vincent-van-gogh_madame-ginoux-1890", "rembrandt_woman-standing-with-raised-hands", "anna_mill"]
    paths = world(tmp_path, names)
    whole = encoded("JPEG", Image.fromarray(np.kron(NOISE, np.ones((8, 8, 1), np.uint8))))
    (paths.wikiart / "Style" / f"{names[0]}.jpg").write_bytes(whole[: len(whole) // 3])
    (paths.wikiart / "Style" / f"{names[2]}.jpg").write_bytes(whole)
    metrics = utterances.build(paths, UtterancesParams())
    assert fates(paths) == {
        names[0]: "picture-truncated",
        names[1]: "picture-missing",
        names[2]: (8 * WIDTH, 8 * HEIGHT),
    }
    assert (metrics["artworks_in"], metrics["artworks_kept"], metrics["artworks_rejected"]) == (3, 1, 2)


# ---- the csv

HEADER = b"art_style,painting,emotion,utterance,repetition\n"
GOOD = b"Style,good,awe,so grand,1\n"


def csv_world(root: Path, data: bytes) -> Paths:
    paths = world(root, [])
    (paths.wikiart / "Style" / "good.jpg").write_bytes(JPEG)
    paths.artemis.write_bytes(data)
    return paths


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"Style,good,awe,caf\xe9,1\n", "not-utf8"),  # Latin-1
        (b"Style,good,awe,\x93so grand\x94,1\n", "not-utf8"),  # cp1252 quotes
        (b"Style,good,awe,a\x00b,1\n", "control-character"),
        (b"Style,good,awe,a\x1b[31mb,1\n", "control-character"),
        (b"Style,good,awe," + b"x" * 10_000_000 + b",1\n", "field-too-long"),
        (b'Style,good,awe,"' + b"x" * 10_000_000 + b'",1\n', "field-too-long"),
        (b"Style,good,awe," + b"so " * 3000 + b",1\n", "utterance-too-long"),
        (b"Style,good,awe\n", "wrong-field-count"),
        (b'Style,good,awe,"so grand,1\n', "unclosed-quote"),
        (b"Style,good,awe,,1\n", "empty-utterance"),
        (b"\xef\xbb\xbf,good,awe,x,1\n", "picture-*"),  # a BOM in mid-file is a letter of a style nobody has
        (b"Style,good,awe,x,1e9\n", "bad-repetition"),
    ],
)
def test_a_hostile_row_costs_itself(tmp_path: Path, line: bytes, reason: str) -> None:
    paths = csv_world(tmp_path, HEADER + GOOD + line + b"Style,good,fear,so dark,1\n")
    metrics = utterances.build(paths, UtterancesParams())
    assert (metrics["rows_in"], metrics["rows_kept"], metrics["rows_rejected"]) == (3, 2, 1)
    found = [row["reason"] for row in read(paths, "rejects") if row["row"] == 1]
    assert len(found) == 1 and (found[0] == reason or found[0].startswith(reason.rstrip("*")))
    assert [row["artemis_id"] for row in read(paths, "utterances")] == [0, 2]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_and_line_ends(tmp_path: Path, ending: bytes, mark: bytes) -> None:
    data = mark + (HEADER + GOOD + b'Style,good,fear,"dark, and ""old""",1\n').replace(b"\n", ending)
    paths = csv_world(tmp_path, data)
    assert utterances.build(paths, UtterancesParams())["rows_kept"] == 2
    assert read(paths, "utterances")[1]["utterance"] == 'dark, and "old"'


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp037"])
def test_another_encoding_is_one_clear_message(tmp_path: Path, encoding: str) -> None:
    paths = csv_world(tmp_path, (HEADER + GOOD).decode().encode(encoding))
    words = "save it as UTF-8" if encoding in ("utf-16", "utf-32") else "lacks the column"
    with pytest.raises(UserError, match=words) as caught:
        utterances.build(paths, UtterancesParams())
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory as Linux does")
def test_a_line_of_half_a_gigabyte_costs_no_memory(tmp_path: Path) -> None:
    paths = csv_world(tmp_path, HEADER + GOOD)
    with paths.artemis.open("ab") as file:
        file.write(b"Style,good,awe,")
        file.truncate(file.tell() + 512 * MIB)  # a hole in the file: NUL after NUL
        file.seek(0, os.SEEK_END)
        file.write(b"\nStyle,good,fear,so dark,1\n")
    build_within(tmp_path, 400 * MIB)
    assert [row["artemis_id"] for row in read(paths, "utterances")] == [0, 2]


FIELD = st.one_of(
    st.sampled_from(["Style", "good", "bad", "missing", "..", "a/b", "", " ", "awe", "joy", "3", "-1"]),
    st.text(max_size=6),
)
ROW: Callable[[], st.SearchStrategy[list[str]]] = lambda: st.one_of(  # noqa: E731
    st.tuples(
        st.just("Style"),
        st.sampled_from(["good", "bad", "missing"]),
        st.sampled_from([*ALL_EMOTIONS, "joy"]),
        st.text(max_size=8),
        st.sampled_from(["1", "50", "x"]),
    ).map(list),
    st.lists(FIELD, max_size=7),
)


@given(rows=st.lists(ROW(), max_size=25), junk=st.binary(max_size=40), at=st.integers(0, 400))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_row_of_any_csv_is_kept_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], junk: bytes, at: int
) -> None:
    root = tmp_path_factory.mktemp("any")
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    body = text.getvalue().encode("utf-8", errors="surrogatepass")
    paths = csv_world(root, HEADER + GOOD + body[:at] + junk + body[at:])
    (paths.wikiart / "Style" / "bad.jpg").write_bytes(JPEG[:300])
    metrics = utterances.build(paths, UtterancesParams(num_shards=3))
    said, works, rejects = (read(paths, name) for name in ("utterances", "artworks", "rejects"))
    assert metrics["rows_in"] == metrics["rows_kept"] + metrics["rows_rejected"]
    assert metrics["rows_kept"] == len(said)
    assert metrics["artworks_in"] == metrics["artworks_kept"] + metrics["artworks_rejected"]
    assert metrics["artworks_kept"] == len(works)
    ids = [row["artemis_id"] for row in said] + [row["row"] for row in rejects if row["row"] >= 0]
    assert sorted(ids) == list(range(metrics["rows_in"]))  # every row once, in exactly one of the tables
    assert {row["key"] for row in said} == {row["key"] for row in works}
    assert all(row["emotion"] in ALL_EMOTIONS and row["utterance"] for row in said)
    assert {row["key"] for row in works} == {
        schema.artwork_key(row["art_style"], row["painting"]) for row in works
    }
    assert all(row["reason"] for row in rejects)


def test_the_limits_of_this_test_are_real() -> None:
    """The process that must not take more than its limit would be stopped if it did."""
    program = CHILD.split("utterances.build", maxsplit=1)[0] + "print(len(bytes(700 * 2**20)))"
    done = subprocess.run(
        [sys.executable, "-c", program, "/", str(600 * MIB)], capture_output=True, text=True, check=False
    )
    assert "MemoryError" in done.stderr
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY or done.returncode
