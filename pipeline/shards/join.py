"""Joins the features and masks tars of one shard: proves that they belong together, and hashes every byte.

The result is kept in ``data/cache/shards/``, so that the `shards` step reads a shard again only when
one of its tars was written since. A tar counts as unchanged when its size and time are; whoever wants to know
whether its bytes are has `shard-stats --verify`. The cache is no output: it may be deleted at any time.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.common.code import code_fingerprint
from pipeline.common.digests import check_file, file_digest, recorded_digest
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.files import write_parquet
from pipeline.common.fingerprint import fingerprint
from pipeline.common.params import Paths
from pipeline.common.progress import ShardProgress
from pipeline.common.schema import INDEX, LABELS, shard_stem
from pipeline.common.tars import Member, list_members
from pipeline.parallel.shard_result import ShardResult
from pipeline.reader.rejections import rejections
from pipeline.reader.tar_paths import FILES, tar_path
from pipeline.shards.labels import ShardTables, describe_labels

OF_AN_ARTWORK = ("key", "split", "shard", "art_style")
"""Columns of `LABELS` that all masks of an artwork share."""
OF_A_LABEL = pa.struct([field for field in LABELS if field.name not in OF_AN_ARTWORK])
JOINED = INDEX.append(pa.field("art_style", pa.string())).append(
    pa.field("labels", pa.list_(OF_A_LABEL))  # one per emotion
)
"""Schema of a kept join: the index's columns, and what the statistics need besides."""


@dataclass(frozen=True)
class Joined:
    """What one pair of tars holds."""

    shard: int
    rows: pa.Table
    """`JOINED`, in the order of the tars."""
    rejects: list[tuple[str, str]]
    """(key, reason) of artworks that are in one tar only."""
    files: dict[str, dict[str, Any]]
    """features, masks -> ``bytes`` and ``sha256`` of the tar."""
    lineages: dict[str, int]
    """How masks were made (``lineage`` of KEY.json, as JSON) -> artworks."""


def cache_folder(paths: Paths) -> Path:
    """Folder of the kept joins. Not in the step's own, which must not depend on when a tar was written."""
    return paths.data / "cache" / "shards"


def join_jobs(paths: Paths, shards: Sequence[int]) -> dict[int, str]:
    """Shard -> fingerprint of its tars (size, time, recorded digest), of the steps' rejects, of this code."""
    code = code_fingerprint(__name__)
    return {
        shard: fingerprint(
            code,
            rejections(paths, shard),
            [_recorded(paths, step, shard) for step in ("regions", "similarity")],
            [(*_stamp(paths, f, shard), recorded_digest(_tar(paths, f, shard))) for f in FILES],
        )
        for shard in shards
    }


def _recorded(paths: Paths, step: str, shard: int) -> str | None:
    path = paths.step(step) / f"{shard_stem(shard)}.parquet"
    return recorded_digest(path) if path.is_file() else None


def _tar(paths: Paths, file: str, shard: int) -> Path:
    return tar_path(paths.step("shards"), file, shard)


def _stamp(paths: Paths, file: str, shard: int) -> tuple[int, int]:
    status = _tar(paths, file, shard).stat()
    return status.st_size, status.st_mtime_ns


def join_shard(shard: int, progress: ShardProgress, paths: Paths) -> ShardResult:
    """Join one pair of tars and keep the result. Raises `UserError` where they do not belong together."""
    members = {f: _by_key(_tar(paths, f, shard)) for f in FILES}
    keys, rejects = _joined_keys(paths, shard, list(members["features"]), list(members["masks"]))
    with ThreadPoolExecutor(1) as pool:  # both kinds of checksum at once, each on a core of its own
        whole = pool.submit(_tar_checksums, paths, shard)
        rows, lineages = [], Counter[str]()
        for row in _rows(paths, shard, keys, members):
            lineages[row.pop("lineage")] += 1
            rows.append(row)
            progress.add()
        files = whole.result()
    kept = {"rejects": rejects, "files": files, "lineages": lineages}
    metadata = {name: json.dumps(value) for name, value in kept.items()}
    table = pa.Table.from_pylist(rows, JOINED.with_metadata(metadata))
    write_parquet(_kept(paths, shard), table)
    return ShardResult(len(rows), rejects)


def load_joined(paths: Paths, shard: int) -> Joined:
    """What `join_shard` wrote."""
    table = pq.read_table(_kept(paths, shard))
    kept = {
        name: json.loads(table.schema.metadata[name.encode()]) for name in ("rejects", "files", "lineages")
    }
    rejects = [(key, reason) for key, reason in kept["rejects"]]
    return Joined(shard, table.replace_schema_metadata(None), rejects, kept["files"], kept["lineages"])


