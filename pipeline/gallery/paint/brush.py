"""The brush that draws motifs: shapes in a 100 x 100 box, with volume, outline and a shaking hand.

A motif is drawn on its own transparent sheet at twice the final resolution, then laid into the picture
(`Sprite`). Coordinates are units of the box: x to the right, y down, the ground at y = 100. Drawings may
reach 12 units over the edge.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.gallery.world import COLOURS

Point = tuple[float, float]
Colour = tuple[float, float, float]
"""RGB, 0 to 255."""
Array = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

MARGIN = 12.0
"""Units around the box that a drawing may use."""
OVERSAMPLING = 2


@dataclass(frozen=True)
class Hand:
    """How a style draws."""

    wobble: float = 0.4
    """Standard deviation of a corner's displacement, units."""
    outline: float = 0.0
    """Width of the ink line around every part, pixels of the final picture."""
    ink: Colour = (40, 30, 34)
    volume: float = 1.0
    """Strength of the light from the upper left; 0 paints flat."""


@dataclass(frozen=True)
class Sprite:
    """One drawn motif."""

    paint: Bytes
    """(h, w, 3) uint8 RGB, black where nothing is painted (premultiplied)."""
    alpha: Bytes
    """(h, w) uint8 cover, 0 to 255."""

    def scaled(self, factor: float) -> "Sprite":
        """The same drawing at another size."""
        height, width = self.alpha.shape
        size = (max(round(width * factor), 1), max(round(height * factor), 1))
        return Sprite(
            cv2.resize(self.paint, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False),
            cv2.resize(self.alpha, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False),
        )


def tone(colour: Colour | str, light: float) -> Colour:
    """A colour (or colour word) made darker (light < 1) or paler (light > 1, 2 is white)."""
    red, green, blue = COLOURS[colour] if isinstance(colour, str) else colour
    if light <= 1:
        return red * light, green * light, blue * light
    share = min(light - 1, 1.0)
    return tuple(c + (255 - c) * share for c in (red, green, blue))  # type: ignore[return-value]


def curve(points: Sequence[Point], closed: bool, steps: int = 6) -> Array:
    """(n, 2) points of a Catmull-Rom spline through the given ones."""
    knots = np.asarray(points, np.float64)
    padded = (
        np.concatenate([knots[-1:], knots, knots[:2]])
        if closed
        else np.concatenate([knots[:1], knots, knots[-1:]])
    )
    count = len(knots) if closed else len(knots) - 1
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    parts = []
    for i in range(count):
        p0, p1, p2, p3 = padded[i : i + 4]
        parts.append(
            0.5
            * (
                2 * p1
                + (p2 - p0) * t
                + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
                + (3 * p1 - p0 - 3 * p2 + p3) * t**3
            )
        )
    if not closed:
        parts.append(knots[-1:])
    return np.concatenate(parts)


