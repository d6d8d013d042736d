"""The published layouts of "someone felt something about a picture", and where a header has their columns.

Sources: ArtEmis (Achlioptas et al., CVPR 2021) and its preprocessing script; ArtEmis v2 (Mohamed et al., CVPR
2022), whose script puts the new rows before those of the first release; ArtELingo (Mohamed et al., EMNLP
2022); Affection (Achlioptas et al., CVPR 2023).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from pipeline.common.errors import UserError
from pipeline.releases.names import shown
from pipeline.releases.source import LayoutName, Role, Source


@dataclass(frozen=True)
class Layout:
    """The columns of one release."""

    required: Mapping[Role, str]
    """Role -> column that must be there."""
    optional: Mapping[Role, str] = field(default_factory=dict)
    """Role -> column that is used where it is there."""
    about: str = ""
    """For people."""


def _same(*roles: Role) -> dict[Role, str]:
    """Columns that are called what they are."""
    return {role: role for role in roles}


_ROW = _same("art_style", "painting", "emotion", "utterance")
_V2: dict[Role, str] = {"version": "version", "anchor": "anchor_art_style"}
_AFFECTION: dict[Role, str] = {"art_style": "dataset", "image": "image_name"}
LAYOUTS: dict[LayoutName, Layout] = {
    "artemis": Layout(_ROW | _same("repetition"), about="ArtEmis release v0"),
    "artemis-v2": Layout(_ROW, _same("repetition", "split") | _V2, "ArtEmis v2, combined or its new part"),
    "artemis-preprocessed": Layout(
        _ROW | _same("split"), _same("repetition") | _V2, "what ArtEmis's preprocessing script writes"
    ),
    "artelingo": Layout(_ROW | _same("language"), _same("repetition", "split"), "ArtELingo"),
    "affection": Layout(
        _same("emotion", "utterance") | _AFFECTION,
        _same("split"),
        "Affection, of photographs",
    ),
    "images": Layout(
        _same("image", "emotion", "utterance"),
        _same("art_style", "repetition", "split", "language"),
        "any folder of pictures",
    ),
}
"""Roles `art_style` and `painting` name the picture ART_STYLE/PAINTING.jpg; `image` names its file."""


@dataclass(frozen=True)
class Columns:
    """Where a header has what."""

    layout: LayoutName
    """Never auto."""
    width: int
    """How many fields a row has."""
    place: Mapping[Role, int]
    """Role -> which field."""
    names: Mapping[Role, str]
    """Role -> the header's name for it."""

    def __str__(self) -> str:
        """The columns that are used, for people."""
        named = [(role, self.names[role]) for role in get_args(Role) if role in self.names]
        return ", ".join(role if role == name.lower() else f"{role} from {name}" for role, name in named)


def guess_layout(names: Collection[str]) -> LayoutName:
    """The layout whose columns these are; "artemis" where it is none of them."""
    has = set(names)
    if {"image_name", "dataset"} <= has:
        return "affection"
    if not {"art_style", "painting"} & has and "image" in has:
        return "images"
    if "language" in has:
        return "artelingo"
    if has & {"version", "anchor", "anchor_art_style", "anchor_painting"} and "tokens" not in has:
        return "artemis-v2"
    return "artemis-preprocessed" if "split" in has else "artemis"


def find_columns(path: Path, header: Sequence[str], source: Source) -> Columns:
    """Where the header has the layout's columns; case and surrounding white space do not count.

    Raises `UserError` when one is missing, or there twice.
    """
    names = [name.strip().lower() for name in header]
    own = {role: column.strip().lower() for role, column in source.columns.items() if column is not None}
    called = {role for role, column in own.items() if column in names}
    layout = source.layout if source.layout != "auto" else guess_layout({*names, *called})
    rules = LAYOUTS[layout]
    unused = {role for role, column in source.columns.items() if column is None}
    optional = {role: column for role, column in rules.optional.items() if column in names}
    wanted = {role: name for role, name in {**optional, **rules.required}.items() if role not in unused}
    wanted |= own
    _check_roles(path, wanted)
    _check_header(path, header, names, layout, wanted)
    place = {role: names.index(column) for role, column in wanted.items()}
    return Columns(layout, len(names), place, {role: header[at].strip() for role, at in place.items()})


def _check_roles(path: Path, wanted: Collection[Role]) -> None:
    """Raise `UserError` where params leave out what no row can do without."""
    picture: set[Role] = {"image"} if "image" in wanted else {"art_style", "painting"}
    lost = sorted({"emotion", "utterance", *picture} - set(wanted))
    if lost:
        raise UserError(f"utterances.columns leaves {path} without a column for {', '.join(lost)}")


def _check_header(
    path: Path, header: Sequence[str], names: Sequence[str], layout: LayoutName, wanted: Mapping[Role, str]
) -> None:
    """Raise `UserError` where a wanted column is missing, or there twice."""
    missing = [column for column in wanted.values() if column not in names]
    listed = ", ".join(shown(name) for name in header[:40])
    if missing:
        raise UserError(
            f"the ArtEmis csv {path} lacks the column(s) {', '.join(missing)} of the layout {layout}; "
            f"its header has {listed}. Name its columns in utterances.columns, such as "
            "{emotion: mood, utterance: comment}, and the layout in utterances.layout "
            f"({', '.join(LAYOUTS)}); python cli.py init --artemis {path} --images DIR does so"
        )
    twice = [column for column in wanted.values() if names.count(column) > 1]
    if twice:
        raise UserError(f"the ArtEmis csv {path} has the column {twice[0]} twice; its header has {listed}")
