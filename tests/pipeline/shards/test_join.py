"""Tars that do not fit together are named, and a rejected artwork is left out with its reason."""

from pathlib import Path

import pytest

from pipeline.common.errors import RunFailed, UserError
from pipeline.common.tars import read_tar
from pipeline.reader.index import Index
from pipeline.shards.join import cache_folder
from pipeline.shards.step import ShardsParams, build_shards
from tests.worlds import indexed_shards


# What must not be joined
def test_a_key_that_one_tar_lacks_is_named(tmp_path: Path) -> None:
    paths = indexed_shards.paths_in(tmp_path)
    indexed_shards.write_shards(paths)
    tar = paths.step("masks") / "000001.tar"
    gone = next(read_tar(tar))[0]
    indexed_shards.rewrite(tar, lambda samples: samples[1:])
    with pytest.raises(UserError, match=rf"shard 000001: key {gone} is in features but not in masks"):
        build_shards(paths, ShardsParams())


def test_a_rejected_artwork_is_left_out_with_its_reason(tmp_path: Path) -> None:
    paths = indexed_shards.paths_in(tmp_path)
    indexed_shards.write_shards(paths)
    tar = paths.step("masks") / "000001.tar"
    gone = next(read_tar(tar))[0]
    indexed_shards.rewrite(tar, lambda samples: samples[1:])
    indexed_shards.vouch(paths.step("regions"), 1, rejects=[(gone, "truncated")])
    metrics = build_shards(paths, ShardsParams())
    assert (metrics["kept"], metrics["rejected"]) == (5, 1)
    assert metrics["rejects"]["shards"] == {"regions: truncated": 1}
    assert gone not in Index.load(paths.step("shards"))
    assert indexed_shards.verify(paths) == []


def test_an_artwork_that_both_tars_lack_is_named(tmp_path: Path) -> None:
    paths = indexed_shards.paths_in(tmp_path)
    indexed_shards.write_shards(paths)
    gone = next(read_tar(paths.step("masks") / "000001.tar"))[0]
    for file in ("features", "masks"):
        indexed_shards.rewrite(paths.step(file) / "000001.tar", lambda samples: samples[1:])
    with pytest.raises(
        UserError, match=f"shard 000001: key {gone} is in neither tar, and no step rejected it"
    ):
        build_shards(paths, ShardsParams())
    indexed_shards.vouch(paths.step("features"), 1, rejects=[(gone, "truncated")])
    assert build_shards(paths, ShardsParams())["kept"] == 5


def test_an_artwork_of_another_table_is_named(tmp_path: Path) -> None:
    paths = indexed_shards.paths_in(tmp_path)
    indexed_shards.write_shards(paths)
    for file in ("features", "masks"):
        indexed_shards.rewrite(
            paths.step(file) / "000000.tar", lambda samples: [*samples, ("ffffffffffffffff", samples[0][1])]
        )
    with pytest.raises(UserError, match="key ffffffffffffffff is not of this shard"):
        build_shards(paths, ShardsParams())


def test_another_order_is_named(tmp_path: Path) -> None:
    paths = indexed_shards.paths_in(tmp_path)
    indexed_shards.write_shards(paths)
    indexed_shards.rewrite(paths.step("masks") / "000000.tar", lambda samples: samples[::-1])
    with pytest.raises(UserError, match=rf"shard 000000: .* order at key {indexed_shards.keys(6)[0]}"):
        build_shards(paths, ShardsParams())


@pytest.mark.parametrize("file", ["features", "masks"])
def test_a_missing_or_cut_tar_is_named(tmp_path: Path, file: str) -> None:
    paths = indexed_shards.paths_in(tmp_path)
    indexed_shards.write_shards(paths)
    tar = paths.step(file) / "000001.tar"
    tar.write_bytes(tar.read_bytes()[:1400])
    with pytest.raises(
        UserError, match=rf"1 of 2 shards of .*{file} are not finished \(000001\).*run the {file}"
    ):
        build_shards(paths, ShardsParams())
    indexed_shards.vouch(tar.parent, 1)
    with pytest.raises(UserError, match=rf"{file}/000001.tar is damaged"):
        build_shards(paths, ShardsParams())
    tar.unlink()
    with pytest.raises(UserError, match=f"shard 000001 is in .* but not in .*{file}"):
        build_shards(paths, ShardsParams())


