"""Anyone's maps by the APOLO protocol: ``PAINTING_EMOTION.npy|png`` in a folder, or WESD's test_result.json.

How every other method gets its row. Nothing is silently scored: an item without a map, a file of no item, a
second map of one item and a map that cannot be used are listed by name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model.maps.map_files import decode_npy, decode_png
from model.maps.method import Method
from model.metrics.segmentation import scaled
from model.score.items import item_name, read_released_items
from model.score.params import ScoreParams
from model.score.score_masks import MapTable, score_masks, sweep_masks
from model.score.wesd_results import as_logits, emotion_map, read_results
from pipeline.common.arrays import read_file
from pipeline.common.errors import UserError
from pipeline.common.fingerprint import as_json
from pipeline.common.params import Paths
from pipeline.releases.apolo import ApoloItem
from pipeline.releases.names import plain_name
from pipeline.releases.source import PLAIN, Source

SUFFIXES = {".npy": decode_npy, ".png": decode_png}
NAMED = 20
"""Names shown to people at most; JSON holds all."""
COLUMNS = ("seg_pr25", "seg_pr50", "box_pr25", "box_pr50")


@dataclass
class NamedMaps:
    """Maps by the name of their item, found under any spelling of it."""

    title: str
    """Of the method: the folder's or file's name."""
    readers: dict[str, tuple[str, Callable[[str], np.ndarray]]] = field(default_factory=dict)
    """Plain name of an item -> (name of its map, reader of the map for an emotion)."""
    duplicates: list[str] = field(default_factory=list)
    """Maps whose item has another map before them; not scored."""

    def add(self, name: str, shown: str, read: Callable[[str], np.ndarray]) -> None:
        """Take in the map of ``PAINTING_EMOTION``; `shown` is what its file or record is called."""
        first = self.readers.setdefault(plain_name(name), (shown, read))
        if first[1] is not read:
            self.duplicates.append(shown)

    def of_no_item(self, items: Iterable[ApoloItem]) -> list[str]:
        """Maps that belong to none of the items."""
        wanted = {plain_name(item_name(item)) for item in items}
        return [shown for name, (shown, _) in self.readers.items() if name not in wanted]

    def has(self, item: ApoloItem) -> bool:
        """Whether there is a map of the item."""
        return plain_name(item_name(item)) in self.readers

    def read(self, item: ApoloItem) -> np.ndarray | None:
        """An item's map, or None where there is none. Raises `ValueError` for one that cannot be used."""
        found = self.readers.get(plain_name(item_name(item)))
        return None if found is None else found[1](item.emotion)


def open_maps(path: Path) -> NamedMaps:
    """A folder of maps, or WESD's results in a ``.json`` file. Raises `UserError` when it is neither."""
    if path.suffix.lower() == ".json" and not path.is_dir():
        return _open_results(path)
    if not path.is_dir():
        raise UserError(
            f"{path} is no folder of maps PAINTING_EMOTION.npy or .png, nor WESD's test_result.json"
        )
    maps = NamedMaps(path.resolve().name)
    for file in sorted(path.iterdir()):
        decode = SUFFIXES.get(file.suffix.lower())
        if decode is not None:
            maps.add(file.stem, file.name, _file_reader(file, decode))
    if not maps.readers:
        raise UserError(f"{path} holds no map: expected files PAINTING_EMOTION.npy or .png")
    return maps


def _file_reader(file: Path, decode: Callable[[bytes], np.ndarray]) -> Callable[[str], np.ndarray]:
    def read(_emotion: str) -> np.ndarray:
        return decode(read_file(file))

    return read


def _open_results(path: Path) -> NamedMaps:
    maps = NamedMaps(path.stem)
    for name, matrix in read_results(path):
        maps.add(name, name, _result_reader(matrix))
    if not maps.readers:
        raise UserError(f"{path} holds no record; expected WESD's test_result.json")
    return maps


def _result_reader(matrix: Any) -> Callable[[str], np.ndarray]:
    """Holds the record as an array, a tenth of its size as lists, or what is wrong with it."""
    try:
        logits = as_logits(matrix)
    except ValueError as error:
        return _refusal(str(error))
    return lambda emotion: emotion_map(logits, emotion)


def _refusal(why: str) -> Callable[[str], np.ndarray]:
    def read(_emotion: str) -> np.ndarray:
        raise ValueError(why)

    return read


# ---- scoring ---------------------------------------------------------------------------------------