class Brush:
    """Draws the parts of one motif, back to front."""

    def __init__(
        self, extent: float, hand: Hand, rng: np.random.Generator, flip: bool = False, turn: float = 0.0
    ) -> None:
        """`extent`: final pixels of the 100-unit box; `turn`: degrees clockwise about the foot (50, 100)."""
        self.rng = rng
        self.hand = hand
        self._scale = extent * OVERSAMPLING / 100
        self._flip = flip
        self._angle = math.radians(turn)
        side = math.ceil((100 + 2 * MARGIN) * self._scale)
        side += -side % OVERSAMPLING
        self._paint: Bytes = np.zeros((side, side, 3), np.uint8)
        self._alpha: Bytes = np.zeros((side, side), np.uint8)
        self._line = round(hand.outline * OVERSAMPLING)

    def sprite(self) -> Sprite:
        """What was drawn, cut to its extent, at the final resolution. Draw something first."""
        rows, columns = np.flatnonzero(self._alpha.any(1)), np.flatnonzero(self._alpha.any(0))
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        bottom += (bottom - top) % OVERSAMPLING
        right += (right - left) % OVERSAMPLING
        cut = Sprite(
            np.ascontiguousarray(self._paint[top:bottom, left:right]),
            np.ascontiguousarray(self._alpha[top:bottom, left:right]),
        )
        return cut.scaled(1 / OVERSAMPLING)

    # --- shapes -----------------------------------------------------------------------------------------

    def poly(self, points: Sequence[Point], colour: Colour | str, volume: float = 1.0) -> None:
        """A filled shape with straight edges."""
        self._fill(self._placed(np.asarray(points, np.float64), self.hand.wobble), colour, volume)

    def blob(self, points: Sequence[Point], colour: Colour | str, volume: float = 1.0) -> None:
        """A filled smooth shape through the points."""
        jitter = self.rng.normal(0, self.hand.wobble, (len(points), 2))
        knots = np.asarray(points, np.float64) + jitter
        self._fill(self._placed(curve([(x, y) for x, y in knots], closed=True)), colour, volume)

    def oval(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        colour: Colour | str,
        *,
        turn: float = 0.0,
        volume: float = 1.0,
    ) -> None:
        """A filled ellipse about (x, y), turned clockwise by degrees."""
        t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
        c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        u, v = rx * np.cos(t), ry * np.sin(t)
        ring = np.stack([x + u * c - v * s, y + u * s + v * c], 1)
        self._fill(self._placed(ring, self.hand.wobble * 0.5), colour, volume)

    def limb(
        self, points: Sequence[Point], start: float, end: float, colour: Colour | str, volume: float = 1.0
    ) -> None:
        """A smooth stroke whose width goes from `start` to `end` units, with round ends."""
        spine = curve(points, closed=False, steps=8)
        placed = self._placed(spine)
        radii = np.linspace(start, end, len(placed)) * self._scale / 2
        pad = int(radii.max()) + 2
        mask, corner = self._sheet(placed, pad)
        local = placed - corner
        along = np.gradient(local, axis=0)
        length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6)
        normal = np.stack([-along[:, 1], along[:, 0]], 1) / length[:, None] * radii[:, None]
        quads = np.stack(
            [(local + normal)[:-1], (local + normal)[1:], (local - normal)[1:], (local - normal)[:-1]], 1
        )
        for quad in np.rint(quads * 8).astype(np.int32):
            cv2.fillConvexPoly(mask, quad, 255, shift=3)
        centres, sizes = (
            np.rint(local * 8).astype(int).tolist(),
            np.maximum(radii * 8, 4).astype(int).tolist(),
        )
        for centre, size in zip(centres, sizes, strict=True):
            cv2.circle(mask, centre, size, 255, -1, shift=3)
        self._lay(mask, corner, _rgb(colour), volume)

    def line(self, points: Sequence[Point], width: float, colour: Colour | str, smooth: bool = False) -> None:
        """A flat thin stroke, without outline."""
        spine = curve(points, closed=False, steps=8) if smooth else np.asarray(points, np.float64)
        path = np.rint(self._placed(spine) * 8).astype(np.int32)
        thick = max(round(width * self._scale), 1)
        cv2.polylines(self._paint, [path], False, _rgb(colour), thick, shift=3)
        cv2.polylines(self._alpha, [path], False, 255, thick, shift=3)

    def dot(self, x: float, y: float, radius: float, colour: Colour | str) -> None:
        """A flat disc, without outline."""
        centre = np.rint(self._placed(np.array([[x, y]]))[0] * 8).astype(int).tolist()
        size = max(round(radius * self._scale * 8), 4)
        cv2.circle(self._paint, centre, size, _rgb(colour), -1, shift=3)
        cv2.circle(self._alpha, centre, size, 255, -1, shift=3)

    def dabs(self, points: npt.ArrayLike, radius: float, colours: Sequence[Colour | str]) -> None:
        """Many small discs (leaves, berries): colours at random, only over what is painted already."""
        placed = np.rint(self._placed(np.asarray(points, np.float64)) * 8).astype(int)
        before = self._alpha.copy()
        size = max(round(radius * self._scale * 8), 4)
        picks = self.rng.integers(len(colours), size=len(placed))
        for centre, pick in zip(placed.tolist(), picks, strict=True):
            cv2.circle(self._paint, centre, size, _rgb(colours[pick]), -1, shift=3)
        self._paint[before == 0] = 0

    def cut(self, points: Sequence[Point]) -> None:
        """A hole through the drawing."""
        hole = np.rint(self._placed(np.asarray(points, np.float64)) * 8).astype(np.int32)
        cv2.fillPoly(self._alpha, [hole], 0, shift=3)
        cv2.fillPoly(self._paint, [hole], (0, 0, 0), shift=3)

    # --- from units to pixels ---------------------------------------------------------------------------

    def _placed(self, points: Array, wobble: float = 0.0) -> Array:
        """Units -> pixels of the sheet, flipped and turned."""
        if wobble:
            points = points + self.rng.normal(0, wobble, points.shape)
        x, y = points[:, 0], points[:, 1]
        if self._flip:
            x = 100 - x
        c, s = math.cos(self._angle), math.sin(self._angle)
        dx, dy = x - 50, y - 100
        turned = np.stack([50 + dx * c - dy * s, 100 + dx * s + dy * c], 1)
        return np.asarray((turned + MARGIN) * self._scale)

    def _sheet(self, placed: Array, pad: int) -> tuple[Bytes, Array]:
        """An empty mask around the points and its upper left corner (pixels of the sheet)."""
        low = np.floor(placed.min(0)) - pad
        high = np.ceil(placed.max(0)) + pad + 1
        width, height = (high - low).astype(int)
        return np.zeros((height, width), np.uint8), low

    def _fill(self, placed: Array, colour: Colour | str, volume: float) -> None:
        mask, corner = self._sheet(placed, self._line + 1)
        cv2.fillPoly(mask, [np.rint((placed - corner) * 8).astype(np.int32)], 255, shift=3)
        self._lay(mask, corner, _rgb(colour), volume)

    def _lay(self, mask: Bytes, corner: Array, colour: Colour, volume: float) -> None:
        """Paint a part: its outline, then its colour with light on it."""
        side = self._alpha.shape[0]
        left, top = int(corner[0]), int(corner[1])
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + mask.shape[1], side), min(top + mask.shape[0], side)
        if x0 >= x1 or y0 >= y1:
            return
        window = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        part = np.ascontiguousarray(mask[window])
        lit = np.ascontiguousarray(_light(mask, volume * self.hand.volume, colour)[window])
        paint, alpha = self._paint[y0:y1, x0:x1], self._alpha[y0:y1, x0:x1]
        if self._line:
            size = 2 * self._line + 1
            grown = cv2.dilate(part, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)))
            paint[grown > 0] = self.hand.ink
            np.maximum(alpha, grown, out=alpha)
        cv2.copyTo(lit, part, paint)
        np.maximum(alpha, part, out=alpha)


