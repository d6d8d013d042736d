"""Step `shards`: one index over the features and masks tars, their checksums, statistics and dataset card.

Features and masks of one shard number are two tars over the same artworks in the same order. This step
proves that, and writes to ``data/shards/``:

    index.parquet    one row an artwork (`schema.INDEX`): split, emotions, where each member's bytes lie
    stats.json       counts by split, emotion and style, mask areas, bytes, rejects by reason, tar checksums
    rejects.parquet  artworks that are in one of the two tars only, because a step rejected them
    croissant.json   the dataset card in the Croissant format

`Index` reads members at random by memory map, `stats` and `verify` look after what is on disk.
"""

import hashlib
import json
import mmap
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
from pydantic import Field

from pipeline import croissant, storage
from pipeline.emotions import EMOTIONS
from pipeline.parallel import read_sidecar
from pipeline.params import STRICT, Paths, UserError
from pipeline.schema import INDEX, REJECTS, shard_stem
from pipeline.shard_checks import Problem, verify
from pipeline.shard_index import FILES, Index, Member, Row, list_members, map_file, tar_path

__all__ = ["Index", "Problem", "Row", "ShardsParams", "build", "describe", "rejections", "stats", "verify"]

REJECTING_STEPS = ("regions", "similarity", "masks", "features")
"""Steps whose shard sidecars may reject an artwork, in data order."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ShardsParams:
    """How the dataset is described, and how fast it is hashed."""

    name: Annotated[str, Field(min_length=1)] = "emosem-gallery"
    """Name of the dataset on its card."""
    description: str = (
        "Frozen SAM and CLIP features and pseudo emotion masks of drawn scenes, "
        "a stand-in for ArtEmis, WikiArt and APOLO in their released layouts."
    )
    """What the dataset is, on its card."""
    url: str = "https://www.artemisdataset.org/"
    """Where the data's origin is described, on its card."""
    license: str = "https://spdx.org/licenses/CC0-1.0.html"
    """Licence of the data (not of the code), on its card."""
    citation: str = "Zhang, Li, Guo, Wang: EmoSEM: Segment and Explain Emotion Stimuli in Visual Art"
    """The work to cite, on its card."""
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")] = "1.0.0"
    """Version of the data, MAJOR.MINOR.PATCH, on its card."""
    date_published: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] = "2026-11-22"
    """Day of this version on its card, YYYY-MM-DD; given, not taken from the clock: reruns are identical."""
    area_bins: Annotated[int, Field(ge=1)] = 20
    """Bins of the mask area histogram over [0, 1], shares of the artwork."""
    threads: Annotated[int, Field(ge=1)] = 2
    """Tars hashed at the same time. Changes speed, never a result."""


@dataclass(frozen=True)
class _Shard:
    """What one pair of tars holds."""

    rows: list[dict[str, Any]]
    """`INDEX` rows, and with them `art_style` and `areas` for the statistics."""
    rejects: list[tuple[str, str]]
    """(key, reason) of artworks that are in one tar only."""
    files: dict[str, dict[str, Any]]
    """File -> its ``bytes`` and ``sha256``."""


def build(paths: Paths, params: ShardsParams) -> dict[str, Any]:
    """Join, check and index the shards; returns counts.

    Raises `UserError` naming the shard and the key where features and masks do not belong together.
    """
    out = paths.step("shards")
    shards = _shard_numbers(paths)
    with ThreadPoolExecutor(params.threads) as pool:
        read = list(pool.map(lambda shard: _read_shard(paths, shard), shards))
    rows = [row for shard in read for row in shard.rows]
    _reconcile(paths, rows)
    if not rows:
        raise UserError(f"no artwork is in both {paths.step('features')} and {paths.step('masks')}")
    rejects = [(n, key, why) for n, data in zip(shards, read, strict=True) for key, why in data.rejects]
    storage.write_parquet(out / "index.parquet", pa.Table.from_pylist(rows, schema=INDEX))
    table = [{"source": key, "row": -1, "reason": why, "detail": shard_stem(n)} for n, key, why in rejects]
    storage.write_parquet(out / "rejects.parquet", pa.Table.from_pylist(table, schema=REJECTS))
    statistics = _statistics(rows, params.area_bins)
    statistics["shards"] = [{"shard": n, **data.files} for n, data in zip(shards, read, strict=True)]
    statistics["bytes"] = {f: sum(data.files[f]["bytes"] for data in read) for f in FILES}
    statistics["rejects"] = _all_rejects(paths, Counter(why for _, _, why in rejects))
    index = out / "index.parquet"
    statistics["index"] = {"bytes": index.stat().st_size, "sha256": storage.sha256_file(index)}
    storage.write_json(out / "stats.json", statistics)
    storage.write_json(out / "croissant.json", croissant.card(params, statistics))
    return {
        "shards": len(shards),
        "kept": len(rows),
        "rejected": len(rejects),
        **{name: statistics[name] for name in ("masks", "utterances", "bytes", "splits", "rejects")},
    }


