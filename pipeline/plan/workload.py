"""How much there is to do, from the ArtEmis csv and the pictures' directory entries: no picture is opened."""

import dataclasses
import time
from collections import Counter
from pathlib import Path

from pipeline.common import schema
from pipeline.common.emotions import EMOTIONS
from pipeline.common.params import Paths
from pipeline.releases import apolo
from pipeline.releases.apolo_ids import read_annotations
from pipeline.releases.artemis import Annotation, Reject
from pipeline.releases.picture_folder import PictureFolder
from pipeline.releases.wikiart import BadImage
from pipeline.utterances.columns import Name
from pipeline.utterances.doubles import kept_name
from pipeline.utterances.params import UtterancesParams
from pipeline.utterances.splits import assign_splits


@dataclasses.dataclass(frozen=True)
class Counts:
    """What the factory has before it: csv rows that can be read, artworks whose picture exists."""

    rows: int
    """Of the csv, blank lines apart."""
    rows_rejected: int
    """Rows that the csv reader gives up."""
    csv_bytes: int
    csv_seconds: float
    """How long reading it took just now."""
    artworks: int
    missing_pictures: int
    picture_bytes: int
    utterances: int
    """Of the eight emotions."""
    pairs: int
    """(artwork, emotion): pseudo-masks."""
    train_artworks: int
    train_pairs: int
    train_utterances: int
    """Of the eight emotions. APOLO's artworks still leave train in the utterances step."""
    per_shard: dict[int, int] = dataclasses.field(default_factory=dict)
    """Shard -> artworks."""
    sample: list[Annotation] = dataclasses.field(default_factory=list)
    """All rows of the first artworks whose picture exists."""


@dataclasses.dataclass
class _Work:
    """One artwork while it is counted."""

    repetition: int = 0
    listed: set[str] = dataclasses.field(default_factory=set)
    """Splits that the csv, or APOLO's index files, give its rows."""
    utterances: dict[str, int] = dataclasses.field(default_factory=dict)
    """Emotion -> utterances, the eight."""
    rows: list[Annotation] | None = None
    """Kept for the sample's candidates."""
    splits: set[str] = dataclasses.field(default_factory=set)
    """Of all its names."""
    image: str = ""
    """Its picture's file, where the csv names that."""
    bytes: int = 0
    """Of its picture."""


def count(paths: Paths, params: UtterancesParams, sample: int = 0) -> Counts:
    """Read the csv once and look up every picture's size.

    Args:
        paths: where csv, pictures and APOLO lie; nothing has to have run.
        params: of the utterances step: the longest utterance, and the split where APOLO has no index files.
        sample: artworks whose rows are kept in `Counts.sample`.

    Raises `UserError` when the csv is missing or has no usable header, or APOLO's index files are broken.
    """
    start = time.perf_counter()
    index = apolo.load_index(paths.apolo)
    works: dict[Name, _Work] = {}
    rows = rejected = 0
    for row in read_annotations(paths.artemis, paths.apolo, params.max_chars, params):
        rows += 1
        if isinstance(row, Reject):
            rejected += 1
            continue
        name = (row.art_style, row.painting)
        work = works.get(name)
        if work is None:  # some candidates more than asked for: pictures may be missing
            work = works[name] = _Work(rows=[] if len(works) < 4 * sample else None, image=row.image)
        _add(work, row, index)
    listed = {name: work.listed for name, work in works.items()}
    counted = index is not None or any(listed.values())
    splits = assign_splits(
        {name: work.repetition for name, work in works.items()},
        listed if counted else None,
        params.fractions,
        params.split_seed,
        params.rest_repetition,
    )
    csv_seconds = time.perf_counter() - start
    for name, work in works.items():
        work.splits = {splits[name]}
    missing = _look_up(paths.wikiart, works)
    found = list(works.values())
    uncounted = {"rest"} if counted else set()  # of names that index files do not list
    train = [work for work in found if work.splits - uncounted == {"train"}]
    chosen = [work.rows for work in found if work.rows][:sample]
    return Counts(
        rows=rows,
        rows_rejected=rejected,
        csv_bytes=paths.artemis.stat().st_size,
        csv_seconds=csv_seconds,
        artworks=len(found),
        missing_pictures=missing,
        picture_bytes=sum(work.bytes for work in found),
        utterances=_total(found),
        pairs=sum(len(work.utterances) for work in found),
        train_artworks=len(train),
        train_pairs=sum(len(work.utterances) for work in train),
        train_utterances=_total(train),
        per_shard=Counter(schema.shard_of(schema.artwork_key(*name), params.num_shards) for name in works),
        sample=[row for kept in chosen for row in kept],
    )


def _add(work: _Work, row: Annotation, index: dict[int, str] | None) -> None:
    work.repetition = max(work.repetition, row.repetition)
    if row.emotion in EMOTIONS:
        work.utterances[row.emotion] = work.utterances.get(row.emotion, 0) + 1
    if row.split:
        work.listed.add(row.split)
    elif index is not None and row.artemis_id in index:
        work.listed.add(index[row.artemis_id])
    if work.rows is not None:
        work.rows.append(row)


def _total(works: list[_Work]) -> int:
    return sum(sum(work.utterances.values()) for work in works)


def _look_up(wikiart: Path, works: dict[Name, _Work]) -> int:
    """Fill in the pictures' bytes, and make one of all names of a file, as the utterances step does.

    Names without a picture are left out; returns how many.
    """
    of_file: dict[str, list[Name]] = {}
    missing = 0
    pictures = PictureFolder(wikiart)
    for name in list(works):
        try:
            path = pictures.find(*name, works[name].image)
            works[name].bytes = path.stat().st_size
            of_file.setdefault(path.relative_to(wikiart).as_posix(), []).append(name)
        except (BadImage, OSError):
            missing += 1
            del works[name]
    for file, names in of_file.items():
        kept = kept_name(file, names)
        for name in names:
            if name != kept:
                other = works.pop(name)
                works[kept].splits |= other.splits
                for emotion, count in other.utterances.items():
                    works[kept].utterances[emotion] = works[kept].utterances.get(emotion, 0) + count
    return missing
