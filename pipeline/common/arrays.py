"""Arrays in ``.npy`` files, also in files that we did not write: one reader, which runs and guesses nothing.

NumPy's own reader takes a header for Python code and what it does not know for a pickle; a damaged file makes
it raise whatever Python's parser raises. Here a header is three fields in NumPy's notation or it is refused,
and it must ask for exactly the bytes that follow, before memory is asked for.
"""

import functools
import math
import os
import re
import stat
from pathlib import Path

import numpy as np

MAGIC = b"\x93NUMPY"
LENGTH_BYTES = {(1, 0): 2, (2, 0): 4, (3, 0): 4}
"""Version of the format -> bytes of the header's length."""
HEADER_LIMIT = 10_000
"""Bytes; NumPy's own limit."""
VALUES_LIMIT = 1 << 28
"""Values of an array: more pixels than any picture that is read here."""
FILE_LIMIT = 17 * VALUES_LIMIT
"""Bytes of a file."""
AXES = 32
_DESCR = r"'descr': ?'(?P<descr>[<>|=]?[a-zA-Z?]\d{0,4}(?:\[\w{1,9}\])?)'"
_ORDER = r"'fortran_order': ?(?P<fortran>True|False)"
_SHAPE = r"'shape': ?\((?P<shape>(?:\d{1,18}L?, ?)*(?:\d{1,18}L?)?)\)"
_FIELD = re.sub(r"\?P<\w+>", "?:", f"(?:{_DESCR}|{_ORDER}|{_SHAPE})")
_HEADER = re.compile(rf"\{{ ?{_FIELD}, ?{_FIELD}, ?{_FIELD},? ?\}}[ \t]*\n?")


class NoArray(ValueError):  # noqa: N818 - named for what it says
    """A file, or bytes, that hold no plain array of numbers.

    Reasons: missing, unreadable, too-large, pickled, not-npy, wrong-values.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def read_npy(path: Path) -> np.ndarray:
    """The array in a ``.npy`` file, see `parse_npy`. Raises `NoArray`."""
    return parse_npy(read_file(path))


def read_file(path: Path) -> bytes:
    """The bytes of a regular file of at most `FILE_LIMIT`. Raises `NoArray`.

    A pipe or a device is refused without waiting for it: reading one may never end.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _check_regular(os.fstat(handle))
            with os.fdopen(handle, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise NoArray("missing", "it does not exist") from None
    except MemoryError:
        raise NoArray("too-large", "it does not fit into memory") from None
    except OSError as error:
        raise NoArray("unreadable", f"it cannot be read ({error.strerror})") from None


def _check_regular(status: os.stat_result) -> None:
    """Raise `NoArray` for what is no file, or a file too large to be an array of a picture."""
    if not stat.S_ISREG(status.st_mode):
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "pipe or a device"
        raise NoArray("unreadable", f"it is a {kind}, not a file")
    if status.st_size > FILE_LIMIT:
        raise NoArray("too-large", f"it has {status.st_size} bytes; at most {FILE_LIMIT} are read")


def parse_npy(data: bytes | memoryview) -> np.ndarray:
    """The array in the bytes of a ``.npy`` file: booleans, integers or floats, of any order and shape.

    Read-only, and not copied. Raises `NoArray`, also unless the values end where `data` does.
    """
    start, text = _header(data)
    dtype, shape, fortran = _fields(text)
    wanted, found = math.prod(shape) * dtype.itemsize, len(data) - start
    if wanted != found:
        raise NoArray("not-npy", f"its header asks for {dtype} of shape {shape}: {wanted} bytes, not {found}")
    if math.prod(shape) > VALUES_LIMIT:
        raise NoArray("too-large", f"its shape is {shape}: more than {VALUES_LIMIT} values are not read")
    try:
        return np.ndarray(shape, dtype, data, start, order="F" if fortran else "C")
    except ValueError as error:  # axes that are too long, beside one of no length
        raise NoArray("not-npy", f"its header has shape {shape}: {error}") from None


def _header(data: bytes | memoryview) -> tuple[int, bytes]:
    """Where the header ends, and its text. Raises `NoArray`."""
    begin = bytes(data[: len(MAGIC) + 6])
    if not begin.startswith(MAGIC):
        raise _no_npy(begin)
    place = len(MAGIC) + 2
    length_bytes = LENGTH_BYTES.get((begin[place - 2], begin[place - 1]) if len(begin) >= place else (0, 0))
    if length_bytes is None:
        raise NoArray("not-npy", f"it has no known version of the .npy format: {begin!r}")
    length = int.from_bytes(begin[place : place + length_bytes], "little")
    start = place + length_bytes + length
    if length > HEADER_LIMIT or start > len(data):
        raise NoArray("not-npy", f"its header of {length} bytes is cut off, or longer than {HEADER_LIMIT}")
    return start, bytes(data[place + length_bytes : start])


def _no_npy(begin: bytes) -> NoArray:
    """What a file is that does not begin like a ``.npy`` file."""
    if begin.startswith(b"PK"):
        return NoArray("not-npy", "it is an archive, as np.savez makes them, and not one array")
    if begin.startswith(b"\x80"):
        return NoArray("pickled", "it is a pickle, and unpickling runs code from the file")
    return NoArray("not-npy", f"it is no .npy file: it begins with {begin[:6]!r}" if begin else "it is empty")


@functools.lru_cache(maxsize=64)
def _fields(text: bytes) -> tuple[np.dtype, tuple[int, ...], bool]:
    """dtype, shape and order in a header: alike for thousands of files, so parsed once. Raises `NoArray`."""
    header = text.decode("latin-1")
    descr, shape, fortran = (re.search(pattern, header) for pattern in (_DESCR, _SHAPE, _ORDER))
    if _HEADER.fullmatch(header) is None or descr is None or shape is None or fortran is None:
        raise NoArray("not-npy", f"its header is not understood: {header.strip()[:100]!r}")
    if "O" in descr["descr"]:
        raise NoArray("pickled", "it is pickled, and unpickling runs code from the file")
    try:
        if descr["descr"].lstrip("<>|=")[:1] == "a":  # bytes, by a name that NumPy only warns about
            raise TypeError
        dtype = np.dtype(descr["descr"])
    except TypeError:
        raise NoArray("not-npy", f"its header names no type of numbers: {descr['descr']!r}") from None
    if dtype.kind not in "biuf":
        raise NoArray("wrong-values", f"it must hold real numbers, not {dtype}")
    axes = tuple(int(number) for number in re.findall(r"\d+", shape["shape"]))
    if len(axes) > AXES or (len(axes) == 1 and "," not in shape["shape"]):
        raise NoArray("not-npy", f"its header has no shape: ({shape['shape'][:100]})")
    return dtype, axes, fortran["fortran"] == "True"