def test_shards_of_two_recipes_are_no_dataset(tmp_path: Path) -> None:
    """Params edited, and masks killed half-way."""
    paths = indexed_shards.paths_in(tmp_path)
    indexed_shards.write_shards(paths, shards=3)
    indexed_shards.vouch(paths.step("masks"), 0, recipe="another")
    with pytest.raises(UserError, match=r"masks are of 2 recipes.*1 of 3 \(000000\).*run the masks step"):
        build_shards(paths, ShardsParams())
    for shard in (1, 2):
        indexed_shards.vouch(paths.step("masks"), shard, recipe="another")
    assert build_shards(paths, ShardsParams())["kept"] == 6


@pytest.mark.parametrize("file", ["features", "masks"])
def test_a_shard_that_nobody_vouches_for_is_not_done(tmp_path: Path, file: str) -> None:
    paths = indexed_shards.paths_in(tmp_path)
    indexed_shards.write_shards(paths)
    sidecar = paths.step(file) / "000001.json"
    whole = sidecar.read_bytes()
    for damaged in (whole[:-3], b"", whole.replace(b'"kept": 2', b'"kept": 3'), b"[" * 100_000):
        sidecar.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"1 of 2 shards of .*{file} are not finished \(000001\)"):
            build_shards(paths, ShardsParams())
    sidecar.unlink()
    with pytest.raises(UserError, match=rf"1 of 2 shards of .*{file} are not finished \(000001\)"):
        build_shards(paths, ShardsParams())


@pytest.mark.parametrize("file", ["features", "masks"])
def test_a_tar_that_changed_since_its_step_is_named(tmp_path: Path, file: str) -> None:
    paths = indexed_shards.paths_in(tmp_path)
    indexed_shards.write_shards(paths)
    tar = paths.step(file) / "000001.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    named = (
        rf"{file}/000001.tar is not the file that the {file} step wrote.*delete it and run the {file} step"
    )
    with pytest.raises(RunFailed, match=named):
        build_shards(paths, ShardsParams())


@pytest.mark.parametrize(
    ("file", "name"),
    [("features", "sam.npy"), ("features", "clip.npy"), ("features", "json"), ("masks", "awe.png")],
)
def test_an_artwork_without_a_member_that_its_card_declares_is_named(
    tmp_path: Path, file: str, name: str
) -> None:
    paths = indexed_shards.paths_in(tmp_path)
    indexed_shards.write_shards(paths)
    key = indexed_shards.keys(6)[0]
    indexed_shards.rewrite(
        paths.step(file) / "000000.tar",
        lambda samples: [(k, {n: b for n, b in m.items() if (k, n) != (key, name)}) for k, m in samples],
    )
    with pytest.raises(UserError, match=rf"shard 000000, key {key}: {file} has no {key}.{name}"):
        build_shards(paths, ShardsParams())


def test_a_flipped_bit_in_a_kept_join_costs_reading_that_shard_again(
    indexed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = indexed_shards.copy_of(indexed, tmp_path)
    before = {path.name: path.read_bytes() for path in paths.step("shards").iterdir()}
    kept = cache_folder(paths) / "000001.parquet"
    build_shards(paths, ShardsParams())
    whole = kept.read_bytes()
    for place in (4, len(whole) // 2, len(whole) - 10):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        kept.write_bytes(damaged)
        capsys.readouterr()
        build_shards(paths, ShardsParams())
        assert "1 shard(s) already done, 1 to do" in capsys.readouterr().err
        assert kept.read_bytes() == whole
    assert {path.name: path.read_bytes() for path in paths.step("shards").iterdir()} == before


def test_no_shards_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the features and masks steps first"):
        build_shards(indexed_shards.paths_in(tmp_path), ShardsParams())
