"""One writer at a time for what a step writes, and the removal of what killed runs left there.

The lock is a POSIX record lock on a file beside the target, ``.NAME.lock``, which names its holder and is
gone when the run is over. Beside it and not in it, because DVC empties a stage's folder before it runs. A
record lock ends with its process and is never inherited by a child, so none outlives a killed run, and NFS
knows it too. File systems without locks are used without.
"""

import contextlib
import errno
import fcntl
import functools
import glob
import inspect
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

from pipeline.common.errors import RunFailed, UserError

RANDOM = "?" * 8
"""The middle of a temporary name, as `tempfile` draws it."""
P = ParamSpec("P")
R = TypeVar("R")
_held: set[Path] = set()
"""Lock files of this process: the system's lock is between processes alone, and ends when any of a process's
handles of the file is closed."""
_changing = threading.Lock()


@contextlib.contextmanager
def only_writer(target: Path, *also: Path, nested: bool = False) -> Iterator[None]:
    """Hold a folder or file for one run: two at once could vouch for, or remove, each other's files.

    Args:
        target: what the step writes; need not exist.
        also: what else it writes, which no other step does: only swept.
        nested: whether temporary files are also looked for in folders of folders.

    Raises:
        UserError: another run holds the target, or nothing can be written there.
    """
    path = lock_file(target)
    with _changing:
        if path in _held:
            raise _in_use(target, f"process {os.getpid()} on {socket.gethostname()}")
        handle = _take(path, target)
        _held.add(path)
    try:
        for each in (target, *also):
            sweep(each, nested)
        yield
    finally:
        with _changing:
            with contextlib.suppress(OSError):  # a disk that has turned read-only
                path.unlink(missing_ok=True)  # while it is held: whoever waits for this file looks again
            os.close(handle)
            _held.discard(path)


def writes(
    targets: Callable[..., Sequence[Path]], nested: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: the call is the `only_writer` of the first of `targets(*arguments)`, and sweeps the others.

    Nothing is held where `targets` gives none: the further processes of a distributed run leave writing to
    the first.
    """

    def decorate(call: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(call)

        @functools.wraps(call)
        def held(*args: P.args, **kwargs: P.kwargs) -> R:
            given = signature.bind(*args, **kwargs)  # by place, also what was given by name
            found = targets(*given.args, **given.kwargs)
            if not found:
                return call(*args, **kwargs)
            with only_writer(*found, nested=nested):
                return call(*args, **kwargs)

        return held

    return decorate


def sweep(target: Path, nested: bool = False) -> None:
    """Remove the temporary files of killed writers, `target`'s own and those in it. For its only writer."""
    found = list(target.parent.glob(f".{glob.escape(target.name)}.{RANDOM}.tmp"))
    if target.is_dir():
        found += (target.rglob if nested else target.glob)(f".*.{RANDOM}.tmp")
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def lock_file(target: Path) -> Path:
    """Beside the target, or in it where the folder above is not ours to write to."""
    whole = target.resolve()
    beside = not whole.is_dir() or os.access(whole.parent, os.W_OK)
    return (whole.parent if beside else whole) / f".{whole.name}.lock"


def _take(path: Path, target: Path) -> int:
    """Handle of the locked file. Raises `UserError`, `RunFailed`."""
    while True:
        handle = _open(path, target)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                holder = os.pread(handle, 200, 0).decode(errors="replace").strip()
                os.close(handle)
                raise _in_use(target, holder or "a process that has not given its name yet") from None
        if _is_still(path, handle):
            with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            return handle
        os.close(handle)  # its holder ended meanwhile and took the file with it


def _open(path: Path, target: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunFailed(f"the disk or your quota is full: {path} could not be made") from None
        raise UserError(
            f"cannot write to the folder {target}: {path}: {error.strerror}. Give yourself write permission, "
            "or name another folder (`paths` in the params, or the command's own)"
        ) from None


def _is_still(path: Path, handle: int) -> bool:
    """Whether the open file is the one of that name."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _in_use(target: Path, holder: str) -> UserError:
    return UserError(f"another run is writing to {target}: {holder}; wait for it to end, or stop it")
