"""`shards.verify`: any damage is found and named, and nothing leaves its folder."""

import io
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.common.errors import UserError
from pipeline.common.sums import write_sums
from pipeline.common.tars import read_tar, write_tar
from pipeline.reader.statistics import read_statistics
from pipeline.shards.step import ShardsParams, build_shards
from pipeline.shards.verify import verify_shards
from tests.worlds import indexed_shards


# What verify finds
def test_an_intact_dataset_has_no_problems(indexed: Path) -> None:
    assert indexed_shards.verify(indexed_shards.paths_in(indexed)) == []


@settings(max_examples=80)
@given(data=st.data())
def test_any_flipped_byte_is_found_and_named(
    indexed: Path, tmp_path_factory: pytest.TempPathFactory, data
) -> None:
    tar = data.draw(st.sampled_from(sorted((indexed / "data").glob("*/00000?.tar"))))
    original = tar.read_bytes()
    at = data.draw(st.integers(0, len(original) - 1))
    flip = data.draw(st.integers(1, 255))
    with tarfile.open(tar) as listing:
        owner = [i for i in listing if i.offset_data <= at < i.offset_data + i.size]
    paths = indexed_shards.copy_of(indexed, tmp_path_factory.mktemp("flip"))
    damaged = bytearray(original)
    damaged[at] ^= flip
    (paths.data / tar.relative_to(indexed / "data")).write_bytes(damaged)
    problems = indexed_shards.verify(paths)
    shutil.rmtree(paths.data)
    assert problems
    assert {(p.shard, p.file) for p in problems} == {(int(tar.stem), tar.parent.name)}
    if owner:
        assert [(p.kind, p.key) for p in problems] == [("checksum", owner[0].name.partition(".")[0])]


@settings(max_examples=40)
@given(data=st.data())
def test_any_cut_is_found(indexed: Path, tmp_path_factory: pytest.TempPathFactory, data) -> None:
    tar = data.draw(st.sampled_from(sorted((indexed / "data").glob("*/00000?.tar"))))
    original = tar.read_bytes()
    length = data.draw(st.integers(0, len(original) - 1))
    with tarfile.open(tar) as listing:
        cut = [i.name.partition(".")[0] for i in listing if i.size and i.offset_data + i.size > length]
    paths = indexed_shards.copy_of(indexed, tmp_path_factory.mktemp("cut"))
    (paths.data / tar.relative_to(indexed / "data")).write_bytes(original[:length])
    problems = indexed_shards.verify(paths)
    shutil.rmtree(paths.data)
    assert {(p.kind, p.shard, p.file) for p in problems} == {("truncated", int(tar.stem), tar.parent.name)}
    if length:
        assert problems[0].key == (cut[0] if cut else None)


def test_a_missing_member(indexed: Path, tmp_path: Path) -> None:
    paths = indexed_shards.copy_of(indexed, tmp_path)
    tar = paths.step("features") / "000000.tar"
    key = next(read_tar(tar))[0]
    indexed_shards.rewrite(
        tar,
        lambda samples: [
            (k, {n: b for n, b in m.items() if (k, n) != (key, "clip.npy")}) for k, m in samples
        ],
    )
    problems = indexed_shards.verify(paths)
    assert [(p.shard, p.key) for p in problems if p.kind == "missing-member"] == [(0, key)]
    assert "clip.npy" in str(problems[0])
    assert {p.kind for p in problems} == {"missing-member", "moved"}


def test_an_unknown_member_and_an_unknown_tar(indexed: Path, tmp_path: Path) -> None:
    paths = indexed_shards.copy_of(indexed, tmp_path)
    indexed_shards.rewrite(
        paths.step("masks") / "000001.tar", lambda samples: [*samples, ("feed", {"png": b"x"})]
    )
    write_tar(paths.step("masks") / "000007.tar", [])
    problems = indexed_shards.verify(paths)
    assert [(p.kind, p.shard, p.key) for p in problems] == [
        ("unknown-member", 1, "feed"),
        ("unknown-tar", 7, None),
    ]


UNSAFE = {
    "../../etc/cron.json": b"0",
    "/etc/passwd.json": b"0",
    "a/b.png": b"0",
    "..": b"0",
    "link.png": tarfile.SYMTYPE,
    "hard.png": tarfile.LNKTYPE,
    "tty.png": tarfile.CHRTYPE,
    "disk.png": tarfile.BLKTYPE,
    "pipe.png": tarfile.FIFOTYPE,
    "folder.png": tarfile.DIRTYPE,
}
"""Member name -> tar type of a special file, or b"0" for a plain one."""


