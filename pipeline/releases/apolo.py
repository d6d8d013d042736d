"""The APOLO release: its items (painting, emotion, references), and its index files that say the splits.

The items' masks, and where the names on disk differ from those in apolo.json: `apolo_arrays`.
Source: the APOLO release (Kim et al.) and its scripts; see `load_items` for apolo.json.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.releases.apolo_arrays import MAPS, map_path
from pipeline.releases.apolo_json import read_records
from pipeline.releases.artemis import Reject
from pipeline.releases.names import plain_name, shown, unsafe_name

INDEX = "artemis_index"
"""Folder of the index files."""
SPLITS = ("train", "val", "test")
SHOWN = 80
"""Characters of a value in a message."""
_STRICTNESS = {split: rank for rank, split in enumerate(("train", "rest", "val", "test"))}
"""An artwork that is listed under several splits gets the last of them in this order."""


@dataclass(frozen=True)
class ApoloItem:
    """One annotated mask: what in this painting evokes this emotion, and what people said of it."""

    painting: str
    """As in apolo.json: ``artist_title``, without the art style."""
    key: str
    """Of the artwork, see `schema.artwork_key`."""
    emotion: str
    """One of the eight."""
    split: str
    """APOLO's, by item: val | test."""
    artemis_ids: tuple[int, ...]
    utterances: tuple[str, ...]
    """One per id: the references of the explanation."""
    map_path: Path
    """The released mask, see `apolo_arrays.load_truth`."""
    art_style: str = ""
    """Empty where the source of the item does not say."""


def _id_list(value: Any) -> tuple[int, ...] | None:
    """ArtEmis ids as the release writes them: a list of numbers, or one number. None for anything else."""
    values = value if isinstance(value, list) else [value]
    if not values or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        return None
    if not all(abs(v) < 2**53 and float(v).is_integer() for v in values):  # False for NaN too
        return None
    return tuple(dict.fromkeys(int(v) for v in values))


def load_index(apolo: Path) -> dict[int, str] | None:
    """ArtEmis id -> train | val | test from ``artemis_index/*_index.json``, or None where there are none.

    An id under two splits gets the stricter one: test over val over train. Raises `UserError` when only some
    of the three files are there, or one is no table with a column ``artemis_id``.
    """
    paths = {split: apolo / INDEX / f"{split}_index.json" for split in SPLITS}
    absent = [path.name for path in paths.values() if not path.is_file()]
    if len(absent) == len(paths):
        return None
    if absent:
        raise UserError(
            f"{apolo / INDEX} lacks {', '.join(absent)}; put all of them there, or remove the folder"
        )
    splits: dict[int, str] = {}
    for split in SPLITS:  # in the order of strictness, so that the last one stands
        for record in read_records(paths[split]):
            ids = ids_of(record)
            if ids is None:
                raise UserError(
                    f"{paths[split]} has a record without a list of artemis_id: {shown(str(record))}"
                )
            splits.update(dict.fromkeys(ids, split))
    return splits


def strictest(splits: Iterable[str]) -> str:
    """The split for an artwork that is listed under several: test over val over rest over train."""
    return max(splits, key=_STRICTNESS.__getitem__)


class _Utterances:
    """The utterances table by ArtEmis id."""

    def __init__(self, utterances: pa.Table, artworks: pa.Table | None) -> None:
        self._row = {artemis_id: row for row, artemis_id in enumerate(utterances["artemis_id"].to_pylist())}
        self._keys = utterances["key"]
        self._emotions = utterances["emotion"]
        self._texts = utterances["utterance"]
        self.names: dict[str, str] = _by_key(artworks, "painting")
        """Key -> painting; empty when no artworks table was given."""
        self.styles: dict[str, str] = _by_key(artworks, "art_style")
        """Key -> art style, likewise."""

    def known(self, ids: Iterable[int]) -> list[int]:
        """Those of the ids that were kept."""
        return [artemis_id for artemis_id in ids if artemis_id in self._row]

    def get(self, artemis_id: int) -> tuple[str, str, str]:
        """(key, emotion, utterance) of a kept id."""
        row = self._row[artemis_id]
        return self._keys[row].as_py(), self._emotions[row].as_py(), self._texts[row].as_py()


def _by_key(artworks: pa.Table | None, column: str) -> dict[str, str]:
    if artworks is None or column not in artworks.column_names:
        return {}
    return dict(zip(artworks["key"].to_pylist(), artworks[column].to_pylist(), strict=True))


