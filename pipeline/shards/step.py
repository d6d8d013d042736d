"""Step `shards`: one index over the features and masks tars, their checksums, statistics and dataset cards.

Features and masks of one shard number are two tars over the same artworks in the same order. This step
proves that, and writes to ``data/shards/``:

    index.parquet    one row an artwork (`schema.INDEX`): split, emotions, where each member's bytes lie
    labels.parquet   one row a mask (`schema.LABELS`): its area, and what is known of how good it is
    stats.json       counts by split, emotion and style, mask areas, bytes, rejects by reason, tar checksums
    rejects.parquet  artworks that are in one of the two tars only, because a step rejected them
    croissant.json   the dataset card in the Croissant format
    README.md        the dataset card of the Hugging Face hub: ``load_dataset("data/shards", "masks")``
    SHA256SUMS       of these

`join` reads the tars, and `verify` looks after what is on disk; `pipeline.reader` reads what is written here.
"""

import functools
import json
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
from pydantic import Field

from pipeline.common.digests import check_file, check_finished, read_sidecar
from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes, write_json, write_parquet
from pipeline.common.fingerprint import sha256_file
from pipeline.common.lock import writes
from pipeline.common.params import STRICT, Paths
from pipeline.common.schema import INDEX, LABELS, REJECTS, shard_stem
from pipeline.common.sums import write_sums
from pipeline.common.tables import table_file
from pipeline.parallel.map_shards import ParallelParams, map_shards
from pipeline.reader.index import Index
from pipeline.reader.rejections import REJECTING_STEPS, rejections
from pipeline.reader.tar_paths import FILES
from pipeline.releases.gallery_mark import noted_sources
from pipeline.shards.croissant_card import croissant_card
from pipeline.shards.description import describe
from pipeline.shards.hub_card import hub_card
from pipeline.shards.join import OF_AN_ARTWORK, Joined, cache_folder, join_jobs, join_shard, load_joined
from pipeline.shards.verify import WRITTEN

HERE = ParallelParams()


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ShardsParams:
    """How the dataset is described."""

    name: Annotated[str, Field(min_length=1)] | None = None
    """Name of the dataset on its card. This and the next three: null takes the gallery's own words where all
    of it is drawn, and says "not described" where it is not."""
    description: str | None = None
    """What the dataset is, on its card."""
    url: str | None = None
    """Where the data's origin is described, on its card."""
    license: str | None = None
    """Licence of the data (not of the code), on its card."""
    citation: str = "Zhang, Li, Guo, Wang: EmoSEM: Segment and Explain Emotion Stimuli in Visual Art"
    """The work to cite, on its card."""
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")] = "1.0.0"
    """Version of the data, MAJOR.MINOR.PATCH, on its card."""
    date_published: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] = "2026-11-22"
    """Day of this version on its card, YYYY-MM-DD; given, not taken from the clock: reruns are identical."""
    area_bins: Annotated[int, Field(ge=1)] = 20
    """Bins of the mask area histogram over [0, 1], shares of the artwork."""


@writes(lambda paths, *_: [paths.step("shards")])
def build_shards(paths: Paths, params: ShardsParams, parallel: ParallelParams = HERE) -> dict[str, Any]:
    """Join, check and index the shards; returns counts. Shards whose tars are unchanged are not read again.

    Raises `UserError` naming the shard and the key where features and masks do not belong together.
    """
    out = paths.step("shards")
    shards = _shard_numbers(paths)
    for f in FILES:
        check_finished(paths.step(f), shards)
    process = functools.partial(join_shard, paths=paths)
    map_shards("shards", cache_folder(paths), join_jobs(paths, shards), process, parallel)
    joined = [load_joined(paths, shard) for shard in shards]
    index = pa.concat_tables([data.rows.select(INDEX.names) for data in joined]).combine_chunks()
    _reconcile(paths, index)
    if not index.num_rows:
        raise UserError(f"no artwork is in both {paths.step('features')} and {paths.step('masks')}")
    write_parquet(out / "index.parquet", index)
    write_parquet(out / "labels.parquet", pa.concat_tables([_labels(data.rows) for data in joined]))
    rejects: list[dict[str, Any]] = [
        {"source": key, "row": -1, "reason": why, "detail": shard_stem(data.shard)}
        for data in joined
        for key, why in data.rejects
    ]
    write_parquet(out / "rejects.parquet", pa.Table.from_pylist(rejects, schema=REJECTS))
    statistics = _statistics(joined, params.area_bins)
    statistics["drawn"] = noted_sources(paths.step("utterances"))
    statistics["rejects"] = _all_rejects(paths, Counter(reject["reason"] for reject in rejects))
    path = out / "index.parquet"
    statistics["index"] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    write_json(out / "stats.json", statistics)
    dataset = describe(params, statistics["drawn"])
    write_json(out / "croissant.json", croissant_card(dataset, statistics))
    write_bytes(out / "README.md", hub_card(dataset, statistics, Index(out, index)).encode())
    write_sums(out, WRITTEN)
    return {
        "shards": len(shards),
        "kept": index.num_rows,
        "rejected": len(rejects),
        **{name: statistics[name] for name in ("masks", "utterances", "bytes", "splits", "rejects")},
    }


