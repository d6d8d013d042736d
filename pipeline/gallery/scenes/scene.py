"""Whole scenes: who is in the picture, where everything stands, and the painting of it.

`scene(seed, index)` is a pure function. Every scene holds at least two motifs that evoke different emotions
from different places, and at least one motif that evokes nothing, so that the question "where is the awe?"
cannot be answered by what stands out alone.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.common.emotions import EMOTIONS
from pipeline.gallery.motifs.draw import draw
from pipeline.gallery.paint.brush import Bytes, Hand, Sprite
from pipeline.gallery.paint.styles import STYLES
from pipeline.gallery.scenes.backdrop import Backdrop, Setting, backdrop, parts, weather
from pipeline.gallery.words import titles
from pipeline.gallery.world import KINDS, KINDS_OF, NEUTRAL, GalleryParams, Look, Motif, Scene

_CELL = 8
"""Pixels of the coarse grid on which places are tried."""
_HIDDEN = 0.3
"""Largest share of a motif that others may cover while places are tried (at most 0.4 is promised)."""
_TRIES = 48
_LARGE, _SMALL = 0.36, 0.21
"""Extents, as shares of the picture's long side, from which a motif is called large and under which small."""
_NARROWEST, _WIDEST = 0.6, 1.7

Cells = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Placed:
    """A drawn motif and where it goes."""

    kind: str
    look: Look
    sprite: Sprite
    left: int
    top: int

    @property
    def foot(self) -> int:
        """Row of its lowest pixel."""
        return self.top + self.sprite.alpha.shape[0]

    @property
    def depth(self) -> tuple[int, int]:
        """Sort key, far to near: the sky, the horizon, then by the foot."""
        place = KINDS[self.kind].place
        if place in ("sky", "far"):
            return (0 if place == "sky" else 1), len(KINDS[self.kind].emotions)
        return 2, self.foot


def scene(seed: int, index: int, params: GalleryParams | None = None) -> Scene:
    """Artwork number `index` of the gallery `seed`; of `params` only the sizes and counts are used."""
    params = params or GalleryParams()
    rng = np.random.default_rng([seed, index])
    height, width = _format(params, rng)
    while True:
        style = STYLES[int(rng.integers(len(STYLES)))]
        cast = _cast(params, rng)
        setting = Setting.drawn(rng, afloat=any(KINDS[kind].place == "water" for kind in cast))
        ground = backdrop(height, width, setting, rng)
        placed = _arrange(cast, ground, style.hand, params, rng)
        image, owner = _compose(ground, placed, setting)
        motifs = _motifs(placed, owner, max(height, width), rng)
        if motifs is not None:
            break
    image = weather(image, setting, ground.horizon, rng)
    return Scene(
        image=style.paint(image, rng),
        style=style.name,
        title=titles.title(tuple(motif.kind for motif in motifs), index, rng),
        artist=titles.artist(rng),
        motifs=motifs,
        scenery=parts(ground.labels, owner > 0),
        setting=setting.words,
    )


def _format(params: GalleryParams, rng: np.random.Generator) -> tuple[int, int]:
    """Height and width in pixels."""
    aspect = float(np.exp(rng.uniform(np.log(_NARROWEST + 0.02), np.log(_WIDEST - 0.03))))
    ratio = max(aspect, 1 / aspect)
    short = rng.uniform(params.shortest_side, min(params.longest_side / ratio, 1.8 * params.shortest_side))
    width, height = (short * ratio, short) if aspect > 1 else (short, short * ratio)
    return round(height), round(width)


def _cast(params: GalleryParams, rng: np.random.Generator) -> list[str]:
    """Evoking kinds, all different; the first two evoke different emotions."""
    count = int(rng.integers(2, params.most_evoking + 1))
    while True:
        emotions = [
            str(emotion) for emotion in rng.choice(EMOTIONS, count, replace=False, p=_EMOTION_WEIGHTS)
        ]
        if count > 2 and rng.random() < 0.35:
            emotions[-1] = emotions[int(rng.integers(count - 1))]
        kinds = [_kind_for(emotion, rng) for emotion in emotions]
        places = [KINDS[kind].place for kind in kinds]
        apart = not set(KINDS[kinds[0]].emotions) & set(KINDS[kinds[1]].emotions)
        crowded = places.count("far") > 1 or places.count("sky") > 2 or places.count("water") > 1
        if apart and not crowded and len(set(kinds)) == count:
            return kinds


def _kind_weights(emotion: str) -> npt.NDArray[np.float64]:
    """Chance of each of the emotion's kinds; kinds of two emotions are half as likely."""
    weights = np.array([1 / len(KINDS[kind].emotions) for kind in KINDS_OF[emotion]])
    return np.asarray(weights / weights.sum())


