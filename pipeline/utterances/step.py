"""Step `utterances`: who wrote what about which artwork; its split and its shard, decided once for all steps.

Reads the ArtEmis csv, finds and checks every picture, and writes three tables (`schema.UTTERANCES`,
`ARTWORKS`, `REJECTS`). Every csv row ends in the first or, with its reason, in the last. The first two are
sorted by key, and so by shard, with one row group a shard: later steps read their shard and not the table.
"""

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pydantic
from pydantic import Field

from pipeline.common import schema
from pipeline.common.errors import UserError
from pipeline.common.files import write_atomic, write_parquet
from pipeline.common.lock import writes
from pipeline.common.params import STRICT, Paths
from pipeline.common.progress import Meter
from pipeline.releases import apolo, artemis
from pipeline.releases.artemis import Reject
from pipeline.releases.wikiart import (
    MAX_PIXELS,
    PILLOW_CEILING,
    BadImage,
    find,
    plain_name,
    probe_picture,
    verify_picture,
)
from pipeline.utterances.columns import COLUMNS, Annotations, Artwork, gather
from pipeline.utterances.splits import assign_splits

AT_ONCE = 512
"""Pictures handed to the threads at a time."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class UtterancesParams:
    """What counts as a usable row and picture, and how artworks are split and sharded."""

    num_shards: Annotated[int, Field(gt=0, le=100_000)] = 8
    """Shards of later steps. SAM's embeddings decide: 2 MiB an artwork; 256-512 MiB a shard is handy."""
    max_chars: Annotated[int, Field(gt=0)] = 2000
    """Longer utterances are rejected."""
    max_pixels: Annotated[int, Field(gt=0, le=PILLOW_CEILING)] = MAX_PIXELS
    """Pictures with more pixels are rejected, from their header."""
    min_side: Annotated[int, Field(gt=0)] = 16
    """Pictures with a shorter side, in pixels, are rejected: nothing can be seen in them."""
    max_aspect: Annotated[float, Field(gt=1)] = 32.0
    """Pictures with a larger ratio of long to short side are rejected: a line in SAM's frame."""
    verify: Literal["decode", "header"] = "decode"
    """Decode every picture, which finds truncated files now, or trust the headers (later steps find them)."""
    fractions: tuple[float, float, float] = (0.85, 0.05, 0.10)
    """Train, val and test share of the artworks where APOLO has no index files. ArtEmis's default; the
    paper's "85/5/15" sums to 105 %."""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 2021
    """Of that split; ArtEmis's."""
    rest_repetition: Annotated[int, Field(ge=0)] = 41
    """Without index files, artworks with this many annotations or more go to split "rest", as in ArtEmis's
    preprocessing for neural speakers (701 of them were annotated to study coverage); 0 for none."""

    def __post_init__(self) -> None:
        """Refuse shares that are no partition."""
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-9:
            raise ValueError(f"fractions {self.fractions} must be three shares that sum to 1")


@writes(lambda paths, *_: [paths.step("utterances")])
def build_utterances(paths: Paths, params: UtterancesParams) -> dict[str, Any]:
    """Write ``data/utterances/{utterances,artworks,rejects}.parquet``; returns the counts.

    Splits come from APOLO's index files where there are any, else as in ArtEmis, and are decided before any
    picture is looked at, so that a missing picture moves nobody. An artwork that APOLO evaluates is never in
    train: it moves to its APOLO split. (Giving up the items instead would change the denominator of every
    published score; giving up training rows changes nothing that is compared.)
    Raises `UserError` when nothing is left, or an input file has no usable form.
    """
    rows = gather(artemis.read_csv(paths.artemis, params.max_chars))
    works = list(rows.works.values())
    _assign_splits(rows, paths.apolo, params)
    _check_pictures(works, paths.wikiart, params)
    kept, rejects = _divide(rows, works, paths.artemis.name)
    if not kept.num_rows:
        raise UserError(_nothing_left(paths, rejects, rows.count))
    num_items, num_moved, item_rejects = _protect_apolo(kept, works, paths.apolo)
    files = [work.problem for work in works if work.problem is not None]
    every_reject = [*rejects, *files, *item_rejects]
    utterances, pictures = _utterance_table(kept, works), _artwork_table(works, params.num_shards)
    out = paths.step("utterances")
    _write_by_shard(out / "utterances.parquet", utterances, params.num_shards)
    _write_by_shard(out / "artworks.parquet", pictures, params.num_shards)
    write_parquet(out / "rejects.parquet", _reject_table(every_reject))
    return {
        "rows_in": rows.count,
        "rows_kept": kept.num_rows,
        "rows_rejected": len(rejects),
        "artworks_in": len(works),
        "artworks_kept": pictures.num_rows,
        "artworks_rejected": len(files),
        "apolo_items": num_items,
        "apolo_items_rejected": len(item_rejects),
        "apolo_artworks_moved_out_of_train": num_moved,
        "reasons": Counter(reject.reason for reject in every_reject),
        "artwork_splits": Counter(pictures["split"].to_pylist()),
        "utterance_splits": Counter(utterances["split"].to_pylist()),
        "emotions": Counter(utterances["emotion"].to_pylist()),
    }


