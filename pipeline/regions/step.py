"""Step `regions`: where the things in each artwork are.

Sources of regions are the modules of `sources`; all give rows of `schema.REGIONS`. Nothing
heavy is imported here: params can be read without torch.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.backbones.params import BackbonesParams
from pipeline.common.code import code_fingerprint
from pipeline.common.files import write_parquet
from pipeline.common.fingerprint import fingerprint, sha256_file
from pipeline.common.machine import cpu_threads
from pipeline.common.params import Paths
from pipeline.common.progress import ShardProgress
from pipeline.common.schema import REGIONS, shard_stem
from pipeline.common.tables import file_size, open_artworks, read_artworks, rows_by_shard
from pipeline.parallel.map_shards import ParallelParams, map_shards
from pipeline.parallel.shard_result import ShardResult
from pipeline.regions.params import RegionsParams
from pipeline.regions.region_row import BoxCounts, Rejected, region_row
from pipeline.regions.sources.choose import load_source, resolve_source
from pipeline.regions.sources.source import RegionSource, picture_of

_SHOWN: set[str] = set()
"""Reasons for rejects of which this process has shown an example."""


def build_regions(
    paths: Paths, params: RegionsParams, backbones: BackbonesParams, parallel: ParallelParams
) -> dict[str, Any]:
    """Write data/regions/SHARD.parquet for every shard of data/utterances/artworks.parquet.

    Artworks that the source cannot answer for are counted by reason; one without boxes is one region. Returns
    counts: shards, kept, rejected, source, regions, whole_artworks, and boxes dropped, weak and cut (see
    `region_row.BoxCounts`). Raises `UserError` for what only the user can put right.
    """
    _SHOWN.clear()
    artworks = open_artworks(paths)
    params = resolve_source(params, paths)
    wanted = region_jobs(artworks, paths, params, backbones)
    further = load_source(params.source).counts(artworks.to_pylist(), paths, params, backbones)
    out = paths.step("regions")
    process = functools.partial(propose_shard, paths=paths, params=params, backbones=backbones)
    sizes = Counter(artworks["shard"].to_pylist())
    recipe = _recipe(paths, params, backbones)
    counts = map_shards("regions", out, wanted, process, parallel, sizes, recipe)
    counts |= {"source": params.source} | further | BoxCounts().named() | counts.pop("counts")
    if counts["cut_boxes"]:
        print(
            f"regions: {counts['cut_boxes']} of {counts['regions']} boxes reached outside their pictures and "
            "were cut to them; if these are many, the source saw the pictures in another size",
            file=sys.stderr,
        )
    return counts


def region_jobs(
    artworks: pa.Table,
    paths: Paths,
    params: RegionsParams,
    backbones: BackbonesParams,
    shards: Collection[int] | None = None,
) -> dict[int, str]:
    """Shard -> fingerprint of all that decides its table.

    `artworks`: as of `tables.open_artworks`. `shards`: only these. Raises `UserError` when the source's
    weights or file are not there.
    """
    params = resolve_source(params, paths)
    source = load_source(params.source)
    recipe = _recipe(paths, params, backbones)
    return {
        shard: fingerprint(recipe, _input_digest(rows, paths, source, params.sam_support))
        for shard, rows in rows_by_shard(artworks, artworks.column_names).items()
        if shards is None or shard in shards
    }


def _recipe(paths: Paths, params: RegionsParams, backbones: BackbonesParams) -> str:
    """What all shards share; `params`: resolved."""
    identity = load_source(params.source).identity(paths, params, backbones)
    return fingerprint(identity, _support_identity(params, backbones), _code())


def propose_shard(
    shard: int, progress: ShardProgress, paths: Paths, params: RegionsParams, backbones: BackbonesParams
) -> ShardResult:
    """One shard: find the regions of its artworks, sorted by key, and write the table."""
    params = resolve_source(params, paths)
    rows: list[dict[str, Any]] = []
    rejects: list[tuple[str, str]] = []
    counts = BoxCounts()
    works = read_artworks(paths, shard)
    source = load_source(params.source)
    threads = None
    if source.detects or params.sam_support:
        device = backbones.torch_device()
        threads = cpu_threads(device)
        progress.running_on(device)
    answers = source.regions(works, paths, params, backbones)
    if params.sam_support:
        from pipeline.regions import box_masks

        answers = box_masks.add_masks(answers, works, paths, backbones, params.batch)
    for artwork, found in answers:
        progress.add()
        if isinstance(found, Rejected):
            _show(found)
            rejects.append((artwork["key"], found.reason))
            continue
        row, boxes = region_row(artwork, found, params.source)
        rows.append(row)
        counts += boxes
    path = paths.step("regions") / f"{shard_stem(shard)}.parquet"
    write_parquet(path, pa.Table.from_pylist(rows, schema=REGIONS))
    return ShardResult(len(rows), rejects, counts.named(), threads)


def _show(rejected: Rejected) -> None:
    """Say what was wrong, once for each reason: a run may have thousands of one kind."""
    if rejected.detail and rejected.reason not in _SHOWN:
        _SHOWN.add(rejected.reason)
        print(f"regions: {rejected.reason}, for example: {rejected.detail}", file=sys.stderr)


def _code() -> str:
    """Of what all sources share: each source answers for itself, and so do the masks of boxes."""
    return code_fingerprint(__name__, without=("pipeline.regions.sources", "pipeline.regions.box_masks"))


def _support_identity(params: RegionsParams, backbones: BackbonesParams) -> str:
    """What decides the masks of boxes; empty without them."""
    if not params.sam_support:
        return ""
    from pipeline.regions import box_masks

    return box_masks.identity(backbones)


def _input_digest(rows: Sequence[dict[str, Any]], paths: Paths, source: RegionSource, pictures: bool) -> str:
    """The artworks and what is read of each: a source's own small files by content, pictures by the SHA-256
    that the utterances step made, and their size, which tells of most changes since."""
    columns = ["key", "painting", "art_style", "path", "width", "height"]
    files: list[str | int] = []
    if source.file_of is not picture_of:
        files += [_content(source.file_of(paths, row)) for row in rows]
    if pictures or source.file_of is picture_of:
        columns.append("sha256")
        files += [file_size(picture_of(paths, row)) for row in rows]
    return fingerprint([[row[name] for name in columns] for row in rows], files)


def _content(path: Path | None) -> str:
    """SHA-256 of a file; empty for none."""
    try:
        return "" if path is None else sha256_file(path)
    except OSError:
        return ""
