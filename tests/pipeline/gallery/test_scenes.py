"""The gallery's pictures: deterministic, truthful, and never answerable without asking for an emotion."""

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.params import parse_section
from pipeline.gallery.motifs.draw import DRAW, draw
from pipeline.gallery.paint.brush import Hand
from pipeline.gallery.paint.styles import STYLES, Style, kuwahara
from pipeline.gallery.scenes.scene import _cast, scene
from pipeline.gallery.world import (
    COLOURS,
    EVOKES,
    KINDS,
    KINDS_OF,
    NEUTRAL,
    SCENERY,
    GalleryParams,
    Look,
    Scene,
)

COUNT = 30

HUES: dict[str, tuple[float, float]] = {
    "red": (-18, 22), "orange": (12, 42), "golden": (30, 60), "yellow": (38, 75), "green": (75, 165),
    "turquoise": (155, 205), "blue": (200, 255), "purple": (245, 325), "pink": (300, 372), "brown": (-10, 48),
}  # fmt: skip
"""Colour word -> hues in degrees that anyone would call so, in daylight as at dusk."""


@lru_cache(maxsize=1)
def scenes() -> tuple[Scene, ...]:
    """Some dozens of artworks."""
    return tuple(scene(11, index) for index in range(COUNT))


def fits(colour: str, rgb: npt.NDArray[np.uint8]) -> float:
    """Share of (n, 3) uint8 pixels that a colour word fits."""
    hsv = cv2.cvtColor(rgb[None].astype(np.float32) / 255, cv2.COLOR_RGB2HSV)[0]
    hue, saturation, value = hsv.T
    if colour == "black":
        return float(np.mean(value < 0.42))
    if colour == "white":
        return float(np.mean((value > 0.5) & (saturation < 0.42)))
    if colour == "grey":
        return float(np.mean((value > 0.15) & (value < 0.9) & (saturation < 0.42)))
    low, high = HUES[colour]
    inside = ((hue - low) % 360) <= high - low
    return float(np.mean(inside & (saturation > 0.15) & (value > 0.12)))


def test_every_emotion_has_kinds_and_every_kind_a_drawing() -> None:
    assert set(DRAW) == set(KINDS) == set(EVOKES)
    assert sum(bool(emotions) for emotions in EVOKES.values()) >= 24
    assert len(NEUTRAL) >= 6
    for emotion in EMOTIONS:
        assert len(KINDS_OF[emotion]) >= 3
    for kind in KINDS.values():
        assert set(kind.emotions) <= set(EMOTIONS)
        assert set(kind.colours) <= set(COLOURS)
        assert len(kind.colours) >= 2 and len(kind.states) >= 2


def test_same_seed_and_index_give_the_same_scene() -> None:
    for index in (0, 17):
        one, two = scene(11, index), scene(11, index)
        np.testing.assert_array_equal(one.image, two.image)
        assert (one.title, one.artist, one.style, one.setting) == (
            two.title,
            two.artist,
            two.style,
            two.setting,
        )
        for a, b in zip(one.motifs, two.motifs, strict=True):
            assert (a.kind, a.phrase, a.look, a.box) == (b.kind, b.phrase, b.look, b.box)
            np.testing.assert_array_equal(a.mask, b.mask)
    other = scene(12, 0)
    assert other.image.shape != scene(11, 0).image.shape or (other.image != scene(11, 0).image).any()


def test_sizes_and_aspects() -> None:
    for item in scenes():
        height, width = item.image.shape[:2]
        assert item.image.dtype == np.uint8 and item.image.shape[2] == 3
        assert min(height, width) >= 320 and max(height, width) <= 800
        assert 0.6 <= width / height <= 1.7


def test_masks_are_disjoint_and_boxes_are_tight() -> None:
    for item in scenes():
        height, width = item.image.shape[:2]
        layers = [motif.mask for motif in item.motifs] + list(item.scenery.values())
        assert all(layer.shape == (height, width) and layer.dtype == np.bool_ for layer in layers)
        np.testing.assert_array_equal(np.sum(layers, axis=0), 1)
        assert set(item.scenery) <= set(SCENERY)
        for motif in item.motifs:
            x1, y1, x2, y2 = (int(side) for side in motif.box)
            inside = np.zeros((height, width), np.bool_)
            inside[y1:y2, x1:x2] = True
            assert not (motif.mask & ~inside).any()
            for edge in (motif.mask[y1], motif.mask[y2 - 1], motif.mask[:, x1], motif.mask[:, x2 - 1]):
                assert edge.any()


def test_each_scene_needs_the_emotion_to_be_asked() -> None:
    for item in scenes():
        evoking = [motif for motif in item.motifs if motif.emotions]
        assert 2 <= len(evoking) <= 4
        assert 1 <= len(item.motifs) - len(evoking) <= 3
        assert all(motif.emotions == EVOKES[motif.kind] for motif in item.motifs)
        assert any(not set(a.emotions) & set(b.emotions) for a in evoking for b in evoking)
        for emotion in {emotion for motif in evoking for emotion in motif.emotions}:
            truth = np.sum([motif.mask for motif in evoking if emotion in motif.emotions], axis=0)
            assert 0.008 < truth.mean() < 0.35


