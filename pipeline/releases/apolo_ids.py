"""APOLO's ids are rows of ArtEmis's release v0: which rows of another csv they are, found by what these say.

Where the csv is not release v0, or a part of it, or in another order, its own row numbers mean other
utterances. The ids are then found by painting, emotion, and utterance, of release v0's csv, when that lies in
the APOLO folder, or of APOLO's own records, when these have utterances, as its reconstruction script writes
them.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipeline.common import schema
from pipeline.common.errors import UserError
from pipeline.releases import artemis
from pipeline.releases.apolo import ApoloItem, ids_of, load_items
from pipeline.releases.apolo_json import read_records
from pipeline.releases.artemis import OTHER_IDS, Annotation, Reject
from pipeline.releases.names import plain_name
from pipeline.releases.source import PLAIN, Source
from pipeline.releases.words import plain_word

RELEASE = "artemis_dataset_release_v0.csv"
"""File in the APOLO folder whose rows APOLO's ids are, where `paths.artemis` is another."""
FOREIGN = ("affection", "images")
"""Layouts of csvs that are no relatives of ArtEmis: an APOLO folder beside one has its rows for ids."""
NUMBERED = ("artemis", "artemis-v2")
"""Layouts whose rows say by their order which rows of release v0 they are."""
WRONG = ("other-painting", "mixed-emotions")
"""Reasons that speak of ids that mean other rows."""
TOLERATED = 0.1
"""Share of APOLO's records that may be wrong, as records are; where its ids are taken for the rows of a csv
that lacks rows of release v0, or has others, none may."""
ANY_LENGTH = 1_000_000
"""Characters of an utterance that is only looked up."""


def read_annotations(csv: Path, apolo: Path, max_chars: int, source: Source) -> Iterator[Annotation | Reject]:
    """`artemis.read_csv`, with APOLO's ids for `artemis_id` wherever they can be had.

    Rows that APOLO does not know then have ids of `OTHER_IDS` and more. Raises `UserError` as
    `artemis.read_csv`, and for an apolo.json that cannot be read.
    """
    known = known_ids(csv, apolo, source)
    for row in artemis.read_csv(csv, max_chars, source):
        if known is not None and isinstance(row, Annotation):
            number = known.pop(_content(row.painting, row.emotion, row.utterance), OTHER_IDS + row.row)
            yield dataclasses.replace(row, artemis_id=number)
        else:
            yield row


def known_ids(csv: Path, apolo: Path, source: Source) -> dict[bytes, int] | None:
    """Digest of painting, emotion, utterance -> APOLO's id; None where the csv's own numbers have to do."""
    release, layout = apolo / RELEASE, artemis.read_layout(csv, source).layout
    if layout in FOREIGN:
        return None
    if release.is_file() and not csv.samefile(release):
        said = [row for row in artemis.read_csv(release, ANY_LENGTH) if isinstance(row, Annotation)]
        return {_content(row.painting, row.emotion, row.utterance): row.artemis_id for row in said}
    return None if layout in NUMBERED else _of_records(apolo) or None


def _of_records(apolo: Path) -> dict[bytes, int]:
    """By the records of apolo.json that have an emotion, and an utterance for each id."""
    if not (apolo / "apolo.json").is_file():
        return {}
    found = {}
    for record in read_records(apolo / "apolo.json"):
        ids = ids_of(record)
        texts = record.get("utterances") if isinstance(record, dict) else None
        if ids is None or not isinstance(texts, list) or len(texts) != len(ids):
            continue
        for number, text in zip(ids, texts, strict=True):
            found[_content(str(record.get("painting")), str(record.get("emotion")), str(text))] = number
    return found


def check_ids(csv: Path, apolo: Path, source: Source, records: int, rejects: list[Reject]) -> None:
    """Refuse an APOLO whose ids mean other rows of this csv: scores would be of other utterances.

    `records`: how many apolo.json has. Raises `UserError`.
    """
    wrong = [reject for reject in rejects if reject.reason in WRONG]
    if not wrong:
        return
    layout = artemis.read_layout(csv, source).layout
    exact = layout in (*NUMBERED, *FOREIGN) or known_ids(csv, apolo, source) is not None
    if len(wrong) <= (TOLERATED * records if exact else 0):
        return
    example = wrong[0].detail.partition("; are the csv")[0]
    raise UserError(
        f"{len(wrong)} of the {records} records of {apolo / 'apolo.json'} have ids that are other rows of "
        f"{csv} (layout {layout}), for example {example}. APOLO numbers the rows of ArtEmis's "
        f"release v0: put its {RELEASE} into {apolo}, and they are found by what they say; or set "
        "paths.apolo to another folder"
    )


def load_items_of_csv(apolo: Path, csv: Path, source: Source = PLAIN) -> tuple[list[ApoloItem], list[Reject]]:
    """`load_items` by the ArtEmis csv alone, without any picture: for those who only score.

    Raises `UserError` as `load_items`, `read_annotations`, and `check_ids`.
    """
    ids = {number for record in read_records(apolo / "apolo.json") for number in ids_of(record) or ()}
    rows = [
        row
        for row in read_annotations(csv, apolo, ANY_LENGTH, source)
        if isinstance(row, Annotation) and row.artemis_id in ids
    ]
    of_name: dict[tuple[str, str], str] = {}
    keys = [  # without its picture, spellings that may mean one painting do
        of_name.setdefault(
            (plain_name(row.art_style), plain_name(row.painting)),
            schema.artwork_key(row.art_style, row.painting),
        )
        for row in rows
    ]
    utterances = pa.table(
        {
            "key": pa.array(keys, pa.string()),
            "artemis_id": pa.array([row.artemis_id for row in rows], pa.int64()),
            "emotion": pa.array([row.emotion for row in rows], pa.string()),
            "utterance": pa.array([row.utterance for row in rows], pa.string()),
        }
    )
    artworks = pa.table(
        {
            "key": utterances["key"],
            "painting": pa.array([row.painting for row in rows], pa.string()),
            "art_style": pa.array([row.art_style for row in rows], pa.string()),
        }
    )
    items, rejects = load_items(apolo, utterances, artworks)
    check_ids(csv, apolo, source, len(items) + len(rejects), rejects)
    return items, rejects


def _content(painting: str, emotion: str, utterance: str) -> bytes:
    text = "\0".join((plain_name(painting), plain_word(emotion), " ".join(utterance.casefold().split())))
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=16).digest()
