"""The APOLO release: its items, truth masks, splits and VinVL boxes, with the quirks of its names.

All of the release's naming habits are handled here and nowhere else: dots kept in file names, ``.`` written
as ``#`` in some, mojibake such as "eugã¨ne" beside "eugène" and "eugene". Nothing is unpickled.
Source: the APOLO release (Kim et al.) and its scripts; see `load_items` for apolo.json.
"""

import functools
import json
import os
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import artemis, schema
from pipeline.artemis import Reject, Row, shown
from pipeline.artworks import MOJIBAKE, mend_mojibake, plain_name, unaccented, unsafe_name
from pipeline.emotions import EMOTIONS
from pipeline.params import UserError

__all__ = [
    "BOXES",
    "INDEX",
    "MAPS",
    "SPLITS",
    "ApoloItem",
    "BadArray",
    "are_normalised",
    "boxes_path",
    "load_boxes",
    "load_index",
    "load_items",
    "load_items_of_csv",
    "load_truth",
    "map_path",
    "mend_mojibake",
    "plain_name",
    "read_records",
    "strictest",
    "without_mojibake",
]

MAPS = "apolo_pixel_map"
BOXES = "arts_features_vinvl_bbox_col"
INDEX = "artemis_index"
SPLITS = ("train", "val", "test")
ANY_LENGTH = 1_000_000
"""Characters of an utterance that is only looked up."""
_STRICTNESS = {split: rank for rank, split in enumerate(SPLITS)}
"""An artwork that is listed under several splits gets the last of them in this order."""


class BadArray(Exception):  # noqa: N818 - named for what it says, as `artworks.BadImage`
    """A released ``.npy`` file that cannot be used.

    Reasons: missing, pickled, not-npy, wrong-shape, wrong-values.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


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
    """The released mask, see `load_truth`."""


# ---- names -------------------------------------------------------------------------------------------


def without_mojibake(name: str) -> str:
    """As `mend_mojibake`, with the plain letter: "eugã¨ne" -> "eugene", the release's habit for box files."""
    return MOJIBAKE.sub(lambda pair: unaccented(mend_mojibake(pair[0])), name)


def _spellings(name: str) -> Iterator[str]:
    """File-name forms under which the release may hold a painting, the most likely first."""
    mended = mend_mojibake(name)
    forms = [name, without_mojibake(name), mended, plain_name(name)]
    forms += [unicodedata.normalize(form, text) for text in (name, mended) for form in ("NFC", "NFD")]
    forms += [form.replace(".", "#") for form in forms] + [form.replace("#", ".") for form in forms]
    yield from dict.fromkeys(forms)


def _find(folder: Path, painting: str, suffix: str) -> Path | None:
    """The file ``PAINTING + suffix`` in any spelling, or None."""
    if unsafe_name(painting) is not None:
        return None
    candidates = (folder / f"{form}{suffix}" for form in _spellings(painting))
    exact = next((path for path in candidates if os.path.isfile(path)), None)  # noqa: PTH113 - never raises
    if exact is not None or not folder.is_dir():
        return exact
    near = _plain_files(folder, folder.stat().st_mtime_ns).get(plain_name(painting + suffix), [])
    return folder / near[0] if len(near) == 1 else None


@functools.lru_cache(maxsize=4)
def _plain_files(folder: Path, _modified: int) -> dict[str, list[str]]:
    """Plain name -> files of a folder: finds the garbled file of a painting whose own name is sound."""
    files: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        files.setdefault(plain_name(path.name), []).append(path.name)
    return files


def map_path(apolo: Path, painting: str, emotion: str) -> Path | None:
    """The released mask of a painting and an emotion, or None."""
    return _find(apolo / MAPS, painting, f"_{emotion}.npy")


def boxes_path(apolo: Path, painting: str) -> Path | None:
    """The released VinVL boxes of a painting, or None."""
    return _find(apolo / BOXES, painting, ".npy")


# ---- arrays ------------------------------------------------------------------------------------------


