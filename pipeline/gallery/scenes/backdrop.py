"""The background of a scene: sky, mountains, hills, water, ground, and the weather over it all.

Light and weather are drawn at random for every scene and say nothing about its emotions.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.gallery.paint.brush import Bytes, Colour
from pipeline.gallery.paint.textures import Floats, noise
from pipeline.gallery.world import SCENERY

Reals = npt.NDArray[np.floating[Any]]

_ID = {name: number for number, name in enumerate(SCENERY)}

_SKIES: dict[str, tuple[Colour, Colour, Colour]] = {
    "morning": ((126, 170, 218), (214, 216, 226), (250, 220, 190)),
    "day": ((74, 142, 214), (140, 190, 230), (218, 234, 240)),
    "dusk": ((84, 80, 150), (206, 124, 128), (252, 186, 112)),
    "night": ((18, 26, 66), (40, 56, 108), (88, 108, 156)),
    "overcast": ((128, 140, 158), (168, 178, 190), (214, 218, 220)),
}
"""Time of day -> colours of the sky from the zenith to the horizon."""

_LIGHT: dict[str, Colour] = {
    "morning": (1.02, 0.99, 0.96),
    "day": (1.0, 1.0, 1.0),
    "dusk": (1.0, 0.88, 0.80),
    "night": (0.60, 0.66, 0.86),
    "overcast": (0.92, 0.93, 0.96),
}
"""Colour of the light that falls on the ground."""

_GROUNDS: dict[str, Colour] = {
    "spring": (122, 172, 78),
    "summer": (170, 176, 86),
    "autumn": (190, 144, 76),
    "winter": (228, 234, 244),
    "sand": (226, 198, 146),
}


@dataclass(frozen=True)
class Setting:
    """Light, weather and lie of the land."""

    time: str
    season: str
    weather: str
    water: bool

    @staticmethod
    def drawn(rng: np.random.Generator, afloat: bool) -> "Setting":
        """A setting at random; with water for certain when something must float."""
        time = str(
            rng.choice(["morning", "day", "dusk", "night", "overcast"], p=[0.18, 0.3, 0.2, 0.17, 0.15])
        )
        season = str(
            rng.choice(["spring", "summer", "autumn", "winter", "sand"], p=[0.3, 0.22, 0.18, 0.18, 0.12])
        )
        falling = "snow" if season == "winter" else "rain"
        weather = str(rng.choice(["clear", "fog", falling], p=[0.6, 0.15, 0.25]))
        return Setting(time, season, weather, bool(rng.random() < 0.35) or afloat)

    @property
    def words(self) -> str:
        """ "a snowy night", "a foggy morning"."""
        clear = {"winter": "wintry", "sand": "sandy"}.get(self.season, self.season)
        adjective = {"clear": clear, "fog": "foggy", "rain": "rainy", "snow": "snowy"}[self.weather]
        noun = "overcast day" if self.time == "overcast" else self.time
        return f"{'an' if adjective[0] in 'aeiou' else 'a'} {adjective} {noun}"

    @property
    def light(self) -> Floats:
        """(3,) float32 factors on the colours of what stands in the scene, milder than on the ground."""
        return np.sqrt(np.array(_LIGHT[self.time], np.float32))


@dataclass(frozen=True)
class Backdrop:
    """A painted background."""

    image: Bytes
    labels: Bytes
    """(H, W) uint8: position in `SCENERY` of what each pixel shows."""
    horizon: int
    """Row where the sky ends."""
    shore: int
    """Row where the near ground begins; equals `horizon` when there is no water."""


@dataclass(frozen=True)
class _Land:
    """A background while it is painted; the arrays are painted in place."""

    image: Bytes
    labels: Bytes
    setting: Setting
    rng: np.random.Generator

    @property
    def light(self) -> Floats:
        """(3,) float32 factors of the light on the ground."""
        return np.array(_LIGHT[self.setting.time], np.float32)


def backdrop(height: int, width: int, setting: Setting, rng: np.random.Generator) -> Backdrop:
    """Paint the background, far to near."""
    horizon = round(height * rng.uniform(0.40, 0.56))
    shore = horizon + (round((height - horizon) * rng.uniform(0.34, 0.5)) if setting.water else 0)
    land = _Land(*_sky(height, width, horizon, setting, rng), setting, rng)
    light, haze = land.light, np.array(_SKIES[setting.time][2], np.float32)
    if rng.random() < 0.6:
        far = 0.45 * haze + 0.55 * light * np.array([112, 122, 160], np.float32)
        ridge = horizon - _ridge(width, rng, 6, 0.09 * height, 0.05 * height)
        _fill_below(land, ridge, far, haze / 4 + far * 3 / 4, "mountains")
    wooded = np.array(_GROUNDS["spring" if setting.season == "sand" else setting.season], np.float32)
    layers = int(rng.integers(1, 4))
    for layer in range(layers):
        near = (layer + 1) / (layers + 1)
        tint = (haze * (1 - near) * 0.75 + wooded * light * (0.25 + 0.75 * near)) * (0.86 + 0.1 * (layer % 2))
        lift = 0.07 * height * (1 - near)
        ridge = horizon - lift - _ridge(width, rng, 3, 0.01 * height, 0.035 * height)
        _fill_below(land, ridge, tint * 1.06, tint * 0.92, "hills")
    if setting.water:
        _water(land, horizon, shore)
    meadow = np.array(_GROUNDS[setting.season], np.float32) * light
    name = "snow" if setting.season == "winter" else "ground"
    bend = _ridge(width, rng, 2, 0.0, 0.018 * height)
    _fill_below(land, shore + bend, meadow * 0.9, meadow * 1.06, name)
    if not setting.water and rng.random() < 0.5:
        _path(land, horizon)
    _blades(land, shore)
    return Backdrop(land.image, land.labels, horizon, shore)


def _sky(
    height: int, width: int, horizon: int, setting: Setting, rng: np.random.Generator
) -> tuple[Bytes, Bytes]:
    """Gradient, veils of cloud, sun or moon, stars. Covers the whole picture; the land is painted over it."""
    stops = np.array(_SKIES[setting.time], np.float32)
    t = np.clip(np.arange(height, dtype=np.float32) / max(horizon, 1), 0, 1)
    rows = np.stack([np.interp(t, [0, 0.55, 1], stops[:, c]) for c in range(3)], 1).astype(np.float32)
    veil = np.clip(noise(height, width, rng, coarsest=8, stretch=2.4) - 0.1, 0, 2)[..., None]
    strength = 0.05 if setting.time == "night" else 0.16
    image = rows[:, None] + (255 - rows[:, None]) * (strength * veil)
    labels = np.full((height, width), _ID["sky"], np.uint8)
    x, y = int(width * rng.uniform(0.1, 0.9)), int(horizon * rng.uniform(0.12, 0.5))
    radius = round(0.035 * max(height, width))
    if setting.time == "night" and setting.weather == "clear":
        stars = np.stack([rng.integers(width, size=60), rng.integers(max(horizon, 1), size=60)], 1)
        for sx, sy in stars.tolist():
            cv2.circle(image, (sx, sy), int(rng.integers(1, 3)), (250, 244, 214), -1, cv2.LINE_AA)
    if setting.time != "overcast" and setting.weather == "clear":
        name, disc = ("moon", (246, 240, 214)) if setting.time == "night" else ("sun", (255, 240, 180))
        _glow(image, x, y, radius, np.array(disc, np.float32))
        cv2.circle(image, (x, y), radius, disc, -1, cv2.LINE_AA)
        cv2.circle(labels, (x, y), radius, _ID[name], -1)
        if name == "moon":
            for dx, dy, r in ((-0.3, -0.2, 0.2), (0.3, 0.3, 0.26), (0.2, -0.4, 0.13)):
                centre = (x + round(dx * radius), y + round(dy * radius))
                cv2.circle(image, centre, round(r * radius), (222, 214, 190), -1, cv2.LINE_AA)
    return np.clip(image, 0, 255).astype(np.uint8), labels


def _glow(image: Floats, x: int, y: int, radius: int, colour: Floats) -> None:
    """A soft halo around the sun or moon, in place."""
    reach = 4 * radius
    top, left = max(y - reach, 0), max(x - reach, 0)
    window = image[top : y + reach, left : x + reach]
    rows, columns = np.mgrid[top : top + window.shape[0], left : left + window.shape[1]].astype(np.float32)
    near = np.clip(1 - np.hypot(rows - y, columns - x) / reach, 0, 1)[..., None] ** 2
    window += (colour - window) * 0.6 * near


def _ridge(width: int, rng: np.random.Generator, waves: int, lift: float, rough: float) -> Floats:
    """(width,) float32 heights of a ridge line in pixels above its base."""
    x = np.linspace(0, 1, width, dtype=np.float32)
    line = np.full(width, lift, np.float32)
    for wave in range(1, waves + 1):
        frequency, phase = rng.uniform(0.6, 1.4) * wave, rng.uniform(0, 2 * np.pi)
        line += rough / wave * np.sin(2 * np.pi * frequency * x + phase)
    return line


def _fill_below(land: _Land, line: Reals, top: Reals, bottom: Reals, name: str) -> None:
    """Paint everything under a line, shaded from `top` to `bottom` colour, mottled."""
    height, width = land.labels.shape
    first = int(np.clip(line.min(), 0, height - 1))
    inside = np.arange(first, height, dtype=np.float32)[:, None] >= line
    t = np.linspace(0, 1, height - first, dtype=np.float32)[:, None]
    rows = top + (bottom - top) * t
    mottle = noise(height - first, width, land.rng, coarsest=16, stretch=2.0)
    paint = np.clip(rows[:, None] * (1 + 0.045 * mottle)[..., None], 0, 255).astype(np.uint8)
    cv2.copyTo(paint, inside.view(np.uint8), land.image[first:])
    land.labels[first:][inside] = _ID[name]


def _water(land: _Land, horizon: int, shore: int) -> None:
    """A lake or sea from the horizon to below the shore line, mirroring the sky, with glints."""
    height, width = land.labels.shape
    stop = min(shore + round(0.04 * height), height)
    zenith, _, low = np.array(_SKIES[land.setting.time], np.float32)
    t = np.linspace(0, 1, stop - horizon, dtype=np.float32)[:, None]
    deep = (zenith + np.array([40, 104, 140], np.float32) * land.light) / 2
    far = low * 0.55 + deep * 0.45
    rows = far + (deep * 0.92 - far) * t
    ripple = noise(stop - horizon, width, land.rng, coarsest=128, octaves=2, stretch=8.0)
    land.image[horizon:stop] = np.clip(rows[:, None] * (1 + 0.05 * ripple)[..., None], 0, 255)
    land.labels[horizon:stop] = _ID["water"]
    pale = tuple(int(c) for c in np.minimum(low * 1.06, 255))
    for _ in range(70):
        y = int(land.rng.integers(horizon, stop))
        x, half = int(land.rng.integers(width)), round(width * land.rng.uniform(0.008, 0.035))
        cv2.line(land.image, (x - half, y), (x + half, y), pale, 1, cv2.LINE_AA)


def _path(land: _Land, horizon: int) -> None:
    """A road winding from the lower edge towards the horizon."""
    height, width = land.labels.shape
    rng = land.rng
    t = np.linspace(0, 1, 24)
    y = height + (horizon + 0.04 * height - height) * t
    sway = rng.uniform(-0.2, 0.2) * np.sin(np.pi * t * rng.uniform(1, 2.2))
    x = width * (rng.uniform(0.25, 0.75) + sway + rng.uniform(-0.2, 0.2) * t)
    half = width * 0.075 * (1 - t) ** 1.3 + 1.5
    ring = np.concatenate([np.stack([x - half, y], 1), np.stack([x + half, y], 1)[::-1]])
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.rint(ring * 8).astype(np.int32)], 255, shift=3)
    mask[land.labels == _ID["hills"]] = 0
    mask[: horizon + 1] = 0
    earth = np.array([206, 178, 132], np.float32) * land.light
    mottle = noise(height, width, rng, coarsest=32, octaves=3)
    paint = np.clip(earth * (1 + 0.05 * mottle)[..., None], 0, 255).astype(np.uint8)
    cv2.copyTo(paint, mask, land.image)
    land.labels[mask > 0] = _ID["path"]


def _blades(land: _Land, shore: int) -> None:
    """Grass and flowers, or ripples of sand and snow, on the near ground."""
    height, width = land.labels.shape
    rng = land.rng
    near = (_ID["ground"], _ID["snow"])
    base = np.array(_GROUNDS[land.setting.season], np.float32) * land.light
    grassy = land.setting.season not in ("winter", "sand")
    count = 260 if grassy else 60
    xs, ys = rng.integers(width, size=count), rng.integers(shore, height, size=count)
    for x, y, shade in zip(xs.tolist(), ys.tolist(), rng.uniform(0.74, 1.2, count).tolist(), strict=True):
        if land.labels[y, x] not in near:
            continue
        size = round(0.006 * height + 0.02 * height * (y - shore) / max(height - shore, 1))
        colour = np.clip(base * shade, 0, 255).tolist()
        if grassy:
            cv2.line(land.image, (x, y), (x + size // 3, y - size), colour, 1 + size // 8, cv2.LINE_AA)
        else:
            cv2.line(land.image, (x - 2 * size, y), (x + 2 * size, y), colour, 1, cv2.LINE_AA)
    petals = np.array([(246, 240, 230), (240, 200, 80), (226, 120, 150), (150, 120, 200)]) * land.light
    for _ in range(int(rng.integers(0, 40)) if grassy else 0):
        x, y = int(rng.integers(width)), int(rng.integers(shore, height))
        if land.labels[y, x] in near:
            cv2.circle(land.image, (x, y), 2, petals[int(rng.integers(4))].tolist(), -1, cv2.LINE_AA)


def weather(image: Bytes, setting: Setting, horizon: int, rng: np.random.Generator) -> Bytes:
    """The picture behind falling rain or snow, or in mist; motifs stay recognisable."""
    height, width = image.shape[:2]
    if setting.weather == "snow":
        for _ in range(170):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            cv2.circle(image, centre, int(rng.integers(1, 4)), (250, 252, 255), -1, cv2.LINE_AA)
    elif setting.weather == "rain":
        wet = image.copy()
        slant, size = int(rng.integers(-5, 6)), round(0.03 * height)
        for _ in range(170):
            x, y = int(rng.integers(width)), int(rng.integers(height))
            cv2.line(wet, (x, y), (x + slant, y + size), (206, 218, 234), 1, cv2.LINE_AA)
        image = cv2.addWeighted(wet, 0.55, image, 0.45, 0).astype(np.uint8, copy=False)
    elif setting.weather == "fog":
        rows = np.abs(np.arange(height, dtype=np.float32) - horizon) / height
        veil = (0.30 * np.exp(-((rows / 0.28) ** 2)))[:, None, None]
        pale = np.array(_SKIES[setting.time][2], np.float32)
        image = (image + (pale - image) * veil).astype(np.uint8)
    return image


def parts(labels: Bytes, covered: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[np.bool_]]:
    """Scenery name -> (H, W) bool of its pixels that no motif covers; names without any are left out."""
    found = {}
    for name, number in _ID.items():
        mask = (labels == number) & ~covered
        if mask.any():
            found[name] = mask
    return found
