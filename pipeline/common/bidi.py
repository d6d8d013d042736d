"""Text of data whose direction stays its own: right-to-left characters turn the words around them."""

import re
import unicodedata

_FIRST_STRONG, _POP = "\u2068", "\u2069"
_INITIATORS = "\u2066\u2067\u2068"
_TURNING = {"R", "AL", "AN", "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
"""Bidirectional classes of Unicode's annex 9 that reach beyond their own character."""
_PARAGRAPHS = re.compile("([\n\r\x1c\x1d\x1e\x85\u2029]+)")
"""Where an isolate ends by itself."""


def isolated(text: str) -> str:
    """A text that cannot turn what stands before or after it, between isolating marks where it needs them.

    Marks within it are kept, also unbalanced ones: they act inside alone. Other text is returned as it is.
    """
    if text.isascii() or not any(unicodedata.bidirectional(letter) in _TURNING for letter in text):
        return text
    parts = _PARAGRAPHS.split(text)
    return "".join(
        part if number % 2 or not part else _isolated_line(part) for number, part in enumerate(parts)
    )


def _isolated_line(line: str) -> str:
    """A line between marks, its own isolates closed in it; marks that close nothing are left out."""
    kept, open_ = [], 0
    for letter in line:
        if letter == _POP and not open_:
            continue
        open_ += (letter in _INITIATORS) - (letter == _POP)
        kept.append(letter)
    return f"{_FIRST_STRONG}{''.join(kept)}{_POP * open_}{_POP}"
