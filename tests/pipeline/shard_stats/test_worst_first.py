"""Masks that were harmed after they were made are listed first; sound ones are not accused of it."""

from pathlib import Path

import pytest

from pipeline.shard_stats.labels import Labels, ShardStatsParams
from pipeline.shard_stats.summary import worst_rows
from tests.worlds.indexed_shards import paths_in
from tests.worlds.labelled_shards import index_labelled, plant_faults, write_labelled


@pytest.mark.parametrize("seed", [1, 2])
def test_planted_faults_come_first(tmp_path: Path, seed: int) -> None:
    paths = paths_in(tmp_path)
    assert write_labelled(paths) == 240
    index_labelled(paths)
    sound = Labels.read(paths.step("shards"), ShardStatsParams())
    assert not sound.flags["altered"].any()
    planted = plant_faults(paths, 3, 50, seed)
    index_labelled(paths)
    labels = Labels.read(paths.step("shards"), ShardStatsParams())
    listed = [(row["key"], row["emotion"]) for row in worst_rows(labels, 75)]
    assert len(planted & set(listed)) >= 40
    assert labels.flags["altered"].sum() <= 50


def test_each_flag_by_hand(tmp_path: Path) -> None:
    import pyarrow as pa

    from pipeline.common.schema import LABELS

    fine = {"key": "k", "emotion": "awe", "area": 0.2, "agreement": 1.0, "twin": 0.5, "contrast": 0.1}
    fine |= {"own_rank": 0.9, "utterances": 1, "shard": 0, "split": "train"}
    harmed = {
        "altered": {"agreement": 0.79},
        "nothing": {"area": 0.002},
        "everything": {"area": 0.9},
        "flat": {"contrast": 0.0099},
        "twin": {"twin": 0.999},
        "lost": {"own_rank": 0.24},
    }
    rows = [fine, *({**fine, **change, "key": name} for name, change in harmed.items())]
    rows.append({**fine, "key": "unknown"} | dict.fromkeys(("agreement", "twin", "contrast", "own_rank")))
    labels = Labels(pa.Table.from_pylist(rows, schema=LABELS), ShardStatsParams())
    for place, name in enumerate(harmed, 1):
        assert [flag for flag, hits in labels.flags.items() if hits[place]] == [name]
    assert not labels.any_flag()[[0, -1]].any()
    assert [row["key"] for row in worst_rows(labels, 99)] == [*harmed, "k", "unknown"]
