"""What became of everything that went into a step: kept, or left out for a reason, with an example of each.

A step's table ends its run on stderr. It is counted from the files that the step wrote, shards that an
earlier run made included, so that what it says is what later steps will find.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.common.digests import read_sidecar
from pipeline.common.params import Paths

REASONS = 10
"""Reasons shown of each kind of thing."""
EXAMPLE = 80
"""Characters of an example."""


@dataclass(frozen=True)
class LeftOut:
    """Things left out for one reason."""

    count: int
    example: str = ""


@dataclass(frozen=True)
class Tally:
    """One kind of thing: how many a step kept, and how many it left out, by reason."""

    unit: str
    """Plural, such as artworks."""
    kept: int
    left_out: Mapping[str, LeftOut]
    listed_in: str = ""
    """Where all that was left out is listed."""

    @property
    def total(self) -> int:
        """How many went in."""
        return self.kept + sum(reason.count for reason in self.left_out.values())


def by_reason(left_out: Iterable[tuple[str, str]]) -> dict[str, LeftOut]:
    """(Reason, example) of everything left out -> how many for each reason, with the first example."""
    counts: dict[str, int] = {}
    first: dict[str, str] = {}
    for reason, example in left_out:
        counts[reason] = counts.get(reason, 0) + 1
        first.setdefault(reason, example)
    return {reason: LeftOut(count, first[reason]) for reason, count in counts.items()}


def of_shards(step: str, paths: Paths) -> Tally:
    """The artworks of a step that writes shards, from their sidecars."""
    folder, kept = paths.step(step), 0
    rejects: list[tuple[str, str]] = []
    for file in sorted(folder.glob("[0-9]*.json")):
        sidecar = read_sidecar(folder, int(file.stem)) if file.stem.isdigit() else None
        kept += (sidecar or {}).get("kept", 0)
        rejects += [(each["reason"], each["key"]) for each in (sidecar or {}).get("rejects", ())]
    return Tally("artworks", kept, by_reason(rejects), f"{folder}/*.json")


def tally_text(step: str, tallies: Sequence[Tally]) -> str:
    """The table: a line for each kind of thing, and one for each reason below it, the most frequent first."""
    lines: list[str] = []
    for tally in tallies:
        reasons = sorted(tally.left_out.items(), key=lambda pair: (-pair[1].count, pair[0]))
        lost = tally.total - tally.kept
        listed = f"; all in {tally.listed_in}" if tally.listed_in else ""
        kept = f"{tally.kept:,} kept, {lost:,} left out{listed}" if lost else "all kept"
        lines.append(f"{step}: {tally.total:,} {tally.unit} in, {kept}")
        width = max((len(reason) for reason, _ in reasons[:REASONS]), default=0)
        for reason, found in reasons[:REASONS]:
            example = f"  for example {_printable(found.example)}" if found.example else ""
            lines.append(f"{found.count:>9,}  {reason:<{width}}{example}".rstrip())
        if len(reasons) > REASONS:
            rest = sum(found.count for _, found in reasons[REASONS:])
            lines.append(f"{rest:>9,}  for {len(reasons) - REASONS} other reasons")
    return "\n".join(lines)


def _printable(text: str) -> str:
    """Text from data on one line of a terminal."""
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return shown if len(shown) <= EXAMPLE else f"{shown[:EXAMPLE]}…"
