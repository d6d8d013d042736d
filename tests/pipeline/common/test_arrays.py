"""The reader of ``.npy`` files, against NumPy's own on what NumPy writes, and against files of all kinds."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st

from pipeline.common import arrays
from pipeline.common.arrays import NoArray, parse_npy, read_file, read_npy

NUMBERS = (
    np_st.boolean_dtypes()
    | np_st.integer_dtypes()
    | np_st.unsigned_integer_dtypes()
    | np_st.floating_dtypes()
)
ARRAYS = np_st.arrays(NUMBERS, np_st.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4))
PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }"


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def npy(header: str, body: bytes = b"\0" * 16, version: bytes = b"\x01\x00") -> bytes:
    """A file with any header."""
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version[0] == 1 else 4, "little") + text + body


def refusal(data: bytes) -> NoArray:
    with pytest.raises(NoArray) as caught:
        parse_npy(data)
    return caught.value


@given(ARRAYS, st.booleans())
def test_what_numpy_writes_is_read_as_numpy_reads_it(array: np.ndarray, fortran: bool) -> None:
    data = saved(np.asfortranarray(array) if fortran else array)
    found, expected = parse_npy(data), np.load(io.BytesIO(data), allow_pickle=False)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()
    assert not found.flags.writeable


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format(version: tuple[int, int]) -> None:
    buffer, array = io.BytesIO(), np.arange(6, dtype=np.int16).reshape(2, 3)
    np.lib.format.write_array(buffer, array, version)
    np.testing.assert_array_equal(parse_npy(memoryview(buffer.getvalue())), array)


def test_other_writers_headers_are_read() -> None:
    for header in (
        "{'shape': (2, 2), 'descr': '<f4', 'fortran_order': False}",
        "{'descr':'<f4','fortran_order':False,'shape':(2,2)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 2L), }   ",  # Python 2
    ):
        assert parse_npy(npy(header)).tolist() == [[0, 0], [0, 0]]


BROKEN_HEADERS = {
    "unclosed": PLAIN.replace("(2, 2)", "(2, 2 "),
    "string": PLAIN.replace("'<f4'", "'<f4"),
    "huge": PLAIN.replace("(2, 2)", "(1000000000000,)"),
    "beyond any integer": PLAIN.replace("(2, 2)", f"({'9' * 4000},)"),
    "float": PLAIN.replace("(2, 2)", "(1e30,)"),
    "bool": PLAIN.replace("(2, 2)", "(True, 2)"),
    "negative": PLAIN.replace("(2, 2)", "(-2, -2)"),
    "a number": PLAIN.replace("(2, 2)", "(4)"),
    "long beside none": PLAIN.replace("(2, 2)", f"(0, {10**17}, {10**17})"),
    "many axes": PLAIN.replace("(2, 2)", f"({'1, ' * 70}4)"),
    "deep": "(" * 3000,
    "code": "__import__('os').system('touch executed')",
    "field twice": PLAIN.replace("'fortran_order': False", "'shape': (2, 2)"),
    "field more": PLAIN.replace("}", "'x': 1}"),
    "no type": PLAIN.replace("<f4", "<f3"),
    "record": PLAIN.replace("'<f4'", "[('a', '<f4')]"),
    "nothing": "",
}


@pytest.mark.parametrize("name", BROKEN_HEADERS)
def test_broken_headers(name: str) -> None:
    assert refusal(npy(BROKEN_HEADERS[name])).reason == "not-npy"


def test_any_changed_header_byte_is_an_error_or_another_array_of_as_many_bytes() -> None:
    data = saved(np.arange(12, dtype=np.float32).reshape(3, 4))
    read = 0
    for place in range(len(data) - 48):
        for value in range(256):
            try:
                found = parse_npy(data[:place] + bytes([value]) + data[place + 1 :])
            except NoArray:
                continue
            read += 1
            assert found.nbytes == 48 and found.dtype.kind in "biuf"
    assert read > 128  # the byte as it was, and a few harmless others


@settings(max_examples=200)
@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"\x93NUMPY\x01\x00" + tail))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    with pytest.raises(NoArray):
        parse_npy(data)


def test_what_is_no_array_of_numbers() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros((2, 2)))
    assert "archive" in str(refusal(buffer.getvalue()))
    assert (
        refusal(b"").reason
        == refusal(b"\x93NUMPY").reason
        == refusal(saved(np.eye(3))[:-1]).reason
        == "not-npy"
    )
    assert refusal(saved(np.eye(3)) + b"\0").reason == "not-npy"
    assert refusal(b"\x80\x04K\x01.").reason == "pickled"
    np.save(buffer := io.BytesIO(), np.array([{}], dtype=object), allow_pickle=True)
    assert refusal(buffer.getvalue()).reason == "pickled"
    for array in (np.array([1j]), np.array(["a"]), np.array(["2026-11-29"], "M8[s]"), np.array([b"a"])):
        error = refusal(saved(array))
        assert error.reason == "wrong-values" and str(array.dtype).rstrip("[s]") in str(error)


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.eye(3))
    np.testing.assert_array_equal(read_npy(path), np.eye(3))
    monkeypatch.setattr(arrays, "FILE_LIMIT", 100)
    for refused, reason in ((path, "too-large"), (tmp_path, "unreadable"), (tmp_path / "b", "missing")):
        with pytest.raises(NoArray) as caught:
            read_npy(refused)
        assert caught.value.reason == reason


@pytest.mark.timeout(20)
def test_pipes_and_devices_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "zero.npy").symlink_to("/dev/zero")
    for name in ("pipe.npy", "zero.npy"):
        with pytest.raises(NoArray, match="pipe or a device"):
            read_file(tmp_path / name)


def test_memory_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    (tmp_path / "a.npy").write_bytes(b"")
    monkeypatch.setattr(arrays.os, "fdopen", full)
    with pytest.raises(NoArray, match="memory"):
        read_file(tmp_path / "a.npy")