def _reconcile(paths: Paths, index: pa.Table) -> None:
    """Every artwork of the utterances step is indexed, or was rejected on record; nothing else is indexed."""
    table = table_file(paths, "artworks")
    works = pq.read_table(table, columns=["key", "shard"])
    shard_of = dict(zip(works["key"].to_pylist(), works["shard"].to_pylist(), strict=True))
    for key, shard in zip(index["key"].to_pylist(), index["shard"].to_pylist(), strict=True):
        if shard_of.pop(key, None) != shard:
            raise UserError(
                f"shard {shard_stem(shard)}: key {key} is not of this shard in {table}; "
                "run the masks and features steps again"
            )
    known = {shard: rejections(paths, shard) for shard in set(shard_of.values())}
    for key, shard in shard_of.items():
        if key not in known[shard]:
            raise UserError(
                f"shard {shard_stem(shard)}: key {key} is in neither tar, and no step rejected it; "
                "run the masks and features steps again"
            )


def _shard_numbers(paths: Paths) -> list[int]:
    """Numbers of the shards, which must be the same in both folders."""
    found = {f: {int(p.stem) for p in paths.step(f).glob("*.tar") if p.stem.isdigit()} for f in FILES}
    for one, other in (FILES, FILES[::-1]):
        lacking = sorted(found[one] - found[other])
        if lacking:
            raise UserError(
                f"shard {shard_stem(lacking[0])} is in {paths.step(one)} but not in {paths.step(other)} "
                f"({len(lacking)} such shard(s)); run the masks and features steps again"
            )
    if not found["features"]:
        raise UserError(f"no shards in {paths.step('features')}; run the features and masks steps first")
    return sorted(found["features"])


def _labels(rows: pa.Table) -> pa.Table:
    """`schema.LABELS` of a shard's artworks."""
    flat = [
        {**label, **{name: row[name] for name in OF_AN_ARTWORK}}
        for row in rows.select([*OF_AN_ARTWORK, "labels"]).to_pylist()
        for label in row["labels"]
    ]
    return pa.Table.from_pylist(flat, schema=LABELS)


def _statistics(joined: Sequence[Joined], area_bins: int) -> dict[str, Any]:
    """Counts over all shards. A *mask* is one (artwork, emotion) pair."""
    splits: dict[str, Counter[str]] = {}
    emotions: dict[str, Counter[str]] = {}
    areas: dict[str, list[float]] = {}
    styles: Counter[str] = Counter()
    for data in joined:
        for row in data.rows.drop_columns(["members"]).to_pylist():
            styles[row["art_style"]] += 1
            split = splits.setdefault(row["split"], Counter())
            split.update(artworks=1, masks=len(row["emotions"]), utterances=sum(row["utterance_counts"]))
            for label in row["labels"]:
                emotion, count = label["emotion"], label["utterances"]
                emotions.setdefault(emotion, Counter()).update(
                    {"masks": 1, "utterances": count, row["split"]: 1}
                )
                areas.setdefault(emotion, []).append(label["area"])
    counts, edges = np.histogram([a for group in areas.values() for a in group], bins=area_bins, range=(0, 1))
    return {
        "artworks": styles.total(),
        "masks": sum(split["masks"] for split in splits.values()),
        "utterances": sum(split["utterances"] for split in splits.values()),
        "splits": {name: dict(count) for name, count in splits.items()},
        "emotions": {
            name: {**count, "mean_area": round(float(np.mean(areas[name])), 4)}
            for name, count in emotions.items()
        },
        "styles": dict(styles),
        "mask_area": {"edges": [round(float(e), 6) for e in edges], "counts": [int(c) for c in counts]},
        "lineage": _lineage(joined),
        "shards": [{"shard": data.shard, **data.files} for data in joined],
        "bytes": {f: sum(data.files[f]["bytes"] for data in joined) for f in FILES},
    }


def _lineage(joined: Sequence[Joined]) -> list[dict[str, Any]]:
    """Each way in which masks were made, with its number of artworks; more than one is a mixture."""
    counts: Counter[str] = Counter()
    for data in joined:
        counts.update(data.lineages)
    return [{"artworks": count, "made_by": json.loads(text)} for text, count in sorted(counts.items())]


def _all_rejects(paths: Paths, here: Counter[str]) -> dict[str, dict[str, int]]:
    """Step -> reason -> count, over everything that was left out on the way to the shards."""
    found: dict[str, Counter[str]] = {"shards": here}
    table = paths.step("utterances") / "rejects.parquet"
    if table.is_file():
        check_file(table)
        found["utterances"] = Counter(pq.read_table(table, columns=["reason"])["reason"].to_pylist())
    for step in REJECTING_STEPS:
        for path in sorted(paths.step(step).glob("*.json")):
            sidecar = read_sidecar(path.parent, int(path.stem)) if path.stem.isdigit() else None
            found.setdefault(step, Counter()).update(r["reason"] for r in (sidecar or {}).get("rejects", ()))
    return {step: dict(reasons) for step, reasons in found.items() if reasons}
