"""The emotions of ArtEmis and APOLO: their names, their order, and the paper's prompt.

Order and names follow the ArtEmis release; every column, token and array axis uses it.
"""

EMOTIONS: tuple[str, ...] = (
    "amusement",
    "awe",
    "contentment",
    "excitement",
    "anger",
    "disgust",
    "fear",
    "sadness",
)
"""The eight emotions that can have a mask (APOLO's label map, paper Sec. 3.5)."""

SOMETHING_ELSE = "something else"
"""ArtEmis's ninth answer: kept in the tables and in EA, left out of masks and training."""

ALL_EMOTIONS: tuple[str, ...] = (*EMOTIONS, SOMETHING_ELSE)

POSITIVE: frozenset[str] = frozenset(EMOTIONS[:4])

_INDEX = {name: index for index, name in enumerate(ALL_EMOTIONS)}


def emotion_index(name: str) -> int:
    """Position of an emotion in `ALL_EMOTIONS`; raises `KeyError` for any other word."""
    return _INDEX[name]


def prompt(emotion: str) -> str:
    """The emotional prompt e of paper Sec. 3.2, for one of the eight emotions."""
    return f"generate the mask for the emotion {emotion}"
