"""Tars are byte-identical on every rerun, and a damaged one is an error, never a shorter tar."""

import contextlib
import io
import os
import random
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from pipeline.common.arrays import parse_npy
from pipeline.common.errors import UserError
from pipeline.common.tars import TarMembers, list_members, npy_bytes, read_tar, scan_tar, write_tar

SAMPLES = [("aa", {"awe.png": b"1" * 700, "json": b"{}"}), ("ab", {"json": b""})]


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "masks" / "000000.tar"
    write_tar(path, SAMPLES)
    return path


# Writing


def test_a_tar_is_written_in_flat_memory(tmp_path: Path) -> None:
    samples = ((f"{number:04d}", {"bin": bytes(2**20)}) for number in range(64))
    tracemalloc.start()
    write_tar(tmp_path / "000000.tar", samples)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "000000.tar").stat().st_size > 64 * 2**20
    assert peak < 6 * 2**20


def test_tars_are_byte_identical_and_carry_no_clock(tmp_path: Path, tar: Path) -> None:
    write_tar(tmp_path / "b.tar", iter(SAMPLES))
    assert tar.read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tar) as found:
        assert {(m.mtime, m.uid, m.gid, m.mode) for m in found} == {(0, 0, 0, 0o644)}


@pytest.mark.parametrize("key", ["../escape", "a/b", "a.b", "", "é"])
def test_keys_that_could_leave_the_folder_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="tar key"):
        write_tar(tmp_path / "x.tar", [(key, {"json": b""})])
    assert list(tmp_path.iterdir()) == []


# Reading


def test_tars_read_back_here_and_in_webdataset(tar: Path) -> None:
    assert list(read_tar(tar)) == SAMPLES
    theirs = [
        (sample["__key__"], {k: v for k, v in sample.items() if not k.startswith("__")})
        for sample in webdataset.WebDataset(str(tar), shardshuffle=False)
    ]
    assert theirs == SAMPLES


def test_members_lie_where_tarfile_finds_them(tar: Path) -> None:
    with tarfile.open(tar) as found:
        theirs = [(info.name, info.offset_data, info.size) for info in found]
    assert [(f"{m.key}.{m.name}", m.offset, m.size) for m in list_members(tar)] == theirs
    members = TarMembers([tar], "the masks step")
    assert {n: members.read(n) for n, _, _ in theirs} == {
        f"{key}.{name}": data for key, sample in SAMPLES for name, data in sample.items()
    }
    assert members.read("aa.fear.png") is None


def test_an_empty_tar_has_no_members_and_an_empty_file_is_no_tar(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [])
    assert list_members(tmp_path / "a.tar") == list(read_tar(tmp_path / "a.tar")) == []
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(UserError, match="without a whole end mark"):
        list_members(tmp_path / "a.tar")


def test_a_missing_tar_names_the_step(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"000003.tar does not exist; run the masks step"):
        TarMembers([tmp_path / "000003.tar"], "the masks step")


@contextlib.contextmanager
def changed(path: Path, at: int, flip: int) -> Iterator[None]:
    """A file with one byte XORed."""
    with path.open("r+b", buffering=0) as file:

        def put(byte: int) -> None:
            file.seek(at)
            file.write(bytes([byte]))

        file.seek(at)
        (before,) = file.read(1)
        put(before ^ flip)
        yield
        put(before)


def test_every_changed_header_byte_is_an_error_or_changes_nothing(tar: Path) -> None:
    """Only the checksum's own padding does not matter."""
    whole = list_members(tar)
    rng = random.Random(0)
    harmless = set()
    for start in [member.offset - 512 for member in whole]:
        for at in range(start, start + 512):
            for flip in {1, 128, rng.randrange(1, 256)}:
                with changed(tar, at, flip):
                    try:
                        assert list_members(tar) == whole
                        harmless.add(at - start)
                    except UserError as error:
                        assert f"{tar} is damaged: the header at byte {start}," in str(error)
                        assert "delete it and run the step that wrote it again" in str(error)
    assert harmless <= set(range(148, 156))  # leading zeros and what ends the number


def test_every_cut_is_an_error_or_loses_only_padding(tar: Path) -> None:
    whole = list_members(tar)
    end = whole[-1].offset  # the last member is empty
    for length in reversed(range(tar.stat().st_size)):
        os.truncate(tar, length)
        if length >= end + 1024 and length % 512 == 0:
            assert list_members(tar) == whole
        else:
            with pytest.raises(UserError, match=rf"{tar} is damaged: .*byte"):
                list_members(tar)


def test_every_byte_after_the_members_must_be_zero(tar: Path) -> None:
    original, end = tar.read_bytes(), list_members(tar)[-1].offset
    for at in range(end, len(original)):
        with changed(tar, at, 65), pytest.raises(UserError, match=r"the header at|after its end mark"):
            list_members(tar)
    tar.write_bytes(original + original)  # another tar behind it
    with pytest.raises(UserError, match="after its end mark"):
        list_members(tar)


def header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("size", [1025, 2**33, 2**60, 2**70, -512, -(2**40)])
def test_a_size_that_cannot_be_is_an_error(tmp_path: Path, size: int) -> None:
    """Sound checksums, and a size that points behind the file or before the member."""
    tar = tmp_path / "a.tar"
    tar.write_bytes(header("a.json", 0) + header("b.json", size) + bytes(1024))
    listing = scan_tar(tar)
    assert listing.damage is not None and listing.damage.offset == 512
    assert [member.key for member in listing.members] == ["a"]
    with pytest.raises(UserError, match=r"a.tar is damaged"):
        list(read_tar(tar))


@given(st.binary(max_size=4000), st.integers(0, 6))
def test_no_bytes_at_all_break_the_reader(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, blocks: int
) -> None:
    tar = tmp_path_factory.getbasetemp() / "any.tar"
    write_tar(tar, SAMPLES)
    tar.write_bytes(tar.read_bytes()[: 512 * blocks] + data)
    try:
        members = list_members(tar)
    except UserError as error:
        assert str(tar) in str(error)
    else:
        assert all(m.offset >= 0 and m.offset + m.size <= tar.stat().st_size - 1024 for m in members)


def test_two_members_of_one_name_are_refused(tar: Path) -> None:
    with tarfile.open(tar, "a") as out:
        out.addfile(tarfile.TarInfo("aa.json"), io.BytesIO())
    with pytest.raises(UserError, match=r"holds the member 'aa.json' twice"):
        TarMembers([tar], "the masks step")


# Arrays


@given(st.lists(st.integers(-5, 5), max_size=20))
def test_npy_round_trip(values: list[int]) -> None:
    array = np.array(values, dtype=np.float16)
    np.testing.assert_array_equal(parse_npy(npy_bytes(array)), array)
