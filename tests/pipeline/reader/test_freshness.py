"""Whoever opens the index sees that tars were made again since, and which step is to run."""

import shutil
from pathlib import Path

import pytest

from pipeline.common.errors import UserError
from pipeline.reader.index import Index
from pipeline.reader.statistics import read_statistics
from pipeline.shards.step import ShardsParams, build_shards
from tests.worlds import indexed_shards


def open_both(paths: indexed_shards.Paths, message: str) -> None:
    """The index (train, predict, baselines) and the statistics (report) say the same."""
    for opened in (Index.load, read_statistics):
        with pytest.raises(UserError, match=message):
            opened(paths.step("shards"))


def test_masks_made_anew_are_seen_and_the_shards_step_mends_it(indexed: Path, tmp_path: Path) -> None:
    paths = indexed_shards.copy_of(indexed, tmp_path)
    indexed_shards.rewrite(
        paths.step("masks") / "000001.tar",  # of the same size: only the digest tells
        lambda samples: [
            (k, {n: b[::-1] if n.endswith("png") else b for n, b in m.items()}) for k, m in samples
        ],
    )
    open_both(paths, "shard 000001 of masks was made again since the index was written; run the shards step")
    build_shards(paths, ShardsParams())
    Index.load(paths.step("shards")), read_statistics(paths.step("shards"))


def test_a_step_that_was_killed_half_way_is_named(indexed: Path, tmp_path: Path) -> None:
    paths = indexed_shards.copy_of(indexed, tmp_path)
    (paths.step("features") / "000000.json").unlink()
    open_both(paths, "shard 000000 of features is not finished.*run features, then shards")


@pytest.mark.parametrize("sidecars", [True, False])
def test_tars_of_another_size_or_gone(indexed: Path, tmp_path: Path, sidecars: bool) -> None:
    """As from the hub: tars and index, and nobody who vouches for the tars."""
    paths = indexed_shards.copy_of(indexed, tmp_path)
    if not sidecars:
        for step in ("features", "masks"):
            for sidecar in paths.step(step).glob("*.json"):
                sidecar.unlink()
    Index.load(paths.step("shards")), read_statistics(paths.step("shards"))
    tar = paths.step("masks") / "000001.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole + bytes(512))
    open_both(paths, rf"masks/000001.tar has {len(whole) + 512} bytes and the indexed one had {len(whole)}")
    tar.unlink()
    open_both(paths, r"masks/000001.tar cannot be found")


@pytest.mark.parametrize("name", ["index.parquet", "stats.json", "SHA256SUMS"])
def test_one_flipped_bit_beside_the_index(indexed: Path, tmp_path: Path, name: str) -> None:
    for turn in range(3):
        paths = indexed_shards.copy_of(indexed, tmp_path)
        file = paths.step("shards") / name
        data = bytearray(file.read_bytes())
        places = [3, len(data) // 2, len(data) - 3]
        if name == "SHA256SUMS":  # in the lines of what is read; the others are for --verify
            lines = [data.index(b"  index.parquet"), data.index(b"  stats.json")]
            places = [lines[0] - 5, lines[0] + 4, lines[1] - 60]
        data[places[turn]] ^= 1
        file.write_bytes(data)
        with pytest.raises(UserError, match="run the shards step"):
            Index.load(paths.step("shards"))
        shutil.rmtree(paths.data)
