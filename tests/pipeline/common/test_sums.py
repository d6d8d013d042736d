"""SHA-256 beside files: any other tool checks them, and no flipped bit passes."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.common.errors import UserError
from pipeline.common.sums import SUMS, check_sum, write_sums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a b.bin").write_bytes(bytes(range(32)))
    (tmp_path / "é.json").write_bytes(b"{}")
    write_sums(tmp_path, ["é.json", "a b.bin"])
    return tmp_path


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs coreutils")
def test_the_format_is_that_of_sha256sum(folder: Path) -> None:
    found = subprocess.run(
        ["sha256sum", "--strict", "-c", SUMS], cwd=folder, capture_output=True, text=True, check=True
    )
    assert found.stdout.count(": OK") == 2


def test_sound_files_and_folders_without_sums_pass(folder: Path) -> None:
    check_sum(folder / "a b.bin", "make it again")
    (folder / SUMS).unlink()
    (folder / "a b.bin").write_bytes(b"other")
    check_sum(folder / "a b.bin", "make it again")


def test_every_flipped_bit_is_told(folder: Path) -> None:
    file = folder / "a b.bin"
    for bit in range(32 * 8):
        data = bytearray(range(32))
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        with pytest.raises(UserError, match=r"a b\.bin is not the file that was written.*Make it again"):
            check_sum(file, "make it again")


def test_every_flipped_bit_of_the_sums_is_told(folder: Path) -> None:
    whole = (folder / SUMS).read_bytes()
    for bit in range(len(whole) * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        (folder / SUMS).write_bytes(data)
        told = 0
        for name in ("a b.bin", "é.json"):
            try:
                check_sum(folder / name, "make it again")
            except UserError as error:
                told += str(folder) in str(error)
        assert told, f"bit {bit}"


def test_a_file_that_is_gone_is_told(folder: Path) -> None:
    (folder / "a b.bin").unlink()
    with pytest.raises(UserError, match=r"a b\.bin cannot be checked.*No such file.*make it again"):
        check_sum(folder / "a b.bin", "make it again")
