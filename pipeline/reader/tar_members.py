"""Where each member of a tar lies: read by offset, without unpacking."""

import contextlib
import mmap
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.common.errors import UserError
from pipeline.common.schema import shard_stem
from pipeline.common.tars import refusal

FILES = ("features", "masks")
"""The folders joined here, beside the folder of the index; also `schema.MEMBER`'s `file`."""


BLOCK = 512
"""Bytes of a tar block: headers and data start at multiples of it."""


class Member(NamedTuple):
    """One file inside a tar."""

    key: str
    name: str
    """Without the key: ``sam.npy``, ``awe.png``, ``json``."""
    offset: int
    """Of its first data byte in the tar."""
    size: int


@dataclass(frozen=True)
class Listing:
    """What a plain tar reader finds."""

    members: list[Member]
    end: int
    """Offset of the block after the last member."""
    mark: bytes
    """That block: zeros in a whole tar, a header that cannot be read in a damaged one, less in a cut one."""
    refused: list[tuple[str, str]]
    """(key, why) of what no step here writes: links, folders, names that leave the folder, a name twice."""

    @property
    def whole(self) -> bool:
        """Whether the reader came to the end mark, and not to damage or the end of the file."""
        return self.mark == bytes(BLOCK)


def read_listing(path: Path) -> Listing:
    """Members of a tar in their order, as far as it can be read. Raises `OSError` when there is none."""
    members: list[Member] = []
    refused: list[tuple[str, str]] = []
    names: set[str] = set()
    end = 0
    with path.open("rb") as file:
        with contextlib.suppress(tarfile.TarError), tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                key, _, name = info.name.partition(".")
                end = info.offset_data + (-(-info.size // BLOCK) * BLOCK if info.isreg() else 0)
                why = refusal(info)
                if why is None and info.name in names:
                    why = f"the member {info.name!r} twice"
                if why is not None:
                    refused.append((key, why))
                    continue
                names.add(info.name)
                members.append(Member(key, name, info.offset_data, info.size))
        file.seek(end)
        return Listing(members, end, file.read(BLOCK), refused)


def list_members(path: Path) -> list[Member]:
    """Members of a tar in their order. Raises `UserError` when it is missing, damaged, cut or unsafe."""
    step = path.parent.name
    try:
        listing = read_listing(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); run the {step} step") from None
    if not listing.whole:
        last = (
            f"after {listing.members[-1].key}.{listing.members[-1].name}"
            if listing.members
            else "at its start"
        )
        raise UserError(f"{path} is damaged {last}; delete it and run the {step} step again")
    if listing.refused:
        raise UserError(
            f"{path} holds {listing.refused[0][1]}; no step here writes that: delete the tar and run the "
            f"{step} step again"
        )
    return listing.members


def tar_path(folder: Path, file: str, shard: int) -> Path:
    """Path of a shard's tar, seen from the folder of the index."""
    return folder.parent / file / f"{shard_stem(shard)}.tar"


def map_file(path: Path) -> mmap.mmap:
    """A whole file as read-only memory map. Raises `UserError` when it is missing or empty."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); run the shards step again") from None
