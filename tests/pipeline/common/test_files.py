"""Files are whole or absent."""

import errno
import os
import stat
import tempfile
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.common import files
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.files import check_writable, replace_files, write_atomic, write_bytes
from pipeline.common.fingerprint import package_version
from pipeline.common.tars import write_tar

SAMPLES = [("aa", {"awe.png": b"1", "json": b"{}"}), ("ab", {"json": b"{ }"})]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    write_bytes(path, b"old")

    def write(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        write_atomic(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_clear_message_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    path = tmp_path / "000000.tar"

    def samples() -> object:
        yield "aa", {"bin": bytes(100_000)}
        raise OSError(number, os.strerror(number))  # as write() raises it

    with pytest.raises(RunFailed, match=rf"full: {path} could not be written.*MiB free"):
        write_tar(path, samples())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """New files lead to /dev/full, which answers every write as a full disk does."""
    beside = files._temporary_beside

    def full(path: Path, folder: bool = False) -> Path:
        name = beside(path, folder)
        if not folder:
            name.unlink()
            name.symlink_to("/dev/full")
        return name

    monkeypatch.setattr(files, "_temporary_beside", full)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("size", [10, 3_000_000])
@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_seen_behind_any_error_of_a_library(tmp_path: Path, size: int) -> None:
    """torch.save answers it with a RuntimeError about positions, Arrow with one of its own."""
    table = pa.table({"x": np.random.default_rng(0).normal(size=size)})
    for write in (
        lambda file: torch.save({"x": torch.zeros(size)}, file),
        lambda file: pq.write_table(table, file),
        lambda file: file.write(bytes(size)),
    ):
        with pytest.raises(RunFailed, match=f"full: {tmp_path / 'x'} could not be written"):
            write_atomic(tmp_path / "x", write)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[call], fail)
    with pytest.raises(RunFailed, match=f"{tmp_path / 'x'} could not be written: Input/output error"):
        write_bytes(tmp_path / "x", b"1")
    assert list(tmp_path.iterdir()) == []


def test_another_name_of_a_file_keeps_what_it_held(tmp_path: Path) -> None:
    write_bytes(tmp_path / "cache", b"old")
    os.link(tmp_path / "cache", tmp_path / "x")
    (tmp_path / "x").chmod(0o444)
    write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "cache").read_bytes() == b"old" and (tmp_path / "x").read_bytes() == b"new"


def test_files_of_a_library_replace_old_ones_at_the_end(tmp_path: Path) -> None:
    for name in ("weights", "config"):
        write_bytes(tmp_path / name, b"old")
    os.link(tmp_path / "weights", tmp_path / "cache")
    with replace_files(tmp_path, last="config") as folder:
        (folder / "weights").write_bytes(b"new")
        (folder / "config").write_bytes(b"new")
        assert (tmp_path / "weights").read_bytes() == (tmp_path / "config").read_bytes() == b"old"
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        "weights": b"new",
        "config": b"new",
        "cache": b"old",
    }


def test_half_of_a_librarys_files_is_never_seen_as_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing library changes nothing; a kill amid the renames leaves a folder without its last file."""
    write_bytes(tmp_path / "weights", b"old")
    write_bytes(tmp_path / "config", b"old")
    with pytest.raises(ValueError, match="of the library"), replace_files(tmp_path, last="config") as folder:
        (folder / "weights").write_bytes(b"half")
        raise ValueError("of the library")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"weights": b"old", "config": b"old"}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), replace_files(tmp_path, last="config") as folder:
        for name in ("a", "config", "weights"):
            (folder / name).write_bytes(b"new")
        replace, done = Path.replace, []
        monkeypatch.setattr(
            Path, "replace", lambda *names: killed() if done else (done.append(1), replace(*names))[1]
        )
    assert {p.name for p in tmp_path.iterdir()} == {"a", "weights"}


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), Exception("No space left on device (os error 28)")],
)
def test_a_full_disk_under_a_library_is_one_message(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(RunFailed, match="disk or your quota is full"), replace_files(tmp_path, last="config"):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_the_writer_keep_their_name(tmp_path: Path) -> None:
    def write(file: object) -> None:
        raise PermissionError(errno.EACCES, "a picture that may not be read")

    with pytest.raises(PermissionError):
        write_atomic(tmp_path / "x", write)


def test_a_read_only_folder_is_the_users_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid():
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    else:  # root may write anywhere: say what the system would say to others

        def refuse(**_: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(tempfile, "mkstemp", refuse)
    for write in (lambda: write_bytes(tmp_path / "x", b""), lambda: check_writable(tmp_path)):
        with pytest.raises(UserError, match=f"cannot write to the folder {tmp_path}: Permission denied"):
            write()
    tmp_path.chmod(stat.S_IRWXU)


def test_a_file_where_a_folder_should_be_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write to the folder"):
        write_bytes(tmp_path / "data" / "masks" / "x", b"")


def test_writers_of_one_file_never_share_a_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "000000.tar"
    barrier = threading.Barrier(8)
    names: list[set[str]] = []

    def write(file: object) -> None:
        barrier.wait(timeout=30)
        names.append({entry.name for entry in tmp_path.iterdir()})
        file.write(b"the same bytes")  # type: ignore[attr-defined]
        barrier.wait(timeout=30)

    threads = [threading.Thread(target=write_atomic, args=(path, write)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(max(names, key=len)) == 8
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"the same bytes"


def test_code_that_differs_in_a_byte_or_a_name_is_another_version(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    versions = [package_version(tmp_path)]
    (tmp_path / "a.py").write_text("x = 2\n")
    versions.append(package_version(tmp_path))
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    versions.append(package_version(tmp_path))
    (tmp_path / "b.txt").touch()
    assert len(set(versions)) == 3 and package_version(tmp_path) == versions[-1]
