"""What other tools say of masks, as verdicts: the part that all their formats share."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.common import rle
from pipeline.common.errors import UserError
from pipeline.common.protocol import THRESHOLD
from pipeline.review.material import Material
from pipeline.reviews.verdicts import Verdict, append, parse_verdict, read_reviews

NEW_SHARE = 0.1
"""A corrected mask of whose pixels at most this share is new only took something away."""


@dataclass(frozen=True)
class Foreign:
    """One person's annotation of one mask."""

    source: str
    """Where it stands in the file, for messages."""
    id: str
    """The same annotation, the same id: importing it twice adds nothing."""
    key: str
    emotion: str
    by: str
    at: str
    """As the tool writes times; without a zone it is UTC."""
    verdict: str | None
    """None where the tool was asked for none: it follows from the mask, see `verdict_of`."""
    mask: np.ndarray | None
    """bool (h, w) at the size of the stored mask or of the picture; None where there is none."""
    before: np.ndarray | None = None
    """bool (h, w): the mask that the tool was given; None: what is stored."""
    recipe: str = ""
    """Fingerprint of how the mask that the tool was given was made, where it says."""


@dataclass(frozen=True)
class Rejected:
    """An annotation that is no verdict."""

    source: str
    reason: str
    detail: str


def verdict_of(before: np.ndarray, after: np.ndarray) -> str:
    """What a corrected mask says of the one before, both bool (h, w)."""
    if not after.any():
        return "not-visible"
    if np.array_equal(before, after):
        return "good"
    return "too-big" if (after & ~before).sum() <= NEW_SHARE * after.sum() else "wrong-place"


def import_all(
    found: Iterable[Foreign | Rejected], material: Material, folder: Path
) -> tuple[dict[str, Any], list[Rejected]]:
    """Append annotations to the reviewers' files.

    Returns:
        Counts, ``annotations = imported + known + rejected``, of the imported by verdict and how many are
        ``corrected``, and the rejected ones.

    Raises:
        UserError: nothing in the file is an annotation. RunFailed: a file cannot be written.
    """
    there = {(line.by, line.id) for line in read_reviews(folder).every}
    rejected: list[Rejected] = []
    fresh: dict[str, list[Verdict]] = {}
    counts: Counter[str] = Counter(annotations=0, imported=0, known=0, rejected=0, corrected=0)
    verdicts: Counter[str] = Counter()
    for one in found:
        counts["annotations"] += 1
        line = _line(one, material) if isinstance(one, Foreign) else one
        if isinstance(line, Rejected):
            counts["rejected"] += 1
            rejected.append(line)
        elif (line.by, line.id) in there:
            counts["known"] += 1
        else:
            there.add((line.by, line.id))
            counts["imported"] += 1
            counts["corrected"] += line.corrected is not None
            verdicts[line.verdict] += 1
            fresh.setdefault(line.by, []).append(line)
    if not counts["annotations"]:
        raise UserError("the file holds no annotation; export the project again, with its annotations")
    for lines in fresh.values():
        append(folder, lines)
    reasons = Counter(one.reason for one in rejected)
    return {
        **counts,
        "verdicts": dict(sorted(verdicts.items())),
        "reasons": dict(sorted(reasons.items())),
    }, rejected


def _line(one: Foreign, material: Material) -> Verdict | Rejected:
    """An annotation as a line, or why it is none."""

    def refuse(reason: str, detail: str) -> Rejected:
        return Rejected(one.source, reason, detail)

    if one.key not in material.index or one.emotion not in material.index.row(one.key).emotions:
        return refuse("no-such-mask", f"{one.key[:40]} {one.emotion[:40]} is not in {material.index.folder}")
    card = material.card(one.key)
    recipe = (card.get("lineage") or {}).get("fingerprint", "")
    if one.recipe and one.recipe != recipe:
        return refuse(
            "another-mask", "the mask was made in another way when it was exported; export it again"
        )
    verdict, corrected = one.verdict, None
    if one.mask is not None:
        before = one.before if one.before is not None else _stored(one, material, card)
        if before is None or before.shape != one.mask.shape:
            shape = "x".join(str(side) for side in one.mask.shape)
            return refuse(
                "size", f"a mask of {shape} pixels is neither of the stored size nor of the picture's"
            )
        derived = verdict_of(before, one.mask)
        if verdict in (None, "good"):  # who calls a changed mask good means the new one
            verdict = derived
        if derived != "good" and one.mask.any() and verdict != "skip":
            corrected = rle.encode(one.mask[None])[0]
    if verdict is None:
        return refuse("no-verdict", "neither a verdict nor a mask")
    at = _time(one.at)
    if at is None:
        return refuse("at", f"{one.at[:40]!r} is no time")
    values = {
        "id": one.id,
        "key": one.key,
        "emotion": one.emotion,
        "verdict": verdict,
        "by": one.by,
        "at": at,
    }
    values |= {"mask": material.digest(one.key, one.emotion), "order": "import"}
    line = parse_verdict(values | ({"corrected": corrected} if corrected else {}))
    return line if isinstance(line, Verdict) else refuse(*line)


def _stored(one: Foreign, material: Material, card: dict[str, Any]) -> np.ndarray | None:
    """The stored mask above the protocol's threshold, at the size of the annotation's; None for a third."""
    levels = cv2.imdecode(np.frombuffer(material.mask(one.key, one.emotion), np.uint8), cv2.IMREAD_GRAYSCALE)
    if levels is None or one.mask is None:
        return None
    if one.mask.shape == (card["height"], card["width"]) != levels.shape:
        levels = cv2.resize(levels, (card["width"], card["height"]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(levels > int(THRESHOLD * 255))


def _time(text: str) -> str | None:
    """A tool's time in UTC, to milliseconds."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
