"""What became of everything that was handed in: one row per record, file and line, and their counts."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.maps.method import ItemId, item_id
from model.score.items import ReleasedItems
from model.score.named_maps import NamedMaps
from model.score.named_texts import NamedTexts
from model.score.score_masks import MapTable
from model.score.scores import Scores
from pipeline.common.errors import UserError
from pipeline.common.files import check_writable, write_bytes
from pipeline.releases.apolo import ApoloItem

COLUMNS = (
    *("method", "status", "painting", "emotion", "split", "art_style", "map", "iou_seg", "iou_box"),
    *("iou_seg_val", "iou_box_val", "explanations", "explanation", "ea", "clipscore", "rouge_l", "detail"),
)
"""Of the csv; words and ``ea`` are of an item's first explanation."""
SCORED, MISSING, UNUSABLE = "scored", "without a map", "with an unusable map"
NO_LABEL, LEFT_OUT = "without a usable label", "left out"
NO_RECORD, EXTRA, SECOND, OTHER = "unusable record", "map of no item", "second map", "other file"
STRANGE_TEXT, BAD_LINE = "explanation of no item", "unusable line"
GIVEN_UP, GIVEN_UP_TEXT = "map of an unusable record", "explanation of an unusable record"
Row = dict[str, Any]


@dataclass(frozen=True)
class Submission:
    """What one method hands in."""

    title: str
    maps: NamedMaps | None
    texts: NamedTexts | None

    def answers(self, item: ApoloItem) -> bool:
        """Whether it has all of an item that it has of others: a map, an explanation."""
        return (self.maps is None or self.maps.has(item)) and (
            self.texts is None or bool(self.texts.of(item))
        )


def explained(entry: Submission, items: Sequence[ApoloItem]) -> dict[ItemId, list[str]]:
    """The explanations of items that have any, as many for each: those of an item with fewer, in turn."""
    found = {} if entry.texts is None else {item_id(item): entry.texts.of(item) for item in items}
    most = max(map(len, found.values()), default=0)
    return {key: [texts[d % len(texts)] for d in range(most)] for key, texts in found.items() if texts}


def find_styles(items: Sequence[ApoloItem], pictures: Mapping[str, Path]) -> dict[str, str]:
    """Art style of each key: the item's own, else the folder of its picture; keys of neither are left out."""
    styles = {item.key: item.art_style or _folder(pictures.get(item.key)) for item in items}
    return {key: style for key, style in styles.items() if style}


def _folder(picture: Path | None) -> str:
    return "" if picture is None else picture.parent.name


def make_rows(
    entries: Sequence[Submission],
    released: ReleasedItems,
    masks: MapTable,
    scores: Scores,
    styles: Mapping[str, str],
) -> tuple[list[Row], dict[str, Any]]:
    """(rows, their counts): every method with every record, and its files and lines that belong to none.

    Counts: ``records`` of apolo.json by what they are; and per method ``items`` of the split by status, with
    maps ``files`` by status of the item they are of, with explanations ``texts`` likewise.
    """
    places = {item_id(item): place for place, item in enumerate(scores.items)}
    rows: list[Row] = []
    methods = []
    for m, entry in enumerate(entries):
        own = [_scored(entry, m, i, item, masks, scores, places) for i, item in enumerate(released.items)]
        others = [item for item in released.every if item.split != released.items[0].split]
        rest = [_plain(entry, item, f"{item.split} item") for item in others]
        for row, item in zip([*own, *rest], [*released.items, *others], strict=True):
            row["art_style"] = styles.get(item.key, item.art_style)
        rejected = [_row(entry, NO_RECORD, detail=note) for note in released.notes]
        strangers = _of_no_item(entry, released)
        rows += [*own, *rest, *rejected, *strangers]
        methods.append(_count(entry, own, rest, strangers, released))
    splits = Counter(item.split for item in released.every)
    own_split = released.items[0].split
    records = {f"{split} items": splits[split] for split in sorted(splits, key=lambda s: s != own_split)}
    return rows, {"records": records | {"unusable": len(released.rejects)}, "methods": methods}


def _row(entry: Submission, status: str, **values: Any) -> Row:
    return {**dict.fromkeys(COLUMNS), "method": entry.title, "status": status, **values}


