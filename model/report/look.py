"""`cli.py look KEY`: everything that is known of one artwork, on one self-contained page.

The picture, its regions, and per emotion the pseudo-mask, the regions that it comes from, the utterances, the
truth where APOLO has it, and what trained models predict. A step that has not run is not on the page.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model.maps.map_files import decode_npy, decode_png
from model.maps.overlay import boxed, data_uri, fit, lit, overlay
from model.metrics.segmentation import foreground, foreground_iou
from model.report.templates import artist_and_title, environment
from pipeline.common.digests import check_file
from pipeline.common.emotions import ALL_EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes
from pipeline.common.params import Paths
from pipeline.common.schema import map_name, shard_stem
from pipeline.common.tables import table_file
from pipeline.common.tars import TarMembers
from pipeline.reader.rejections import rejections
from pipeline.releases.apolo import load_items
from pipeline.releases.apolo_arrays import BadArray, load_truth
from pipeline.releases.names import plain_name
from pipeline.releases.wikiart import BadImage, read_image

SIDE = 420
"""Size of a picture: as many pixels as a square of this side."""
BOXES = 12
"""Regions drawn on the picture, the most certain ones."""
FIRST = "emosem-single"
"""The method shown first."""
TOP = 3
"""Regions named per emotion, the most similar ones."""


@dataclass(frozen=True)
class EmotionTile:
    """One picture of an emotion."""

    caption: str
    uri: str
    iou: float | None
    text: str = ""
    """What a model explained."""


@dataclass(frozen=True)
class Section:
    """One emotion of the artwork."""

    emotion: str
    tiles: list[EmotionTile]
    regions: list[tuple[str, float]]
    """(label, similarity) of the regions most similar to the utterances."""
    utterances: list[tuple[int, str]]
    """(row of the csv, text)."""


Predict = Callable[[np.ndarray], dict[str, tuple[np.ndarray, str]]]
"""Picture, uint8 RGB (H, W, 3) -> emotion -> (map, explanation)."""


def look(paths: Paths, key: str, out: Path | None = None, predict: Predict | None = None) -> Path:
    """Write the page of one artwork; returns its path.

    Args:
        paths: where the data lies.
        key: its key, or its painting's name, in any spelling.
        out: the HTML file; ``look/KEY.html`` when None.
        predict: a model whose maps of all eight emotions are shown, those that nobody named included.

    Raises:
        UserError: no such artwork, several of that name, or a picture, map or tar that cannot be read.
    """
    work = find_artwork(paths, key)
    try:
        original = read_image(paths.wikiart / work["path"])
    except BadImage as error:
        raise UserError(f"the picture of {work['key']} cannot be shown: {error}") from None
    artist, title = artist_and_title(work["painting"])
    regions = _one(paths, "regions", work)
    tar = paths.step("masks") / f"{shard_stem(work['shard'])}.tar"
    masks = TarMembers([tar] if tar.is_file() else [], "the masks step")
    try:
        of_model = {} if predict is None else predict(original)
        sections = list(_sections(paths, work, fit(original, SIDE), regions, masks, of_model))
    except ValueError as error:
        raise UserError(
            f"a map of {work['key']} cannot be shown: {error}; run the step that wrote it"
        ) from None
    page = (
        environment()
        .get_template("look_template.html")
        .render(
            work=work,
            artist=artist,
            title=title,
            picture=data_uri(fit(original, 2 * SIDE)),
            regions=regions,
            boxes=None if regions is None else _region_picture(original, regions),
            sections=sections,
            rejected=rejections(paths, work["shard"]).get(work["key"]),
            lineage=_lineage(masks, work["key"]),
        )
    )
    out = out or Path("look") / f"{work['key']}.html"
    write_bytes(out, page.encode())
    return out


def find_artwork(paths: Paths, name: str) -> dict[str, Any]:
    """The `schema.ARTWORKS` row of a key or of (a part of) a painting's name, accents and hyphens optional.

    Raises `UserError` when it is not exactly one.
    """
    table = table_file(paths, "artworks")
    works = pq.read_table(table).to_pylist()
    wanted = _words(name.rpartition("/")[2])
    found = [w for w in works if name in (w["key"], f"{w['art_style']}/{w['painting']}")]
    found = found or [w for w in works if _words(w["painting"]) == wanted]
    found = found or [w for w in works if wanted and wanted in _words(w["painting"])]
    if len(found) == 1:
        return found[0]
    if found:
        choices = [f"{w['key']} ({w['art_style']}/{w['painting']})" for w in found[:5]]
        raise UserError(f"{len(found)} artworks match {name!r}; say which: {', '.join(choices)}")
    near = difflib.get_close_matches(wanted, [_words(w["painting"]) for w in works], n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else f"keys and names are in {table}"
    raise UserError(f"no artwork {name!r} among {len(works)}; {advice}")


def _words(name: str) -> str:
    """A name without accents, capitals and punctuation."""
    return " ".join(re.findall(r"\w+", plain_name(name).replace("_", " ")))


def _one(paths: Paths, step: str, work: dict[str, Any]) -> dict[str, Any] | None:
    """An artwork's row in a step's shard, or None where there is none."""
    rows = _rows(paths.step(step) / f"{shard_stem(work['shard'])}.parquet", work)
    return rows[0] if rows else None


def _rows(path: Path, work: dict[str, Any]) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = pq.read_table(
        check_file(path), filters=pc.field("key") == work["key"]
    ).to_pylist()
    return rows


def _region_picture(original: np.ndarray, regions: dict[str, Any]) -> str:
    """The picture with its most certain regions."""
    picture = fit(original, 2 * SIDE)
    scale = np.array([picture.shape[1] / original.shape[1], picture.shape[0] / original.shape[0]] * 2)
    boxes = np.array(regions["boxes"], dtype=np.float64).reshape(-1, 4) * scale
    order = (
        np.argsort(regions["scores"])[::-1][:BOXES] if regions["scores"] else range(min(len(boxes), BOXES))
    )
    labels = regions["labels"] or [""] * len(boxes)
    return data_uri(boxed(picture, boxes[list(order)], [labels[i] for i in order]))


def _sections(
    paths: Paths,
    work: dict[str, Any],
    image: np.ndarray,
    regions: dict[str, Any] | None,
    masks: TarMembers,
    of_model: Mapping[str, tuple[np.ndarray, str]],
) -> Iterator[Section]:
    """What is known of each emotion, in the order of ArtEmis."""
    key, stem = work["key"], shard_stem(work["shard"])
    utterances = _rows(paths.step("utterances") / "utterances.parquet", work)
    similar = {r["emotion"]: r["scores"] for r in _rows(paths.step("similarity") / f"{stem}.parquet", work)}
    truths = _truths(paths, work)
    predicted = list(_predictions(paths, work))
    for emotion in ALL_EMOTIONS:
        tiles = []
        truth = truths.get(emotion)
        if truth is not None:
            tiles.append(EmotionTile("Truth (APOLO)", data_uri(lit(image, truth)), None))
        if (data := masks.read(f"{key}.{emotion}.png")) is not None:
            tiles.append(_tile("Pseudo-mask", image, decode_png(data), truth))
        for row, map_ in predicted:
            if row["asked_emotion"] == emotion:
                tiles.append(_tile(row["method"], image, map_, truth, row["explanation"] or ""))
        if emotion in of_model:
            map_, explanation = of_model[emotion]
            tiles.append(_tile("This model", image, map_, truth, explanation))
        texts = [(row["artemis_id"], row["utterance"]) for row in utterances if row["emotion"] == emotion]
        if tiles or texts:
            yield Section(emotion, tiles, _most_similar(regions, similar.get(emotion)), texts)


def _tile(
    caption: str, image: np.ndarray, map_: np.ndarray, truth: np.ndarray | None, text: str = ""
) -> EmotionTile:
    height, width = image.shape[:2] if truth is None else truth.shape
    inside = foreground(map_, height, width)
    iou = None if truth is None else foreground_iou(inside, truth)
    return EmotionTile(caption, data_uri(overlay(image, map_, inside)), iou, text)


def _most_similar(regions: dict[str, Any] | None, scores: list[float] | None) -> list[tuple[str, float]]:
    if regions is None or not scores or not regions["labels"]:
        return []
    order = np.argsort(scores)[::-1][:TOP].tolist()
    return [(regions["labels"][i], scores[i]) for i in order]


def _truths(paths: Paths, work: dict[str, Any]) -> dict[str, np.ndarray]:
    """APOLO's masks of the artwork by emotion; none where the release is absent or lacks the artwork."""
    utterances = paths.step("utterances") / "utterances.parquet"
    if not utterances.is_file() or not (paths.apolo / "apolo.json").is_file():
        return {}
    truths = {}
    for item in load_items(paths.apolo, pq.read_table(check_file(utterances)))[0]:
        if item.key == work["key"]:
            try:
                truths[item.emotion] = load_truth(item.map_path)
            except BadArray:
                continue
    return truths


def _predictions(paths: Paths, work: dict[str, Any]) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """(row of predictions.parquet, map) of every method for an item's own emotion; its first draw."""
    folders = [path.parent for path in paths.step("predict").glob("*/predictions.parquet")]
    maps = TarMembers((folder / "maps.tar" for folder in folders), "the predict step")
    rows = [row for folder in folders for row in _rows(folder / "predictions.parquet", work)]
    seen = set()
    for row in sorted(
        rows, key=lambda row: (":" in row["method"], row["method"] != FIRST, row["method"], row["seed"])
    ):
        name = map_name(row["method"], row["item_emotion"])
        data = None if name in seen else maps.read(f"{work['key']}.{name}")
        seen.add(name)
        if data is not None and row["asked_emotion"] == row["item_emotion"]:
            yield row, decode_npy(data)


def _lineage(masks: TarMembers, key: str) -> str | None:
    """How the pseudo-masks were made, as the masks step recorded it."""
    data = masks.read(f"{key}.json")
    if data is None:
        return None
    return json.dumps(json.loads(data).get("lineage", {}), indent=1, sort_keys=True, ensure_ascii=False)