def _assign_splits(rows: Annotations, apolo_folder: Path, params: UtterancesParams) -> None:
    """Give every artwork its split: APOLO's index files where there are any, else ArtEmis's random split.

    With index files, an artwork takes the strictest split of its rows; one with no row in them goes to rest.
    """
    index = apolo.load_index(apolo_folder)
    listed: dict[int, set[str]] = {}
    for batch in rows.batches if index else ():
        for artemis_id, number in zip(
            batch["artemis_id"].to_pylist(), batch["work"].to_pylist(), strict=True
        ):
            if index and artemis_id in index:
                listed.setdefault(number, set()).add(index[artemis_id])
    by_name = {name: listed.get(work.number, set()) for name, work in rows.works.items()}
    splits = assign_splits(
        {name: work.repetition for name, work in rows.works.items()},
        None if index is None else by_name,
        params.fractions,
        params.split_seed,
        params.rest_repetition,
    )
    for name, work in rows.works.items():
        work.split = splits[name]


def _check_pictures(works: list[Artwork], wikiart: Path, params: UtterancesParams) -> None:
    """Find and measure every picture; threads, because Pillow decodes outside Python's lock."""
    meter = Meter("utterances", len(works))  # WikiArt takes many minutes
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for start in range(0, len(works), AT_ONCE):
            part = works[start : start + AT_ONCE]
            list(threads.map(partial(_check_picture, wikiart=wikiart, params=params), part))
            meter.add(len(part))


def _check_picture(work: Artwork, wikiart: Path, params: UtterancesParams) -> None:
    """Fill in one artwork's path and size, or its problem."""
    try:
        path = find(wikiart, work.art_style, work.painting)
        measure = verify_picture if params.verify == "decode" else probe_picture
        width, height = measure(path, params.max_pixels)
        short, long = sorted((width, height))
        if short < params.min_side:
            raise BadImage("too-small", f"{width}x{height} pixels, the shortest allowed is {params.min_side}")
        if long > params.max_aspect * short:
            raise BadImage("too-narrow", f"{width}x{height} pixels, the cap is 1:{params.max_aspect:g}")
    except BadImage as error:
        source = f"{work.art_style}/{work.painting}"
        work.problem = Reject(source, -1, f"picture-{error.reason}", error.detail)
    else:
        work.path, work.size = path.relative_to(wikiart).as_posix(), (width, height)


def _divide(rows: Annotations, works: list[Artwork], source: str) -> tuple[pa.Table, list[Reject]]:
    """The rows whose picture is usable, with their artwork's key, and a reject for every other row."""
    table = pa.Table.from_batches(rows.batches, COLUMNS)
    usable = pa.array([work.problem is None for work in works], pa.bool_()).take(table["work"])
    kept, lost = table.filter(usable), table.filter(pc.invert(usable))
    rejects = list(rows.rejects)
    for artemis_id, number in zip(lost["artemis_id"].to_pylist(), lost["work"].to_pylist(), strict=True):
        problem = works[number].problem
        if problem is not None:
            rejects.append(Reject(source, artemis_id, problem.reason, problem.source))
    if kept.num_rows + len(rejects) != rows.count:
        raise AssertionError(f"{rows.count} rows in, but {kept.num_rows} kept and {len(rejects)} rejected")
    keys = pa.array([work.key for work in works], pa.string()).take(kept["work"])
    return kept.append_column("key", keys), sorted(rejects, key=lambda reject: reject.row)