@pytest.mark.parametrize("name", [*UNSAFE, "twice"])
def test_members_that_could_leave_their_folder_are_refused(indexed: Path, tmp_path: Path, name: str) -> None:
    paths = indexed_shards.copy_of(indexed, tmp_path)
    tar = paths.step("masks") / "000001.tar"
    with tarfile.open(tar, "a") as out:
        info = tarfile.TarInfo(out.getnames()[0] if name == "twice" else name)
        info.type = UNSAFE.get(name, b"0")
        info.linkname = "/etc/passwd"
        out.addfile(info)
    refused = [p for p in indexed_shards.verify(paths) if p.kind == "refused-member"]
    assert [(p.file, p.shard) for p in refused] == [("masks", 1)]
    assert info.name in refused[0].detail
    indexed_shards.vouch(tar.parent, 1)  # it was there when the step ended, that is
    with pytest.raises(UserError, match=r"masks/000001.tar holds the member"):
        build_shards(paths, ShardsParams())
    with pytest.raises(UserError, match="no step here writes that"):
        list(read_tar(tar))


@pytest.mark.parametrize("key", ["..", "../a", "/a", "a/b", "a.b", "", "é", "a\n"])
def test_no_such_member_is_ever_written(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="tar key"):
        write_tar(tmp_path / "a.tar", [(key, {"png": b""})])
    with pytest.raises(ValueError, match="extension"):
        write_tar(tmp_path / "a.tar", [("a", {"/../b": b""})])
    assert list(tmp_path.iterdir()) == []


def test_misaligned_keys(indexed: Path, tmp_path: Path) -> None:
    paths = indexed_shards.copy_of(indexed, tmp_path)
    indexed_shards.rewrite(
        paths.step("masks") / "000000.tar", lambda samples: [samples[1], samples[0], *samples[2:]]
    )
    problems = {p.kind: p for p in indexed_shards.verify(paths)}
    assert problems["misaligned"].shard == 0
    assert problems["misaligned"].key == indexed_shards.keys(6)[0]


def test_a_missing_tar(indexed: Path, tmp_path: Path) -> None:
    paths = indexed_shards.copy_of(indexed, tmp_path)
    (paths.step("features") / "000001.tar").unlink()
    assert [(p.kind, p.file, p.shard) for p in indexed_shards.verify(paths)] == [
        ("missing-tar", "features", 1)
    ]


WRITTEN = (
    "index.parquet",
    "labels.parquet",
    "stats.json",
    "rejects.parquet",
    "croissant.json",
    "README.md",
    "SHA256SUMS",
)


@pytest.mark.parametrize("name", WRITTEN)
def test_any_change_of_a_file_beside_the_index_is_found_and_named(
    indexed: Path, tmp_path: Path, name: str
) -> None:
    paths = indexed_shards.copy_of(indexed, tmp_path)
    file = paths.step("shards") / name
    assert {path.name for path in file.parent.iterdir()} == set(WRITTEN)
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    foreign = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), foreign)
    more = whole + b" x"  # of a JSON file, a space more is none
    for damaged in (whole[:-2], b"", more, bytes(flipped), b"{}", b"[" * 100_000, foreign.getvalue()):
        file.write_bytes(damaged)
        problems = indexed_shards.verify(paths)
        assert problems and {p.kind for p in problems} == {"index"}
        assert name == "SHA256SUMS" or [p.file for p in problems] == [name]
    file.unlink()
    assert [p.file for p in indexed_shards.verify(paths)] == [name]
    file.write_bytes(whole)
    assert indexed_shards.verify(paths) == []


@pytest.mark.parametrize("name", ["index.parquet", "stats.json"])
def test_a_foreign_file_with_its_right_digest_is_a_problem_and_no_crash(
    indexed: Path, tmp_path: Path, name: str
) -> None:
    paths = indexed_shards.copy_of(indexed, tmp_path)
    foreign = io.BytesIO()
    pq.write_table(pa.table({"source": [1], "shard": ["x"]}), foreign)
    for content in (b'{"shards": 3}', b'{"shards": [{"shard": 0}]}', b"[]", foreign.getvalue()):
        (paths.step("shards") / name).write_bytes(content)
        write_sums(paths.step("shards"), [n for n in WRITTEN if n != "SHA256SUMS"])
        assert [p.kind for p in indexed_shards.verify(paths)] == ["index"]


@pytest.mark.parametrize("kind", [b"0", b"x", b"g", b"L", b"K", b"S"])
@pytest.mark.parametrize("size", [2**33, 2**62, 2**63, 2**70, -5, -(2**40)])
def test_a_header_with_a_size_that_no_file_has(indexed: Path, tmp_path: Path, kind: bytes, size: int) -> None:
    """Sizes that octal digits cannot say are written in base 256, where they may be anything."""
    paths = indexed_shards.copy_of(indexed, tmp_path)
    tar = paths.step("masks") / "000001.tar"
    data = bytearray(tar.read_bytes())
    data[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    data[156:157] = kind
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    tar.write_bytes(data)
    problems = indexed_shards.verify(paths)
    assert problems and {(p.file, p.shard) for p in problems} == {("masks", 1)}


def test_a_folder_without_shards_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no shards folder"):
        verify_shards(tmp_path)
    with pytest.raises(UserError, match="run the shards step"):
        read_statistics(tmp_path)
