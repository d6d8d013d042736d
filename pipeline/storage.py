"""Files that are whole or absent: atomic writes, and tars that are byte-identical on every rerun."""

import contextlib
import errno
import fcntl
import hashlib
import inspect
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.params import RunFailed, UserError

MEMBER_NAME = re.compile(r"[A-Za-z0-9_-]+\.[^/\\\x00-\x1f\x7f]+")
"""Name of a tar member: KEY.EXTENSION, in no folder."""
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


def remove_stale(folder: Path, pattern: str = ".*.tmp") -> None:
    """Remove what killed writers left in a folder. Only for a folder that nobody else is writing to."""
    if folder.is_dir():
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a folder for one run: two at once could vouch for each other's files. Raises `UserError`.

    The lock (flock on the folder itself) ends with the process, also a killed one. File systems that cannot
    lock a folder, such as NFS, are used without.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run is writing to {folder}; wait for it to end, or stop it") from None
        except OSError:
            pass
        yield
    finally:
        os.close(handle)


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


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """Hex SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def package_version(folder: Path) -> str:
    """SHA-256 over every Python file under a folder: whether two machines run the same code."""
    files = sorted(folder.rglob("*.py"))
    return sha256_text("\0".join(f"{file.relative_to(folder)}\0{sha256_file(file)}" for file in files))


def code_version(*modules: ModuleType) -> str:
    """SHA-256 over the modules' source: part of a fingerprint, so edited code redoes its shards."""
    return sha256_text("\0".join(inspect.getsource(module) for module in modules))
