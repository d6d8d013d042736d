"""Step `report`: one self-contained page of numbers, curves and pictures for a person to judge by.

Everything is inlined (pictures as ``data:`` URIs, curves as SVG) and a content security policy forbids the
page to load anything. Titles, utterances and explanations come from files, and are escaped.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
from markupsafe import Markup
from pydantic import Field

from model.baselines.clip_vinvl import NAME as TEACHER
from model.baselines.clip_vinvl import PseudoMasks
from model.maps.map_files import TarMaps, decode_npy
from model.maps.overlay import data_uri, fit, lit, unit_map
from model.metrics.columns import COLUMNS, cell
from model.metrics.segmentation import foreground
from model.report.charts import histogram
from model.report.curves import read_curves
from model.report.templates import artist_and_title, environment
from pipeline.backbones.params import BackbonesParams
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes
from pipeline.common.params import STRICT, Paths
from pipeline.common.schema import map_name
from pipeline.reader.statistics import read_statistics
from pipeline.releases.apolo import ApoloItem, load_items
from pipeline.releases.apolo_arrays import BadArray, load_truth
from pipeline.releases.wikiart import BadImage, read_image

PREDICTED = ("emosem-single", "emosem-multi", "emosem-single:other-emotion")
"""Methods that are pictured, where they have run."""

THIRDS = ("best", "middle", "worst")


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ReportParams:
    """How much the page shows."""

    items: Annotated[int, Field(ge=0)] = 12
    """Test items pictured."""
    seed: int = 7
    """Draws which items: another seed, other pictures."""
    side: Annotated[int, Field(ge=32, le=1024)] = 300
    """Size of a picture: it has as many pixels as a square of this side."""
    utterances: Annotated[int, Field(ge=1)] = 4
    """Human explanations shown beside each item."""


def build_report(paths: Paths, params: ReportParams, backbones: BackbonesParams) -> dict[str, Any]:
    """Write report/index.html; returns counts. Raises `UserError` when score or shards have not run."""
    score = _read_json(paths.metrics / "score.json", "score")
    statistics = read_statistics(paths.step("shards"))
    results = _Results(paths, score)
    cards, notes = _cards(results, params)
    page = (
        environment()
        .get_template("report_template.html")
        .render(
            score=score,
            stand_in="gallery" in score["data"] or "tiny" in score["backbones"],
            backbones=backbones,
            groups=_table(score["rows"]),
            columns=COLUMNS,
            curves=read_curves(paths.runs),
            cards=cards,
            shown=results.shown,
            notes=notes,
            params=params,
            emotions=[name for name in EMOTIONS if name in statistics["emotions"]],
            stats=statistics,
            areas=_area_chart(statistics),
            artists=artist_and_title,
        )
    )
    write_bytes(paths.report / "index.html", page.encode())
    return {"items": len(cards), "bytes": len(page.encode()), "not_shown": len(notes)}


def _read_json(path: Path, step: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); run the {step} step first") from None
    return found


# ---- the table ---------------------------------------------------------------------------------------


def _table(
    rows: Sequence[dict[str, Any]],
) -> list[tuple[str, list[tuple[dict[str, Any], list[tuple[str, bool]]]]]]:
    """[(group, [(row, [(text, whether best of its column), ...]), ...]), ...]; controls are never best."""
    fair = [row for row in rows if ":" not in row["method"]]
    best = {name: max((row[name] for row in fair if name in row), default=None) for name, _, _ in COLUMNS}
    groups: dict[str, list[tuple[dict[str, Any], list[tuple[str, bool]]]]] = {}
    for row in rows:
        control = ":" in row["method"]
        ours = row["method"].startswith("emosem")
        group = "Controls" if control else "EmoSEM" if ours else "Baselines"
        cells = [
            (cell(row, name, decimals), not control and name in row and row[name] == best[name])
            for name, _, decimals in COLUMNS
        ]
        groups.setdefault(group, []).append((row, cells))
    return list(groups.items())


def _area_chart(statistics: dict[str, Any]) -> Markup:
    area = statistics["mask_area"]
    return histogram(
        "Pseudo-masks by the share of the artwork that they cover", area["edges"], area["counts"]
    )


# ---- the pictures ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PictureTile:
    """One picture of an item."""

    caption: str
    uri: str
    iou: float | None


@dataclass(frozen=True)
class Explanation:
    """What one method explains."""

    method: str
    emotion: str
    """The emotion that it was asked for."""
    text: str
    heard: str | None
    """The emotion that the EA classifier reads in it."""


@dataclass(frozen=True)
class ItemCard:
    """One test item."""

    item: ApoloItem
    third: str
    tiles: list[PictureTile]
    said: list[Explanation]
    utterances: list[str]
    more: int
    """Human explanations that are not shown."""


def choose(ious: dict[tuple[str, str], float], count: int, seed: int) -> list[tuple[tuple[str, str], str]]:
    """Spread `count` items over emotions and over quality.

    Items are (key, emotion) with the IoU of the method that is shown, and fall into three thirds by it.
    Emotions take turns, and so do the thirds; which item of an emotion and third comes, the seed draws.
    Where there is none left, the next third gives one. Returns [(item, third), ...].
    """
    rng = np.random.default_rng(seed)
    ranked = sorted(ious, key=lambda item: (-ious[item], item))
    left: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for place in rng.permutation(len(ranked)).tolist():
        third = THIRDS[3 * place // len(ranked)]
        left.setdefault((ranked[place][1], third), []).append(ranked[place])
    chosen: list[tuple[tuple[str, str], str]] = []
    turn = 0
    while len(chosen) < min(count, len(ranked)):
        emotion = EMOTIONS[turn % len(EMOTIONS)]
        wanted = (THIRDS[(turn + shift) % 3] for shift in range(3))
        third = next((name for name in wanted if left.get((emotion, name))), "")
        if third:
            chosen.append((left[emotion, third].pop(), third))
        turn += 1
    return chosen


class _Results:
    """What the steps left about the items: scores, predictions, maps."""

    def __init__(self, paths: Paths, score: dict[str, Any]) -> None:
        self.paths, self.protocol = paths, score["protocol"]
        table = paths.step("score") / "items.parquet"
        try:
            rows = pq.read_table(table).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{table} cannot be read ({error}); run the score step first") from None
        self.scored = {(row["method"], row["key"], row["emotion"]): row for row in rows}
        present = {method for method, _, _ in self.scored}
        self.shown = next((method for method in (*PREDICTED, TEACHER) if method in present), TEACHER)
        """The method by whose quality items are chosen."""
        self.asked: dict[tuple[str, str, str], dict[str, Any]] = {}
        folders = sorted(path.parent for path in paths.step("predict").glob("*/predictions.parquet"))
        for folder in folders:
            for row in pq.read_table(folder / "predictions.parquet").to_pylist():
                self.asked.setdefault((row["method"], row["key"], row["item_emotion"]), row)
        self.maps = TarMaps(folder / "maps.tar" for folder in folders)
        works = pq.read_table(paths.step("utterances") / "artworks.parquet")
        self.files = dict(zip(works["key"].to_pylist(), works["path"].to_pylist(), strict=True))
        said = pq.read_table(paths.step("utterances") / "utterances.parquet")
        self.items = {(i.key, i.emotion): i for i in load_items(paths.apolo, said, works)[0]}
        self.teacher = PseudoMasks(paths, (key for key, _ in self.items))

    def ious(self) -> dict[tuple[str, str], float]:
        """IoU by pixels, by the shown method, of every item that counts."""
        return {
            (key, emotion): row["iou_seg"]
            for (method, key, emotion), row in self.scored.items()
            if method == self.shown and row["iou_seg"] is not None and (key, emotion) in self.items
        }

    def iou(self, method: str, item: ApoloItem) -> float | None:
        """IoU by pixels of one method on one item."""
        row = self.scored.get((method, item.key, item.emotion))
        return None if row is None else row["iou_seg"]

    def map_of(self, method: str, item: ApoloItem) -> np.ndarray | None:
        """A method's map of an item, or None where it has none."""
        if method == TEACHER:
            return self.teacher(item)
        data = self.maps.read(f"{item.key}.{map_name(method, item.emotion)}")
        return None if data is None else decode_npy(data)


