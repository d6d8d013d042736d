"""What can be known of each pseudo-mask without a person: `schema.LABELS`, one row a mask.

The step reads every byte of the tars anyway, so it looks at each mask once, at `SIDE` pixels, beside the
tables that it was made of. Nothing here judges; `pipeline.shard_stats` does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq

from pipeline.common.geometry import frame_size
from pipeline.common.params import Paths
from pipeline.common.schema import REGIONS, SIMILARITY, shard_stem
from pipeline.common.tables import whole_shard_file
from pipeline.masks.recipe import MasksParams, pseudo_masks

SIDE = 64
"""Long side, pixels, at which masks are compared: a region of 2 % of the artwork is 9 pixels wide."""


class ShardTables:
    """Regions and similarities of one shard by artwork; empty where a folder has only the tars."""

    def __init__(self, paths: Paths, shard: int) -> None:
        self.regions = _by_key(paths, "regions", shard, ["key", "boxes", "labels"], REGIONS)
        self.similar: dict[str, dict[str, dict[str, Any]]] = {}
        columns = ["key", "emotion", "scores", "own_rank"]
        for row in _rows(paths, "similarity", shard, columns, SIMILARITY):
            self.similar.setdefault(row["key"], {})[row["emotion"]] = row


def _by_key(paths: Paths, step: str, shard: int, columns: list[str], schema: Any) -> dict[str, Any]:
    return {row["key"]: row for row in _rows(paths, step, shard, columns, schema)}


def _rows(paths: Paths, step: str, shard: int, columns: list[str], schema: Any) -> list[dict[str, Any]]:
    if not (paths.step(step) / f"{shard_stem(shard)}.parquet").is_file():
        return []
    file = whole_shard_file(paths, step, shard)
    return pq.read_table(file, schema=schema, columns=columns).to_pylist()


def describe_labels(
    card: Mapping[str, Any], masks: Mapping[str, bytes], key: str, tables: ShardTables
) -> list[dict[str, Any]]:
    """`schema.LABELS` of one artwork but for its key, split, style and shard.

    Args:
        card: KEY.json of the masks tar.
        masks: emotion -> PNG, in the order of the rows.
        key: of the artwork.
        tables: what the masks were made of.
    """
    height, width = int(card["height"]), int(card["width"])
    small = {emotion: _small(data, height, width) for emotion, data in masks.items()}
    made = _remade(card, tuple(masks), key, tables)
    region, similar = tables.regions.get(key), tables.similar.get(key, {})
    names = (region or {}).get("labels") or []
    rows = []
    for emotion in masks:
        entry, row = card["emotions"][emotion], similar.get(emotion)
        drawn = (entry.get("review") or {}).get("action") == "replace"  # by a person, and so by no recipe
        twins = [(_correlation(small[emotion], small[other]), other) for other in masks if other != emotion]
        twin, twin_emotion = max(twins, default=(None, None), key=lambda pair: pair[0] or 0.0)
        rows.append(
            {
                "emotion": emotion,
                "utterances": len(entry["utterances"]),
                "area": float(entry["area"]),
                "mean": _mean(small[emotion]),
                "agreement": None if drawn else _correlation(small[emotion], made.get(emotion)),
                "twin": twin,
                "twin_emotion": twin_emotion if twin is not None else None,
                **_spread(None if row is None else row["scores"], names),
                "own_rank": None if row is None else row["own_rank"],
            }
        )
    return rows


def _spread(scores: Sequence[float] | None, names: Sequence[str]) -> dict[str, Any]:
    """How the similarities lie: their number, contrast, entropy, and the name of the most similar region."""
    if not scores:
        return {"regions": 0, "contrast": None, "entropy": None, "best_region": None}
    values = np.asarray(scores, np.float64)
    best = int(values.argmax())
    shares = np.maximum(values, 0.0)
    entropy = None
    if shares.sum() > 0 and len(shares) > 1:
        shares = shares[shares > 0] / shares.sum()
        entropy = float(-(shares * np.log(shares)).sum() / np.log(len(values)))
    return {
        "regions": len(values),
        "contrast": float(values[best] - values.mean()),
        "entropy": entropy,
        "best_region": names[best] if best < len(names) else None,
    }


def _remade(
    card: Mapping[str, Any], emotions: Sequence[str], key: str, tables: ShardTables
) -> dict[str, np.ndarray]:
    """Emotion -> the map that the card's own recipe makes of the tables, at `SIDE`; none where it cannot.

    Regions count by their boxes; with SAM's masks of them the map is not comparable, and is left out.
    """
    region, similar = tables.regions.get(key), tables.similar.get(key, {})
    try:
        params = MasksParams(**{**card["lineage"]["masks"], "long_side": SIDE})
        known = region is not None and similar.keys() >= set(emotions) and params.support == "box"
    except (KeyError, TypeError, ValueError):
        return {}
    if region is None or not known or not emotions:
        return {}
    height, width = int(card["height"]), int(card["width"])
    down, across = frame_size(height, width, SIDE)
    boxes = np.asarray(region["boxes"], np.float64).reshape(-1, 4)
    every = list(dict.fromkeys([*emotions, *similar]))  # weights may depend on those that reviews left out
    scores = np.array([similar[emotion]["scores"] for emotion in every], np.float64)
    scores = scores.reshape(len(every), -1)
    if scores.shape[1] != len(boxes) or not len(boxes):
        return {}
    boxes = boxes * [across / width, down / height, across / width, down / height]
    return dict(zip(every, pseudo_masks(boxes, scores, down, across, params), strict=True))


def _small(png: bytes, height: int, width: int) -> np.ndarray | None:
    """A mask at `SIDE` pixels, uint8; None where it is no picture."""
    mask = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        return None
    down, across = frame_size(height, width, SIDE)
    return cv2.resize(mask, (across, down), interpolation=cv2.INTER_AREA)


def _mean(mask: np.ndarray | None) -> float | None:
    return None if mask is None else float(mask.mean()) / 255


def _correlation(one: np.ndarray | None, other: np.ndarray | None) -> float | None:
    """Pearson's correlation of two maps' pixels; 1 of two constant ones, 0 where only one is constant."""
    if one is None or other is None or one.shape != other.shape:
        return None
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    if norm == 0:
        return float(not a.any() and not b.any())
    return float(a @ b) / norm
