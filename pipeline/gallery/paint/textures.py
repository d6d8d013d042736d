"""Noise and brush marks, made once per process and cut to size for every picture.

The banks come from fixed seeds of their own: they are tools, like paper and brushes, not part of a picture's
seed. All tile by repetition.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
BANK = 1024
_TILE = 320
_REACH = 2.0
"""Pixels that a dab may carry paint away from its place: edges of motifs must stay where the masks say."""


@lru_cache(maxsize=4)
def _noise(coarsest: int, octaves: int) -> Floats:
    """(BANK, BANK) float32 fractal noise, mean 0, standard deviation 1."""
    rng = np.random.default_rng([7001, coarsest, octaves])
    total = np.zeros((BANK, BANK), np.float32)
    for octave in range(octaves):
        cells = coarsest * 2**octave
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        total += cv2.resize(grid, (BANK, BANK), interpolation=cv2.INTER_CUBIC) / 2**octave
    return (total - total.mean()) / total.std()


def noise(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    coarsest: int = 8,
    octaves: int = 5,
    stretch: float = 1.0,
) -> Floats:
    """(height, width) float32 fractal noise, mean about 0, deviation about 1.

    `coarsest`: bumps of the lowest octave across the bank; `stretch` > 1 smears it sideways.
    """
    bank = _noise(coarsest, octaves)
    take = max(int(width / stretch), 8)
    top, left = int(rng.integers(BANK - height)), int(rng.integers(BANK - take))
    cut = bank[top : top + height, left : left + take]
    if take == width:
        return cut
    return cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Dabs:
    """A tile of overlapping brush marks."""

    shift: Floats
    """(2, h, w) float32: how far a pixel's paint comes from, x and y, pixels, each within `_REACH`."""
    tone: Floats
    """(h, w) float32: the mark's own lightness, mean 0, deviation 1."""
    relief: Floats
    """(h, w) float32: light on the ridges of the paint, about -1 to 1."""


@lru_cache(maxsize=8)
def _dabs(kind: str) -> Dabs:
    """Bank of "dots", "strokes", "swirls" or "hatches"."""
    half_long, half_short, spacing = {
        "dots": (2.6, 2.6, 3.0),
        "strokes": (7.0, 2.2, 4.0),
        "swirls": (10.0, 2.2, 4.4),
        "hatches": (14.0, 2.0, 5.0),
    }[kind]
    rng = np.random.default_rng([7002, len(kind)])
    centres = rng.uniform(0, _TILE, (int(1.6 * (_TILE / spacing) ** 2), 2))
    rough = np.tile(rng.standard_normal((_TILE, _TILE)).astype(np.float32), (3, 3))
    flow = cv2.GaussianBlur(rough, (0, 0), 34)[_TILE : 2 * _TILE, _TILE : 2 * _TILE]
    bend = (flow / flow.std())[centres[:, 1].astype(int), centres[:, 0].astype(int)]
    angles = {
        "dots": 0 * bend, "strokes": -25 + 26 * bend, "swirls": 75 * bend, "hatches": 58 + 12 * bend,
    }[kind]  # fmt: skip
    owner = np.zeros((_TILE, _TILE), np.int32)
    axes = (round(half_long * 8), round(half_short * 8))
    for number, ((x, y), angle) in enumerate(zip(centres.tolist(), angles.tolist(), strict=True)):
        for u, v in _wrapped(x, y, half_long + 2):
            centre = (round(u * 8), round(v * 8))
            cv2.ellipse(owner, centre, axes, angle, 0, 360, number, -1, shift=3)
    grid = np.stack(np.meshgrid(np.arange(_TILE), np.arange(_TILE)), 0)
    shift = np.clip(_nearest(centres[owner].transpose(2, 0, 1) - grid), -_REACH, _REACH).astype(np.float32)
    tone = rng.standard_normal(len(centres)).astype(np.float32)[owner]
    smooth = cv2.GaussianBlur((owner % 7 / 6).astype(np.float32), (0, 0), 0.8)
    light = smooth - np.roll(smooth, (1, 1), (0, 1))
    return Dabs(shift, tone, light / np.abs(light).max())


def _wrapped(x: float, y: float, reach: float) -> list[tuple[float, float]]:
    """A point of the tile and its copies whose marks reach into it across the seams."""
    xs = [x] + [x + _TILE] * (x < reach) + [x - _TILE] * (x > _TILE - reach)
    ys = [y] + [y + _TILE] * (y < reach) + [y - _TILE] * (y > _TILE - reach)
    return [(u, v) for u in xs for v in ys]


def _nearest(offset: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Offsets on the tile by the short way round."""
    return (offset + _TILE / 2) % _TILE - _TILE / 2


def dabs(kind: str, height: int, width: int, rng: np.random.Generator) -> Dabs:
    """Brush marks for a picture of that size (at most `BANK` a side)."""
    bank = _dabs(kind)
    rows = (np.arange(height) + int(rng.integers(_TILE))) % _TILE
    columns = (np.arange(width) + int(rng.integers(_TILE))) % _TILE
    return Dabs(
        bank.shift[:, rows[:, None], columns],
        bank.tone[rows[:, None], columns],
        bank.relief[rows[:, None], columns],
    )