def test_motifs_are_large_enough_and_not_boxes() -> None:
    fills = []
    for item in scenes():
        long = max(item.image.shape[:2])
        for motif in item.motifs:
            x1, y1, x2, y2 = motif.box
            extent = max(x2 - x1, y2 - y1) / long
            fills.append(motif.mask.sum() / ((x2 - x1) * (y2 - y1)))
            assert extent <= 0.5
            if motif.emotions:
                assert extent >= 0.12
            if motif.look.size == "small":
                assert extent < 0.24
            if motif.look.size == "large":
                assert extent > 0.25
    assert 0.4 < np.median(fills) < 0.8


def test_emotions_are_balanced_and_independent_of_the_order() -> None:
    rng = np.random.default_rng(5)
    counts = dict.fromkeys(EMOTIONS, 0)
    for _ in range(2000):
        for emotion in {emotion for kind in _cast(GalleryParams(), rng) for emotion in KINDS[kind].emotions}:
            counts[emotion] += 1
    assert max(counts.values()) < 1.25 * min(counts.values()), counts


def test_phrases_use_only_words_of_the_look() -> None:
    for item in scenes():
        for motif in item.motifs:
            rest = motif.phrase
            for word in (KINDS[motif.kind].name, motif.look.colour, motif.look.state, motif.look.size):
                rest = rest.replace(word, "", 1) if word else rest
            assert not set(rest.split()) - {"a", "an", "in", "on", "under", "horse", "cloth"}, motif.phrase
            assert motif.look.colour in KINDS[motif.kind].colours
            assert motif.look.state in KINDS[motif.kind].states


def test_colour_words_hold_in_the_finished_picture() -> None:
    for item in scenes():
        for motif in item.motifs:
            share = fits(motif.look.colour, item.image[motif.mask])
            assert share > 0.06, (motif.kind, motif.look, item.style, item.setting, share)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_colour_word_decides_the_drawing(kind: str) -> None:
    """A drawing in a colour holds more of that colour than the same drawing in any other."""
    row = KINDS[kind]
    shares = np.zeros((len(row.colours), len(row.colours)))
    for i, colour in enumerate(row.colours):
        sprite = draw(kind, Look(colour, row.states[0], ""), 110, Hand(), np.random.default_rng(3))
        paint = sprite.paint[sprite.alpha > 250]
        lab = cv2.cvtColor(paint[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
        for j, word in enumerate(row.colours):
            target = np.array([[COLOURS[word]]], np.float32) / 255
            far = np.linalg.norm(lab - cv2.cvtColor(target, cv2.COLOR_RGB2LAB)[0], axis=1)
            shares[i, j] = np.mean(far < 30)
    assert (shares.argmax(0) == np.arange(len(row.colours))).all(), shares


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_state_word_decides_the_drawing(kind: str) -> None:
    row = KINDS[kind]
    sprites = [
        draw(kind, Look(row.colours[0], state, ""), 90, Hand(0.0), np.random.default_rng(4))
        for state in row.states
    ]
    pictures = {(sprite.paint.shape, sprite.paint.tobytes()) for sprite in sprites}
    assert len(pictures) == len(row.states)


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_styles_move_no_edge_by_more_than_two_pixels(style: Style) -> None:
    """A green disc on purple: beyond 3 pixels from its edge every pixel keeps the colour of its side."""
    rows, columns = np.mgrid[:200, :260]
    far = np.hypot(rows - 100, columns - 130) - 60
    card = np.where((far < 0)[..., None], np.array([60, 190, 60]), np.array([150, 60, 180])).astype(np.uint8)
    done = style.paint(card, np.random.default_rng(1)).astype(int)
    green = done[..., 1] > (done[..., 0] + done[..., 2]) / 2
    assert green[far < -3].mean() > 0.995
    assert green[far > 3].mean() < 0.005


def test_kuwahara_is_the_mean_of_the_calmest_square() -> None:
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (12, 14, 3)).astype(np.uint8)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
    done = kuwahara(image, 2)
    for y in range(2, 10):
        for x in range(2, 12):
            squares = [
                (slice(y + dy, y + dy + 3), slice(x + dx, x + dx + 3)) for dy in (-2, 0) for dx in (-2, 0)
            ]
            calmest = min(squares, key=lambda square: grey[square].var())
            np.testing.assert_allclose(done[y, x], image[calmest].reshape(-1, 3).mean(0), atol=1e-2)


def test_names_are_unique_and_safe() -> None:
    names = [f"{item.artist}_{item.title}" for item in scenes()]
    assert len(set(names)) == len(names)
    for item in scenes():
        assert not set(item.artist + item.title) & set('/\\:*?"<>|_\n ')
        assert item.artist == item.artist.lower() and item.title == item.title.lower()
    together = "".join(names)
    assert any(ord(letter) > 127 for letter in together) and "." in together


def test_params_reach_the_pictures() -> None:
    small = GalleryParams(
        shortest_side=200, longest_side=360, most_evoking=2, most_neutral=1, motif_sizes=(0.2, 0.3)
    )
    for index in range(6):
        item = scene(3, index, small)
        assert min(item.image.shape[:2]) >= 199 and max(item.image.shape[:2]) <= 360
        assert len(item.motifs) == 3
        for motif in item.motifs:
            assert max(motif.box[2] - motif.box[0], motif.box[3] - motif.box[1]) < 0.32 * max(
                item.image.shape[:2]
            )


@pytest.mark.parametrize(
    "values", [{"longest_side": 400}, {"motif_sizes": [0.4, 0.2]}, {"most_annotators": 2}, {"artworks": -1}]
)
def test_bad_params_are_named(values: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(values))):
        parse_section(values, "gallery", GalleryParams, "params.yaml")