def _rgb(colour: Colour | str) -> Colour:
    return COLOURS[colour] if isinstance(colour, str) else colour


def _light(mask: Bytes, volume: float, colour: Colour) -> Bytes:
    """(h, w, 3) uint8: the colour, paler towards the upper left edge of the mask and darker opposite."""
    height, width = mask.shape
    base = np.asarray(colour, np.float32)
    if volume <= 0:
        flat = np.empty((height, width, 3), np.uint8)
        flat[:] = np.clip(base, 0, 255)
        return flat
    size = (width // 4 + 1, height // 4 + 1)
    small = cv2.resize(mask, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    reach = max(round(0.35 * min(small.shape)), 1)
    soft = cv2.blur(small, (reach, reach), borderType=cv2.BORDER_CONSTANT)
    soft = cv2.blur(soft, (reach, reach), borderType=cv2.BORDER_CONSTANT)
    step = max(reach // 2, 1)
    padded = np.pad(soft, step)
    edge = padded[2 * step :, 2 * step :] - padded[: -2 * step, : -2 * step]
    level = cv2.resize((127.5 + edge / 2).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    lift = (np.arange(256, dtype=np.float32)[:, None] - 127) / 127.5 * volume
    table = np.clip(base * (1 + 0.30 * lift) + 34 * lift, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(cv2.merge([level] * 3), table[None]), np.uint8)
