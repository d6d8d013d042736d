"""Finds what is damaged in a folder of shards, and names shard, key and kind.

Every byte of every tar is compared with the checksums of the `shards` step. An intact tar costs one pass;
only in a damaged one is the place looked for.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.common.errors import UserError
from pipeline.common.fingerprint import sha256_file
from pipeline.common.progress import ShardMeter
from pipeline.common.schema import INDEX, REJECTS, shard_stem
from pipeline.common.sums import SUMS, read_sums
from pipeline.common.tars import Listing, Member, scan_tar
from pipeline.reader.tar_paths import FILES, tar_path

Kind = Literal[
    "index",  # a file beside the index is missing, unreadable or not the one that the step wrote
    "missing-tar",
    "unknown-tar",  # a tar that the index does not know
    "truncated",  # the tar ends too early
    "damaged-header",  # a plain tar reader stops here
    "refused-member",  # what no step here writes: a link, a name that leaves the folder, a name twice
    "missing-member",
    "unknown-member",
    "moved",  # members lie elsewhere than indexed
    "misaligned",  # features and masks hold the artworks in different order
    "checksum",  # an artwork's bytes changed
    "stray-bytes",  # bytes changed outside of the artworks' data: tar headers or padding
]


WRITTEN = ("index.parquet", "labels.parquet", "stats.json", "rejects.parquet", "croissant.json", "README.md")
"""What the `shards` step writes beside the digests of these."""
NEEDED = {SUMS, "index.parquet", "stats.json", "rejects.parquet"}
"""Without these no tar can be checked."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    kind: Kind
    file: str
    """features, masks, or a file of the index's folder."""
    shard: int | None
    key: str | None
    """The artwork; the first one where several are concerned."""
    detail: str

    def __str__(self) -> str:
        place = [self.file, *([] if self.shard is None else [f"shard {shard_stem(self.shard)}"])]
        return f"{' '.join(place)}{f', key {self.key}' if self.key else ''}: {self.kind}: {self.detail}"


@dataclass(frozen=True)
class _Tar:
    """One tar as it is, beside what the index says of it."""

    file: str
    shard: int
    path: Path
    size: int
    """Of the file, bytes."""
    recorded: dict[str, Any]
    """``bytes`` and ``sha256`` from stats.json."""
    indexed: dict[tuple[str, str], Member]
    listed: dict[tuple[str, str], Member]
    """What a plain tar reader finds, in order."""
    listing: Listing
    """The same, and where that reader stopped."""

    @property
    def stop(self) -> int | None:
        """Offset of the header that cannot be read; None at the end mark or the end of the file."""
        damage = self.listing.damage
        return damage.offset if damage is not None and damage.kind == "header" else None

    def problem(self, kind: Kind, key: str | None, detail: str) -> Problem:
        return Problem(kind, self.file, self.shard, key, detail)


