"""SHA-256 beside every artifact of the data steps, and whether a file still is the one that its step wrote.

A shard's sidecar ``000000.json`` holds the digests of its files; folders without shards (utterances, shards)
have a ``SHA256SUMS``. Tables are compared whenever they are read. Of tars, which are too large for that, the
size is compared, and the bytes when `shards` reads them and by ``shard-stats --verify``.
"""

import functools
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.common.errors import UserError
from pipeline.common.files import write_json
from pipeline.common.fingerprint import fingerprint, sha256_file
from pipeline.common.schema import shard_stem
from pipeline.common.sums import SUMS, read_sums

SHOWN = 5
"""Shards that a message names."""


class DamagedFile(UserError):  # noqa: N818 - named for what it says
    """A file that is not the one that its step wrote: only that step can mend it."""


def sidecar_path(out: Path, shard: int) -> Path:
    """Where a shard's sidecar lies."""
    return out / f"{shard_stem(shard)}.json"


def read_sidecar(out: Path, shard: int) -> dict[str, Any] | None:
    """The sidecar of a shard, or None when it is absent or not as `write_sidecar` wrote it."""
    try:
        return read_sealed(sidecar_path(out, shard))
    except (OSError, ValueError):
        return None


def write_sidecar(out: Path, shard: int, content: Mapping[str, Any]) -> None:
    """Write a shard's sidecar with a digest of itself."""
    write_json(sidecar_path(out, shard), seal(content))


def digests(files: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Name -> ``bytes`` and ``sha256`` of files, which are read."""
    return {path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in files}


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content with a digest of itself under ``sha256``, for a file that has none beside it."""
    return {**content, "sha256": fingerprint(content)}


def read_sealed(path: Path) -> dict[str, Any]:
    """What `seal` closed, without the digest. Raises `OSError`; `ValueError` when it is not that."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        digest = content.pop("sha256")
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no digest in it: {error!r}") from None
    if digest != fingerprint(content):
        raise ValueError("its SHA-256 is another: it was damaged or edited")
    return content


def recorded_digest(path: Path) -> str | None:
    """The SHA-256 that a file's step noted, or None when it noted none, such as for a table made by hand."""
    if path.name[:6].isdigit():
        sidecar = read_sidecar(path.parent, int(path.name[:6])) or {}
        found = sidecar.get("files", {}).get(path.name)
        return found["sha256"] if found else None
    try:
        sums = read_sums(path.parent)
    except (OSError, ValueError) as error:
        raise DamagedFile(
            f"{path.parent / SUMS} cannot be read ({error}); run the {path.parent.name} step again"
        ) from None
    return None if sums is None else sums.get(path.name, "")


def check_file(path: Path) -> Path:
    """The path of a file of a step's folder, whose bytes are those that the step wrote. Raises `DamagedFile`.

    Its bytes are read, once in a process as long as the file's time stays.
    """
    wanted = recorded_digest(path)
    if wanted is not None and wanted != file_digest(path):
        step = path.parent.name
        delete = "delete it and " if path.suffix == ".tar" else ""  # the step looks at a tar's size only
        raise DamagedFile(
            f"{path} is not the file that the {step} step wrote: its SHA-256 is another, so it was "
            f"damaged or changed; {delete}run the {step} step, which makes it again"
        )
    return path


def file_digest(path: Path) -> str:
    """SHA-256 of a file, read once in a process as long as its time stays."""
    return _digest(path, *_stamp(path))


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=4096)
def _digest(path: Path, *_stamp: int) -> str:
    return sha256_file(path)


def check_finished(out: Path, shards: Iterable[int], by_hand: bool = False) -> None:
    """Raise `UserError` unless all these shards of a step are finished, and made by one recipe.

    Only sizes are looked at. A recipe is what all shards share: params, weights and code. `by_hand`: a folder
    without any sidecar passes, because nothing there was begun and left.
    """
    wanted = sorted(shards)
    if by_hand and not any(out.glob("[0-9]*.json")):
        return
    sidecars = {shard: read_sidecar(out, shard) for shard in wanted}
    unfinished = [
        shard for shard, sidecar in sidecars.items() if sidecar is None or not has_its_files(out, sidecar)
    ]
    step = out.name
    if unfinished:
        raise UserError(
            f"{len(unfinished)} of {len(wanted)} shards of {out} are not finished ({_named(unfinished)}): a "
            f"run of {step} was killed or failed, or files changed; run the {step} step, which keeps the rest"
        )
    recipes = {shard: (sidecar or {}).get("recipe") for shard, sidecar in sidecars.items()}
    counts = Counter(recipes.values()).most_common()
    if len(counts) > 1:
        odd = [shard for shard, recipe in recipes.items() if recipe != counts[0][0]]
        raise UserError(
            f"the shards of {out} are of {len(counts)} recipes, made with different params, weights or code: "
            f"{len(odd)} of {len(wanted)} ({_named(odd)}) are not like the others; run the {step} step, "
            "which makes the old ones again"
        )


def has_its_files(out: Path, sidecar: Mapping[str, Any]) -> bool:
    """Whether the files of a sidecar are there, as long as they were."""
    try:
        return all((out / name).stat().st_size == file["bytes"] for name, file in sidecar["files"].items())
    except (OSError, KeyError, TypeError):
        return False


def _named(shards: list[int]) -> str:
    more = f" and {len(shards) - SHOWN} more" if len(shards) > SHOWN else ""
    return ", ".join(shard_stem(shard) for shard in shards[:SHOWN]) + more
