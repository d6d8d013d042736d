"""APOLO's items by the release alone, for those who score maps and have no ArtEmis csv.

apolo.json as released names a painting, rows of the csv, and a split: the emotion stands in the name of the
pixel map, the utterances nowhere. The release's own ``reconstruct_apolo.py`` adds both to it, from the csv.
Source: the APOLO release and its scripts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common import schema
from pipeline.common.emotions import EMOTIONS
from pipeline.releases.apolo import ApoloItem, ids_of
from pipeline.releases.apolo_arrays import MAPS, map_path
from pipeline.releases.apolo_json import read_records
from pipeline.releases.artemis import Reject
from pipeline.releases.names import plain_name, shown, unsafe_name

WAY_OUT = "give the ArtEmis csv (--artemis), or run the release's reconstruct_apolo.py once"


@dataclass(frozen=True)
class _Record:
    """A record whose fields have the right types and values."""

    number: int
    painting: str
    split: str
    ids: tuple[int, ...]
    emotion: str | None
    utterances: tuple[str, ...]
    art_style: str


Found = ApoloItem | tuple[str, str]
"""An item, or (reason, detail)."""


def load_items_alone(apolo: Path) -> tuple[list[ApoloItem], list[Reject]]:
    """The items of ``apolo.json`` in its order, and the records given up.

    A record without an ``emotion`` takes that of its painting's pixel maps. Records of one painting are told
    apart by nothing else, so that the maps of a painting whose records are of both splits, or are fewer than
    its maps, belong to none: ambiguous-emotion. Where several records share a split, which csv rows belong to
    which map is not known, and ``artemis_ids`` is empty.
    Other reject reasons: malformed-record, unsafe-name, unknown-split, unknown-emotion, missing-map,
    duplicate. Raises `UserError` when the file is missing or no list.
    """
    records = read_records(apolo / "apolo.json")
    found: dict[int, Found] = {}
    named: dict[str, list[_Record]] = {}
    for number, value in enumerate(records):
        record = _record(number, value)
        if isinstance(record, _Record):
            named.setdefault(plain_name(record.painting), []).append(record)
        else:
            found[number] = record
    for group in named.values():
        found |= _items_of_painting(apolo, group)
    items: dict[tuple[str, str], ApoloItem] = {}
    rejects: list[Reject] = []
    for number in range(len(records)):
        one = found[number]
        if (
            isinstance(one, ApoloItem)
            and items.setdefault((plain_name(one.painting), one.emotion), one) is one
        ):
            continue
        why = ("duplicate", f"{one.painting}, {one.emotion}") if isinstance(one, ApoloItem) else one
        rejects.append(Reject("apolo.json", -1, why[0], f"record {number}: {why[1]}"))
    return list(items.values()), rejects


def _record(number: int, value: Any) -> _Record | tuple[str, str]:
    """A record of apolo.json, or (reason, detail)."""
    painting = value.get("painting") if isinstance(value, dict) else None
    if not isinstance(painting, str):
        return "malformed-record", f"needs a painting, has {shown(str(value))}"
    if (why := unsafe_name(painting)) is not None:
        return "unsafe-name", f"{shown(painting)} {why}"
    if value.get("split") not in ("val", "test"):
        return "unknown-split", f"{shown(painting)}: split {shown(str(value.get('split')))}"
    emotion, texts, style = (value.get(name) for name in ("emotion", "utterances", "art_style"))
    if emotion is not None and emotion not in EMOTIONS:
        return "unknown-emotion", f"{shown(painting)}: {shown(str(emotion))} has no mask"
    spoken = tuple(text for text in texts if isinstance(text, str)) if isinstance(texts, list) else ()
    utterances = tuple(text for text in (" ".join(text.split()) for text in spoken) if text)
    style = style if isinstance(style, str) and unsafe_name(style) is None else ""
    return _Record(number, painting, value["split"], ids_of(value) or (), emotion, utterances, style)


def _items_of_painting(apolo: Path, group: list[_Record]) -> dict[int, Found]:
    """The records of one painting as items, by number, or why they are none."""
    found: dict[int, Found] = {}
    for record in group:
        if record.emotion is not None:
            found[record.number] = _item(apolo, record, record.emotion, record.ids)
    silent = [record for record in group if record.emotion is None]
    if not silent:
        return found
    claimed = {record.emotion for record in group}
    painting = silent[0].painting
    maps = [one for one in EMOTIONS if one not in claimed and map_path(apolo, painting, one) is not None]
    splits = sorted({record.split for record in silent})
    if maps and (len(splits) > 1 or len(maps) > len(silent)):
        detail = (
            f"{shown(painting)}: {_joined(record.split for record in silent)} have no emotion, and the maps "
            f"are of {_joined(maps)}; which is which, only ArtEmis says: {WAY_OUT}"
        )
        return found | dict.fromkeys((record.number for record in silent), ("ambiguous-emotion", detail))
    for place, record in enumerate(silent):
        if place < len(maps):
            ids = record.ids if len(silent) == 1 else ()
            found[record.number] = _item(apolo, record, maps[place], ids)
        else:
            found[record.number] = ("missing-map", f"no map of {shown(painting)} is left in {apolo / MAPS}")
    return found


def _item(apolo: Path, record: _Record, emotion: str, ids: tuple[int, ...]) -> Found:
    file = map_path(apolo, record.painting, emotion)
    if file is None:
        return "missing-map", f"no {record.painting}_{emotion}.npy in {apolo / MAPS}"
    key = schema.artwork_key(record.art_style, record.painting)
    return ApoloItem(
        record.painting, key, emotion, record.split, ids, record.utterances, file, record.art_style
    )


def _joined(names: Iterable[str]) -> str:
    return ", ".join(names)
