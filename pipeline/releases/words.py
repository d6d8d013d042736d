"""Words of a csv's columns: emotions, splits and languages, in whichever spelling."""

import functools
from collections.abc import Mapping

from pipeline.common.emotions import ALL_EMOTIONS

_EMOTIONS = {name: name for name in ALL_EMOTIONS}
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "rest": "rest",
    "": "rest",  # ArtELingo: rows of none of its splits
}
LANGUAGES = {
    "en": "english",
    "eng": "english",
    "ar": "arabic",
    "ara": "arabic",
    "zh": "chinese",
    "zho": "chinese",
    "de": "german",
    "es": "spanish",
    "fr": "french",
    "hi": "hindi",
    "it": "italian",
    "ja": "japanese",
    "ko": "korean",
    "pt": "portuguese",
    "ru": "russian",
}
"""ISO codes -> names, as far as data sets of this kind use them; any other word means itself."""


@functools.lru_cache(maxsize=4096)
def plain_word(word: str) -> str:
    """What spellings of one word have in common: case, ``_`` and ``-`` for a space, and white space are
    gone."""
    return " ".join(word.casefold().replace("_", " ").replace("-", " ").split())


def read_emotion(word: str, mapped: Mapping[str, str | None]) -> str | None:
    """The emotion that a csv's word means, by the user's map or else by its own name; None for no emotion."""
    if not mapped and word in _EMOTIONS:
        return word
    plain = plain_word(word)
    if mapped:
        for key, value in mapped.items():
            if plain_word(key) == plain:
                return value
    return _EMOTIONS.get(plain)


def read_split(word: str) -> str | None:
    """train | val | test | rest; None for another word."""
    plain = plain_word(word)
    return _SPLITS.get("" if plain == "nan" else plain)


def read_language(word: str, wanted: str) -> bool:
    """Whether a csv's word for a language means the wanted one: "en", "EN", and "en-GB" are "english"."""
    return _language(word) == _language(wanted)


@functools.lru_cache(maxsize=4096)
def _language(word: str) -> str:
    plain = plain_word(word)
    return LANGUAGES.get(plain) or LANGUAGES.get(plain.split(" ")[0], plain) if plain else ""
