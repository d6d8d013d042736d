"""What the masks step reads, against the readers of whole tables that the other steps use."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.common import schema
from pipeline.common.files import write_parquet
from pipeline.common.params import Paths
from pipeline.common.tables import read_artworks, read_groups, read_regions
from pipeline.masks import inputs
from tests.worlds.backbones import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    paths = write_world(tmp_path_factory.mktemp("world"))
    return paths


def check(paths: Paths, shard: int) -> int:
    columns = ("art_style", "painting", "split", "height", "width")
    works = inputs.read_works(paths, shard, columns)
    wanted = [{name: work[name] for name in ("key", *columns)} for work in read_artworks(paths, shard)]
    assert works == wanted
    found = inputs.read_utterances(paths, [work["key"] for work in works])
    pairs = [((key, emotion), group) for key, groups in found.items() for emotion, group in groups.items()]
    assert pairs == list(read_groups(paths, shard).items())
    return len(pairs)


def test_a_shard_of_the_tables_is_what_the_other_steps_read(world: Paths) -> None:
    assert sum(check(world, shard) for shard in range(3)) > 4
    assert check(world, 99) == 0


@pytest.mark.parametrize("noted", [True, False])
def test_in_any_order_and_without_statistics(world: Paths, tmp_path: Path, noted: bool) -> None:
    """Tables made by hand: many row groups, not sorted, nothing noted of what they hold."""
    paths = Paths(data=tmp_path)
    for name in ("artworks", "utterances"):
        table = pq.read_table(world.step("utterances") / f"{name}.parquet")
        order = np.random.default_rng(0).permutation(len(table))
        (tmp_path / "utterances").mkdir(exist_ok=True)
        file = tmp_path / "utterances" / f"{name}.parquet"
        pq.write_table(table.take(order), file, row_group_size=2, write_statistics=noted)
    assert sum(check(paths, shard) for shard in range(3)) > 4


def test_a_table_made_anew_is_read_anew(world: Paths, tmp_path: Path) -> None:
    paths = Paths(data=tmp_path)
    for rows in (4, 2):
        for name in ("artworks", "utterances"):
            table = pq.read_table(world.step("utterances") / f"{name}.parquet")
            write_parquet(tmp_path / "utterances" / f"{name}.parquet", table.slice(0, rows))
        check(paths, 0)


def test_boxes_are_those_of_the_table_and_a_bad_one_is_refused(tmp_path: Path) -> None:
    paths = Paths(data=tmp_path)
    rows = [
        {"key": "a", "boxes": [[0.5, 1, 2, 3], [4, 5, 6, 7]], "scores": [1.0, 0.5], "source": "x"},
        {"key": "b", "boxes": [], "scores": [], "source": "y"},
        {"key": "c", "boxes": [[8, 9, 10, 11]], "scores": [0.1], "source": "x"},
    ]
    file = tmp_path / "regions" / "000000.parquet"
    write_parquet(file, pa.Table.from_pylist(rows, schema=schema.REGIONS))
    found, expected = inputs.read_boxes(paths, 0), read_regions(paths, 0)
    assert found.keys() == expected.keys()
    for key, (boxes, source) in found.items():
        assert source == expected[key][1] and boxes.dtype == np.float32 and boxes.shape[1] == 4
        np.testing.assert_array_equal(boxes, expected[key][0])
    rows[2]["boxes"] = [[8.0, 9.0, 10.0], [1.0, 2.0, 3.0, 4.0, 5.0]]
    write_parquet(file, pa.Table.from_pylist(rows, schema=schema.REGIONS))
    with pytest.raises(ValueError, match="other than four numbers"):
        inputs.read_boxes(paths, 0)
