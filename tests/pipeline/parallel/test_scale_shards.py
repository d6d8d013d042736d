"""The simulation of 100,000 shards, at a size where every number is known."""

from pathlib import Path

import pytest

from pipeline.common.digests import read_sidecar
from pipeline.common.params import Paths
from pipeline.common.tables import read_artworks
from tests.worlds import scale_shards


def test_every_part_does_what_it_says(tmp_path: Path) -> None:
    for part, items in (
        ("make", 30),
        ("again", 30),
        ("planned", 30),
        ("checked", 30),
        ("table", 30),
        ("rows", 20),
    ):
        found = scale_shards.run_part(part, tmp_path, 30)
        assert found["items"] == items, part
        assert found["cpu_seconds"] > 0 and found["peak_mib"] > 30
    sidecar = read_sidecar(tmp_path / "idle-1", 29)
    assert sidecar is not None
    assert (sidecar["kept"], sidecar["files"]["000029.tar"]["bytes"]) == (200, 64)
    assert [row["shard"] for row in read_artworks(Paths(data=tmp_path), 7)] == [7]


def test_a_shard_that_was_lost_is_noticed(tmp_path: Path) -> None:
    scale_shards.run_part("make", tmp_path, 5)
    (tmp_path / "idle-1" / "000003.tar").unlink()
    assert scale_shards.run_part("planned", tmp_path, 5)["items"] == 4
    with pytest.raises(AssertionError, match="made again"):
        scale_shards.run_part("again", tmp_path, 5)


def test_the_table_by_hand() -> None:
    one = {"items": 1000, "seconds": 3.0, "cpu_seconds": 2.0, "peak_mib": 1234}
    found = {("make", 1000): one, ("make", 10_000): None}
    assert scale_shards.markdown(found).splitlines() == [
        "| part | 1,000: CPU s | ms a shard | peak MiB | 10,000: CPU s | ms a shard | peak MiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| make | 2.0 | 2 | 1,234 | over the limit | | |",
    ]
