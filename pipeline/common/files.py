"""Files that are whole or absent: atomic writes, and tars that are byte-identical on every rerun."""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.common.errors import RunFailed, UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_atomic(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Call `write` on a temporary file beside `path`, fsync it and rename it into place.

    A reader sees the old file or the new one, never a part; a killed writer leaves only a `*.tmp`, whose name
    no other writer shares. Raises `UserError` where the folder cannot be written to, `RunFailed` when the
    disk or the quota is full; what `write` itself raises passes through, and nothing is left behind.
    """
    name = _temporary_beside(path)
    try:
        with name.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        name.chmod(0o644)  # mkstemp's 0600 would lock out the others of a shared folder
        name.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        name.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            free = shutil.disk_usage(path.parent).free / 2**20
            raise RunFailed(
                f"the disk or your quota is full: {path} could not be written ({error.strerror}; "
                f"{free:.0f} MiB free). Make room and run the same command again; what is finished is kept"
            ) from error
        raise


def _temporary_beside(path: Path) -> Path:
    """A new empty file in the folder of `path`, which is made where needed. Raises `UserError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        if error.errno in DISK_FULL:
            raise RunFailed(f"the disk or your quota is full: {path} could not be made") from error
        raise UserError(
            f"cannot write to the folder {path.parent}: {error.strerror}. Give yourself write permission, or "
            "name another folder (`paths` in the params, or the command's own)"
        ) from error
    os.close(handle)
    return Path(name)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(folder: Path) -> None:
    """Make a folder and try it, before hours are spent on its first file. Raises `UserError`, `RunFailed`."""
    with probe_file(folder):
        pass


@contextlib.contextmanager
def probe_file(folder: Path) -> Iterator[Path]:
    """An empty file in a folder, gone at the end: whoever sees it shares the folder."""
    probe = _temporary_beside(folder / "probe")
    try:
        yield probe
    finally:
        probe.unlink(missing_ok=True)


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
