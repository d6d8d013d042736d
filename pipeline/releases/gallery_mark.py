"""The built-in gallery's mark: ``gallery.json`` in each release that it draws.

A release with the mark is drawn, wherever it lies and whatever its path is called; one without it is not. The
step `utterances` notes the marks of its sources, and the shards, models and scores made of them carry it on.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.common.digests import check_file
from pipeline.common.errors import UserError
from pipeline.common.files import write_json
from pipeline.common.fingerprint import as_json
from pipeline.common.params import Paths

MARK = "gallery.json"
DRAWN_BY = "emosem gallery"
"""Value of the key ``drawn_by``: a file of this name without it is somebody else's."""
NOTED = "drawn.json"
"""What the step `utterances` notes in its folder."""
VERSION = 1
"""Of the drawing: a gallery of the same params and another version may have other pictures."""


Marks = dict[str, dict[str, int]]
"""The mark of each source that is drawn, of ``artemis``, ``wikiart``, ``apolo``; {} when none is."""


@dataclass(frozen=True)
class GalleryMark:
    """Which gallery a release is of."""

    version: int
    seed: int
    artworks: int


def write_mark(folder: Path, params: Mapping[str, Any]) -> None:
    """Mark a release as drawn with `params`, which hold at least ``seed`` and ``artworks``."""
    write_json(folder / MARK, {"drawn_by": DRAWN_BY, "version": VERSION, **params})


def read_mark(folder: Path) -> GalleryMark | None:
    """A release's mark; None where it has none. Raises `UserError` for a mark that cannot be read."""
    file = folder / MARK
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or found.get("drawn_by") != DRAWN_BY:
            return None
        return GalleryMark(*(int(found[name]) for name in ("version", "seed", "artworks")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} cannot be read ({error!r}); it tells drawn data from real ones: draw the gallery again "
            "(python cli.py gallery), or delete this file if it is not the gallery's"
        ) from None


def drawn_sources(paths: Paths) -> Marks:
    """The sources that are drawn. Raises `UserError` as `read_mark`."""
    folders = {"artemis": paths.artemis.parent, "wikiart": paths.wikiart, "apolo": paths.apolo}
    marks = {name: read_mark(folder) for name, folder in folders.items()}
    return {name: as_json(mark) for name, mark in marks.items() if mark is not None}


def noted_sources(utterances: Path) -> Marks:
    """What the step `utterances` found to be drawn. Raises `UserError` when its note is damaged."""
    file = utterances / NOTED
    if not file.is_file():  # made by an older version of this code, or by hand
        return {}
    noted: Marks = json.loads(check_file(file).read_text(encoding="utf-8"))
    return noted


def drawn_evaluation(paths: Paths) -> Marks:
    """What of the items that are scored is drawn: pictures and utterances as noted, labels as they lie there.

    Raises `UserError`.
    """
    noted = {name: mark for name, mark in noted_sources(paths.step("utterances")).items() if name != "apolo"}
    labels = read_mark(paths.apolo)
    return noted | ({"apolo": as_json(labels)} if labels else {})


def drawn_text(marks: Marks) -> str:
    """One sentence that says so, for cards and pages; "" when nothing is drawn."""
    if not marks:
        return ""
    words = {"artemis": "utterances", "wikiart": "pictures", "apolo": "labels"}
    *others, last = (words[name] for name in words if name in marks)
    what = f"{', '.join(others)} and {last}" if others else last
    mark = next(iter(marks.values()))
    return (
        f"The {what} are drawn by emosem's built-in gallery (version {mark['version']}, seed {mark['seed']}, "
        f"{mark['artworks']} artworks): a stand-in, not real data."
    )