def _protect_apolo(kept: pa.Table, works: list[Artwork], folder: Path) -> tuple[int, int, list[Reject]]:
    """Put artworks that APOLO evaluates in its split; (items, artworks moved out of train, bad records).

    Goes by the painting's name, because WikiArt holds some paintings under two styles: the second copy in
    train would leak the first. Without an apolo.json there is nothing to protect.
    """
    if not (folder / "apolo.json").is_file():
        return 0, 0, []
    names = pa.table({"key": [work.key for work in works], "painting": [work.painting for work in works]})
    items, rejects = apolo.load_items(folder, kept, names)
    evaluated: dict[str, set[str]] = {}
    for item in items:
        evaluated.setdefault(plain_name(item.painting), set()).add(item.split)
    moved = 0
    for work in works:
        splits = evaluated.get(plain_name(work.painting))
        if splits is not None:
            moved += work.split in ("train", "rest") and work.problem is None
            work.split = apolo.strictest(splits | ({work.split} & {"val", "test"}))
    return len(items), moved, rejects


def _utterance_table(kept: pa.Table, works: list[Artwork]) -> pa.Table:
    """`schema.UTTERANCES`, by key, then in the order of the csv."""
    splits = pa.array([work.split for work in works], pa.string()).take(kept["work"])
    by_key = np.argsort(np.array([work.key for work in works])).argsort()[kept["work"].to_numpy()]
    ordered = kept.append_column("split", splits).take(np.argsort(by_key, kind="stable"))
    return ordered.select(schema.UTTERANCES.names).cast(schema.UTTERANCES)


def _artwork_table(works: list[Artwork], num_shards: int) -> pa.Table:
    """`schema.ARTWORKS` of the usable artworks, sorted by key."""
    rows = [
        {
            "key": work.key,
            "art_style": work.art_style,
            "painting": work.painting,
            "path": work.path,
            "width": work.size[0],
            "height": work.size[1],
            "split": work.split,
            "shard": schema.shard_of(work.key, num_shards),
        }
        for work in sorted(works, key=lambda work: work.key)
        if work.path is not None
    ]
    return pa.Table.from_pylist(rows, schema.ARTWORKS)


def _write_by_shard(path: Path, table: pa.Table, num_shards: int) -> None:
    """Write a table that is sorted by key, with one row group a shard."""
    shards = np.array([schema.shard_of(key, num_shards) for key in table["key"].to_pylist()])
    bounds = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(shards)]

    def write(file: IO[bytes]) -> None:
        with pq.ParquetWriter(file, table.schema, compression="zstd") as writer:
            for start, stop in itertools.pairwise(bounds):
                writer.write_table(table.slice(start, stop - start))

    write_atomic(path, write)


def _reject_table(rejects: Iterable[Reject]) -> pa.Table:
    """`schema.REJECTS`."""
    return pa.Table.from_pylist([dataclasses.asdict(reject) for reject in rejects], schema.REJECTS)


def _nothing_left(paths: Paths, rejects: list[Reject], count: int) -> str:
    """The message for a dataset of which nothing can be used."""
    reasons = Counter(reject.reason for reject in rejects).most_common(5)
    if not count:
        return f"the ArtEmis csv {paths.artemis} has a header and no rows"
    why = ", ".join(f"{reason} ({number})" for reason, number in reasons)
    example = next(reject for reject in rejects if reject.reason == reasons[0][0])
    return (
        f"none of the {count} rows of {paths.artemis} can be used: {why}; for example row {example.row}: "
        f"{example.detail}. Pictures are looked for in paths.wikiart = {paths.wikiart}"
    )
