"""Which parts of the factory's steps today's run would keep: what `plan` calls done."""

import functools
from collections.abc import Callable, Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.common.digests import sidecar_path
from pipeline.common.errors import UserError
from pipeline.common.schema import shard_of
from pipeline.common.tables import open_artworks, open_utterances, table_file
from pipeline.features.step import feature_jobs
from pipeline.masks.step import mask_jobs
from pipeline.parallel.shard_folder import ShardFolder
from pipeline.plan.timing import Settings
from pipeline.plan.workload import Counts
from pipeline.regions.step import region_jobs
from pipeline.similarity.step import similarity_jobs

Jobs = Callable[[Collection[int]], dict[int, str]]
"""Some of a step's shards -> their fingerprints of today. Raises `UserError` where the step cannot run."""
INPUTS = {
    "regions": ("utterances",),
    "similarity": ("regions",),
    "masks": ("regions", "similarity"),
    "features": ("utterances",),
}
"""Sharded step -> steps whose same shard must be done first."""


def finished(settings: Settings, counts: Counts) -> dict[str, tuple[int, int]]:
    """Step -> (finished parts, parts) on disk: shards, or 1.

    A shard is finished when the step itself would keep it, because its sidecar has the fingerprint that the
    step gives the shard today, and so are the shards that it is made from; artworks that it had to reject
    change nothing. `utterances`, which keeps no fingerprint, is finished when its tables account for every
    row of the csv in as many shards as asked for, and `shards` when its index is newer than all tars and
    these are finished. Weights and tables are only hashed for steps of which something is there.
    """
    s, paths = settings, settings.paths
    artworks = _artworks(settings, counts)
    shards = set() if artworks is None else set(artworks["shard"].to_pylist())
    parts = max(len(counts.per_shard if artworks is None else shards), 1)
    jobs: dict[str, Jobs] = {
        "regions": functools.partial(region_jobs, artworks, paths, s.regions, s.backbones),
        "similarity": functools.partial(similarity_jobs, artworks, paths, s.similarity, s.backbones),
        "masks": functools.partial(mask_jobs, artworks, paths, s.masks),
        "features": functools.partial(feature_jobs, artworks, paths, s.features, s.backbones),
    }
    done = {"utterances": shards}
    for step, before in INPUTS.items():
        ready = set.intersection(*(done[name] for name in before))
        done[step] = _kept(paths.step(step), ready, jobs[step])
    index = paths.step("shards") / "index.parquet"
    tars = [tar for step in ("features", "masks") for tar in paths.step(step).glob("*.tar")]
    fresh = index.is_file() and all(tar.stat().st_mtime <= index.stat().st_mtime for tar in tars)
    whole = len(done["features"]) == len(done["masks"]) == parts
    return {
        "utterances": (int(artworks is not None), 1),
        **{step: (len(done[step]), parts) for step in INPUTS},
        "shards": (int(fresh and whole), 1),
    }


def _artworks(settings: Settings, counts: Counts) -> pa.Table | None:
    """The artworks table, opened once for all steps; None where it is not of this csv and as many shards."""
    paths = settings.paths
    try:
        artworks, utterances = open_artworks(paths), open_utterances(paths)
        rejects = pq.read_table(table_file(paths, "rejects"), columns=["row", "source"]).to_pylist()
    except UserError:  # the step has not run
        return None
    lost = sum(row["row"] >= 0 and row["source"] == paths.artemis.name for row in rejects)
    wanted = [shard_of(key, settings.utterances.num_shards) for key in artworks["key"].to_pylist()]
    accounted = utterances.metadata.num_rows + lost == counts.rows
    return artworks if accounted and wanted == artworks["shard"].to_pylist() else None


def _kept(out: Path, ready: set[int], jobs: Jobs) -> set[int]:
    """Those of the shards whose inputs are ready that a step has finished."""
    there = {shard for shard in ready if sidecar_path(out, shard).is_file()}
    if not there:
        return set()
    try:
        today = jobs(there)
    except (UserError, OSError):  # without its weights or file the step could not have made them
        return set()
    folder = ShardFolder(out, today)
    return {shard for shard in today if folder.is_done(shard)}
