"""Step `utterances`: who wrote what about which artwork; its split and its shard, decided once for all steps.

Reads the ArtEmis csv, finds and checks every picture, and writes four tables (`schema.UTTERANCES`,
`ARTWORKS`, `REJECTS`, `DOUBLES`). Every csv row ends in the first or, with its reason, in the third. The
first two are sorted by key, and so by shard, with one row group a shard: later steps read their shard and not
the table. The last names what is there twice: spellings of one file, and files with the same bytes.
``drawn.json`` says which of the sources are the built-in gallery's, by their marks.
"""

import dataclasses
import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.common import schema
from pipeline.common.errors import UserError
from pipeline.common.files import write_atomic, write_json, write_parquet
from pipeline.common.lock import writes
from pipeline.common.params import Paths
from pipeline.common.sums import write_sums
from pipeline.releases import apolo, apolo_ids
from pipeline.releases.artemis import Reject, read_layout
from pipeline.releases.gallery_mark import NOTED, drawn_sources
from pipeline.releases.layouts import Columns
from pipeline.releases.names import plain_name
from pipeline.utterances.columns import COLUMNS, Annotations, Artwork, gather
from pipeline.utterances.doubles import keep_equal_files_together, merge_spellings, said_twice
from pipeline.utterances.params import UtterancesParams
from pipeline.utterances.pictures import check_pictures, find_pictures
from pipeline.utterances.splits import assign_splits

WRITTEN = ("utterances.parquet", "artworks.parquet", "rejects.parquet", "doubles.parquet", NOTED)


@writes(lambda paths, *_: [paths.step("utterances")])
def build_utterances(paths: Paths, params: UtterancesParams) -> dict[str, Any]:
    """Write ``data/utterances/{utterances,artworks,rejects,doubles}.parquet``; returns the counts.

    Splits come from the csv's own column where it has one, or from APOLO's index files, else as in ArtEmis,
    from the names alone, so that a missing picture moves nobody. An artwork that APOLO evaluates is never in
    train: it moves to its APOLO split. (Giving up the items instead would change the denominator of every
    published score; giving up training rows changes nothing that is compared.) All names of a file, and all
    equal files, are in one split. Raises `UserError` when nothing is left, an input file has no usable form,
    or APOLO's ids are rows of another csv.
    """
    columns = read_layout(paths.artemis, params)
    rows = gather(apolo_ids.read_annotations(paths.artemis, paths.apolo, params.max_chars, params))
    find_pictures(list(rows.works.values()), paths.wikiart)
    doubles = merge_spellings(rows)
    num_merged = len(doubles)
    works = list(dict.fromkeys(rows.works.values()))
    _assign_splits(rows, paths.apolo, params)
    check_pictures(works, paths.wikiart, params)
    kept, rejects = _divide(rows, paths.artemis.name)
    if not kept.num_rows:
        raise UserError(_nothing_left(paths, rejects, works, rows.count))
    num_items, num_moved, item_rejects = _protect_apolo(kept, works, paths.apolo)
    apolo_ids.check_ids(paths.artemis, paths.apolo, params, num_items + len(item_rejects), item_rejects)
    num_together, equal = keep_equal_files_together(works)
    doubles += equal
    files = [work.problem for work in works if work.problem is not None]
    every_reject = [*rejects, *files, *item_rejects]
    utterances = _utterance_table(kept, list(rows.works.values()))
    pictures = _artwork_table(works, params.num_shards)
    out = paths.step("utterances")
    _write_by_shard(out / "utterances.parquet", utterances, params.num_shards)
    _write_by_shard(out / "artworks.parquet", pictures, params.num_shards)
    write_parquet(out / "rejects.parquet", _reject_table(every_reject))
    write_parquet(out / "doubles.parquet", pa.Table.from_pylist(doubles, schema.DOUBLES))
    write_json(out / NOTED, drawn_sources(paths))
    write_sums(out, WRITTEN)
    _tell_layout(columns, paths.artemis)
    _tell_doubles(doubles, out)
    return {
        "layout": columns.layout,
        "rows_in": rows.count,
        "rows_kept": kept.num_rows,
        "rows_rejected": len(rejects),
        "artworks_in": len(rows.works),
        "artworks_kept": pictures.num_rows,
        "artworks_rejected": len(files),
        "artworks_merged": num_merged,
        "artworks_of_equal_files": len(equal),
        "equal_files_moved_to_one_split": num_together,
        "apolo_items": num_items,
        "apolo_items_rejected": len(item_rejects),
        "apolo_artworks_moved_out_of_train": num_moved,
        "reasons": Counter(reject.reason for reject in every_reject),
        "artwork_splits": Counter(pictures["split"].to_pylist()),
        "utterance_splits": Counter(utterances["split"].to_pylist()),
        "emotions": Counter(utterances["emotion"].to_pylist()),
    }


