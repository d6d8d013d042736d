"""Files that are whole or absent: atomic writes, and tars that are byte-identical on every rerun."""

import contextlib
import errno
import io
import json
import os
import re
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

    A reader sees the old file or the new one, never a part, and another name of the old file (a hard link
    into a cache) keeps what it held; a killed writer leaves only a `*.tmp`, whose name no other shares.
    Raises `UserError` where the folder cannot be written to, `RunFailed` when the file cannot be: the disk or
    the quota is full, or fails. What `write` itself raises passes through, and nothing is left behind.
    """
    name = _temporary_beside(path)
    raw, written = _Noting(name, "wb"), False
    try:
        with io.BufferedWriter(raw) as file:
            write(file)
            written = True
            file.flush()
            os.fsync(file.fileno())
        _put(name, path)
        _sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):  # a disk that has turned read-only
            name.unlink(missing_ok=True)
        if reason := raw.failed or _own_failure(error, written):
            raise _unwritten(path, reason) from error
        raise


class _Noting(io.FileIO):
    """Remembers why it could not be written: `torch.save` answers a full disk with an error of its own."""

    failed: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failed = error
            raise


_RUST_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How libraries in Rust (tokenizers, safetensors) tell an error of the system, as an error of any class."""


def _own_failure(error: BaseException, ours: bool) -> OSError | None:
    """The system's reason why a file could not be written; None where `error` is about something else.

    `ours`: only our own file is at work, so that any error of the system is about it.
    """
    if isinstance(error, Exception) and (said := _RUST_OS_ERROR.search(str(error))):
        error = OSError(int(said[1]), os.strerror(int(said[1])))
    return error if isinstance(error, OSError) and (ours or error.errno in DISK_FULL) else None


def _unwritten(path: Path, reason: OSError) -> RunFailed:
    """The error for a file that could not be written."""
    if reason.errno in DISK_FULL:
        free = shutil.disk_usage(path.parent).free / 2**20
        return RunFailed(
            f"the disk or your quota is full: {path} could not be written ({reason.strerror}; "
            f"{free:.0f} MiB free). Make room and run the same command again; what is finished is kept"
        )
    return RunFailed(
        f"{path} could not be written: {reason.strerror or reason}. Fix the cause and run the same command "
        "again; what is finished is kept"
    )


def _put(temporary: Path, path: Path) -> None:
    """Give a whole file its name."""
    temporary.chmod(0o644)  # mkstemp's 0600 would lock out the others of a shared folder
    temporary.replace(path)


@contextlib.contextmanager
def replace_files(folder: Path, last: str) -> Iterator[Path]:
    """An empty folder for a library that writes files by itself; in the end they replace those in `folder`.

    The file `last` goes first and comes last: where it is, all the others are of the same writing. Raises
    `UserError` and `RunFailed` as `write_atomic`; where the body fails, `folder` stays as it was.
    """
    temporary = _temporary_beside(folder / "files", folder=True)
    try:
        yield temporary
        files = [file for file in temporary.rglob("*") if file.is_file()]
        files.sort(key=lambda file: (file == temporary / last, file))
        for file in files:
            _sync(file)
        (folder / last).unlink(missing_ok=True)
        for file in files:
            target = folder / file.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            _put(file, target)
        _sync(folder)
    except Exception as error:
        if reason := _own_failure(error, ours=True):
            raise _unwritten(folder / last, reason) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary_beside(path: Path, folder: bool = False) -> Path:
    """A new empty file (or folder) beside `path`, whose folder is made where needed. Raises `UserError`."""
    where: dict[str, Any] = {"dir": path.parent, "prefix": f".{path.name}.", "suffix": ".tmp"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if folder:
            return Path(tempfile.mkdtemp(**where))
        handle, name = tempfile.mkstemp(**where)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise RunFailed(f"the disk or your quota is full: {path} could not be made") from error
        raise UserError(
            f"cannot write to the folder {path.parent}: {error.strerror}. Give yourself write permission, or "
            "name another folder (`paths` in the params, or the command's own)"
        ) from error
    os.close(handle)
    return Path(name)


def _sync(path: Path) -> None:
    """Make a file's bytes, or the renames in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
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
