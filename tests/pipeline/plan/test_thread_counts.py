"""What `plan` says of threads."""

import dataclasses
from pathlib import Path

import torch

from pipeline.backbones.params import BackbonesParams
from pipeline.common.params import Paths
from pipeline.common.progress import ShardProgress
from pipeline.parallel.map_shards import ParallelParams, map_shards
from pipeline.parallel.shard_result import ShardResult
from pipeline.plan.thread_counts import threads_of, threads_text
from pipeline.plan.timing import Settings


def by_threads(shard: int, _progress: ShardProgress) -> ShardResult:
    return ShardResult(1, threads=None if shard == 2 else 3 + 2 * shard)


def test_regions_of_another_number_of_threads_are_told(tmp_path: Path) -> None:
    paths = Paths(data=tmp_path)
    sections = {field.name: field.type() for field in dataclasses.fields(Settings)}  # type: ignore[operator]
    settings = Settings(**sections | {"paths": paths, "backbones": BackbonesParams(device="cpu")})
    assert threads_of(settings) == {"here": torch.get_num_threads(), "regions": []}
    map_shards("regions", paths.step("regions"), dict.fromkeys(range(3), ""), by_threads, ParallelParams())
    assert threads_of(settings)["regions"] == [3, 5]
    assert len(threads_text({"here": 4, "regions": [4]})) == 1
    assert "made with 3 and 5; OMP_NUM_THREADS" in threads_text({"here": 4, "regions": [3, 5]})[1]
    assert threads_text({"here": None, "regions": [3]}) == []
