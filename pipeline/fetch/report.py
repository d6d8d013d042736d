"""What an order is and what became of it, for people and for their programs. Nothing slow is imported."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.common.machine import shown_bytes
from pipeline.fetch.catalog import BY_HAND
from pipeline.fetch.order import Wanted, shown_url

State = Literal["to fetch", "there", "fetched"]
NOT_PUBLISHED = "hash not published; first download is recorded beside the file and checked from then on"


@dataclass(frozen=True)
class Fetched:
    """What became of one file."""

    wanted: Wanted
    state: State
    sha256: str | None
    """Of the file on disk, or the one that it must have."""

    def as_json(self) -> dict[str, Any]:
        """For people's programs."""
        wanted = self.wanted
        return {
            "name": wanted.name,
            "path": wanted.path.as_posix(),
            "state": self.state,
            "url": shown_url(wanted.url),
            "bytes": wanted.remote.size,
            "sha256": self.sha256,
            "published": wanted.remote.sha256 is not None,
            "licence": wanted.weights.licence,
            "page": wanted.weights.page,
            "note": wanted.note,
        }


def look(order: Sequence[Wanted]) -> list[Fetched]:
    """What is there and what would be fetched; nothing is hashed, written or asked for."""
    return [
        Fetched(wanted, "there" if wanted.path.exists() else "to fetch", wanted.remote.sha256)
        for wanted in order
    ]


def order_text(order: Sequence[Wanted], hand: Sequence[dict[str, str]] = ()) -> str:
    """What will be fetched, from where, how large, under which licence, which hash; and what will not."""
    lines, shown = [], ""
    for wanted in order:
        remote, weights = wanted.remote, wanted.weights
        title = f"{wanted.name}: {weights.title}, licence {weights.licence}"
        if title != shown:
            lines += [
                title,
                f"  page     {weights.page}",
                *([f"  note     {wanted.note}"] if wanted.note else []),
            ]
            shown = title
        size = "not published"
        if remote.size is not None:
            size = f"{'' if remote.exact else 'about '}{shown_bytes(remote.size)}"
        lines += [
            f"  {wanted.path}{' (there already)' if wanted.path.exists() else ''}",
            f"    source   {shown_url(wanted.url)}",
            f"    size     {size}",
            f"    SHA-256  {remote.sha256 or NOT_PUBLISHED}",
        ]
    missing = [wanted for wanted in order if not wanted.path.exists()]
    known = sum(wanted.remote.size or 0 for wanted in missing)
    unknown = sum(wanted.remote.size is None for wanted in missing)
    parts = [f"{len(missing)} file(s)"] + ([shown_bytes(known)] if known else [])
    parts += [f"{unknown} of them of no published size"] if unknown else []
    lines += [f"to fetch: {', '.join(parts)}"] if order else []
    return "\n".join([*lines, *(f"{one['name']}: not fetched by a program. {one['where']}" for one in hand)])


def by_hand(names: Sequence[str]) -> list[dict[str, str]]:
    """Those of `names` that no program may fetch, with where a person gets them."""
    return [{"name": name, "where": BY_HAND[name]} for name in dict.fromkeys(names) if name in BY_HAND]


def fetched_text(found: Sequence[Fetched]) -> str:
    """A line a file: what became of it, where it is, its SHA-256."""
    return "\n".join(f"{one.state:<8} {one.wanted.path}  {one.sha256}" for one in found)
