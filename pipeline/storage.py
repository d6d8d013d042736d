"""Files that are whole or absent: atomic writes, and tars that are byte-identical on every rerun."""

import hashlib
import inspect
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def write_atomic(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Call `write` on a temporary file beside `path`, fsync it and rename it into place.

    A reader sees the old file or the new one, never a part; a killed writer leaves only a `*.tmp`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp's 0600 would lock out the others of a shared folder
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a small file atomically."""

    def write(file: IO[bytes]) -> None:
        file.write(data)

    write_atomic(path, write)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, with sorted keys and a final newline. Raises `ValueError` on NaN."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a Parquet file atomically; the same table and pyarrow version give the same bytes."""
    write_atomic(path, lambda file: pq.write_table(table, file, compression="zstd"))


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
                    info = tarfile.TarInfo(f"{key}.{ext}")
                    info.size = len(data)
                    info.mode = 0o644
                    tar.addfile(info, io.BytesIO(data))

    write_atomic(path, write)


def read_tar(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, {ext: bytes}) of a tar in its order; consecutive members of one key are one sample."""
    key: str | None = None
    members: dict[str, bytes] = {}
    with tarfile.open(path, mode="r:") as tar:
        for info in tar:
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


def npy_bytes(array: np.ndarray) -> bytes:
    """An array as the bytes of a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def load_npy(data: bytes) -> np.ndarray:
    """The array in the bytes of a ``.npy`` file. Pickled objects are refused with `ValueError`."""
    array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """Hex SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def code_version(*modules: ModuleType) -> str:
    """SHA-256 over the modules' source: part of a fingerprint, so edited code redoes its shards."""
    return sha256_text("\0".join(inspect.getsource(module) for module in modules))
