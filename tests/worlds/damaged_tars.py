"""Tars as a disk or a transfer leaves them: what a strict reader must not take for a shorter tar."""

import tarfile
from collections.abc import Callable
from pathlib import Path


def _cut_in_the_middle(path: Path, data: bytes) -> bytes:
    with tarfile.open(path) as tar:
        info = tar.getmembers()[len(tar.getmembers()) // 2]
    return data[: info.offset_data + info.size // 2]


def _cut_between_members(path: Path, data: bytes) -> bytes:
    """Exactly where a header begins: every member that is left is whole."""
    with tarfile.open(path) as tar:
        return data[: tar.getmembers()[len(tar.getmembers()) // 2].offset]


def _flipped_header(path: Path, data: bytes) -> bytes:
    with tarfile.open(path) as tar:
        at = tar.getmembers()[-1].offset + 130  # a digit of the size
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGES: dict[str, Callable[[Path, bytes], bytes]] = {
    "cut-in-the-middle": _cut_in_the_middle,
    "cut-between-members": _cut_between_members,
    "flipped-header": _flipped_header,
}


def damage(path: Path, how: str) -> None:
    """Damage a tar in place, `how` being a key of `DAMAGES`."""
    path.write_bytes(DAMAGES[how](path, path.read_bytes()))
