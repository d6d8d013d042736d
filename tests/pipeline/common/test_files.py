"""Files are whole or absent."""

import errno
import os
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from pipeline.common.errors import RunFailed, UserError
from pipeline.common.files import check_writable, write_atomic, write_bytes
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
