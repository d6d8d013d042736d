"""How a command begins and ends, `cli.py` and `python -m stages.X` alike.

It runs in UTF-8 whatever the locale, keeps results (stdout) and progress (stderr) apart, and ends with one
message and an exit code: 0 done, 1 failed, 2 something that only the user can mend.
"""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.common.errors import RunFailed, UserError
from pipeline.common.params import require_utf8

WRONG_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EROFS)
"""What can be said against a path: the user names another one, or mends its rights."""
BROKEN = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENODEV)
"""What can befall a machine's files."""
OURS = ("", "cli", "pipeline", "model", "stages")
"""Packages whose absence is a mistake of ours."""
SHOWN = 200
"""Characters of a path in a message."""


def main(run: Callable[[], Any], name: str) -> None:
    """Run a command to its exit code; `name` begins its message. Errors of our own keep their traceback.

    In a locale without UTF-8 the process is first replaced by itself in Python's UTF-8 mode.
    """
    _sound_streams()
    try:
        _in_utf8()
        try:
            run()
        finally:
            say("")
    except UserError as error:
        _end(2, f"{name}: {error}")
    except RunFailed as error:
        _end(1, f"{name}: {error}")
    except KeyboardInterrupt:
        _end(130, f"{name}: stopped")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in OURS:
            raise
        _end(2, f"{name}: {missing_package(error)}")
    except OSError as error:
        if error.errno not in (*WRONG_PATH, *BROKEN):
            raise
        file = f": {str(error.filename)[:SHOWN]}" if error.filename else ""
        _end(2 if error.errno in WRONG_PATH else 1, f"{name}: {error.strerror}{file}")


def missing_package(error: ModuleNotFoundError) -> str:
    """What to do about an interpreter that lacks a package."""
    module = (error.name or "").partition(".")[0]
    return (
        f"{sys.executable} has no package {module}; run the Python that emosem is installed in, after "
        "`source .venv/bin/activate` for instance, or install the toolkit: `pip install 'emosem[all]'`, in a "
        "checkout `make repro` or `pip install -e '.[all]'`"
    )


def _end(code: int, message: str) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(code) from None


def say(text: str) -> None:
    """Write a result to stdout, now. Raises `RunFailed` where that is full or closed."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError):  # what is still in the buffer would fail again when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise RunFailed(f"stdout cannot be written to ({error.strerror}); what was made is kept") from None


@contextlib.contextmanager
def stdout_for_results() -> Iterator[None]:
    """Whatever prints meanwhile prints to stderr: libraries, also those in C, and child processes."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


class _Lasting(io.FileIO):
    """A log whose disk is full, or whose terminal is gone, must not end a run of hours."""

    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            return super().write(data) or len(data)
        return len(data)


def _sound_streams() -> None:
    """Give closed streams a file, so that no file of ours gets their number; text is always printable."""
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):  # stdout: still fails to write
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest free number
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for good
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    raw = io.BufferedWriter(_Lasting(2, "w", closefd=False))
    encoding = sys.stderr.encoding if sys.stderr else "utf-8"
    sys.stderr = io.TextIOWrapper(raw, encoding, errors="backslashreplace", line_buffering=True)


def _in_utf8() -> None:
    """Replace a process that is not in UTF-8. Raises `UserError` where even that does not help."""
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        require_utf8()
        return
    os.environ |= {"PYTHONUTF8": "1", "LC_ALL": "C.UTF-8"}  # the second for Java and other children
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this very command