def _reconcile(paths: Paths, rows: list[dict[str, Any]]) -> None:
    """Every artwork of the utterances step is indexed, or was rejected on record; nothing else is indexed."""
    table = paths.step("utterances") / "artworks.parquet"
    if not table.is_file():
        raise UserError(f"{table} does not exist; run the utterances step")
    works = pq.read_table(table, columns=["key", "shard"])
    shard_of = dict(zip(works["key"].to_pylist(), works["shard"].to_pylist(), strict=True))
    for row in rows:
        if shard_of.pop(row["key"], None) != row["shard"]:
            raise UserError(
                f"shard {shard_stem(row['shard'])}: key {row['key']} is not of this shard in {table}; "
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
                f"({len(lacking)} such shard(s)); run the {other} step"
            )
    if not found["features"]:
        raise UserError(f"no shards in {paths.step('features')}; run the features and masks steps first")
    return sorted(found["features"])


def _read_shard(paths: Paths, shard: int) -> _Shard:
    """Join one pair of tars and hash every byte of them, once for the tar and once for its artworks."""
    members = {f: _by_key(tar_path(paths.step("shards"), f, shard)) for f in FILES}
    keys, rejects = _joined_keys(paths, shard, list(members["features"]), list(members["masks"]))
    maps = {f: map_file(tar_path(paths.step("shards"), f, shard)) for f in FILES}
    rows = []
    for key in keys:
        here = [(f, member) for f in FILES for member in members[f][key]]
        digest = hashlib.sha256()
        for f, member in here:
            digest.update(memoryview(maps[f])[member.offset : member.offset + member.size])
        card = _masks_card(maps["masks"], members["masks"][key], shard, key)
        emotions = [emotion for emotion in EMOTIONS if emotion in card["emotions"]]
        rows.append(
            {
                "key": key,
                "shard": shard,
                "split": card["split"],
                "emotions": emotions,
                "utterance_counts": [len(card["emotions"][emotion]["utterances"]) for emotion in emotions],
                "members": [{"file": f, "name": m.name, "offset": m.offset, "size": m.size} for f, m in here],
                "sha256": digest.hexdigest(),
                "art_style": card["art_style"],
                "areas": [float(card["emotions"][emotion]["area"]) for emotion in emotions],
            }
        )
    files = {f: {"bytes": len(maps[f]), "sha256": hashlib.sha256(maps[f]).hexdigest()} for f in FILES}
    return _Shard(rows, rejects, files)


