"""One picture under several names: spellings of one file are one artwork, equal files are in one split."""

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.releases import apolo
from pipeline.releases.artemis import Reject
from pipeline.releases.names import shown
from pipeline.utterances.columns import Annotations, Artwork, Name


def merge_spellings(rows: Annotations) -> list[dict[str, Any]]:
    """Make one artwork of all names whose picture is the same file; `schema.DOUBLES` of the names given up.

    `find_pictures` must have run.
    """
    of_file: dict[str, list[Artwork]] = {}
    for work in rows.works.values():
        if work.path is not None:
            of_file.setdefault(work.path, []).append(work)
    doubles = []
    for path, works in of_file.items():
        name = kept_name(path, [(work.art_style, work.painting) for work in works])
        kept = rows.works[name]
        for work in works:
            if work is not kept:
                kept.names |= work.names
                kept.listed |= work.listed
                rows.works[work.art_style, work.painting] = kept
                named = (f"{one.art_style}/{one.painting}" for one in (work, kept))
                detail = f"{' and '.join(map(ascii, named))} mean one file, {path}"  # they may look the same
                doubles.append(_double(kept, work, "spelling", detail))
    return doubles


def kept_name(path: str, names: Sequence[Name]) -> Name:
    """Which name of a file its artwork keeps: the file's own, or else the csv's first."""
    style, _, file = path.rpartition("/")
    own = (style, PurePosixPath(file).stem)
    return own if own in names else names[0]


def said_twice(table: pa.Table, works: Sequence[Artwork], source: str) -> dict[int, Reject]:
    """Row of the csv -> reject, of rows that repeat another once the spellings of their artworks are one.

    `table`: of `columns.COLUMNS`, in the order of the csv. `works`: of each name, in the order of the csv.
    """
    merged = [number for number, work in enumerate(works) if len(work.names) > 1]
    if not merged:
        return {}
    seen: set[tuple[Artwork, str, str, int]] = set()
    again = {}
    for row in table.filter(pc.is_in(table["work"], pa.array(merged, pa.int32()))).to_pylist():
        said = (works[row["work"]], row["emotion"], row["utterance"], row["repetition"])
        if said in seen:
            again[row["row"]] = Reject(source, row["row"], "duplicate", shown(row["utterance"]))
        seen.add(said)
    return again


def keep_equal_files_together(works: Iterable[Artwork]) -> tuple[int, list[dict[str, Any]]]:
    """Give artworks whose files are equal, byte for byte, the strictest of their splits.

    Returns how many artworks moved, and `schema.DOUBLES` of all of them but each file's first.
    """
    of_content: dict[str, list[Artwork]] = {}
    for work in works:
        if work.sha256 is not None and work.problem is None:
            of_content.setdefault(work.sha256, []).append(work)
    moved = 0
    doubles = []
    for equal in (group for group in of_content.values() if len(group) > 1):
        split = apolo.strictest({work.split for work in equal})
        for work in equal:
            moved += work.split != split
            work.split = split
        for work in equal[1:]:
            detail = f"the bytes of {equal[0].path} are those of {work.path}; both are in split {split}"
            doubles.append(_double(work, work, "same-bytes", detail))
    return moved, doubles


def _double(kept: Artwork, work: Artwork, reason: str, detail: str) -> dict[str, Any]:
    source = f"{work.art_style}/{work.painting}"
    return {"key": kept.key, "source": source, "reason": reason, "detail": detail}