def _plain(entry: Submission, item: ApoloItem, status: str) -> Row:
    """A row of an item, without scores."""
    return _row(
        entry,
        status,
        painting=item.painting,
        emotion=item.emotion,
        split=item.split,
        map=entry.maps.file_of(item) if entry.maps else None,
        explanations=len(entry.texts.of(item)) if entry.texts else None,
    )


def _scored(
    entry: Submission,
    m: int,
    i: int,
    item: ApoloItem,
    masks: MapTable,
    scores: Scores,
    places: Mapping[ItemId, int],
) -> Row:
    """The row of an item of the split."""
    place, problem = places.get(item_id(item)), masks.problems[m][i]
    if masks.labels[i] is not None:
        return _plain(entry, item, NO_LABEL) | {"detail": f"label: {masks.labels[i]}"}
    if place is None:
        return _plain(entry, item, LEFT_OUT) | {"detail": "--allow-missing: a method does not answer it"}
    status = SCORED
    if problem is not None and problem.startswith(("missing", "unusable map")):
        status = MISSING if problem == "missing" else UNUSABLE
    row = _plain(entry, item, status) | {"detail": None if problem == "missing" else problem}
    for column in ("iou_seg", "iou_box", "iou_seg_val", "iou_box_val"):
        row[column] = _number(getattr(masks, column)[m, i])
    judged = scores.explanations.get(entry.title)
    if judged is not None:
        draw = judged.draws[0]
        row |= {"explanation": draw.texts[place], "ea": draw.emotions and draw.emotions[place]}
        row["clipscore"] = _number(draw.clipscores[place])
        row["rouge_l"] = None if draw.scores is None else _number(draw.scores.rouge_l[place])
    return row


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _of_no_item(entry: Submission, released: ReleasedItems) -> list[Row]:
    """Files and lines that are of no item, or not used."""
    rows = []
    if entry.maps is not None:
        for plain, name in entry.maps.of_no_item(released.every).items():
            rows.append(_row(entry, GIVEN_UP if plain in released.labels else EXTRA, map=name))
        rows += [_row(entry, SECOND, map=name) for name in entry.maps.duplicates]
        rows += [_row(entry, OTHER, map=name) for name in entry.maps.others]
    if entry.texts is not None:
        for plain, name in entry.texts.of_no_item(released.every).items():
            status = GIVEN_UP_TEXT if plain in released.labels else STRANGE_TEXT
            rows.append(_row(entry, status, explanations=len(entry.texts.texts[plain]), detail=name))
        rows += [_row(entry, BAD_LINE, explanations=1, detail=why) for why in entry.texts.bad]
    return rows


def _count(
    entry: Submission,
    own: Sequence[Row],
    rest: Sequence[Row],
    strangers: Sequence[Row],
    released: ReleasedItems,
) -> dict[str, Any]:
    """What became of one method's items, files and lines."""
    counts: dict[str, Any] = {"method": entry.title, "items": dict(Counter(row["status"] for row in own))}
    split = released.items[0].split
    if entry.maps is not None:
        files = Counter(f"{split} items" for row in own if row["map"] is not None)
        files += Counter(f"{row['status']}s" for row in rest if row["map"] is not None)
        files += Counter(row["status"] for row in strangers if row["map"] is not None)
        counts["files"] = dict(files)
    if entry.texts is not None:
        texts: Counter[str] = Counter()
        for row in [*own, *rest]:
            texts[f"{row['split']} items"] += row["explanations"]
        for row in strangers:
            if row["map"] is None:
                texts[row["status"]] += row["explanations"]
        counts["texts"] = {name: count for name, count in texts.items() if count}
        counts["unexplained"] = sum(row["explanations"] == 0 for row in own if row["status"] != NO_LABEL)
        most = max((row["explanations"] for row in own), default=0)
        counts["fewer"] = sum(0 < row["explanations"] < most for row in own)
    return counts


def check_target(path: Path) -> None:
    """Raise `UserError` where no csv can be written, before maps are read for minutes."""
    if path.is_dir():
        raise UserError(f"--csv {path} is a folder; name a file")
    check_writable(path.absolute().parent)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """The rows as a csv in UTF-8, written whole."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode("utf-8", "backslashreplace"))
