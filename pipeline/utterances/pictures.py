"""The csv's pictures: which file each name means, and whether it can be used."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.common.progress import Meter
from pipeline.common.threads import cores
from pipeline.releases.artemis import Reject
from pipeline.releases.picture_folder import PictureFolder
from pipeline.releases.wikiart import BadImage, probe_picture, verify_picture
from pipeline.utterances.columns import Artwork

if TYPE_CHECKING:
    from pipeline.utterances.params import UtterancesParams

AT_ONCE = 512
"""Pictures handed to the threads at a time."""


def find_pictures(works: Sequence[Artwork], wikiart: Path) -> None:
    """Fill in every artwork's path, or its problem."""
    _on_threads(works, partial(_find_picture, pictures=PictureFolder(wikiart)))


def check_pictures(works: Sequence[Artwork], wikiart: Path, params: "UtterancesParams") -> None:
    """Measure every picture that was found: fill in size and SHA-256, or the problem in place of the path."""
    found = [work for work in works if work.problem is None]
    meter = Meter("utterances", len(works))  # WikiArt takes many minutes
    meter.add(len(works) - len(found))
    _on_threads(found, partial(_check_picture, wikiart=wikiart, params=params), meter)


def _on_threads(works: Sequence[Artwork], do: Callable[[Artwork], None], meter: Meter | None = None) -> None:
    """Threads, because disks answer and Pillow decodes outside Python's lock."""
    with ThreadPoolExecutor(cores()) as threads:
        for start in range(0, len(works), AT_ONCE):
            part = works[start : start + AT_ONCE]
            list(threads.map(do, part))
            if meter is not None:
                meter.add(len(part))


def _find_picture(work: Artwork, pictures: PictureFolder) -> None:
    try:
        path = pictures.find(work.art_style, work.painting, work.image)
    except BadImage as error:
        _reject(work, error)
    else:
        work.path = path.relative_to(pictures.root).as_posix()


def _check_picture(work: Artwork, wikiart: Path, params: "UtterancesParams") -> None:
    path = wikiart / str(work.path)
    try:
        if params.verify == "decode":
            work.size, work.sha256, work.phash = verify_picture(path, params.max_pixels)
        else:
            work.size = probe_picture(path, params.max_pixels)
        width, height = work.size
        short, long = sorted((width, height))
        if short < params.min_side:
            raise BadImage("too-small", f"{width}x{height} pixels, the shortest allowed is {params.min_side}")
        if long > params.max_aspect * short:
            raise BadImage("too-narrow", f"{width}x{height} pixels, the cap is 1:{params.max_aspect:g}")
    except BadImage as error:
        _reject(work, error)
        work.path = None


def _reject(work: Artwork, error: BadImage) -> None:
    source = f"{work.art_style}/{work.painting}"
    work.problem = Reject(source, -1, f"picture-{error.reason}", error.detail)
