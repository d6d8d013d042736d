"""Which masks are judged, and in which order."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.shard_stats.labels import FLAGS, Labels, ShardStatsParams

ORDERS = ("worst", "random")
SHOWN = {"todo": "not judged by me", "mine": "judged by me", "disputed": "disputed", "all": "all"}
FILTERS = ("emotion", "style", "split", "flag")


@dataclass(frozen=True)
class Wish:
    """What a reviewer asked for; empty texts mean anything."""

    order: str = "worst"
    """worst: suspicious labels first. random: a sample of all, whose precision is that of all."""
    emotion: str = ""
    style: str = ""
    split: str = ""
    flag: str = ""

    @classmethod
    def of(cls, values: Mapping[str, str]) -> "Wish":
        """From untrusted values. Raises `UserError` for an order that does not exist."""
        wish = cls(**{name: values[name] for name in ("order", *FILTERS) if values.get(name)})
        if wish.order not in ORDERS:
            raise UserError(f"order {wish.order[:40]!r} is none of {', '.join(ORDERS)}")
        return wish


class Deck:
    """The labels of a shards folder.

    Args:
        folder: ``data/shards``.
        params: from which value on a label is flagged.
    """

    def __init__(self, folder: Path, params: ShardStatsParams) -> None:
        labels = Labels.read(folder, params)
        self._texts = {name: labels.texts(name) for name in ("key", "emotion", "split", "art_style")}
        self._flags = labels.flags
        self._area = labels.floats("area")
        self._rank = labels.floats("own_rank")
        self._orders = {
            "worst": labels.worst_first(),
            "random": np.random.default_rng(0).permutation(len(labels)),
        }
        self._pairs = functools.lru_cache(maxsize=8)(self._find)
        self._place = {
            pair: place
            for place, pair in enumerate(zip(self._texts["key"], self._texts["emotion"], strict=True))
        }

    def __contains__(self, pair: object) -> bool:
        return pair in self._place

    def choices(self) -> dict[str, list[str]]:
        """Filter -> what it can be."""
        return {
            "emotion": list(EMOTIONS),
            "style": sorted(set(self._texts["art_style"])),
            "split": sorted(set(self._texts["split"])),
            "flag": list(FLAGS),
        }

    def pairs(self, wish: Wish) -> tuple[list[tuple[str, str]], dict[tuple[str, str], int]]:
        """(key, emotion) of the masks that are wished for, in order, and the place of each; kept."""
        return self._pairs(wish)

    def _find(self, wish: Wish) -> tuple[list[tuple[str, str]], dict[tuple[str, str], int]]:
        wanted = np.ones(len(self._place), bool)
        for column, value in (("emotion", wish.emotion), ("art_style", wish.style), ("split", wish.split)):
            if value:
                wanted &= self._texts[column] == value
        if wish.flag:
            wanted &= self._flags.get(wish.flag, np.zeros(len(wanted), bool))
        order = self._orders[wish.order]
        chosen = order[wanted[order]]
        pairs = list(zip(self._texts["key"][chosen], self._texts["emotion"][chosen], strict=True))
        return pairs, {pair: place for place, pair in enumerate(pairs)}

    def about(self, key: str, emotion: str) -> dict[str, Any]:
        """What the labels say of one mask."""
        place = self._place[key, emotion]
        rank = float(self._rank[place])
        return {
            "style": self._texts["art_style"][place],
            "split": self._texts["split"][place],
            "area": float(self._area[place]),
            "own_rank": None if np.isnan(rank) else rank,
            "flags": [name for name in FLAGS if self._flags[name][place]],
        }