def _tell_layout(columns: Columns, csv: Path) -> None:
    """Say on stderr how a csv was read that is not ArtEmis's first release."""
    if columns.layout != "artemis":
        split = "; splits are the csv's own" if "split" in columns.place else ""
        print(f"utterances: {csv} read as {columns.layout}: {columns}{split}", file=sys.stderr)


def _tell_doubles(doubles: Sequence[dict[str, Any]], out: Path) -> None:
    """Say on stderr how many names or files are one picture, with an example of each kind."""
    kinds = {
        "spelling": "names of the csv mean a file that has another name",
        "same-bytes": "files are copies",
    }
    for reason, words in kinds.items():
        found = [double for double in doubles if double["reason"] == reason]
        if found:
            example = f"{found[0]['source']}: {found[0]['detail']}"
            where = out / "doubles.parquet"
            print(f"utterances: {len(found)} {words}, see {where}; for example {example}", file=sys.stderr)


def _assign_splits(rows: Annotations, apolo_folder: Path, params: UtterancesParams) -> None:
    """Give every artwork its split: the csv's, or by APOLO's index files, else ArtEmis's random split.

    Where rows have a split, or are listed, an artwork takes the strictest split of its rows; one without goes
    to rest. Every name of the csv takes part in the random split, whatever pictures there are; an artwork
    with several takes the strictest.
    """
    works = list(rows.works.values())
    own = any(work.listed for work in works)
    index = None if own else apolo.load_index(apolo_folder)
    for batch in rows.batches if index else ():
        for artemis_id, number in zip(
            batch["artemis_id"].to_pylist(), batch["work"].to_pylist(), strict=True
        ):
            if index and artemis_id in index:
                works[number].listed.add(index[artemis_id])
    splits = assign_splits(
        {name: work.names[name] for name, work in rows.works.items()},
        {name: work.listed for name, work in rows.works.items()} if own or index is not None else None,
        params.fractions,
        params.split_seed,
        params.rest_repetition,
    )
    for work in works:
        work.split = apolo.strictest({splits[name] for name in work.names})


def _divide(rows: Annotations, source: str) -> tuple[pa.Table, list[Reject]]:
    """The rows whose picture is usable, with their artwork's key, and a reject for every other row."""
    works = list(rows.works.values())
    table = pa.Table.from_batches(rows.batches, COLUMNS)
    again = said_twice(table, works, source)
    usable = pa.array([work.problem is None for work in works], pa.bool_()).take(table["work"])
    new = pc.invert(pc.is_in(table["row"], pa.array(list(again), pa.int64())))
    kept, lost = table.filter(pc.and_(usable, new)), table.filter(pc.and_(pc.invert(usable), new))
    rejects = [*rows.rejects, *again.values()]
    for row, number in zip(lost["row"].to_pylist(), lost["work"].to_pylist(), strict=True):
        problem = works[number].problem
        if problem is not None:
            rejects.append(Reject(source, row, problem.reason, problem.source))
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
    """`schema.UTTERANCES`, by key, then in the order of the csv; `works`: of each name of the csv."""
    splits = pa.array([work.split for work in works], pa.string()).take(kept["work"])
    ranks = np.unique(np.array([work.key for work in works]), return_inverse=True)[1]
    order = np.argsort(ranks[kept["work"].to_numpy()], kind="stable")
    ordered = kept.append_column("split", splits).take(order)
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
            "sha256": work.sha256,
            "phash": work.phash,
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


def _nothing_left(paths: Paths, rejects: list[Reject], works: Iterable[Artwork], count: int) -> str:
    """The message for a dataset of which nothing can be used."""
    reasons = Counter(reject.reason for reject in rejects).most_common(5)
    if not count:
        return f"the ArtEmis csv {paths.artemis} has a header and no rows"
    why = ", ".join(f"{reason} ({number})" for reason, number in reasons)
    example = next(reject for reject in rejects if reject.reason == reasons[0][0])
    problems = {work.problem.source: work.problem.detail for work in works if work.problem is not None}
    return (
        f"none of the {count} rows of {paths.artemis} can be used: {why}; for example row {example.row}: "
        f"{problems.get(example.detail, example.detail)}. "
        f"Pictures are looked for in paths.wikiart = {paths.wikiart}"
    )
