"""Painted masks as reviewers left them: kept, left out, counted less, or replaced."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.common import rle
from pipeline.common.fingerprint import fingerprint, sha256_bytes
from pipeline.common.params import Paths
from pipeline.common.rle import BadMask
from pipeline.masks.png import png_bytes
from pipeline.reviews.edits import Edit, ReviewsParams, describe_reviews, find_edits
from pipeline.reviews.verdicts import check_rle, read_reviews

OUTCOMES = {"exclude": "reviews_excluded", "down-weight": "reviews_down_weighted"}
EditsByShard = dict[int, tuple[Edit, ...]]


@dataclass(frozen=True)
class Painted:
    """A mask with what people made of it."""

    levels: np.ndarray
    """uint8 (h, w)."""
    png: bytes
    about: dict[str, Any]
    """What KEY.json says besides: ``weight``, and ``review`` with the action, its verdict and how many
    people; empty without an edit."""


def edits_by_shard(
    artworks: pa.Table, paths: Paths, params: ReviewsParams, shards: Collection[int] | None = None
) -> tuple[EditsByShard, dict[str, Any]]:
    """Shard -> its edits, those without any left out, and what `describe_reviews` says of the folder.

    Nothing is read where `params` use no verdict. `artworks`: `schema.ARTWORKS`; `shards`: only these.
    """
    if not params.used:
        return {}, {}
    if shards is not None:
        artworks = artworks.filter(pc.is_in(artworks["shard"], pa.array(list(shards), pa.int32())))
    keys, splits, places = (artworks[name].to_pylist() for name in ("key", "split", "shard"))
    reviews = read_reviews(paths.reviews)
    edits, counts = find_edits(reviews, params, dict(zip(keys, splits, strict=True)))
    shard_of = dict(zip(keys, places, strict=True))
    grouped: dict[int, list[Edit]] = {}
    for edit in edits:
        grouped.setdefault(shard_of[edit.key], []).append(edit)
    return {shard: tuple(group) for shard, group in grouped.items()}, describe_reviews(reviews, counts)


def edits_digest(edits: Iterable[Edit]) -> str:
    """What a shard's fingerprint has of its edits."""
    return fingerprint(list(edits))


class Editor:
    """Applies a shard's edits to its masks, and counts what became of each."""

    def __init__(self, edits: Iterable[Edit]) -> None:
        self._edits: dict[tuple[str, str], dict[str, Edit]] = {}
        for edit in edits:
            self._edits.setdefault((edit.key, edit.emotion), {})[edit.mask] = edit
        self._left = sum(len(group) for group in self._edits.values())
        self._counts: Counter[str] = Counter()

    def counts(self) -> dict[str, int]:
        """Edits that were carried out by what they did, ``reviews_unfit``: corrections of another picture
        (the painted mask is kept), and ``reviews_stale``: edits of masks that are painted no more. Empty
        without edits."""
        found = {**self._counts, "reviews_stale": self._left}
        return {name: count for name, count in found.items() if count}

    def apply(self, key: str, emotion: str, levels: np.ndarray, height: int, width: int) -> Painted | None:
        """The mask to store, or None where the emotion is left out.

        A correction may have been judged in its turn: edits are followed from mask to mask.

        Args:
            key, emotion: whose mask it is.
            levels: the painted mask, uint8 (h, w).
            height, width: of the picture, pixels.
        """
        painted = Painted(levels, png_bytes(levels), {})
        waiting = dict(self._edits.get((key, emotion), {}))
        while waiting and (edit := waiting.pop(sha256_bytes(painted.png), None)):
            self._left -= 1
            review = {"action": edit.action, "verdict": edit.verdict, "reviewers": edit.reviewers}
            if edit.action != "replace":
                self._counts[OUTCOMES[edit.action]] += 1
                if edit.action == "exclude":
                    return None
                return Painted(levels, painted.png, {"weight": edit.weight, "review": review})
            corrected = _corrected(edit, levels.shape[0], levels.shape[1], height, width)
            if corrected is None:
                self._counts["reviews_unfit"] += 1
                break
            self._counts["reviews_replaced"] += 1
            levels = corrected
            painted = Painted(levels, png_bytes(levels), {"review": review})
        return painted


def _corrected(edit: Edit, tall: int, wide: int, height: int, width: int) -> np.ndarray | None:
    """The correction at the stored mask's size, uint8 of 0 and 255, grey at edges that were averaged.

    None where it is empty, or neither of that size nor of the picture's.
    """
    try:
        size = check_rle(edit.corrected or "")
        runs = rle.decode(edit.corrected or "", *size)
    except BadMask:
        return None
    if size not in ((tall, wide), (height, width)) or not len(runs):
        return None
    mask = mask_of_runs(runs, *size)
    if size == (tall, wide):
        return mask
    return np.asarray(cv2.resize(mask, (wide, tall), interpolation=cv2.INTER_AREA))


def mask_of_runs(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """Runs as of `rle.decode` as pixels, uint8 (height, width) of 0 and 255."""
    flat = np.zeros(height * width, np.uint8)
    for start, stop in runs.tolist():
        flat[start:stop] = 255
    return np.ascontiguousarray(flat.reshape(width, height).T)
