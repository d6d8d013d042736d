"""Step `gallery`: draw the stand-in for ArtEmis, WikiArt and APOLO."""

from typing import Any

from pipeline.common.params import Paths
from pipeline.gallery.release import draw_gallery
from pipeline.gallery.world import GalleryParams


def build_gallery(paths: Paths, params: GalleryParams) -> dict[str, Any]:
    """The DVC stage: `draw_gallery` into ``data/gallery``; without artworks, a folder with nothing in it.

    A gallery that is there is then left alone.
    """
    if not params.artworks:
        paths.step("gallery").mkdir(parents=True, exist_ok=True)
        return {"artworks": 0}
    return draw_gallery(paths.step("gallery"), params)
