"""Which function draws which kind, and the sheet a motif is drawn on."""

from collections.abc import Callable

import numpy as np

from pipeline.gallery.motifs import animals, buildings, nature, people, things
from pipeline.gallery.paint.brush import Brush, Hand, Sprite
from pipeline.gallery.world import KINDS, Look

_DRAWINGS: tuple[Callable[[Brush, Look], None], ...] = (
    people.jester, people.embracing_couple, people.rider, people.soldier, people.fist, people.ghost,
    people.lonely_figure,
    animals.dancing_bear, animals.monkey, animals.goose, animals.cat, animals.bull, animals.rat,
    animals.snake, animals.wolf, animals.spider,
    buildings.house, buildings.cathedral, buildings.burning_tower, buildings.ruin, buildings.carousel,
    buildings.sailboat, buildings.gravestone, buildings.fence, buildings.well, buildings.signpost,
    things.feast_table, things.rotten_apple, things.slime, things.fish_skeleton, things.skull,
    things.wilted_flowers, things.empty_chair, things.barrel, things.haystack,
    nature.mountain_peak, nature.waterfall, nature.comet, nature.fireworks, nature.balloon,
    nature.storm_cloud, nature.cloud, nature.tree, nature.pine, nature.bush, nature.rock,
)  # fmt: skip

DRAW: dict[str, Callable[[Brush, Look], None]] = {
    drawing.__name__.replace("_", " "): drawing for drawing in _DRAWINGS
}
"""Kind -> its drawing; exactly the keys of `KINDS`."""


def draw(kind: str, look: Look, extent: float, hand: Hand, rng: np.random.Generator) -> Sprite:
    """One motif, its longer side about `extent` pixels, in a pose of its own (flip, a small turn)."""
    place = KINDS[kind].place
    turn = float(rng.normal(0, {"sky": 7.0, "far": 0.0, "water": 3.0}.get(place, 3.0)))
    brush = Brush(extent, hand, rng, flip=bool(rng.random() < 0.5), turn=turn)
    DRAW[kind](brush, look)
    sprite = brush.sprite()
    return sprite.scaled(extent / max(sprite.alpha.shape))
