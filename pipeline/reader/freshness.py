"""Whether an index is of the tars that lie beside it: asked whenever one is opened, by sizes and digests.

No tar is read. What it costs is a look at each tar and its sidecar (docs/scale.md); whether every byte of a
tar is the indexed one is for ``shard-stats --verify``.
"""

import json
from pathlib import Path
from typing import Any

from pipeline.common.digests import check_file, read_sidecar
from pipeline.common.errors import UserError
from pipeline.common.schema import shard_stem
from pipeline.reader.tar_paths import FILES, tar_path


def check_fresh(folder: Path) -> dict[str, Any] | None:
    """The statistics in `folder` (``data/shards``), of the tars that are there now; None when it has none.

    Tars that came without sidecars, from the hub for instance, are known by their sizes.
    Raises `UserError` when they are damaged, or tars were made again since.
    """
    path = folder / "stats.json"
    if not path.is_file():
        return None
    check_file(path)
    try:
        statistics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        indexed = {entry["shard"]: {f: dict(entry[f]) for f in FILES} for entry in statistics["shards"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error!r}); run the shards step again") from None
    for f in FILES:
        vouched = any((folder.parent / f).glob("[0-9]*.json"))
        for shard, tars in indexed.items():
            _check_tar(tar_path(folder, f, shard), shard, tars[f], vouched)
    return statistics


def _check_tar(tar: Path, shard: int, indexed: dict[str, Any], vouched: bool) -> None:
    """Raise `UserError` unless a tar is the indexed one; `vouched`: its folder has sidecars."""
    step, name = tar.parent.name, f"shard {shard_stem(shard)}"
    try:
        size = tar.stat().st_size
    except OSError as error:
        raise UserError(f"{tar} cannot be found ({error.strerror}); run the {step} step again") from None
    sidecar = read_sidecar(tar.parent, shard)
    if vouched and sidecar is None:
        raise UserError(
            f"{name} of {step} is not finished: a run of {step} was killed or failed; run {step}, then shards"
        )
    sha256 = (sidecar or {}).get("files", {}).get(tar.name, {}).get("sha256", indexed["sha256"])
    if sha256 != indexed["sha256"]:
        raise UserError(f"{name} of {step} was made again since the index was written; run the shards step")
    if size != indexed["bytes"]:
        raise UserError(
            f"{tar} has {size} bytes and the indexed one had {indexed['bytes']}: it was made again, and the "
            f"shards step has to run, or it is damaged; delete it, then run {step} and shards"
        )
