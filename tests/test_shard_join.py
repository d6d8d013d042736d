"""Tars that do not fit together are named, and a rejected artwork is left out with its reason."""

from pathlib import Path

import pytest

from pipeline import shards, storage
from pipeline.params import UserError
from pipeline.shards import Index, ShardsParams
from tests import worlds


# What must not be joined
def test_a_key_that_one_tar_lacks_is_named(tmp_path: Path) -> None:
    paths = worlds.paths_in(tmp_path)
    worlds.write_shards(paths)
    tar = paths.step("masks") / "000001.tar"
    gone = next(storage.read_tar(tar))[0]
    worlds.rewrite(tar, lambda samples: samples[1:])
    with pytest.raises(UserError, match=rf"shard 000001: key {gone} is in features but not in masks"):
        shards.build(paths, ShardsParams())


def test_a_rejected_artwork_is_left_out_with_its_reason(tmp_path: Path) -> None:
    paths = worlds.paths_in(tmp_path)
    worlds.write_shards(paths)
    tar = paths.step("masks") / "000001.tar"
    gone = next(storage.read_tar(tar))[0]
    worlds.rewrite(tar, lambda samples: samples[1:])
    rejects = [{"key": gone, "reason": "truncated"}]
    storage.write_json(
        paths.step("regions") / "000001.json", {"fingerprint": "", "kept": 2, "rejects": rejects}
    )
    metrics = shards.build(paths, ShardsParams())
    assert (metrics["kept"], metrics["rejected"]) == (5, 1)
    assert metrics["rejects"]["shards"] == {"regions: truncated": 1}
    assert gone not in Index.load(paths.step("shards"))
    assert worlds.verify(paths) == []


def test_an_artwork_that_both_tars_lack_is_named(tmp_path: Path) -> None:
    paths = worlds.paths_in(tmp_path)
    worlds.write_shards(paths)
    gone = next(storage.read_tar(paths.step("masks") / "000001.tar"))[0]
    for file in ("features", "masks"):
        worlds.rewrite(paths.step(file) / "000001.tar", lambda samples: samples[1:])
    with pytest.raises(
        UserError, match=f"shard 000001: key {gone} is in neither tar, and no step rejected it"
    ):
        shards.build(paths, ShardsParams())
    rejects = [{"key": gone, "reason": "truncated"}]
    storage.write_json(
        paths.step("features") / "000001.json", {"fingerprint": "", "kept": 2, "rejects": rejects}
    )
    assert shards.build(paths, ShardsParams())["kept"] == 5


def test_an_artwork_of_another_table_is_named(tmp_path: Path) -> None:
    paths = worlds.paths_in(tmp_path)
    worlds.write_shards(paths)
    for file in ("features", "masks"):
        worlds.rewrite(
            paths.step(file) / "000000.tar", lambda samples: [*samples, ("ffffffffffffffff", samples[0][1])]
        )
    with pytest.raises(UserError, match="key ffffffffffffffff is not of this shard"):
        shards.build(paths, ShardsParams())


def test_another_order_is_named(tmp_path: Path) -> None:
    paths = worlds.paths_in(tmp_path)
    worlds.write_shards(paths)
    worlds.rewrite(paths.step("masks") / "000000.tar", lambda samples: samples[::-1])
    with pytest.raises(UserError, match=rf"shard 000000: .* order at key {worlds.keys(6)[0]}"):
        shards.build(paths, ShardsParams())


@pytest.mark.parametrize("file", ["features", "masks"])
def test_a_missing_or_cut_tar_is_named(tmp_path: Path, file: str) -> None:
    paths = worlds.paths_in(tmp_path)
    worlds.write_shards(paths)
    tar = paths.step(file) / "000001.tar"
    tar.write_bytes(tar.read_bytes()[:1400])
    with pytest.raises(UserError, match=rf"{file}/000001.tar is damaged"):
        shards.build(paths, ShardsParams())
    tar.unlink()
    with pytest.raises(UserError, match=f"shard 000001 is in .* but not in .*{file}"):
        shards.build(paths, ShardsParams())


def test_no_shards_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the features and masks steps first"):
        shards.build(worlds.paths_in(tmp_path), ShardsParams())
