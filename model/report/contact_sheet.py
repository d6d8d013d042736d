"""`cli.py look --worst N` or `--sample N`: many pseudo-masks side by side, as a page and as one picture."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

from model.maps.map_files import decode_png
from model.maps.overlay import data_uri, fit, overlay
from model.metrics.segmentation import foreground
from model.report.templates import artist_and_title, environment
from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes
from pipeline.common.params import Paths
from pipeline.common.progress import Meter
from pipeline.common.schema import shard_stem
from pipeline.common.tables import table_file
from pipeline.common.tars import TarMembers
from pipeline.releases.wikiart import BadImage, read_image
from pipeline.shard_stats.labels import FLAGS, Labels, ShardStatsParams

SIDE = 260
"""Size of a picture: as many pixels as a square of this side."""
COLUMNS = 6
"""Of the picture."""
CELL, ROOM, CAPTION = 300, 10, 44
"""Pixels: a place on the picture, the margin around it, and the words below."""
INK, PAPER = (34, 31, 27), (251, 249, 245)


@dataclass(frozen=True)
class Choice:
    """Which labels are shown."""

    worst: int = 0
    """The most suspicious ones, see `Labels.worst_first`."""
    sample: int = 0
    """Drawn at random."""
    emotion: str | None = None
    style: str | None = None
    split: str | None = None
    seed: int = 0
    """Another seed, another sample."""


@dataclass(frozen=True)
class Card:
    """A label to show; without a picture where that cannot be read."""

    row: dict[str, Any]
    title: str
    flags: list[str]
    picture: np.ndarray | None
    problem: str = ""

    @property
    def uri(self) -> str | None:
        """The picture for the page."""
        return None if self.picture is None else data_uri(self.picture)


def write_contact_sheet(paths: Paths, choice: Choice, params: ShardStatsParams, out: Path) -> dict[str, Any]:
    """Write ``OUT.html`` and ``OUT.png``; returns where they are, and how many labels were to choose from.

    A label whose picture cannot be read keeps its place, with the reason.
    Raises `UserError` when the shards step has not run, or no label fits the choice.
    """
    labels = Labels.read(paths.step("shards"), params)
    fitting, rows = choose(labels, choice)
    if not rows:
        asked = [word for word in (choice.emotion, choice.style, choice.split) if word]
        raise UserError(f"no label of {paths.step('shards')} is {' and '.join(asked) or 'there'}")
    cards = list(_cards(paths, labels, rows))
    how = f"the {len(rows)} worst" if choice.worst else f"{len(rows)} drawn at random (seed {choice.seed})"
    asked = [word.replace("_", " ") for word in (choice.emotion, choice.style, choice.split) if word]
    heading = f"{how} of {fitting:,} pseudo-masks{': ' + ', '.join(asked) if asked else ''}"
    page = environment().get_template("sheet_template.html").render(heading=heading, cards=cards)
    files = {"page": out.with_suffix(".html"), "picture": out.with_suffix(".png")}
    write_bytes(files["page"], page.encode())
    write_bytes(files["picture"], cv2.imencode(".png", sheet(cards)[..., ::-1])[1].tobytes())
    shown = {name: file.as_posix() for name, file in files.items()}
    without = sum(card.picture is None for card in cards)
    return {**shown, "labels": len(rows), "of": fitting, "without_picture": without}


def choose(labels: Labels, choice: Choice) -> tuple[int, list[int]]:
    """How many labels fit, and the numbers of those to show, in the order in which they are shown."""
    fits = np.ones(len(labels), bool)
    for column, word in (("emotion", choice.emotion), ("art_style", choice.style), ("split", choice.split)):
        if word is not None:
            fits &= labels.texts(column) == word
    if choice.worst:
        ordered = labels.worst_first()
        return int(fits.sum()), ordered[fits[ordered]][: choice.worst].tolist()
    places = np.flatnonzero(fits)
    drawn = np.random.default_rng(choice.seed).permutation(len(places))[: choice.sample]
    return len(places), places[np.sort(drawn)].tolist()


def _cards(paths: Paths, labels: Labels, rows: Sequence[int]) -> Iterator[Card]:
    table = pq.read_table(table_file(paths, "artworks"), columns=["key", "path", "painting"])
    works = {work["key"]: work for work in table.to_pylist()}
    chosen = labels.table.take(rows).to_pylist()
    shards = sorted({row["shard"] for row in chosen})
    tars = [paths.step("masks") / f"{shard_stem(shard)}.tar" for shard in shards]
    masks = TarMembers(tars, "the masks step")
    meter = Meter("look", len(rows))
    for place, row in zip(rows, chosen, strict=True):
        work = works.get(row["key"], {"path": "", "painting": row["key"]})
        flags = [flag for flag in FLAGS if labels.flags[flag][place]]
        title = artist_and_title(work["painting"])[1]
        try:
            image = fit(read_image(paths.wikiart / work["path"]), SIDE)
            yield Card(row, title, flags, _lit(image, masks.read(f"{row['key']}.{row['emotion']}.png")))
        except (BadImage, ValueError) as error:
            yield Card(row, title, flags, None, str(error))
        meter.add()


def _lit(image: np.ndarray, png: bytes | None) -> np.ndarray:
    if png is None:
        raise ValueError("the tar holds no such mask")
    map_ = decode_png(png)
    return overlay(image, map_, foreground(map_, *image.shape[:2]))


def sheet(cards: Sequence[Card]) -> np.ndarray:
    """The cards in rows of `COLUMNS`, uint8 RGB."""
    columns = min(COLUMNS, len(cards))
    rows = -(-len(cards) // columns)
    across, down = CELL + ROOM, CELL + CAPTION + ROOM
    canvas = Image.new("RGB", (columns * across + ROOM, rows * down + ROOM), PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    for card, (row, column) in zip(cards, itertools.product(range(rows), range(columns)), strict=False):
        left, top = ROOM + column * across, ROOM + row * down
        if card.picture is not None:
            scale = min(CELL / card.picture.shape[1], CELL / card.picture.shape[0])
            size = (max(1, int(card.picture.shape[1] * scale)), max(1, int(card.picture.shape[0] * scale)))
            small = cv2.resize(card.picture, size, interpolation=cv2.INTER_AREA)
            canvas.paste(Image.fromarray(small), (left, top))
        words = f"{card.row['emotion']}  {', '.join(card.flags)}", card.problem or card.title
        for number, text in enumerate(words):
            plain = text.encode("ascii", "replace").decode()  # the built-in font knows few letters
            draw.text((left, top + CELL + 4 + 19 * number), _cut(plain, draw, font), INK, font)
    return np.asarray(canvas)


def _cut(text: str, draw: ImageDraw.ImageDraw, font: Any) -> str:
    """As much of a text as a card is wide."""
    while text and draw.textlength(text, font) > CELL:
        text = text[:-1]
    return text