def _cards(results: "_Results", params: ReportParams) -> tuple[list[ItemCard], list[str]]:
    """The chosen items as cards, and what could not be shown."""
    cards, notes = [], []
    for place, third in choose(results.ious(), params.items, params.seed):
        item = results.items[place]
        try:
            image = fit(read_image(results.paths.wikiart / results.files[item.key]), params.side)
            truth = load_truth(item.map_path)
        except (BadImage, BadArray) as error:
            notes.append(f"{item.painting}, {item.emotion}: {error}")
            continue
        said = _said(results, item)
        shown, more = item.utterances[: params.utterances], len(item.utterances) - params.utterances
        cards.append(
            ItemCard(item, third, _tiles(results, item, image, truth), said, list(shown), max(more, 0))
        )
    return cards, notes


def _tiles(results: _Results, item: ApoloItem, image: np.ndarray, truth: np.ndarray) -> list[PictureTile]:
    """Painting, truth, and every method's map: lit by the map, outlined where it counts as foreground."""
    tiles = [
        PictureTile("Painting", data_uri(image), None),
        PictureTile("Truth", data_uri(lit(image, truth)), None),
    ]
    captions = {TEACHER: "Pseudo-mask", "emosem-single": "EmoSEM single", "emosem-multi": "EmoSEM multi"}
    for method in (TEACHER, *PREDICTED):
        map_ = results.map_of(method, item)
        if map_ is None:
            continue
        threshold, scaling = results.protocol["threshold"], results.protocol["scaling"]
        inside = foreground(map_, truth.shape[0], truth.shape[1], threshold, scaling)
        asked = results.asked.get((method, item.key, item.emotion), {}).get("asked_emotion")
        caption = captions.get(method, f"Single, asked for {asked}")
        tiles.append(
            PictureTile(caption, data_uri(lit(image, unit_map(map_), inside)), results.iou(method, item))
        )
    return tiles


def _said(results: _Results, item: ApoloItem) -> list[Explanation]:
    rows = [(method, results.asked.get((method, item.key, item.emotion))) for method in PREDICTED]
    return [
        Explanation(
            method,
            row["asked_emotion"],
            row["explanation"] or "",
            results.scored.get((method, item.key, item.emotion), {}).get("ea"),
        )
        for method, row in rows
        if row is not None
    ]