def _kept(paths: Paths, shard: int) -> Path:
    return cache_folder(paths) / f"{shard_stem(shard)}.parquet"


def _by_key(path: Path) -> dict[str, list[Member]]:
    """Members of a tar, grouped by artwork. Raises `UserError` when it is damaged, cut short or unsafe."""
    grouped: dict[str, list[Member]] = {}
    for member in list_members(path, f"the {path.parent.name} step"):
        grouped.setdefault(member.key, []).append(member)
    return grouped


def _tar_checksums(paths: Paths, shard: int) -> dict[str, dict[str, Any]]:
    """Size and digest of both tars. Raises `DamagedFile` where one is not as its step wrote it."""
    places = {f: check_file(_tar(paths, f, shard)) for f in FILES}
    return {f: {"bytes": path.stat().st_size, "sha256": file_digest(path)} for f, path in places.items()}


def _rows(
    paths: Paths, shard: int, keys: Sequence[str], members: dict[str, dict[str, list[Member]]]
) -> Iterator[dict[str, Any]]:
    """Yield a row of `JOINED` per artwork."""
    tables = ShardTables(paths, shard)
    with ExitStack() as stack:
        tars = {f: stack.enter_context(_tar(paths, f, shard).open("rb")) for f in FILES}
        for key in keys:
            here = [(f, member) for f in FILES for member in members[f][key]]
            digest = hashlib.sha256()
            cards: dict[str, bytes] = {}
            pictures: dict[str, bytes] = {}
            for f, member in here:
                data = _read(tars[f], member)
                digest.update(data)
                if member.name == "json":
                    cards[f] = data
                elif f == "masks":
                    pictures[member.name.removesuffix(".png")] = data
            metadata = _mask_metadata(cards.get("masks"), shard, key)
            emotions = [emotion for emotion in EMOTIONS if emotion in metadata["emotions"]]
            needed = {"features": _feature_names(cards.get("features"), shard, key)}
            needed["masks"] = {f"{emotion}.png" for emotion in emotions}
            _check_members(needed, {(f, member.name) for f, member in here}, shard, key)
            yield {
                "key": key,
                "shard": shard,
                "split": metadata["split"],
                "emotions": emotions,
                "utterance_counts": [
                    len(metadata["emotions"][emotion]["utterances"]) for emotion in emotions
                ],
                "members": [{"file": f, "name": m.name, "offset": m.offset, "size": m.size} for f, m in here],
                "sha256": digest.hexdigest(),
                "art_style": metadata["art_style"],
                "lineage": json.dumps(metadata.get("lineage"), sort_keys=True),
                "labels": describe_labels(metadata, {e: pictures[e] for e in emotions}, key, tables),
            }


def _read(tar: IO[bytes], member: Member) -> bytes:
    tar.seek(member.offset)
    return tar.read(member.size)


def _mask_metadata(data: bytes | None, shard: int, key: str) -> dict[str, Any]:
    """KEY.json of the masks tar. Raises `UserError` when it is missing or lacks a field."""
    place = f"shard {shard_stem(shard)}, key {key}"
    if data is None:
        raise UserError(f"{place}: masks has no {key}.json; run the masks step again")
    try:
        card: dict[str, Any] = json.loads(data)
        for emotion in card["emotions"].values():
            len(emotion["utterances"]), float(emotion["area"])
        card["split"], card["art_style"], int(card["height"]), int(card["width"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{place}: {key}.json of masks is unusable ({error!r}); run masks again") from None
    return card


def _feature_names(data: bytes | None, shard: int, key: str) -> set[str]:
    """Members that KEY.json of the features tar declares. Raises `UserError` when it is of no use."""
    place = f"shard {shard_stem(shard)}, key {key}"
    if data is None:
        raise UserError(f"{place}: features has no {key}.json; run the features step again")
    try:
        card: dict[str, Any] = json.loads(data)
        names = {f"{network}.npy" for network in ("sam", "clip") if card.get(network)}
        if isinstance(card.get("sam"), dict) and card["sam"].get("dtype") == "int8":
            names.add("sam_scale.npy")
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"{place}: {key}.json of features is unusable ({error!r}); run features again"
        ) from None
    if not names:
        raise UserError(f"{place}: {key}.json of features declares no features at all; run features again")
    return names


def _check_members(needed: dict[str, set[str]], found: set[tuple[str, str]], shard: int, key: str) -> None:
    """Raise `UserError` where an artwork lacks a member that its cards declare."""
    for f, names in needed.items():
        if lacking := sorted(name for name in names if (f, name) not in found):
            raise UserError(
                f"shard {shard_stem(shard)}, key {key}: {f} has no {key}.{lacking[0]}; delete the "
                f"shard's tar and run the {f} step again"
            )


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
