"""Damage that decoders paint over: told where a picture is verified, and where it is read unverified."""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.releases import wikiart
from pipeline.releases.wikiart import BadImage

NOISE = np.random.default_rng(0).integers(0, 255, (400, 600, 3), dtype=np.uint8)


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


KINDS = {
    "baseline": jpeg(),
    "progressive": jpeg(progressive=True),
    "grey": jpeg("L"),
    "cmyk": jpeg("CMYK"),
    "full colour": jpeg(subsampling=0),
    "restarts": jpeg(restart_marker_blocks=7),
    "rgb": jpeg(keep_rgb=True),
}


def damaged(whole: bytes) -> dict[str, bytes]:
    half = len(whole) // 2
    return {
        "cut": whole[:half],
        "second half zeros": whole[:half] + bytes(half),
        "second half gone, end mark there": whole[:half] + b"\xff\xd9",
        "overwritten": whole[:half] + b"\x55" * 4000 + whole[half + 4000 :],
        "second half of another": whole[:half] + whole[len(whole) - half // 2 :],
        "no end mark": whole[:-2],
    }


def reason(call: Any, path: Path) -> str:
    with pytest.raises(BadImage) as caught:
        call(path)
    return caught.value.reason


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_jpegs_are_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.jpg"
    for name, data in damaged(KINDS[kind]).items():
        path.write_bytes(data)
        for call in (wikiart.verify_picture, wikiart.read_image):
            assert reason(call, path) in ("truncated", "corrupt"), name
        assert wikiart.probe_picture(path) == (600, 400)


@pytest.mark.parametrize("kind", KINDS)
def test_sound_jpegs_are_not_and_what_stands_behind_their_end_is_nobodys_affair(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "a.jpg"
    for behind in (b"", bytes(5000), b"text", KINDS["grey"]):
        path.write_bytes(KINDS[kind] + behind)
        size, digest, _ = wikiart.verify_picture(path)
        assert size == (600, 400)
        assert digest == hashlib.sha256(KINDS[kind] + behind).hexdigest()
        with Image.open(path) as reference:
            np.testing.assert_array_equal(wikiart.read_image(path), np.asarray(reference.convert("RGB")))


def test_a_picture_of_several_as_cameras_make_them(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    first, second = Image.fromarray(NOISE), Image.fromarray(NOISE[::-1])
    first.save(path, "MPO", save_all=True, append_images=[second])
    assert wikiart.verify_picture(path)[0] == (600, 400)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 4] + b"\xff\xd9" + whole[len(whole) // 2 :])
    assert reason(wikiart.verify_picture, path) in ("truncated", "corrupt")


def test_every_changed_byte_of_a_png_is_told(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(NOISE[:40, :40]).save(buffer, "PNG")
    whole = buffer.getvalue()
    start, end = whole.index(b"IDAT"), whole.index(b"IEND") - 4
    for place in np.random.default_rng(1).integers(start, end, 60).tolist():
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        (tmp_path / "a.png").write_bytes(changed)
        for call in (wikiart.verify_picture, wikiart.read_image):
            assert reason(call, tmp_path / "a.png") in ("truncated", "corrupt"), place


def test_a_file_that_is_not_the_verified_one_is_told_and_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(KINDS["baseline"])
    digest = wikiart.verify_picture(path)[1]
    assert wikiart.read_image(path, sha256=digest).shape == (400, 600, 3)
    other = bytearray(KINDS["baseline"])
    other[-500] ^= 1
    path.write_bytes(other)
    with pytest.raises(BadImage, match="changed-content"):
        wikiart.read_image(path, sha256=digest)


def test_a_file_too_large_to_be_read_whole_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(KINDS["baseline"])
    with path.open("r+b") as file:
        file.truncate(wikiart.MAX_BYTES + 1)  # sparse: takes no room
    for call in (wikiart.probe_picture, wikiart.verify_picture, wikiart.read_image):
        assert reason(call, path) == "too-large"
