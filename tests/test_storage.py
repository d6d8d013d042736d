"""Files are whole or absent, and tars are byte-identical on every rerun."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from pipeline import storage

SAMPLES = [("aa", {"awe.png": b"1", "json": b"{}"}), ("ab", {"json": b"{ }"})]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    storage.write_bytes(path, b"old")

    def write(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        storage.write_atomic(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_tars_are_byte_identical_and_carry_no_clock(tmp_path: Path) -> None:
    storage.write_tar(tmp_path / "a.tar", SAMPLES)
    storage.write_tar(tmp_path / "b.tar", iter(SAMPLES))
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.mode) for m in tar} == {(0, 0, 0, 0o644)}


def test_tars_read_back_here_and_in_webdataset(tmp_path: Path) -> None:
    path = tmp_path / "000000.tar"
    storage.write_tar(path, SAMPLES)
    assert list(storage.read_tar(path)) == SAMPLES
    theirs = [
        (sample["__key__"], {k: v for k, v in sample.items() if not k.startswith("__")})
        for sample in webdataset.WebDataset(str(path), shardshuffle=False)
    ]
    assert theirs == SAMPLES


@pytest.mark.parametrize("key", ["../escape", "a/b", "a.b", "", "é"])
def test_keys_that_could_leave_the_folder_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="tar key"):
        storage.write_tar(tmp_path / "x.tar", [(key, {"json": b""})])
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.integers(-5, 5), max_size=20))
def test_npy_round_trip(values: list[int]) -> None:
    array = np.array(values, dtype=np.float16)
    np.testing.assert_array_equal(storage.load_npy(storage.npy_bytes(array)), array)


def test_pickled_arrays_are_refused() -> None:
    import io

    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        storage.load_npy(buffer.getvalue())