def _load_array(path: Path) -> np.ndarray:
    """A ``.npy`` file, without running anything that it holds."""
    try:
        # mapped first: the header's size is checked against the file before any memory is asked for
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise BadArray("missing", f"{path} does not exist") from None
    except (ValueError, TypeError, OverflowError, OSError, EOFError, zipfile.BadZipFile) as error:
        # numpy has no class for it, and takes whatever it does not know for a pickle
        objects = "Python objects" in str(error) or "allow_pickle" in str(error)
        if objects and _starts_as_object(path):
            raise BadArray(
                "pickled",
                f"{path} is pickled, and unpickling runs code from the file; if you trust it, convert it "
                "once: np.save(path, np.load(path, allow_pickle=True).astype('float32'))",
            ) from None
        raise BadArray("not-npy", f"{path}: {error}") from None
    if not isinstance(mapped, np.ndarray):
        mapped.close()
        raise BadArray("not-npy", f"{path} is an archive of arrays, not one")
    if mapped.dtype.kind not in "biuf":
        raise BadArray("wrong-values", f"{path} holds {mapped.dtype}, not numbers")
    return np.array(mapped)


def _starts_as_object(path: Path) -> bool:
    """Whether a file begins like an array or a pickle, and not like anything else."""
    with path.open("rb") as file:
        return file.read(1) in (b"\x93", b"\x80")


def load_truth(item: ApoloItem) -> np.ndarray:
    """An item's truth mask, bool (H, W), at the resolution of its file (usually the picture's).

    Every value above zero is inside. Raises `BadArray`: missing, pickled, not-npy, wrong-shape, wrong-values.
    """
    array = _load_array(item.map_path)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 or 0 in array.shape:
        raise BadArray("wrong-shape", f"{item.map_path} has shape {array.shape}, expected (H, W)")
    if not np.isfinite(array).all():
        raise BadArray("wrong-values", f"{item.map_path} holds NaN or infinite values")
    truth: np.ndarray = array > 0
    return truth


def load_boxes(path: Path) -> np.ndarray:
    """Released VinVL boxes as float32 (N, 4): x1 y1 x2 y2, normalised to [0, 1].

    Every row of the file, in its order, broken ones too: what reaches outside, is empty or not finite is
    the reader's to sort out and count. Further columns are ignored.
    Raises `BadArray`: missing, pickled, not-npy, wrong-shape, wrong-values (most boxes in pixels).
    """
    array = _load_array(path)
    if array.size == 0:
        return np.zeros((0, 4), np.float32)
    if array.ndim != 2 or array.shape[1] < 4:
        raise BadArray("wrong-shape", f"{path} has shape {array.shape}, expected (N, 4) or wider")
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, which is broken too
        boxes: np.ndarray = array[:, :4].astype(np.float32)
    if not are_normalised(boxes):
        raise BadArray("wrong-values", f"{path} holds pixels, {boxes[0]} ...; it must hold shares in [0, 1]")
    return boxes


def are_normalised(boxes: np.ndarray) -> bool:
    """Whether boxes (N, 4) are shares of the picture's sides: few reach far beyond 1."""
    finite = boxes[np.isfinite(boxes).all(axis=1)]
    return not len(finite) or float(np.median(finite.max(axis=1))) <= 1.5


# ---- items and splits --------------------------------------------------------------------------------


def _read_json(path: Path) -> Any:
    """A JSON file; `UserError` when it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; set paths.apolo to the folder of the APOLO release"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None


def _id_list(value: Any) -> tuple[int, ...] | None:
    """ArtEmis ids as the release writes them: a list of numbers, or one number. None for anything else."""
    values = value if isinstance(value, list) else [value]
    if not values or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        return None
    if not all(float(v).is_integer() and abs(v) < 2**53 for v in values):
        return None
    return tuple(dict.fromkeys(int(v) for v in values))


def _records(value: Any, path: Path) -> list[Any]:
    """A table in JSON as a list of records: pandas' orients "records", "columns", "index" and "split"."""
    if isinstance(value, list):
        return value
    if isinstance(value, dict):
        if {"columns", "data"} <= value.keys():
            return [dict(zip(value["columns"], row, strict=False)) for row in value["data"]]
        columns = {name: column for name, column in value.items() if isinstance(column, dict)}
        if "artemis_id" in columns:
            rows = list(columns["artemis_id"])
            return [{name: column.get(row) for name, column in columns.items()} for row in rows]
        if len(columns) == len(value):
            return list(columns.values())
    raise UserError(f"{path} is no table of records: expected a JSON list of objects, or what pandas writes")


def read_records(path: Path) -> list[Any]:
    """The records of one of the release's JSON tables, as they are. Raises `UserError` when it is none."""
    return _records(_read_json(path), path)


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
            ids = _ids_of(record)
            if ids is None:
                raise UserError(
                    f"{paths[split]} has a record without a list of artemis_id: {shown(str(record))}"
                )
            splits.update(dict.fromkeys(ids, split))
    return splits


