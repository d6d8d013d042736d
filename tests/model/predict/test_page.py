"""The page of predictions: whole in itself, words that stay words, and nothing dropped unsaid."""

import base64
import html
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from model.maps.overlay import shrunk
from model.predict import page as module
from model.predict.folder import predict_images, summary_text
from model.predict.page import SIDE, write_page
from pipeline.backbones.params import BackbonesParams
from tests.worlds.own_pictures import PARAMS, SIZES

HOSTILE = '<script>alert(1)</script> & "x" {{ 7 * 7 }}'


def images_in(page: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(d), np.uint8), cv2.IMREAD_COLOR) for d in found]


def test_a_page_shows_each_picture_and_each_emotion(
    run: Path, pictures: Path, backbones: BackbonesParams, tmp_path: Path
) -> None:
    Image.new("RGB", (900, 1500), "red").save(pictures / "large.png")
    rows = predict_images(run, [pictures], ["awe,fear"], tmp_path / "out", PARAMS, backbones)
    text = write_page(rows, tmp_path / "out").read_text()
    shown = images_in(text)
    assert len(shown) == 3 * (len(SIZES) + 1)
    assert {image.shape[:2] for image in shown} == {*SIZES.values(), (SIDE, round(SIDE * 900 / 1500))}
    assert "5 of 6 pictures answered" in text and "Not answered." in text and "not-an-image" in text
    addresses = re.findall(r'(?:src|href)\s*=\s*"?([^"\s>]{0,10})', text)
    assert addresses and all(address.startswith("data:image") for address in addresses)
    assert "http:" not in text and "https:" not in text and "default-src 'none'" in text
    for row in rows:
        assert row["explanation"] is None or row["explanation"] in html.unescape(text)
    assert summary_text(rows, Path("out")).startswith("6 picture(s): 5 answered, 1 not. 10 map(s)")


def row(out: Path, image: str, emotion: str = "awe", text: str = "calm", seed: int = 0) -> dict[str, Any]:
    overlay = out / f"{image.replace('/', '_')[:20]}_{emotion}.png"
    cv2.imwrite(str(overlay), np.full((6, 9, 3), 120, np.uint8))
    return {"image": image, "emotion": emotion, "explanation": text, "seed": seed, "overlay": str(overlay)}


def test_words_are_escaped_and_seeds_share_a_tile(tmp_path: Path) -> None:
    rows = [row(tmp_path, "x" + HOSTILE, text=f"{HOSTILE} {seed}", seed=seed) for seed in (0, 1)]
    rows += [{"image": "caf\udce9.png", "emotion": None, "explanation": None, "error": HOSTILE}]
    text = write_page(rows, tmp_path).read_text()
    assert "<script" not in text and text.count("&lt;script&gt;") >= 5 and "49" not in text
    assert len(images_in(text)) == 1 and "caf\\udce9.png" in text


def test_what_is_too_much_for_a_page_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    rows = [row(tmp_path, f"{n}.png", emotion) for n in range(3) for emotion in ("awe", "fear")]
    text = write_page(rows, tmp_path).read_text()
    assert len(images_in(text)) == 3 and "3 more predictions are not on this page" in text


def test_overlays_are_small_and_maps_are_not(
    run: Path, pictures: Path, backbones: BackbonesParams, tmp_path: Path
) -> None:
    Image.new("RGB", (900, 1500), "red").save(pictures / "large.png")
    sizes = {}
    for side in (100, 0):
        (found,) = predict_images(
            run, [pictures / "large.png"], ["awe"], tmp_path / "out", PARAMS, backbones, overlay_side=side
        )
        sizes[side] = cv2.imread(found["overlay"]).shape[:2]  # made anew for another size
        assert cv2.imread(found["map"], cv2.IMREAD_UNCHANGED).shape == (1500, 900)
    assert sizes == {100: (100, 60), 0: (1500, 900)}


def test_shrinking_keeps_the_aspect_and_never_enlarges() -> None:
    for (height, width), expected in {(10, 20): (10, 20), (300, 100): (90, 30), (1, 5000): (1, 90)}.items():
        assert shrunk(np.zeros((height, width, 3), np.uint8), 90).shape[:2] == expected
