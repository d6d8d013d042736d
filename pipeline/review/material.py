"""What a reviewer sees of a mask: picture, mask, regions, utterances, truth and predictions."""

import functools
import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.common.arrays import NoArray, parse_npy
from pipeline.common.digests import check_file
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.common.schema import map_name, shard_stem
from pipeline.common.tables import table_file, whole_shard_file
from pipeline.common.tars import TarMembers
from pipeline.reader.index import Index
from pipeline.releases.apolo import load_items
from pipeline.releases.apolo_arrays import BadArray, load_truth
from pipeline.releases.wikiart import BadImage, read_image

LONG_SIDE = 1280
"""Of a picture as it is shown, pixels."""
REGIONS = 6
"""Shown, the most similar ones."""


class Material:
    """Reads from the folders of a run; what a step has not made is not shown. Threads may share it."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.index = Index.load(paths.step("shards"))
        self._made = self._stamp()
        self._lock = threading.Lock()
        self._digest: dict[tuple[str, str], str] = {}
        works = pq.read_table(table_file(paths, "artworks"), columns=["key", "path", "shard"])
        keys, files, shards = (works[name].to_pylist() for name in ("key", "path", "shard"))
        self._works = dict(zip(keys, zip(files, shards, strict=True), strict=True))
        self._tables = functools.lru_cache(maxsize=32)(self._rows_by_key)

    def is_current(self) -> bool:
        """Whether the shards are those that were there in the beginning."""
        return self._stamp() == self._made

    def _stamp(self) -> tuple[int, int]:
        try:
            status = (self.paths.step("shards") / "index.parquet").stat()
        except OSError:
            return 0, 0
        return status.st_mtime_ns, status.st_size

    def mask(self, key: str, emotion: str) -> bytes:
        """A mask's PNG, its bytes checked against the index. Raises `UserError`."""
        self.index.check(key)
        return self.index.read(key, f"{emotion}.png")

    def digest(self, key: str, emotion: str) -> str:
        """SHA-256 of a mask's PNG."""
        if (key, emotion) not in self._digest:
            self._digest[key, emotion] = hashlib.sha256(self.mask(key, emotion)).hexdigest()
        return self._digest[key, emotion]

    def mask_size(self, key: str, emotion: str) -> tuple[int, int]:
        """(height, width) of a stored mask. Raises `UserError`."""
        return _decoded(self.mask(key, emotion), key).shape

    def card(self, key: str) -> dict[str, Any]:
        """KEY.json of the masks."""
        card: dict[str, Any] = json.loads(self.index.read(key, "masks/json"))
        return card

    def pictures(self) -> dict[str, str]:
        """Path of a picture, relative to paths.wikiart -> key."""
        return {path: key for key, (path, _) in self._works.items() if key in self.index}

    def picture(self, key: str, long_side: int = LONG_SIDE) -> bytes:
        """The picture as JPEG, its long side at most `long_side`. Raises `UserError`."""
        try:
            image = read_image(self.paths.wikiart / self._works[key][0])
        except BadImage as error:
            raise UserError(f"the picture of {key} cannot be shown: {error}") from None
        height, width = image.shape[:2]
        scale = min(1.0, long_side / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        data: bytes = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
        return data

    def describe(self, key: str, emotion: str) -> dict[str, Any]:
        """All but the pictures. Raises `UserError`."""
        card = self.card(key)
        entry = card["emotions"][emotion]
        tall, wide = self.mask_size(key, emotion)
        return {
            "key": key,
            "emotion": emotion,
            "painting": card["painting"],
            "width": card["width"],
            "height": card["height"],
            "mask": self.digest(key, emotion),
            "mask_height": tall,
            "mask_width": wide,
            "utterances": entry["utterances"],
            "review": entry.get("review"),
            "regions": self._regions(key, emotion),
            "truth": emotion in self._truths().get(key, {}),
            "predictions": [
                {"method": row["method"], "text": row["explanation"] or ""}
                for row in self._predicted(key, emotion)
            ],
            "sam": "features/sam.npy" in self.index.members(key),
        }

    def truth(self, key: str, emotion: str) -> bytes | None:
        """APOLO's mask as PNG, or None."""
        path = self._truths().get(key, {}).get(emotion)
        if path is None:
            return None
        try:
            return _png(load_truth(path).astype(np.uint8) * 255)
        except BadArray:
            return None

    def prediction(self, key: str, emotion: str, number: int) -> bytes | None:
        """A predicted map, scaled by its extremes, as PNG; or None."""
        rows = self._predicted(key, emotion)
        if not 0 <= number < len(rows):
            return None
        data = self._maps().read(f"{key}.{map_name(rows[number]['method'], rows[number]['item_emotion'])}")
        try:
            values = np.asarray(parse_npy(data or b""), np.float32)
        except NoArray:
            return None
        low, high = float(values.min()), float(values.max())
        return _png(np.rint((values - low) / ((high - low) or 1) * 255).astype(np.uint8))

    def _regions(self, key: str, emotion: str) -> list[dict[str, Any]]:
        shard = self._works[key][1]
        region = self._tables("regions", shard).get(key)
        similar = self._tables("similarity", shard).get(f"{key}.{emotion}")
        if region is None or similar is None or len(similar["scores"]) != len(region["boxes"]):
            return []
        names = region["labels"] or [""] * len(region["boxes"])
        best = np.argsort(similar["scores"])[::-1][:REGIONS].tolist()
        return [{"box": region["boxes"][n], "label": names[n], "score": similar["scores"][n]} for n in best]

    def _rows_by_key(self, step: str, shard: int) -> dict[str, dict[str, Any]]:
        columns = {"regions": ["key", "boxes", "labels"], "similarity": ["key", "emotion", "scores"]}[step]
        if not (self.paths.step(step) / f"{shard_stem(shard)}.parquet").is_file():
            return {}
        rows = pq.read_table(whole_shard_file(self.paths, step, shard), columns=columns).to_pylist()
        return {row["key"] + (f".{row['emotion']}" if "emotion" in row else ""): row for row in rows}

    def _truths(self) -> dict[str, dict[str, Path]]:
        with self._lock:
            return self._all_truths

    @functools.cached_property
    def _all_truths(self) -> dict[str, dict[str, Path]]:
        if not (self.paths.apolo / "apolo.json").is_file():
            return {}
        found: dict[str, dict[str, Path]] = {}
        for item in load_items(self.paths.apolo, pq.read_table(table_file(self.paths, "utterances")))[0]:
            found.setdefault(item.key, {})[item.emotion] = item.map_path
        return found

    def _predicted(self, key: str, emotion: str) -> list[dict[str, Any]]:
        with self._lock:
            return self._all_predictions.get((key, emotion), [])

    @functools.cached_property
    def _all_predictions(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """(key, emotion) -> the first answer of each method that was asked about it."""
        found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        for row in self._prediction_rows():
            found.setdefault((row["key"], row["asked_emotion"]), {}).setdefault(row["method"], row)
        return {pair: list(rows.values()) for pair, rows in found.items()}

    def _prediction_rows(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self.paths.step("predict").glob("*/predictions.parquet")):
            table = pq.read_table(check_file(path))
            same = table.filter(pc.equal(table["item_emotion"], table["asked_emotion"]))
            yield from same.sort_by([("method", "ascending"), ("seed", "ascending")]).to_pylist()

    def _maps(self) -> TarMembers:
        with self._lock:
            return self._all_maps

    @functools.cached_property
    def _all_maps(self) -> TarMembers:
        tars = sorted(self.paths.step("predict").glob("*/maps.tar"))
        return TarMembers(tars, "the predict step")


def _decoded(data: bytes, key: str) -> np.ndarray:
    mask = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise UserError(f"a mask of {key} is no PNG; run the masks step again")
    return mask


def _png(values: np.ndarray) -> bytes:
    data: bytes = cv2.imencode(".png", values)[1].tobytes()
    return data