def load_items(
    apolo: Path, utterances: pa.Table, artworks: pa.Table | None = None
) -> tuple[list[ApoloItem], list[Reject]]:
    """The items of ``apolo.json`` in its order, and those given up.

    `utterances` and `artworks` are the tables of `schema.UTTERANCES` and `schema.ARTWORKS`; with the second,
    an item whose ids belong to another painting is found (a csv of another version, or shifted rows).
    A record has ``painting``, ``artemis_id`` (list of csv rows) and ``split``; its emotion is that of its
    rows, or its own ``emotion`` when it has one (as the release's reconstruction script adds).
    Reject reasons: malformed-record, unsafe-name, unknown-split, no-utterance, other-painting,
    mixed-emotions, unknown-emotion, missing-map, duplicate. Raises `UserError` when the file is missing or
    no list.
    """
    path = apolo / "apolo.json"
    table = _Utterances(utterances, artworks)
    items: list[ApoloItem] = []
    rejects: list[Reject] = []
    seen: set[tuple[str, str]] = set()
    for number, record in enumerate(read_records(path)):
        found = _item(record, apolo, table)
        if isinstance(found, ApoloItem) and (found.key, found.emotion) in seen:
            found = ("duplicate", f"{found.painting}, {found.emotion}")
        if isinstance(found, ApoloItem):
            seen.add((found.key, found.emotion))
            items.append(found)
        else:
            rejects.append(Reject(path.name, -1, found[0], f"record {number}: {found[1]}"))
    return items, rejects


def ids_of(record: Any) -> tuple[int, ...] | None:
    """A record's ArtEmis ids, or None where it has none that can be read."""
    return _id_list(record.get("artemis_id")) if isinstance(record, dict) else None


def _item(record: Any, apolo: Path, table: _Utterances) -> ApoloItem | tuple[str, str]:
    """One record as an item, or (reason, detail)."""
    painting = record.get("painting") if isinstance(record, dict) else None
    ids = ids_of(record)
    if not isinstance(painting, str) or ids is None:
        return "malformed-record", f"needs painting and artemis_id, has {shown(str(record))}"
    known = table.known(ids)
    problem = next(_item_problems(record, painting, ids, known, table), None)
    if problem is not None:
        return problem
    rows = [table.get(artemis_id) for artemis_id in known]
    key, emotion, _ = rows[0]
    file = map_path(apolo, painting, emotion)
    if file is None:
        return "missing-map", f"no {painting}_{emotion}.npy in {apolo / MAPS}"
    texts = tuple(row[2] for row in rows)
    style = table.styles.get(key, "")
    return ApoloItem(painting, key, emotion, record["split"], tuple(known), texts, file, style)


def _item_problems(
    record: dict[str, Any], painting: str, ids: tuple[int, ...], known: list[int], table: _Utterances
) -> Iterator[tuple[str, str]]:
    """What is wrong with a record whose fields have the right types."""
    if (why := unsafe_name(painting)) is not None:
        yield "unsafe-name", f"{shown(painting)} {why}"
    if record.get("split") not in ("val", "test"):
        yield (
            "unknown-split",
            f"{shown(painting)}: split {_shown(record.get('split'))} is neither val nor test",
        )
    if not known:
        yield "no-utterance", f"{shown(painting)}: none of its ids {_shown(ids)} was kept of the csv"
    rows = [table.get(artemis_id) for artemis_id in known]
    keys = {row[0] for row in rows}
    names = {table.names[key] for key in keys if key in table.names}
    if len(keys) > 1 or any(plain_name(name) != plain_name(painting) for name in names):
        detail = f"{shown(painting)}: the ids {_shown(known)} belong to {_joined(names or keys)}"
        yield "other-painting", f"{detail}; are the csv and APOLO of one version?"
    emotions = {row[1] for row in rows} | ({str(record["emotion"])} if record.get("emotion") else set())
    if len(emotions) > 1:
        yield "mixed-emotions", f"{shown(painting)}: {_joined(emotions)}"
    if not emotions <= set(EMOTIONS):
        yield "unknown-emotion", f"{shown(painting)}: {_joined(emotions)} has no mask"


def _shown(value: Any) -> str:
    """A value of any kind for a message, not too long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _joined(names: Iterable[str]) -> str:
    """Names for a message, not too many."""
    text = ", ".join(sorted(names))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
