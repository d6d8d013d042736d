"""The test items that the page pictures: which are chosen, and what each method makes of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.baselines.clip_vinvl import NAME as TEACHER
from model.baselines.clip_vinvl import PseudoMasks
from model.maps.map_files import decode_npy
from model.maps.overlay import data_uri, fit, lit, overlay
from model.metrics.segmentation import foreground
from pipeline.common.digests import check_file
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.common.schema import map_name
from pipeline.common.sums import check_sum
from pipeline.common.tables import table_file
from pipeline.common.tars import TarMembers
from pipeline.releases.apolo import ApoloItem, load_items
from pipeline.releases.apolo_arrays import BadArray, load_truth
from pipeline.releases.wikiart import BadImage, read_image

PREDICTED = (
    *("emosem-single", "emosem-single-region", "emosem-multi", "emosem-multi-region"),
    *("emosem-single:other-emotion", "emosem-single-region:other-emotion"),
)
"""Methods that are pictured, where they have run."""
CAPTIONS = {
    TEACHER: "Pseudo-mask",
    "emosem-single": "EmoSEM single",
    "emosem-multi": "EmoSEM multi",
    "emosem-single-region": "EmoSEM single, words of the region",
    "emosem-multi-region": "EmoSEM multi, words of the region",
}

THIRDS = ("best", "middle", "worst")


@dataclass(frozen=True)
class PictureTile:
    """One picture of an item."""

    caption: str
    uri: str
    iou: float | None


@dataclass(frozen=True)
class Explanation:
    """One method's explanation of an item."""

    method: str
    emotion: str
    """The emotion that it was given."""
    text: str
    ea_emotion: str | None
    """The emotion that the EA classifier predicts from the text."""
    named: str
    """What it names, and whether that is in the artwork; empty where that is not known."""


@dataclass(frozen=True)
class ItemCard:
    """One test item."""

    item: ApoloItem
    third: str
    tiles: list[PictureTile]
    explanations: list[Explanation]
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


class Results:
    """Scores, predictions and maps of the items, from the steps' folders."""

    def __init__(self, paths: Paths, score: dict[str, Any]) -> None:
        """Read them; `score` is metrics/score.json. Raises `UserError` for missing and damaged files."""
        self.paths, self.protocol = paths, score["protocol"]
        table = paths.step("score") / "items.parquet"
        try:
            rows = pq.read_table(check_file(table)).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{table} cannot be read ({error}); run the score step first") from None
        self.scored = {(row["method"], row["key"], row["emotion"]): row for row in rows}
        present = {method for method, _, _ in self.scored}
        self.shown = next((method for method in (*PREDICTED, TEACHER) if method in present), TEACHER)
        """The method by whose quality items are chosen."""
        self.rows: dict[tuple[str, str, str], dict[str, Any]] = {}
        folders = sorted(path.parent for path in paths.step("predict").glob("*/predictions.parquet"))
        for folder in folders:
            for name in ("predictions.parquet", "maps.tar"):
                check_sum(folder / name, "run the predict step again")
            for row in pq.read_table(folder / "predictions.parquet").to_pylist():
                self.rows.setdefault((row["method"], row["key"], row["item_emotion"]), row)
        self.maps = TarMembers((folder / "maps.tar" for folder in folders), "the predict step")
        works = pq.read_table(table_file(paths, "artworks"))
        self.files = dict(zip(works["key"].to_pylist(), works["path"].to_pylist(), strict=True))
        utterances = pq.read_table(table_file(paths, "utterances"))
        self.items = {(i.key, i.emotion): i for i in load_items(paths.apolo, utterances, works)[0]}
        self.emotions_of: dict[str, list[str]] = {}
        """Key -> emotions of its items that count, in the order of apolo.json."""
        for key, emotion in self.items:
            row = self.scored.get((self.shown, key, emotion))
            if row is not None and row["iou_seg"] is not None:
                self.emotions_of.setdefault(key, []).append(emotion)
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

    def mask_of(self, method: str, item: ApoloItem, size: Sequence[int]) -> np.ndarray | None:
        """What a method marks of an item: bool of `size`, (H, W); None without a map."""
        map_ = self.map_of(method, item)
        if map_ is None:
            return None
        return foreground(map_, size[0], size[1], self.protocol["threshold"], self.protocol["scaling"])

    def pseudo_mask(self, key: str, emotion: str) -> np.ndarray | None:
        """The pseudo-mask of any emotion of an artwork that has items, uint8 (h, w)."""
        item = self.items[key, self.emotions_of[key][0]]
        return self.teacher(dataclasses.replace(item, emotion=emotion))


def caption_of(method: str) -> str:
    """A method's name under a picture."""
    return CAPTIONS.get(method, method)


def item_cards(
    results: Results, count: int, seed: int, side: int, utterances: int
) -> tuple[list[ItemCard], list[str]]:
    """The chosen items as cards, and what could not be shown.

    Args:
        results: see `Results`.
        count, seed: which items, see `choose`.
        side: size of a picture, see `fit`.
        utterances: human explanations shown of each, at most.
    """
    cards, notes = [], []
    for place, third in choose(results.ious(), count, seed):
        item = results.items[place]
        try:
            image = fit(read_image(results.paths.wikiart / results.files[item.key]), side)
            tiles = _tiles(results, item, image, load_truth(item.map_path))
        except (BadImage, BadArray, ValueError) as error:  # ValueError: a map that score could not use either
            notes.append(f"{item.painting}, {item.emotion}: {error}")
            continue
        explanations = _explanations(results, item)
        shown, more = list(item.utterances[:utterances]), max(len(item.utterances) - utterances, 0)
        cards.append(ItemCard(item, third, tiles, explanations, shown, more))
    return cards, notes


def _tiles(results: Results, item: ApoloItem, image: np.ndarray, truth: np.ndarray) -> list[PictureTile]:
    """Painting, truth, and every method's map: lit by the map, outlined where it counts as foreground."""
    tiles = [
        PictureTile("Painting", data_uri(image), None),
        PictureTile("Truth", data_uri(lit(image, truth)), None),
    ]
    for method in (TEACHER, *PREDICTED):
        map_ = results.map_of(method, item)
        inside = results.mask_of(method, item, truth.shape)
        if map_ is None or inside is None:
            continue
        emotion = results.rows.get((method, item.key, item.emotion), {}).get("asked_emotion")
        caption = CAPTIONS.get(method, f"Single, asked for {emotion}")
        tiles.append(PictureTile(caption, data_uri(overlay(image, map_, inside)), results.iou(method, item)))
    return tiles


def _explanations(results: Results, item: ApoloItem) -> list[Explanation]:
    rows = [(method, results.rows.get((method, item.key, item.emotion))) for method in PREDICTED]
    return [
        Explanation(
            method,
            row["asked_emotion"],
            row["explanation"] or "",
            results.scored.get((method, item.key, item.emotion), {}).get("ea"),
            _named(results.scored.get((method, item.key, item.emotion), {})),
        )
        for method, row in rows
        if row is not None
    ]


def _named(scored: Mapping[str, Any]) -> str:
    """`Explanation.named` of a row of data/score/items.parquet."""
    if not scored.get("motifs"):
        return ""
    return f"names {', '.join(scored['motifs'])}, {'' if scored['motif'] else 'not '}in the artwork"
