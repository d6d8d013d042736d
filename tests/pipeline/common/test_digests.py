"""A flipped bit in any table of the data steps is one message that names file and step, whoever reads it."""

import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.common import schema
from pipeline.common.digests import DamagedFile, check_file, read_sidecar, write_sidecar
from pipeline.common.errors import RunFailed
from pipeline.common.files import write_parquet
from pipeline.common.params import Paths
from pipeline.common.progress import ShardProgress
from pipeline.common.sums import write_sums
from pipeline.common.tables import open_artworks, open_utterances, read_artworks, read_groups, read_regions
from pipeline.parallel.map_shards import ParallelParams, map_shards
from pipeline.parallel.shard_result import ShardResult
from tests.worlds import indexed_shards


def flip(path: Path, seed: int) -> None:
    """One bit, anywhere."""
    data = bytearray(path.read_bytes())
    rng = random.Random(seed)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


@pytest.fixture
def world(tmp_path: Path) -> Paths:
    paths = indexed_shards.paths_in(tmp_path)
    indexed_shards.write_shards(paths)
    indexed_shards.write_sources(paths, 6)
    write_sums(paths.step("utterances"), [path.name for path in paths.step("utterances").glob("*.parquet")])
    rows = [{"key": key, "boxes": [[0, 0, 1, 1]], "source": "x"} for key in indexed_shards.keys(6)[::2]]
    write_parquet(paths.step("regions") / "000000.parquet", pa.Table.from_pylist(rows, schema=schema.REGIONS))
    indexed_shards.vouch(paths.step("regions"), 0)
    return paths


READERS: dict[str, list[Callable[[Paths], object]]] = {
    "utterances/artworks.parquet": [open_artworks, lambda paths: read_artworks(paths, 0)],
    "utterances/utterances.parquet": [open_utterances, lambda paths: read_groups(paths, 0)],
    "regions/000000.parquet": [lambda paths: read_regions(paths, 0)],
}


@pytest.mark.parametrize("file", READERS)
def test_a_flipped_bit_is_found_by_every_reader(world: Paths, file: str) -> None:
    path = world.data / file
    step = file.partition("/")[0]
    whole = path.read_bytes()
    for reader in READERS[file]:
        for seed in range(10):
            flip(path, seed)
            with pytest.raises(
                DamagedFile, match=rf"{file} is not the file that the {step} step wrote.*run the"
            ):
                reader(world)
            path.write_bytes(whole)
        reader(world)


def test_a_flipped_bit_in_a_sidecar_is_no_sidecar(tmp_path: Path) -> None:
    content = {"fingerprint": "a", "recipe": "b", "files": {}, "kept": 59, "rejects": [], "counts": {"n": 1}}
    write_sidecar(tmp_path, 3, content)
    path = tmp_path / "000003.json"
    whole = path.read_bytes()
    assert read_sidecar(tmp_path, 3) == content
    for seed in range(60):
        flip(path, seed)
        assert read_sidecar(tmp_path, 3) in (None, content)  # a bit of white space says nothing
        path.write_bytes(whole)
    path.write_bytes(whole.replace(b"59", b"58"))
    assert read_sidecar(tmp_path, 3) is None


def test_a_table_that_nobody_noted_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "000000.parquet").write_bytes(b"made by hand")
    (tmp_path / "artworks.parquet").write_bytes(b"made by hand")
    assert check_file(tmp_path / "000000.parquet").is_file() and check_file(tmp_path / "artworks.parquet")


def test_a_rotten_table_is_not_done_and_its_reader_says_whose_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not: "the same command tries them again", for ever, while the step that could mend it calls it done."""
    first, second = tmp_path / "similarity", tmp_path / "masks"

    def compare(shard: int, _: ShardProgress) -> ShardResult:
        write_parquet(first / f"{shard:06d}.parquet", pa.table({"a": [shard] * 50}))
        return ShardResult(1)

    def paint(shard: int, _: ShardProgress) -> ShardResult:
        check_file(first / f"{shard:06d}.parquet")
        (second / f"{shard:06d}.tar").touch()
        return ShardResult(1)

    jobs, here = dict.fromkeys(range(3), ""), ParallelParams()
    map_shards("similarity", first, jobs, compare, here)
    whole = (first / "000001.parquet").read_bytes()
    flip(first / "000001.parquet", 1)
    for _ in range(2):
        with pytest.raises(RunFailed, match="2 of 3 are done") as failed:
            map_shards("masks", second, jobs, paint, here)
        assert "similarity/000001.parquet is not the file" in str(failed.value)
        assert "run the similarity step" in str(failed.value) and "tries them again" not in str(failed.value)
    capsys.readouterr()
    assert map_shards("similarity", first, jobs, compare, here)["done"] == 1
    assert (first / "000001.parquet").read_bytes() == whole
    assert map_shards("masks", second, jobs, paint, here)["done"] == 1
