"""Which motifs of the gallery's world a text names, and how it says they look: its grammar, read backwards.

A motif is named by its kind ("rotten apple"), in the singular or plural, or by the kind's last word where no
other kind ends alike ("the apple"; not in the plural, for "towers" is also a verb). Its look are the sizes,
states and colours right before the name ("a small crooked red house") and the colour behind it ("a jester in
green", "a feast table under a red cloth").
"""

import re
from collections import Counter
from dataclasses import dataclass

from pipeline.gallery.world import COLOURS, KINDS

SIZES = frozenset({"small", "large"})
STATES = frozenset(state for kind in KINDS.values() for state in kind.states)
_LOOKS = SIZES | STATES | frozenset(COLOURS)
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_IRREGULAR = {"goose": "geese", "wolf": "wolves"}
_BEHIND = (("in",), ("under", "a"), ("on", "a"))
"""What stands between a name and its colour."""


@dataclass(frozen=True)
class NamedMotif:
    """A motif as a text names it."""

    kind: str
    """A key of `KINDS`."""
    look: tuple[str, ...]
    """What is said of its look: words of `SIZES`, `STATES` and `COLOURS`; often none."""


def _forms(name: str) -> set[tuple[str, ...]]:
    """A name as words, with its last one in the singular and plural."""
    *front, last = name.split()
    forms = {last, f"{last}s", f"{last}es", _IRREGULAR.get(last, last)}
    if last.endswith("s"):  # fireworks, flowers
        forms.add(last.removesuffix("s"))
    return {(*front, form) for form in forms}


def _names() -> dict[tuple[str, ...], str]:
    """Words -> the kind that they name."""
    heads = Counter(kind.split()[-1] for kind in KINDS)
    names = {(head,): kind for kind in KINDS if heads[head := kind.split()[-1]] == 1}
    return names | {form: kind for kind in KINDS for form in _forms(kind)}


_NAMES = _names()
_LONGEST = max(map(len, _NAMES))


def named_motifs(text: str) -> list[NamedMotif]:
    """The motifs that a text names, in its order; one that it names twice is there twice."""
    words = [word.lower() for word in _WORD.findall(text)]
    found, start = [], 0
    while start < len(words):
        end = next((e for e in range(start + _LONGEST, start, -1) if tuple(words[start:e]) in _NAMES), None)
        if end is None:
            start += 1
            continue
        kind = _NAMES[tuple(words[start:end])]
        found.append(NamedMotif(kind, (*_before(words, start), *_behind(words, end))))
        start = end
    return found


def _before(words: list[str], start: int) -> list[str]:
    """The words of a look that end at `start`."""
    first = start
    while first and words[first - 1] in _LOOKS:
        first -= 1
    return words[first:start]


def _behind(words: list[str], end: int) -> list[str]:
    """The colour that follows a name which ends at `end`, in a list; none where no colour does."""
    for between in _BEHIND:
        place = end + len(between)
        if tuple(words[end:place]) == between and place < len(words) and words[place] in COLOURS:
            return [words[place]]
    return []
