"""What a csv's columns are: by their names, or else by what stands in them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from pipeline.common.errors import UserError
from pipeline.releases.layouts import LAYOUTS, guess_layout
from pipeline.releases.picture_folder import EXTENSIONS
from pipeline.releases.source import Emotion, LayoutName, Role
from pipeline.releases.words import plain_word, read_emotion

ALIASES: dict[Role, tuple[str, ...]] = {
    "art_style": ("art_style", "style"),
    "painting": ("painting", "artwork"),
    "image": (
        *(
            "image",
            "image_file",
            "image_name",
            "image_path",
            "image_id",
            "img",
            "file",
            "file_name",
            "filename",
        ),
        *("filepath", "file_path", "path", "picture", "photo", "photograph"),
    ),
    "emotion": ("emotion", "feeling", "mood", "affect", "emotion_label", "label", "sentiment"),
    "utterance": (
        *("utterance", "text", "caption", "explanation", "comment", "why", "reason", "because", "sentence"),
        *("response", "answer", "description"),
    ),
    "repetition": ("repetition",),
    "split": ("split", "fold", "subset", "partition"),
    "language": ("language", "lang"),
}
"""Role -> names of its column, the likeliest first."""
MOSTLY = 0.6
"""Share of a column's values that says what it is."""
WORDS = 3
"""Words that utterances have on average, at least."""


def guess_columns(
    header: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[LayoutName, dict[Role, str | None]]:
    """The layout, and its columns that have other names here, or (None) are not here.

    Args:
        header: as the csv has it.
        rows: some records, as wide as the header.

    Raises `UserError` where no column can be the picture, the emotion or the utterance.
    """
    names = [name.lower() for name in header]
    layout = guess_layout(names)
    if all(name in names for name in LAYOUTS[layout].required.values()):
        return layout, {}
    found: dict[Role, str] = {}
    for role, aliases in ALIASES.items():
        free = [name for name in aliases if name in names and name not in found.values()]
        if free:
            found[role] = free[0]
    if not {"art_style", "painting"} <= set(found):
        named = found.pop("painting", None)
        found = {role: name for role, name in found.items() if role != "art_style"}
        if named is not None and "image" not in found:
            found["image"] = named
    _by_values(names, rows, found)
    _refuse(header, found)
    if {"art_style", "painting"} <= set(found):
        found.pop("image", None)
        layout = guess_layout({*names, *found})
    else:
        layout = "images"
    rules = {**LAYOUTS[layout].required, **LAYOUTS[layout].optional}
    columns: dict[Role, str | None] = {role: name for role, name in found.items() if rules.get(role) != name}
    if "repetition" in LAYOUTS[layout].required and "repetition" not in found:
        columns["repetition"] = None
    return layout, columns


def _by_values(names: Sequence[str], rows: Sequence[Sequence[str]], found: dict[Role, str]) -> None:
    """Fill in roles that no name has, by what stands in the columns that are left."""
    tests: dict[Role, Callable[[str], bool]] = {"emotion": _is_emotion}
    if "painting" not in found:
        tests["image"] = _is_picture
    for role, good in tests.items():
        shares = {
            name: _share(good, [row[names.index(name)] for row in rows]) for name in _left(names, found)
        }
        best = max(shares, key=shares.__getitem__, default="")
        if role not in found and shares.get(best, 0) >= MOSTLY:
            found[role] = best
    lengths = {name: sum(len(row[names.index(name)].split()) for row in rows) for name in _left(names, found)}
    longest = max(lengths, key=lengths.__getitem__, default="")
    if "utterance" not in found and lengths.get(longest, 0) >= WORDS * len(rows) > 0:
        found["utterance"] = longest


def _left(names: Sequence[str], found: Mapping[Role, str]) -> list[str]:
    return [name for name in names if name not in found.values() and names.count(name) == 1]


def _share(good: Callable[[str], bool], values: Sequence[str]) -> float:
    """Of the values that are not empty, how many are good."""
    said = [value for value in values if value.strip()]
    return sum(map(good, said)) / len(said) if said else 0.0


def _is_emotion(value: str) -> bool:
    return read_emotion(value, {}) is not None or plain_word(value) in SUGGESTED


def _is_picture(value: str) -> bool:
    return PurePosixPath(value.strip().replace("\\", "/")).suffix.lower() in EXTENSIONS


SUGGESTED: dict[str, Emotion] = {
    "amused": "amusement",
    "amusing": "amusement",
    "awed": "awe",
    "awestruck": "awe",
    "content": "contentment",
    "contented": "contentment",
    "excited": "excitement",
    "exciting": "excitement",
    "angry": "anger",
    "disgusted": "disgust",
    "disgusting": "disgust",
    "afraid": "fear",
    "fearful": "fear",
    "scared": "fear",
    "sad": "sadness",
    "else": "something else",
    "other": "something else",
}
"""Other forms of the nine words -> these; `init` writes them into utterances.emotion_map."""


def _refuse(header: Sequence[str], found: dict[Role, str]) -> None:
    """Raise `UserError` where a row would lack something."""
    picture = "image" in found or {"art_style", "painting"} <= set(found)
    lost = [role for role in ("emotion", "utterance") if role not in found] + ["image"] * (not picture)
    if lost:
        raise UserError(
            f"no column can be the {' and the '.join(lost)}; the header has "
            f"{', '.join(map(repr, header[:40]))}. Rename columns to image, emotion, utterance, or write "
            "utterances.columns by hand (docs/your_data.md)"
        )
