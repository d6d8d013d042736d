"""Which folder holds a csv's pictures, and how their files are named."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

from pipeline.common.errors import UserError
from pipeline.releases.artemis import Annotation
from pipeline.releases.picture_folder import PictureFolder, list_pictures
from pipeline.releases.wikiart import BadImage

Name = tuple[str, str, str]
"""(art style, painting, image), see `PictureFolder.find`."""
LOOKED_UP = 500
"""Artworks whose picture is looked for."""


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What was found."""

    folder: Path
    """Where the pictures are, for paths.wikiart."""
    files: int
    """Files in it and below that may be pictures."""
    looked_up: int
    found: int
    missing: str
    """Of the first picture that is not there."""
    by_name: bool = False
    """Whether the files are only found by the painting's name: they are not in folders of art styles."""


def count_pictures(folder: Path) -> int:
    """Files below a folder that may be pictures. Raises `UserError` where there are none."""
    if not folder.is_dir():
        zipped = f"; unpack {folder}" if folder.suffix.lower() in (".zip", ".tar", ".gz") else ""
        raise UserError(f"--images {folder} is no folder{zipped}")
    count = sum(map(len, list_pictures(folder).values()))
    if not count:
        raise UserError(f"--images {folder} has no picture in it, nor in a folder in it")
    return count


def find_folder(images: Path, rows: Sequence[Annotation]) -> Pictures:
    """The folder that has the rows' pictures: the one named, one in it, or the one above.

    Raises `UserError` where none has any.
    """
    files = count_pictures(images)
    every = dict.fromkeys((row.art_style, row.painting, row.image) for row in rows)
    names = list(itertools.islice(every, LOOKED_UP))
    if not names:
        return Pictures(images, files, 0, 0, "")
    above = images.parent if images.name else images.absolute().parent
    below = sorted(path for path in images.iterdir() if path.is_dir() and not path.name.startswith("."))[:50]
    for folder in (images, *below, above) if not names[0][2] else (images,):
        found, missing = _look_up(folder, names[:50])
        if found:
            found, missing = _look_up(folder, names)
            return Pictures(folder, files, len(names), found, missing)
    by_name = [(style, painting, painting) for style, painting, image in names if not image]
    found, missing = _look_up(images, by_name)
    if found:
        return Pictures(images, files, len(names), found, missing, by_name=True)
    style, painting, image = names[0]
    first = image or f"{style}/{painting}.jpg"
    raise UserError(
        f"--images {images} has {files} pictures, and none of the csv's: no {first}, nor any other of "
        f"{len(names)} that were looked for, there or in a folder in it"
    )


def _look_up(folder: Path, names: Sequence[Name]) -> tuple[int, str]:
    """How many of the pictures are there, and the first that is not."""
    pictures = PictureFolder(folder)
    found, missing = 0, ""
    for style, painting, image in names:
        try:
            pictures.find(style, painting, image)
            found += 1
        except BadImage as error:
            missing = missing or error.detail
    return found, missing