def strictest(splits: Iterable[str]) -> str:
    """The split for an artwork that is listed under several: test over val over train."""
    return max(splits, key=_STRICTNESS.__getitem__)


class _Utterances:
    """The utterances table by ArtEmis id."""

    def __init__(self, utterances: pa.Table, artworks: pa.Table | None) -> None:
        self._row = {artemis_id: row for row, artemis_id in enumerate(utterances["artemis_id"].to_pylist())}
        self._keys = utterances["key"]
        self._emotions = utterances["emotion"]
        self._texts = utterances["utterance"]
        names = (
            []
            if artworks is None
            else zip(*(artworks[c].to_pylist() for c in ("key", "painting")), strict=True)
        )
        self.names: dict[str, str] = dict(names)
        """Key -> painting; empty when no artworks table was given."""

    def known(self, ids: Iterable[int]) -> list[int]:
        """Those of the ids that were kept."""
        return [artemis_id for artemis_id in ids if artemis_id in self._row]

    def get(self, artemis_id: int) -> tuple[str, str, str]:
        """(key, emotion, utterance) of a kept id."""
        row = self._row[artemis_id]
        return self._keys[row].as_py(), self._emotions[row].as_py(), self._texts[row].as_py()


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


def load_items_of_csv(apolo: Path, csv: Path) -> tuple[list[ApoloItem], list[Reject]]:
    """`load_items` by the ArtEmis csv alone, without any picture: for those who only score.

    Raises `UserError` as `load_items` and `artemis.read` do.
    """
    ids = {number for record in read_records(apolo / "apolo.json") for number in _ids_of(record) or ()}
    rows = [row for row in artemis.read(csv, ANY_LENGTH) if isinstance(row, Row) and row.artemis_id in ids]
    keys = [schema.artwork_key(row.art_style, row.painting) for row in rows]
    utterances = pa.table(
        {
            "key": pa.array(keys, pa.string()),
            "artemis_id": pa.array([row.artemis_id for row in rows], pa.int64()),
            "emotion": pa.array([row.emotion for row in rows], pa.string()),
            "utterance": pa.array([row.utterance for row in rows], pa.string()),
        }
    )
    artworks = pa.table(
        {"key": utterances["key"], "painting": pa.array([row.painting for row in rows], pa.string())}
    )
    return load_items(apolo, utterances, artworks)


def _ids_of(record: Any) -> tuple[int, ...] | None:
    """A record's ArtEmis ids, or None where it has none that can be read."""
    return _id_list(record.get("artemis_id")) if isinstance(record, dict) else None


def _item(record: Any, apolo: Path, table: _Utterances) -> ApoloItem | tuple[str, str]:
    """One record as an item, or (reason, detail)."""
    painting = record.get("painting") if isinstance(record, dict) else None
    ids = _ids_of(record)
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
    return ApoloItem(painting, key, emotion, record["split"], tuple(known), texts, file)


def _item_problems(
    record: dict[str, Any], painting: str, ids: tuple[int, ...], known: list[int], table: _Utterances
) -> Iterator[tuple[str, str]]:
    """What is wrong with a record whose fields have the right types."""
    if (why := unsafe_name(painting)) is not None:
        yield "unsafe-name", f"{shown(painting)} {why}"
    if record.get("split") not in ("val", "test"):
        yield "unknown-split", f"{shown(painting)}: split {record.get('split')!r} is neither val nor test"
    if not known:
        yield "no-utterance", f"{shown(painting)}: none of its ids {ids} was kept of the csv"
    rows = [table.get(artemis_id) for artemis_id in known]
    keys = {row[0] for row in rows}
    names = {table.names[key] for key in keys if key in table.names}
    if len(keys) > 1 or any(plain_name(name) != plain_name(painting) for name in names):
        detail = f"{shown(painting)}: the ids {known} belong to {', '.join(sorted(names or keys))}"
        yield "other-painting", f"{detail}; are the csv and APOLO of one version?"
    emotions = {row[1] for row in rows} | ({str(record["emotion"])} if record.get("emotion") else set())
    if len(emotions) > 1:
        yield "mixed-emotions", f"{shown(painting)}: {', '.join(sorted(emotions))}"
    if not emotions <= set(EMOTIONS):
        yield "unknown-emotion", f"{shown(painting)}: {', '.join(sorted(emotions))} has no mask"