def verify_shards(folder: Path, threads: int = 2) -> list[Problem]:
    """All problems of the shards that the index in `folder` describes, in shard order; empty when intact.

    Raises `UserError` when the folder holds no index at all.
    """
    if not any((folder / name).is_file() for name in ("index.parquet", "stats.json")):
        raise UserError(f"{folder} is no shards folder: it has no index.parquet; run the shards step")
    problems = _files(folder)
    if {problem.file for problem in problems} & NEEDED:
        return problems
    try:
        recorded, rows, rejected = _read(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        why = f"what the step wrote cannot be read ({error!r}); run the shards step again"
        return [*problems, Problem("index", folder.name, None, None, why)]
    meter = ShardMeter("verify", len(recorded), rows.num_rows, skipped=0)
    with ThreadPoolExecutor(threads) as pool:
        check = partial(_verify_shard, folder, rejected, rows)
        for found_here, artworks in pool.map(check, recorded, recorded.values()):
            problems += found_here
            meter.finish(artworks)
    return problems + _unknown_tars(folder, set(recorded))


def _files(folder: Path) -> list[Problem]:
    """Files of the folder that are not those that the step wrote; their bytes alone are looked at."""
    try:
        sums = read_sums(folder) or {}
        wanted = {name: sums[name] for name in WRITTEN}
    except (OSError, ValueError, KeyError) as error:
        why = f"the digests of the other files cannot be read ({error!r}); run the shards step again"
        return [Problem("index", SUMS, None, None, why)]
    problems = []
    for name, digest in wanted.items():
        try:
            same = sha256_file(folder / name) == digest
            detail = "damaged or changed: its SHA-256 is another"
        except OSError as error:
            same, detail = False, f"cannot be read ({error.strerror})"
        if not same:
            problems.append(Problem("index", name, None, None, f"{detail}; run the shards step again"))
    return problems


def _read(folder: Path) -> tuple[dict[int, dict[str, Any]], pa.Table, set[str]]:
    """Of each shard the tars' sizes and digests; the index; keys that the step left out."""
    statistics = json.loads((folder / "stats.json").read_text(encoding="utf-8"))
    recorded = {int(entry["shard"]): {f: dict(entry[f]) for f in FILES} for entry in statistics["shards"]}
    rows = pq.read_table(folder / "index.parquet", schema=INDEX)
    rejected = set(pq.read_table(folder / "rejects.parquet", schema=REJECTS)["source"].to_pylist())
    unknown = sorted(set(rows["shard"].unique().to_pylist()) - recorded.keys())
    if unknown:
        raise ValueError(f"shard {shard_stem(unknown[0])} of index.parquet is not in stats.json")
    return recorded, rows, rejected


def _unknown_tars(folder: Path, known: set[int]) -> list[Problem]:
    return [
        Problem(
            "unknown-tar", f, int(path.stem), None, f"{path.name} is not indexed; run the shards step again"
        )
        for f in FILES
        for path in sorted((folder.parent / f).glob("*.tar"))
        if path.stem.isdigit() and int(path.stem) not in known
    ]


def _verify_shard(
    folder: Path, rejected: set[str], index: pa.Table, shard: int, recorded: dict[str, Any]
) -> tuple[list[Problem], int]:
    """Problems of one shard, and how many artworks it has."""
    rows = index.filter(pc.field("shard") == shard).to_pylist()
    tars, problems = [], []
    for f in FILES:
        try:
            tars.append(_open(tar_path(folder, f, shard), f, shard, rows, recorded[f]))
        except FileNotFoundError as error:
            problems.append(Problem("missing-tar", f, shard, None, f"{error.filename} does not exist"))
        except OSError as error:
            problems.append(Problem("missing-tar", f, shard, None, f"cannot be read: {error}"))
    if problems:
        return problems, len(rows)
    for tar in tars:
        problems += _structure(tar, rejected)
    problems += _alignment(tars)
    changed = [tar for tar in tars if sha256_file(tar.path) != tar.recorded["sha256"]]
    if changed:
        problems += _changed_artworks(rows, tars, changed)
        named = {problem.file for problem in problems}
        problems += [_outside(tar) for tar in changed if tar.file not in named]
    return problems, len(rows)


def _open(path: Path, file: str, shard: int, rows: list[dict[str, Any]], recorded: dict[str, Any]) -> _Tar:
    """List a tar as a plain reader would. Raises `OSError` when it cannot be opened."""
    indexed = {
        (row["key"], m["name"]): Member(row["key"], m["name"], m["offset"], m["size"])
        for row in rows
        for m in row["members"]
        if m["file"] == file
    }
    listing = scan_tar(path)
    listed = {(member.key, member.name): member for member in listing.members}
    return _Tar(file, shard, path, path.stat().st_size, recorded, indexed, listed, listing)


def _structure(tar: _Tar, rejected: set[str]) -> list[Problem]:
    """Whether the tar holds the members that the index says, where it says."""
    have, want = tar.size, tar.recorded["bytes"]
    if have < want and tar.listing.damage is not None:
        cut = sorted((m for m in tar.indexed.values() if m.offset + m.size > have), key=lambda m: m.offset)
        hit = len({member.key for member in cut})
        detail = f"{have} of {want} bytes are left; {hit} artwork(s) are cut or gone"
        return [tar.problem("truncated", cut[0].key if cut else None, detail)]
    problems = [tar.problem("refused-member", key or None, why) for key, why in tar.listing.refused]
    missing = {name for name in tar.indexed if name not in tar.listed}
    if tar.stop is not None:
        behind = [m for m in tar.indexed.values() if m.offset >= tar.stop]
        first = min(behind, key=lambda m: m.offset, default=None)
        where = f"the tar header at byte {tar.stop} is damaged; plain readers stop there"
        problems.append(tar.problem("damaged-header", first.key if first else None, where))
        missing -= {(m.key, m.name) for m in behind}
    problems += [tar.problem("missing-member", key, f"{key}.{name} is gone") for key, name in sorted(missing)]
    problems += [
        tar.problem("unknown-member", key, f"{key}.{name} is not in the index; run the shards step again")
        for key, name in tar.listed
        if (key, name) not in tar.indexed and key not in rejected
    ]
    moved = [name for name in tar.indexed if name in tar.listed and tar.listed[name] != tar.indexed[name]]
    if moved:
        detail = f"{len(moved)} member(s) lie elsewhere than indexed; run the shards step again"
        problems.append(tar.problem("moved", moved[0][0], detail))
    return problems


def _outside(tar: _Tar) -> Problem:
    """The change of a tar in which every artwork is intact."""
    have, want = tar.size, tar.recorded["bytes"]
    if have < want:
        return tar.problem("truncated", None, f"{have} of {want} bytes are left; only end padding is gone")
    return tar.problem(
        "stray-bytes", None, "bytes between the artworks' data changed (tar header or padding)"
    )


def _alignment(tars: list[_Tar]) -> list[Problem]:
    """Whether both tars hold their common artworks in the same order."""
    orders = [list(dict.fromkeys(key for key, _ in tar.listed)) for tar in tars]
    common = set(orders[0]) & set(orders[1])
    features, masks = ([key for key in order if key in common] for order in orders)
    for ours, theirs in zip(features, masks, strict=True):
        if ours != theirs:
            return [tars[1].problem("misaligned", ours, f"features has {ours} where masks has {theirs}")]
    return []


def _changed_artworks(rows: list[dict[str, Any]], tars: list[_Tar], changed: list[_Tar]) -> list[Problem]:
    """Artworks whose bytes differ from their checksum; those with members missing are reported elsewhere."""
    names = "+".join(tar.file for tar in changed)
    problems = []
    with ExitStack() as stack:
        opened = {tar.file: (tar, stack.enter_context(tar.path.open("rb"))) for tar in tars}
        for row in rows:
            digest = _digest(row, opened)
            if digest is not None and digest != row["sha256"]:
                detail = "the artwork's bytes are not those that were indexed; make this shard again"
                problems.append(Problem("checksum", names, changed[0].shard, row["key"], detail))
    return problems


def _digest(row: dict[str, Any], opened: Mapping[str, tuple[_Tar, IO[bytes]]]) -> str | None:
    """Checksum of an artwork's members as they are, or None where some are gone."""
    digest = hashlib.sha256()
    for m in row["members"]:
        tar, file = opened[m["file"]]
        name = (row["key"], m["name"])
        place = tar.listed.get(name, tar.indexed[name] if tar.stop is not None else None)
        if place is None or place.offset + place.size > tar.size:
            return None
        file.seek(place.offset)
        digest.update(file.read(place.size))
    return digest.hexdigest()