def score_external_maps(
    maps: Path,
    apolo: Path,
    split: str,
    paths: Paths,
    params: ScoreParams,
    allow_missing: bool = False,
    source: Source = PLAIN,
) -> dict[str, Any]:
    """Score anyone's maps (any size, any range) by the APOLO protocol.

    Beside the fixed threshold, the row has scores at the one that suits the val items best, where the maps
    hold val items; ``val_items`` says how many.

    Args:
        maps: folder, or WESD's test_result.json; see `open_maps`.
        apolo: the APOLO release.
        split: APOLO's, val or test.
        paths: where the ArtEmis csv lies, or the tables of the utterances step.
        params: the protocol.
        allow_missing: leave items without a map out of the denominator; the row is marked by ``left_out``.
        source: how that csv is read.

    Returns:
        The row and, by name, items without a map ("missing", IoU 0 or left out), maps of no item ("extra"),
        second maps of an item ("duplicates"), maps that look transposed but are scored ("flagged"), and what
        could not be used ("problems").

    Raises:
        UserError: the maps, the items or the release cannot be read, or no map is named after an item.
    """
    named = open_maps(maps)
    items, every, notes = read_released_items(apolo, split, paths, source)
    _require_one(named, items, maps, split)
    flagged: dict[str, str] = {}
    broken: dict[str, str] = {}
    method = Method(named.title, _reader(named, params, flagged, broken))
    val = [item for item in every if item.split == "val" and named.has(item)]
    sweep = sweep_masks(val, [method], params)[0]
    chosen = None if sweep is None else sweep.best(params.threshold)
    table = score_masks(items, [method], params, [chosen], missing=np.nan if allow_missing else 0.0)
    names = [item_name(item) for item in items]
    missing = [name for name, why in zip(names, table.problems[0], strict=True) if why == "missing"]
    row: dict[str, Any] = {"method": method.name, **table.rates(0), "missing": len(missing)}
    if sweep is not None:
        row["val_items"] = len(sweep.ious)
    if allow_missing:
        row["left_out"] = len(missing)
    return {
        "data": f"{apolo}, {split}",
        "items": {"apolo": len(items), "counted": int(table.counted.sum()), "rejected": len(notes)},
        "rows": [row],
        "protocol": {k: v for k, v in as_json(params).items() if k not in ("clip", "split")},
        "missing": missing,
        "extra": named.of_no_item(every),
        "duplicates": named.duplicates,
        "flagged": [f"{name}: {flagged[name]}" for name in names if name in flagged],
        "problems": notes + _unusable(names, table) + _unusable_val(broken, names),
    }


def _require_one(named: NamedMaps, items: Sequence[ApoloItem], maps: Path, split: str) -> None:
    """Raise `UserError` where no map is of any item."""
    if not any(named.has(item) for item in items):
        wrong = next(iter(named.readers.values()))[0]
        raise UserError(
            f"none of the {len(named.readers)} maps in {maps} is named after one of the {len(items)} {split} "
            f"items: expected names like {item_name(items[0])}, found {wrong}"
        )


def _reader(
    named: NamedMaps, params: ScoreParams, flagged: dict[str, str], broken: dict[str, str]
) -> Callable[[ApoloItem, int, int], np.ndarray | None]:
    """As `method.scaled_maps`; notes in `flagged` the maps whose shape is the label's, transposed, and in
    `broken` those that cannot be used."""

    def read(item: ApoloItem, height: int, width: int) -> np.ndarray | None:
        try:
            return usable(item, height, width)
        except ValueError as error:
            broken[item_name(item)] = str(error)
            raise

    def usable(item: ApoloItem, height: int, width: int) -> np.ndarray | None:
        map_ = named.read(item)
        if map_ is None:
            return None
        if height != width and map_.shape == (width, height):
            flagged[item_name(item)] = (
                f"the map has shape {map_.shape} and the label {(height, width)}: transposed? "
                "It was scored as it is, resized"
            )
        return scaled(map_, height, width, params.scaling)

    return read


def _unusable_val(broken: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """Maps that did not count for the threshold; `names` are the items whose maps `_unusable` lists."""
    return [f"{name} (val): unusable map: {broken[name]}" for name in sorted(broken.keys() - set(names))]


def _unusable(names: Sequence[str], table: MapTable) -> list[str]:
    labels = [
        f"{name}: label: {why}" for name, why in zip(names, table.labels, strict=True) if why is not None
    ]
    maps = [
        f"{name}: {why}"
        for name, why in zip(names, table.problems[0], strict=True)
        if why is not None and why != "missing"
    ]
    return labels + maps


# ---- for people ------------------------------------------------------------------------------------


def scores_text(found: Mapping[str, Any]) -> str:
    """What `score_external_maps` found, for people."""
    row, items, protocol = found["rows"][0], found["items"], found["protocol"]
    lines = [
        f"{found['data']}: {items['apolo']} items, {items['counted']} with a usable label",
        f"{'threshold':>28}  {'items':>6}  " + "  ".join(f"{column:>8}" for column in COLUMNS),
        _rates(f"{protocol['threshold']:g} (fixed)", row, ""),
    ]
    if "threshold_val" in row:
        lines.append(_rates(f"{row['threshold_val']:g} (best on {row['val_items']} val items)", row, "_val"))
    if row.get("left_out"):
        lines.append(
            f"NOT COMPARABLE with published rows: {row['left_out']} items without a map are left out, as "
            "--allow-missing asks"
        )
    counted = "left out" if "left_out" in row else "IoU 0"
    for key, meaning in (
        ("missing", f"items without a map ({counted})"),
        ("extra", "maps of no APOLO item (not scored)"),
        ("duplicates", "second maps of an item (not scored; the first by name was)"),
    ):
        if found[key]:
            rest = f" and {len(found[key]) - NAMED} more" if len(found[key]) > NAMED else ""
            lines.append(f"{len(found[key])} {meaning}: {', '.join(found[key][:NAMED])}{rest}")
    for line in (*found["flagged"], *found["problems"]):
        lines.append(f"- {line}")
    return "\n".join(lines)


def _rates(title: str, row: Mapping[str, Any], suffix: str) -> str:
    cells = (row.get(f"{column}{suffix}") for column in COLUMNS)
    numbers = "  ".join(f"{'-' if value is None else format(value, '.2f'):>8}" for value in cells)
    return f"{title:>28}  {row['items']:>6}  {numbers}"
