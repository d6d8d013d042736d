"""One self-contained page of predictions: each picture, what of it evokes each emotion, and why."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from model.maps.overlay import data_uri, shrunk
from model.predict.resume_log import Row
from pipeline.common.files import write_bytes
from pipeline.common.page_templates import environment
from pipeline.releases.wikiart import BadImage, read_image

PAGE = "index.html"
SIDE = 480
"""Pixels of a picture's long side."""
MOST = 600
"""Overlays on a page: some 20 MB. The rest is counted."""
TEMPLATE = "page_template.html"


@dataclass
class _Tile:
    """A picture and an emotion."""

    emotion: str
    uri: str
    texts: list[str]


@dataclass
class _Article:
    """A picture."""

    image: str
    uri: str = ""
    error: str = ""
    tiles: list[_Tile] = field(default_factory=list)


def write_page(rows: Sequence[Row], out: Path) -> Path:
    """Write ``OUT/index.html`` of the rows of `predict_images`; returns its path.

    The overlays are read from where the rows say, and all words are escaped.
    """
    articles, left_out = _articles(rows)
    pictures = {row["image"] for row in rows}
    bad = {row["image"] for row in rows if "error" in row}
    page = (
        environment(Path(__file__).parent)
        .get_template(TEMPLATE)
        .render(articles=articles, left_out=left_out, pictures=len(pictures), answered=len(pictures - bad))
    )
    write_bytes(out / PAGE, page.encode(errors="backslashreplace"))
    return out / PAGE


def _articles(rows: Sequence[Row]) -> tuple[list[_Article], int]:
    """The pictures with their tiles, and how many tiles were too many."""
    articles: dict[str, _Article] = {}
    tiles: dict[str, _Tile] = {}
    left_out = set()
    for row in rows:
        article = articles.setdefault(row["image"], _Article(row["image"]))
        if "error" in row:
            article.error = row["error"]
            continue
        if row["overlay"] not in tiles:
            if len(tiles) == MOST:
                left_out.add(row["overlay"])
                continue
            article.uri = article.uri or _picture(Path(row["image"]))
            tiles[row["overlay"]] = _Tile(row["emotion"], _small(Path(row["overlay"])), [])
            article.tiles.append(tiles[row["overlay"]])
        tiles[row["overlay"]].texts.append(row["explanation"])
    return list(_worth_showing(articles.values())), len(left_out)


def _worth_showing(articles: Any) -> Iterator[_Article]:
    return (article for article in articles if article.tiles or article.error)


def _picture(file: Path) -> str:
    """A picture as a small ``data:`` URI; "" where it cannot be read any more."""
    try:
        return data_uri(shrunk(read_image(file), SIDE))
    except BadImage:
        return ""


def _small(overlay: Path) -> str:
    """An overlay as a small ``data:`` URI; "" where it cannot be read."""
    pixels = cv2.imread(str(overlay), cv2.IMREAD_COLOR)
    return "" if pixels is None else data_uri(shrunk(pixels[..., ::-1], SIDE))
