"""WebDataset tars: written byte-identical on every rerun, and read by one strict parser.

A tar is whole or it is refused: every header has its checksum, every member lies within the file, under a
name that is written here and that no other has; behind the last are the end mark (two blocks of zeros) and
zeros alone. `scan_tar` is the parser; it reads headers only. Whether the members' data are those that were
written is for checksums to decide (`pipeline.shards.verify`).
"""

import io
import mmap
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np

from pipeline.common.errors import UserError
from pipeline.common.files import write_atomic

BLOCK = 512
"""Bytes of a tar block: headers and data start at multiples of it."""
END_MARK = 2 * BLOCK
"""Zeros, at least, after the last member."""
MEMBER_NAME = re.compile(r"[A-Za-z0-9_-]+\.[^/\\\x00-\x1f\x7f]+")
"""Name of a tar member: KEY.EXTENSION, in no folder."""


def write_tar(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> None:
    """Write a WebDataset tar atomically: members ``KEY.EXT`` in the given order, no clock, no owner.

    Raises `ValueError` for a key that is not plain letters, digits, ``-`` and ``_``: WebDataset cuts
    names at the first dot, and a separator would let a member leave its folder.
    """

    def write(file: IO[bytes]) -> None:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for key, members in samples:
                if not key.replace("-", "").replace("_", "").isalnum() or not key.isascii():
                    raise ValueError(f"tar key {key!r} must be ASCII letters, digits, '-' and '_'")
                for ext, data in members.items():
                    if not MEMBER_NAME.fullmatch(f"{key}.{ext}"):
                        raise ValueError(
                            f"tar member extension {ext!r} holds a separator or control character"
                        )
                    info = tarfile.TarInfo(f"{key}.{ext}")
                    info.size = len(data)
                    info.mode = 0o644
                    tar.addfile(info, io.BytesIO(data))

    write_atomic(path, write)


class Member(NamedTuple):
    """One file inside a tar."""

    key: str
    name: str
    """Without the key: ``sam.npy``, ``awe.png``, ``json``."""
    offset: int
    """Of its first data byte in the tar."""
    size: int


class Damage(NamedTuple):
    """Where and why a tar is not whole."""

    kind: Literal["header", "cut", "tail"]
    """A header that cannot be read, bytes missing at the end, or bytes after the end mark."""
    offset: int
    """Of the block that is damaged."""
    why: str


@dataclass(frozen=True)
class Listing:
    """What a tar holds, as far as it can be read."""

    members: list[Member]
    refused: list[tuple[str, str]]
    """(key, why) of what no step here writes: links, folders, names that leave the folder, a name twice."""
    damage: Damage | None
    """None for a whole tar."""


def scan_tar(path: Path) -> Listing:
    """Read the headers of a tar, and no member's data. Raises `OSError` when there is no such file."""
    members: list[Member] = []
    refused: list[tuple[str, str]] = []
    names: set[str] = set()
    end, last = 0, "at its start"
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for info in tar:
                    if info.size < 0 or not end < tar.offset <= size:
                        why = f"{info.name!r} ends at byte {tar.offset}, the file at byte {size}"
                        return Listing(members, refused, Damage("cut", end, why))
                    end, last = tar.offset, f"after {info.name!r}"
                    key, _, name = info.name.partition(".")
                    if (problem := _refusal(info, names)) is not None:
                        refused.append((key, problem))
                        continue
                    names.add(info.name)
                    members.append(Member(key, name, info.offset_data, info.size))
        except (tarfile.TarError, ValueError, OverflowError, MemoryError, RecursionError):
            pass  # at most damage tarfile stops without an error: the bytes at `end` decide in both cases
        return Listing(members, refused, _end_damage(file, end, size, last))


def _refusal(info: tarfile.TarInfo, names: set[str]) -> str | None:
    """Why a member is not read, or None: anything but a plain file ``KEY.EXT`` in no folder, once.

    Nothing here unpacks a tar, but people do: a member must not reach outside the folder they unpack it in.
    """
    if not info.isreg() or info.issparse():
        return f"the member {info.name!r}, which is no plain file but a link, folder, device or sparse file"
    if not MEMBER_NAME.fullmatch(info.name):
        return f"the member {info.name!r}, whose name is not KEY.EXTENSION in no folder"
    return f"the member {info.name!r} twice" if info.name in names else None


def _end_damage(file: io.FileIO, end: int, size: int, last: str) -> Damage | None:
    """What is wrong at byte `end`, where headers stop: there must be the end mark, and nothing after it."""
    file.seek(end)
    mark = file.read(END_MARK)
    if any(mark[:BLOCK]) and len(mark) >= BLOCK:
        return Damage("header", end, f"the header at byte {end}, {last}, cannot be read")
    if len(mark) < END_MARK or size % BLOCK:
        return Damage("cut", end, f"it ends at byte {size}, {last}, without a whole end mark")
    while True:
        if any(mark):
            return Damage("tail", end, f"there are other bytes than zeros after its end mark at byte {end}")
        if not (mark := file.read(2**20)):
            return None


def list_members(path: Path, step: str = "the step that wrote it") -> list[Member]:
    """Members of a tar in their order.

    Args:
        path: the tar.
        step: what writes it, for the message, such as ``the masks step``.

    Raises:
        UserError: it is missing, damaged, cut, or holds what no step here writes.
    """
    try:
        listing = scan_tar(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run {step}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); run {step} again") from None
    advice = f"delete it and run {step} again"
    if listing.damage is not None:
        raise UserError(f"{path} is damaged: {listing.damage.why}; {advice}")
    if listing.refused:
        raise UserError(f"{path} holds {listing.refused[0][1]}; no step here writes that: {advice}")
    return listing.members


def read_tar(path: Path, step: str = "the step that wrote it") -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, {ext: bytes}) of a tar in its order; consecutive members of one key are one sample.

    Raises `UserError`, before the first sample, as `list_members`.
    """
    sample: tuple[str, dict[str, bytes]] | None = None
    members = list_members(path, step)
    with path.open("rb") as file:
        for member in members:
            if sample is None or member.key != sample[0]:
                if sample is not None:
                    yield sample
                sample = member.key, {}
            file.seek(member.offset)
            sample[1][member.name] = file.read(member.size)
    if sample is not None:
        yield sample


class TarMembers:
    """Bytes of the members ``KEY.EXT`` of some tars by name, read at random; threads may share it."""

    def __init__(self, paths: Iterable[Path], step: str) -> None:
        """Read the headers of all tars. Raises `UserError` as `list_members`.

        Args:
            paths: the tars; of two members of one name, the last tar's counts.
            step: what writes them, for the message.
        """
        self._places: dict[str, tuple[mmap.mmap, int, int]] = {}
        for path in paths:
            members = list_members(path, step)
            mapped = map_file(path, step)
            for key, name, offset, size in members:
                self._places[f"{key}.{name}"] = (mapped, offset, size)

    def read(self, name: str) -> bytes | None:
        """The member's bytes, or None when no tar has it."""
        place = self._places.get(name)
        if place is None:
            return None
        mapped, offset, size = place
        return mapped[offset : offset + size]


def map_file(path: Path, step: str) -> mmap.mmap:
    """A whole file as read-only memory map. Raises `UserError` when it is missing or empty."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); run {step} again") from None


def npy_bytes(array: np.ndarray) -> bytes:
    """An array as the bytes of a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