def _emotion_weights() -> npt.NDArray[np.float64]:
    """Chance of each emotion to be asked for: less for those that come along with other emotions' kinds."""
    along = dict.fromkeys(EMOTIONS, 0.0)
    for asked in EMOTIONS:
        for kind, chance in zip(KINDS_OF[asked], _kind_weights(asked), strict=True):
            for emotion in KINDS[kind].emotions:
                along[emotion] += float(chance)
    weights = np.array([1 / along[emotion] for emotion in EMOTIONS])
    return np.asarray(weights / weights.sum())


_EMOTION_WEIGHTS = _emotion_weights()


def _kind_for(emotion: str, rng: np.random.Generator) -> str:
    return str(rng.choice(KINDS_OF[emotion], p=_kind_weights(emotion)))


def _arrange(
    cast: list[str], ground: Backdrop, hand: Hand, params: GalleryParams, rng: np.random.Generator
) -> list[_Placed]:
    """Draw every motif and find it a place; evoking ones first, neutral ones where there is room."""
    height, width = ground.labels.shape
    long, short = max(height, width), min(height, width)
    low, high = params.motif_sizes
    high = low + (high - low) * {2: 1.0, 3: 0.72, 4: 0.46}.get(len(cast), 0.3)
    extents = [min(float(rng.uniform(low, high)) * long, 0.8 * short) for _ in cast]
    wanted = sorted(zip(cast, extents, strict=True), key=lambda pair: -pair[1])
    for kind in rng.permutation(NEUTRAL)[: int(rng.integers(1, params.most_neutral + 1))]:
        wanted.append((str(kind), float(rng.uniform(0.15, 0.33)) * long))
    table = _Table((height + _CELL - 1) // _CELL, (width + _CELL - 1) // _CELL)
    placed = []
    for kind, extent in wanted:
        row = KINDS[kind]
        look = Look(str(rng.choice(row.colours)), str(rng.choice(row.states)), "")
        sprite = draw(kind, look, extent, hand, rng)
        spot = _spot(kind, sprite, ground, table, rng)
        if spot is not None:
            placed.append(_Placed(kind, look, *spot))
    return sorted(placed, key=lambda motif: motif.depth)


class _Table:
    """What covers which cells, and how much of every motif may be hidden."""

    def __init__(self, rows: int, columns: int) -> None:
        self.shape = (rows, columns)
        self.masks: list[Cells] = []
        self.areas: list[int] = []
        self.hidden: list[int] = []

    def meets(self, cells: Cells) -> list[int] | None:
        """Cells shared with every motif so far; None when anything would be hidden too much."""
        shared = [int(np.count_nonzero(mask & cells)) for mask in self.masks]
        if sum(shared) > _HIDDEN * np.count_nonzero(cells):
            return None
        for cut, before, area in zip(shared, self.hidden, self.areas, strict=True):
            if cut and cut + before > _HIDDEN * area:
                return None
        return shared

    def add(self, cells: Cells, shared: list[int]) -> None:
        """Take the place."""
        self.hidden = [before + cut for before, cut in zip(self.hidden, shared, strict=True)]
        self.masks.append(cells)
        self.areas.append(int(np.count_nonzero(cells)))
        self.hidden.append(sum(shared))


def _spot(
    kind: str, sprite: Sprite, ground: Backdrop, table: _Table, rng: np.random.Generator
) -> tuple[Sprite, int, int] | None:
    """A place where little is hidden: (sprite, left, top). The sprite shrinks when there is none for it."""
    height, width = ground.labels.shape
    for _ in range(4):
        high, wide = sprite.alpha.shape
        first, last = _feet(kind, high, ground, height)
        small = (
            cv2.resize(sprite.alpha, (-(-wide // _CELL), -(-high // _CELL)), interpolation=cv2.INTER_AREA)
            > 100
        )
        for _ in range(_TRIES if last >= first and wide < width - 2 else 0):
            left = int(rng.integers(1, width - wide))
            top = int(rng.integers(first, last + 1)) - high
            cells = np.zeros(table.shape, np.bool_)
            y, x = top // _CELL, left // _CELL
            window = cells[y : y + small.shape[0], x : x + small.shape[1]]
            window[:] = small[: window.shape[0], : window.shape[1]]
            shared = table.meets(cells)
            if shared is not None:
                table.add(cells, shared)
                return sprite, left, top
        sprite = sprite.scaled(0.86)
    return None


def _feet(kind: str, high: int, ground: Backdrop, height: int) -> tuple[int, int]:
    """First and last row on which a motif of that height can stand."""
    horizon, shore = ground.horizon, ground.shore
    place = KINDS[kind].place
    if place == "sky":
        dip = 0.12 * height if high > 0.5 * horizon else 0.0
        return high + 1, max(min(round(horizon + dip), height - 2), high + 1)
    if place == "far":
        near, far = (0.01, 0.05) if shore > horizon else (0.04, 0.14)
        return max(high + 1, horizon + round(near * height)), horizon + round(far * height)
    if place == "water":
        return max(high + 1, round(horizon + 0.3 * (shore - horizon))), round(shore - 0.025 * height)
    nearness = 0.14 + 0.8 * min(high / height, 0.6)
    return max(high + 1, round(shore + nearness * (height - shore))), round(height * 0.985)


def _compose(
    ground: Backdrop, placed: list[_Placed], setting: Setting
) -> tuple[Bytes, npt.NDArray[np.uint8]]:
    """Lay the motifs into the background, far to near.

    Returns the image and (H, W) uint8: 1 + the number of the motif that each pixel shows, 0 for none.
    """
    image = ground.image.copy()
    owner = np.zeros(ground.labels.shape, np.uint8)
    light = setting.light
    for number, motif in enumerate(placed):
        place = KINDS[motif.kind].place
        high, wide = motif.sprite.alpha.shape
        if place == "ground" or (place == "far" and not setting.water):
            _shadow(image, motif)
        elif place == "water":
            _reflect(image, motif, light)
        window = image[motif.top : motif.top + high, motif.left : motif.left + wide]
        cover = motif.sprite.alpha.astype(np.float32)[..., None] / 255
        window[:] = np.minimum(window * (1 - cover) + motif.sprite.paint * light, 255)
        owner[motif.top : motif.top + high, motif.left : motif.left + wide][motif.sprite.alpha > 127] = (
            number + 1
        )
    return image, owner


def _shadow(image: Bytes, motif: _Placed) -> None:
    """A soft dark pool at a motif's foot, in place."""
    height, width = image.shape[:2]
    wide = motif.sprite.alpha.shape[1]
    rx, ry = 0.52 * wide, max(0.09 * wide, 3.0)
    x, y = motif.left + 0.56 * wide, motif.foot - 0.4 * ry
    top, bottom = max(int(y - 2 * ry), 0), min(int(y + 2 * ry) + 1, height)
    left, right = max(int(x - 1.4 * rx), 0), min(int(x + 1.4 * rx) + 1, width)
    rows, columns = np.mgrid[top:bottom, left:right].astype(np.float32)
    far = ((rows - y) / ry) ** 2 + ((columns - x) / rx) ** 2
    window = image[top:bottom, left:right]
    window[:] = window * (1 - 0.42 * np.exp(-1.2 * far * far))[..., None]


def _reflect(image: Bytes, motif: _Placed, light: npt.NDArray[np.float32]) -> None:
    """A faint mirror image under something afloat, in place."""
    high, wide = motif.sprite.alpha.shape
    size = (wide, max(high // 3, 1))
    paint = cv2.resize(motif.sprite.paint[::-1], size, interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(motif.sprite.alpha[::-1], size, interpolation=cv2.INTER_AREA)
    top = motif.foot - 2
    window = image[top : top + size[1], motif.left : motif.left + wide]
    rows = window.shape[0]
    cover = 0.35 * alpha[:rows].astype(np.float32)[..., None] / 255
    window[:] = np.minimum(window * (1 - cover) + 0.35 * paint[:rows] * light, 255)


def _motifs(
    placed: list[_Placed], owner: npt.NDArray[np.uint8], long: int, rng: np.random.Generator
) -> tuple[Motif, ...] | None:
    """The motifs as they can be seen; None when the scene does not keep its promises."""
    motifs = []
    for number, item in enumerate(placed):
        mask = owner == number + 1
        if np.count_nonzero(mask) < 0.6 * np.count_nonzero(item.sprite.alpha > 127):
            return None
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
        share = max(item.sprite.alpha.shape) / long
        look = replace(item.look, size="large" if share >= _LARGE else "small" if share < _SMALL else "")
        kind = KINDS[item.kind]
        words = tuple(
            word
            for word, chance in (("size", 0.5), ("state", 0.6), ("colour", 0.85))
            if rng.random() < chance
        )
        motifs.append(Motif(item.kind, kind.emotions, kind.phrase(look, words), mask, box, look))
    evoking = [set(motif.emotions) for motif in motifs if motif.emotions]
    apart = any(not one & other for one in evoking for other in evoking)
    return tuple(motifs) if apart and len(evoking) < len(motifs) else None
