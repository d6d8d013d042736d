"""All eight emotions of a few artworks: what people marked, what the recipe made, what the model found."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model.baselines.clip_vinvl import NAME as TEACHER
from model.maps.overlay import data_uri, fit, lit, overlay
from model.metrics.segmentation import foreground
from model.report.items import PictureTile, Results, caption_of
from pipeline.common.emotions import EMOTIONS
from pipeline.releases.apolo_arrays import BadArray, load_truth
from pipeline.releases.wikiart import BadImage, read_image


@dataclass(frozen=True)
class ArtworkGrid:
    """One artwork: a row of eight places per source, in the order of `EMOTIONS`."""

    painting: str
    rows: list[tuple[str, list[PictureTile | None]]]


def artwork_grids(results: Results, count: int, side: int) -> list[ArtworkGrid]:
    """The `count` artworks of which people have marked the most emotions; of equals, the first keys.

    A place is empty where a source has nothing: nobody marked the emotion, nobody named it, or it is no test
    item. Artworks that cannot be drawn are passed over.
    """
    order = sorted(results.emotions_of, key=lambda key: (-len(results.emotions_of[key]), key))
    grids: list[ArtworkGrid] = []
    for key in order:
        if len(grids) == count:
            break
        try:
            grids.append(_grid(results, key, side))
        except (BadImage, BadArray, ValueError):
            continue
    return grids


def _grid(results: Results, key: str, side: int) -> ArtworkGrid:
    image = fit(read_image(results.paths.wikiart / results.files[key]), side)
    threshold, scaling = results.protocol["threshold"], results.protocol["scaling"]

    def drawn(map_: np.ndarray | None, iou: float | None, caption: str) -> PictureTile | None:
        if map_ is None:
            return None
        inside = foreground(map_, image.shape[0], image.shape[1], threshold, scaling)
        return PictureTile(caption, data_uri(overlay(image, map_, inside)), iou)

    def truth(emotion: str) -> PictureTile | None:
        item = results.items.get((key, emotion))
        if item is None:
            return None
        return PictureTile("Truth", data_uri(lit(image, load_truth(item.map_path))), None)

    def found(emotion: str) -> PictureTile | None:
        item = results.items.get((key, emotion))
        if item is None:
            return None
        map_, iou = results.map_of(results.shown, item), results.iou(results.shown, item)
        return drawn(map_, iou, caption_of(results.shown))

    def made(emotion: str) -> PictureTile | None:
        item = results.items.get((key, emotion))
        iou = None if item is None else results.iou(TEACHER, item)
        return drawn(results.pseudo_mask(key, emotion), iou, caption_of(TEACHER))

    sources: list[tuple[str, Callable[[str], PictureTile | None]]] = [("Truth", truth), ("Pseudo-mask", made)]
    if results.shown != TEACHER:
        sources.append((caption_of(results.shown), found))
    painting = next(results.items[key, emotion].painting for emotion in results.emotions_of[key])
    return ArtworkGrid(painting, [(name, [draw(emotion) for emotion in EMOTIONS]) for name, draw in sources])