def _joined_keys(
    paths: Paths, shard: int, features: list[str], masks: list[str]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Keys that both tars hold, in their common order, and (key, reason) of those that one of them lacks.

    An artwork may be missing from one tar only when a step has rejected it on record.
    """
    both = set(features) & set(masks)
    known = rejections(paths, shard)
    rejects = []
    for key in sorted(set(features) ^ set(masks)):
        has, lacks = FILES if key in set(features) else FILES[::-1]
        if key not in known:
            raise UserError(
                f"shard {shard_stem(shard)}: key {key} is in {has} but not in {lacks}, and no step rejected "
                f"it; run {has} and {lacks} again on the same utterances"
            )
        rejects.append((key, known[key]))
    order = [key for key in features if key in both]
    for ours, theirs in zip(order, (key for key in masks if key in both), strict=True):
        if ours != theirs:
            raise UserError(
                f"shard {shard_stem(shard)}: features and masks are in different order at key {ours} "
                f"(masks has {theirs} there); run both steps again"
            )
    return order, rejects


def rejections(paths: Paths, shard: int) -> dict[str, str]:
    """Key -> ``step: reason`` of what the steps rejected in one shard; the earliest step wins."""
    found: dict[str, str] = {}
    for step in REJECTING_STEPS:
        for reject in (read_sidecar(paths.step(step), shard) or {}).get("rejects", ()):
            found.setdefault(reject["key"], f"{step}: {reject['reason']}")
    return found


def _by_key(path: Path) -> dict[str, list[Member]]:
    """Members of a tar, grouped by artwork. Raises `UserError` when it is damaged or cut short."""
    grouped: dict[str, list[Member]] = {}
    for member in list_members(path):
        grouped.setdefault(member.key, []).append(member)
    return grouped


def _masks_card(masks: mmap.mmap, members: list[Member], shard: int, key: str) -> dict[str, Any]:
    """KEY.json of the masks tar. Raises `UserError` when it is missing or lacks a field."""
    place = f"shard {shard_stem(shard)}, key {key}"
    member = next((m for m in members if m.name == "json"), None)
    if member is None:
        raise UserError(f"{place}: masks has no {key}.json; run the masks step again")
    try:
        card: dict[str, Any] = json.loads(masks[member.offset : member.offset + member.size])
        for emotion in card["emotions"].values():
            len(emotion["utterances"]), float(emotion["area"])
        card["split"], card["art_style"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{place}: {key}.json of masks is unusable ({error!r}); run masks again") from None
    return card


def _statistics(rows: list[dict[str, Any]], area_bins: int) -> dict[str, Any]:
    """Counts over the index rows. A *mask* is one (artwork, emotion) pair."""
    splits: dict[str, Counter[str]] = {}
    emotions: dict[str, Counter[str]] = {}
    areas: dict[str, list[float]] = {}
    for row in rows:
        split = splits.setdefault(row["split"], Counter())
        split.update(artworks=1, masks=len(row["emotions"]), utterances=sum(row["utterance_counts"]))
        for emotion, count, area in zip(row["emotions"], row["utterance_counts"], row["areas"], strict=True):
            emotions.setdefault(emotion, Counter()).update({"masks": 1, "utterances": count, row["split"]: 1})
            areas.setdefault(emotion, []).append(area)
    counts, edges = np.histogram([a for group in areas.values() for a in group], bins=area_bins, range=(0, 1))
    return {
        "artworks": len(rows),
        "masks": sum(split["masks"] for split in splits.values()),
        "utterances": sum(split["utterances"] for split in splits.values()),
        "splits": {name: dict(count) for name, count in splits.items()},
        "emotions": {
            name: {**count, "mean_area": round(float(np.mean(areas[name])), 4)}
            for name, count in emotions.items()
        },
        "styles": dict(Counter(row["art_style"] for row in rows)),
        "mask_area": {"edges": [round(float(e), 6) for e in edges], "counts": [int(c) for c in counts]},
    }


def _all_rejects(paths: Paths, here: Counter[str]) -> dict[str, dict[str, int]]:
    """Step -> reason -> count, over everything that was left out on the way to the shards."""
    found: dict[str, Counter[str]] = {"shards": here}
    table = paths.step("utterances") / "rejects.parquet"
    if table.is_file():
        found["utterances"] = Counter(pq.read_table(table, columns=["reason"])["reason"].to_pylist())
    for step in REJECTING_STEPS:
        for path in sorted(paths.step(step).glob("*.json")):
            sidecar = read_sidecar(path.parent, int(path.stem)) if path.stem.isdigit() else None
            found.setdefault(step, Counter()).update(r["reason"] for r in (sidecar or {}).get("rejects", ()))
    return {step: dict(reasons) for step, reasons in found.items() if reasons}


def stats(folder: Path) -> dict[str, Any]:
    """The statistics that the step wrote to `folder`. Raises `UserError` when there are none."""
    try:
        found: dict[str, Any] = json.loads((folder / "stats.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"no readable statistics in {folder} ({error}); run the shards step") from None
    return found


def describe(statistics: dict[str, Any]) -> str:
    """The statistics as a few lines that a person reads."""
    totals = (f"{statistics[name]:,} {name}" for name in ("artworks", "masks", "utterances"))
    size = sum(statistics["bytes"].values()) / 2**20
    lines = [f"{', '.join(totals)} in {len(statistics['shards'])} shards, {size:,.1f} MiB"]
    for name, count in statistics["splits"].items():
        lines.append(
            f"  {name:<12} {count['artworks']:>9,} artworks {count['masks']:>9,} masks "
            f"{count['utterances']:>9,} utterances"
        )
    for name in EMOTIONS:
        if count := statistics["emotions"].get(name):
            lines.append(
                f"  {name:<12} {count['masks']:>9,} masks    {count['utterances']:>9,} utterances "
                f"{count['mean_area']:>6.0%} of the artwork"
            )
    for step, reasons in sorted(statistics["rejects"].items()):
        lines += [f"  left out by {step}: {reason}: {count:,}" for reason, count in sorted(reasons.items())]
    return "\n".join(lines)
