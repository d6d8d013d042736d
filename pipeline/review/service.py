"""What the page may ask, apart from HTTP: the names of requests, their values, and their answers."""

import bisect
import itertools
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.common import rle
from pipeline.common.errors import UserError
from pipeline.review.box_prompt import BoxPrompt
from pipeline.review.deck import FILTERS, SHOWN, Deck, Wish
from pipeline.review.material import Material
from pipeline.review.store import Store
from pipeline.reviews.verdicts import UNDO, Verdict, parse_verdict

AHEAD = 30
"""Masks that a page learns of at once."""
UNTIL_STAMPED = "2000-01-01T00:00:00.000Z"


class Absent(Exception):  # noqa: N818 - an answer, not an error
    """What was asked for is not there."""


class Conflict(Exception):  # noqa: N818 - as above
    """The mask is not the one that was judged."""


class Service:
    """Answers requests with JSON-ready values or bytes; any number of threads at once.

    Every method raises `UserError` for values that cannot be, and `Absent` for masks that are not there.
    """

    def __init__(self, deck: Deck, material: Material, store: Store, prompt: BoxPrompt, by: str) -> None:
        self.deck, self.material, self.store, self.prompt, self.by = deck, material, store, prompt, by

    def start(self) -> dict[str, Any]:
        """What a page begins with."""
        return {"choices": self.deck.choices(), "show": SHOWN, "by": self.by, "ahead": AHEAD}

    def queue(self, values: Mapping[str, str]) -> dict[str, Any]:
        """The next masks of a wish.

        `values`: of `Wish`; ``show`` of `SHOWN`; ``by``, the reviewer; ``after``, KEY.EMOTION of a mask
        behind which to go on. Behind the last one come those that the reviewer passed over.
        """
        wish, by, show = Wish.of(values), values.get("by", ""), values.get("show") or "todo"
        wanted: Sequence[int]
        if show not in SHOWN:
            raise UserError(f"show {show[:40]!r} is none of {', '.join(SHOWN)}")
        pairs, places = self.deck.pairs(wish)
        mine = self._mine(by)
        if show in ("disputed", "mine"):
            chosen = {(one.key, one.emotion) for one in self.store.disputed()} if show == "disputed" else mine
            wanted = sorted(places[pair] for pair in chosen if pair in places)
        else:
            wanted = range(len(pairs))
        key, _, emotion = values.get("after", "").partition(".")
        start = bisect.bisect_right(wanted, places.get((key, emotion), -1))
        found = self._ahead(pairs, wanted[start:], mine if show == "todo" else {})
        if not found and show == "todo":  # those that were passed over
            found = self._ahead(pairs, wanted, mine)
        judged = sum(pair in places for pair in mine)
        return {"total": len(pairs), "todo": len(pairs) - judged, "masks": found}

    def _ahead(
        self, pairs: Sequence[tuple[str, str]], places: Iterable[int], without: Container[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        found = (pairs[place] for place in places if pairs[place] not in without)
        return list(itertools.islice(found, AHEAD))

    def item(self, key: str, emotion: str, by: str) -> dict[str, Any]:
        """One mask, and what this reviewer thought of it; what others think is not shown."""
        self._check(key, emotion)
        mine = self._mine(by).get((key, emotion))
        found = {**self.material.describe(key, emotion), **self.deck.about(key, emotion)}
        return {**found, "mine": mine.verdict if mine else None}

    def picture(self, key: str) -> bytes:
        """JPEG."""
        if key not in self.material.index:
            raise Absent(key)
        return self.material.picture(key)

    def mask(self, kind: str, key: str, emotion: str, number: int = 0) -> bytes:
        """PNG of a mask, of the truth, or of a prediction."""
        self._check(key, emotion)
        if kind == "mask":
            return self.material.mask(key, emotion)
        found = (
            self.material.truth(key, emotion)
            if kind == "truth"
            else self.material.prediction(key, emotion, number)
        )
        if found is None:
            raise Absent(f"{kind} of {key} {emotion}")
        return found

    def judge(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Note a verdict; the answer comes when it is on disk. Raises also `Conflict`, `RunFailed`."""
        key, emotion = str(values.get("key")), str(values.get("emotion"))
        self._check(key, emotion)
        order = values.get("order")
        line = {
            **{name: values.get(name) for name in ("id", "key", "emotion", "verdict", "by", "mask")},
            "order": order if order in ("worst", "random") else "",
            "at": UNTIL_STAMPED,
        }
        if values.get("corrected") is not None:
            size = self.material.mask_size(key, emotion)
            line["corrected"] = rle.encode(mask_of_counts(values["corrected"], *size)[None])[0]
        verdict = parse_verdict(line)
        if not isinstance(verdict, Verdict) or verdict.verdict == UNDO:
            reason = verdict if isinstance(verdict, tuple) else ("verdict", "undo is another request")
            raise UserError(f"{reason[0]}: {reason[1]}")
        if not self.material.is_current():
            raise Conflict("the shards were made again since this server began; start `review` again")
        if verdict.mask != self.material.digest(key, emotion):
            raise Conflict("the mask is another one by now; reload the page")
        return {"at": self.store.add(verdict).at}

    def undo(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Take this reviewer's latest verdict back; which mask it was about, or null."""
        last = self.store.undo(str(values.get("by")), str(values.get("id")))
        return {"key": last.key, "emotion": last.emotion} if last else {"key": None, "emotion": None}

    def box(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """SAM's mask of a box, as run lengths."""
        key, emotion, box = str(values.get("key")), str(values.get("emotion")), values.get("box")
        self._check(key, emotion)
        if not isinstance(box, list) or len(box) != 4 or not all(_is_number(side) for side in box):
            raise UserError("a box is four numbers")
        mask = self.prompt.mask(key, (box[0], box[1], box[2], box[3]), *self.material.mask_size(key, emotion))
        return {"counts": counts_of_mask(mask)}

    def statistics(self) -> dict[str, Any]:
        """Counts, agreement, precision."""
        return self.store.statistics()

    def _check(self, key: str, emotion: str) -> None:
        if (key, emotion) not in self.deck or key not in self.material.index:
            raise Absent(f"{key[:40]} {emotion[:40]}")

    def _mine(self, by: str) -> dict[tuple[str, str], Verdict]:
        """A reviewer's verdicts on masks as they are now."""
        return {
            (verdict.key, verdict.emotion): verdict
            for verdict in self.store.standing()
            if verdict.by == by
            and (verdict.key, verdict.emotion) in self.deck
            and verdict.mask == self.material.digest(verdict.key, verdict.emotion)
        }


def mask_of_counts(counts: Any, height: int, width: int) -> np.ndarray:
    """Run lengths, zeros first, row by row, as a mask, bool (height, width). Raises `UserError`."""
    sound = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
    if not sound or sum(counts) != height * width:
        raise UserError(f"corrected: run lengths of {height} x {width} pixels are wanted")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(height, width)


def counts_of_mask(mask: np.ndarray) -> list[int]:
    """What `mask_of_counts` reads."""
    flat = np.concatenate([[False], mask.ravel()])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    counts: list[int] = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()
    return counts


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


__all__ = ["FILTERS", "Absent", "Conflict", "Service", "counts_of_mask", "mask_of_counts"]
