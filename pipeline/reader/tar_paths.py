"""Where a shard's tars lie, seen from the folder of the index."""

from pathlib import Path

from pipeline.common.schema import shard_stem

FILES = ("features", "masks")
"""The folders whose tars are joined, beside the folder of the index; also `schema.MEMBER`'s `file`."""


def tar_path(folder: Path, file: str, shard: int) -> Path:
    """Path of a shard's tar, `file` one of `FILES`, seen from the folder of the index."""
    return folder.parent / file / f"{shard_stem(shard)}.tar"
