"""WebDataset tars that are byte-identical on every rerun, and the arrays in them."""

import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.common.errors import UserError
from pipeline.common.files import write_atomic

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


def read_tar(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, {ext: bytes}) of a tar in its order; consecutive members of one key are one sample.

    Raises `UserError` for a member that `write_tar` would not have written, see `refusal`.
    """
    key: str | None = None
    members: dict[str, bytes] = {}
    with tarfile.open(path, mode="r:") as tar:
        for info in tar:
            if (why := refusal(info)) is not None:
                raise UserError(f"{path} holds {why}; it was not written by any step here")
            name, _, ext = info.name.partition(".")
            if key is not None and name != key:
                yield key, members
                members = {}
            key = name
            file = tar.extractfile(info)
            if file is not None:
                members[ext] = file.read()
    if key is not None:
        yield key, members


def refusal(info: tarfile.TarInfo) -> str | None:
    """Why a tar member is not read, or None: anything but a plain file ``KEY.EXT`` in no folder.

    Nothing here unpacks a tar, but people do: a member must not reach outside the folder they unpack it in.
    """
    if not info.isreg() or info.issparse():
        return f"the member {info.name!r}, which is no plain file but a link, folder, device or sparse file"
    if not MEMBER_NAME.fullmatch(info.name):
        return f"the member {info.name!r}, whose name is not KEY.EXTENSION in no folder"
    return None


def npy_bytes(array: np.ndarray) -> bytes:
    """An array as the bytes of a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def load_npy(data: bytes) -> np.ndarray:
    """The array in the bytes of a ``.npy`` file. Pickled objects are refused with `ValueError`."""
    array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    return array
