"""Which csv it is that says who felt what about which picture: its layout, its columns, its words, its
dialect."""

import codecs
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from pipeline.common.params import STRICT

Role = Literal[
    "art_style",
    "painting",
    "image",
    "emotion",
    "utterance",
    "repetition",
    "split",
    "language",
    "version",
    "anchor",
]
"""What a column can be."""
LayoutName = Literal[
    "auto", "artemis", "artemis-v2", "artemis-preprocessed", "artelingo", "affection", "images"
]
Emotion = Literal[
    "amusement",
    "awe",
    "contentment",
    "excitement",
    "anger",
    "disgust",
    "fear",
    "sadness",
    "something else",
]
OneCharacter = Annotated[str, Field(min_length=1, max_length=1)]


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Source:
    """How the csv of `paths.artemis` is read. The defaults read ArtEmis and its relatives as published."""

    layout: LayoutName = "auto"
    """Which release: see `layouts.LAYOUTS`. auto: the one whose columns the header has."""
    columns: dict[Role, str | None] = Field(default_factory=dict)
    """Role -> the csv's own name for it, where that is not the layout's; null: the column is not used."""
    emotion_map: dict[str, Emotion | None] = Field(default_factory=dict)
    """The csv's word -> one of the eight emotions or "something else"; null: such rows are left out. The nine
    themselves need no entry, in whichever case, with spaces, hyphens, or underscores."""
    language: str | None = "english"
    """Where there is a column for it, rows in other languages are left out; null: none are."""
    delimiter: OneCharacter = ","
    """Between fields; "\\t" is a tab."""
    quote: OneCharacter = '"'
    """Round a field that holds the delimiter."""
    encoding: str = "utf-8"
    """As Python names it: utf-16, cp1252, ..."""

    def __post_init__(self) -> None:
        """Refuse an encoding that Python does not know."""
        try:
            known = codecs.lookup(self.encoding)._is_text_encoding
        except (LookupError, ValueError):
            known = False
        if not known:
            raise ValueError(f"encoding {self.encoding!r} is none that Python knows, such as utf-8 or utf-16")


PLAIN = Source()
"""A file of the layout that its header says, in English, with commas, in UTF-8."""
