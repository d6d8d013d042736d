"""The gallery's styles: how the hand draws, and what the paint does afterwards.

A style never moves an edge by more than about 2 pixels, so a motif's mask stays true, and never turns a hue
so far that a colour word would no longer fit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.gallery.paint.brush import Bytes, Hand
from pipeline.gallery.paint.textures import Floats, dabs, noise

Finish = Callable[[Bytes, np.random.Generator], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Style:
    """One way of painting."""

    name: str
    """WikiArt's folder name."""
    hand: Hand
    finish: Finish
    """(H, W, 3) uint8 RGB -> (H, W, 3) float32, 0 to 255, not yet clipped."""
    saturation: float = 1.0

    def paint(self, image: Bytes, rng: np.random.Generator) -> Bytes:
        """The finished picture, (H, W, 3) uint8 RGB."""
        done = self.finish(image, rng)
        if self.saturation != 1.0:
            grey = done.mean(2, keepdims=True)
            done = grey + self.saturation * (done - grey)
        return np.clip(done, 0, 255).astype(np.uint8)


def _marks(image: Bytes, rng: np.random.Generator, kind: str, tone: float, relief: float) -> Floats:
    """Repaint with brush marks: every mark takes one colour and stands out in low relief."""
    height, width = image.shape[:2]
    mark = dabs(kind, height, width, rng)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    moved = cv2.remap(
        image, columns + mark.shift[0], rows + mark.shift[1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT
    )
    # Where the drawing has fine lines, the marks follow it instead of scattering it.
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    lines = cv2.blur(cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)), (3, 3))
    keep = np.clip(lines.astype(np.float32) / 70 - 0.2, 0, 0.8)[..., None]
    moved = moved + (image.astype(np.float32) - moved) * keep
    light = 1 + tone * mark.tone
    return moved * light[..., None] + (relief * mark.relief)[..., None]


def _gouache(image: Bytes, rng: np.random.Generator) -> Floats:
    """Opaque paint on rough paper."""
    height, width = image.shape[:2]
    blotch = noise(height, width, rng, coarsest=6)
    grain = noise(height, width, rng, coarsest=256, octaves=3)
    return image.astype(np.float32) * (1 + 0.03 * blotch + 0.02 * grain)[..., None]


def _print(image: Bytes, rng: np.random.Generator) -> Floats:
    """A colour woodcut: the grain of the block, thin ink, warm paper."""
    height, width = image.shape[:2]
    grain = noise(height, width, rng, coarsest=128, octaves=3, stretch=6.0)
    flat = cv2.bilateralFilter(image, 5, 40, 3).astype(np.float32)
    steps = np.round(flat / 24) * 24
    ink = 0.45 * flat + 0.55 * steps
    return ink * (1.03 + 0.03 * grain)[..., None] * np.array([1.0, 0.965, 0.88], np.float32) + 8


def _watercolour(image: Bytes, rng: np.random.Generator) -> Floats:
    """Washes that pool at their edges, on white grained paper."""
    height, width = image.shape[:2]
    soft = cv2.GaussianBlur(image, (0, 0), 2.2).astype(np.float32)
    edge = np.abs(soft - image).max(2, keepdims=True)
    wash = noise(height, width, rng, coarsest=8)
    grain = noise(height, width, rng, coarsest=256, octaves=3)
    pigment = 255 - (255 - image.astype(np.float32)) * (0.86 + 0.09 * wash + 0.03 * grain)[..., None]
    return pigment - 0.55 * np.minimum(edge, 60)


def _oil(image: Bytes, rng: np.random.Generator) -> Floats:
    """Smooth oil: the Kuwahara filter's calm planes, a warm glaze, dark corners."""
    height, width = image.shape[:2]
    calm = kuwahara(image, 2)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    corner = np.maximum(x * x + y * y - 0.55, 0)
    weave = noise(height, width, rng, coarsest=256, octaves=2)
    light = 1.02 - 0.2 * corner + 0.018 * weave
    return calm * light[..., None] * np.array([1.03, 0.99, 0.92], np.float32)


def _pastel(image: Bytes, rng: np.random.Generator) -> Floats:
    """Chalk that leaves the paper's grain uncovered."""
    height, width = image.shape[:2]
    grain = noise(height, width, rng, coarsest=256, octaves=3)
    bare = np.clip(grain - 0.4, 0, 1)[..., None] * 0.2
    return image * (1 - bare) + np.array([238, 228, 214], np.float32) * bare + 5


def kuwahara(image: Bytes, radius: int) -> Floats:
    """Every pixel takes the mean of the calmest of the four squares that touch it (Kuwahara et al. 1976)."""
    size = (radius + 1, radius + 1)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    paint = image.astype(np.float32)
    best = np.zeros_like(paint)
    best_spread = np.full(grey.shape, np.inf, np.float32)
    for anchor in ((0, 0), (radius, 0), (0, radius), (radius, radius)):
        level = cv2.blur(grey, size, anchor=anchor)
        spread = cv2.blur(grey * grey, size, anchor=anchor) - level * level
        calmer = spread < best_spread
        cv2.copyTo(cv2.blur(paint, size, anchor=anchor), calmer.astype(np.uint8), best)
        best_spread = np.minimum(best_spread, spread)
    return best


_INDIGO = (38, 42, 74)

STYLES: tuple[Style, ...] = (
    Style("Naive_Art_Primitivism", Hand(0.4, volume=0.8), _gouache, 1.05),
    Style("Ukiyo_e", Hand(0.3, outline=1.3, ink=_INDIGO, volume=0.25), _print, 1.12),
    Style("Impressionism", Hand(0.8), lambda image, rng: _marks(image, rng, "strokes", 0.07, 26), 1.05),
    Style("Post_Impressionism", Hand(0.9, outline=1.0, ink=(36, 44, 86)),
          lambda image, rng: _marks(image, rng, "swirls", 0.08, 34), 1.15),
    Style("Symbolism", Hand(0.6, volume=0.7), _watercolour, 1.0),
    Style("Romanticism", Hand(0.4, volume=1.25), _oil, 0.98),
    Style("Expressionism", Hand(1.5, outline=1.8, ink=(30, 22, 30), volume=0.7),
          lambda image, rng: _marks(image, rng, "hatches", 0.08, 30), 1.25),
    Style("Pointillism", Hand(0.6), lambda image, rng: _marks(image, rng, "dots", 0.10, 14), 1.1),
    Style("Rococo", Hand(0.5, volume=0.9), _pastel, 0.95),
)  # fmt: skip
"""All styles; every scene draws one at random."""
