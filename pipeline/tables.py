"""One shard's rows of the tables that `utterances` and `regions` wrote, and what tells when they changed."""

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from pipeline.emotions import EMOTIONS
from pipeline.params import Paths, UserError, fingerprint
from pipeline.schema import REGIONS, shard_stem

Groups = dict[tuple[str, str], dict[str, list[Any]]]
"""(key, emotion) -> ``artemis_id`` and ``utterance`` lists."""


def shard_file(paths: Paths, step: str, shard: int) -> Path:
    """The Parquet file of a shard. Raises `UserError` when the step has not written it."""
    path = paths.step(step) / f"{shard_stem(shard)}.parquet"
    if not path.is_file():
        raise UserError(f"{path} does not exist; run the {step} step first")
    return path


def input_digests(paths: Paths, pictures: bool) -> dict[int, str]:
    """Shard -> digest of its rows in the artworks and utterances tables.

    With `pictures`, of its picture files' sizes too. Sizes and not contents: reading 80,000 pictures takes
    longer than many a step, a changed picture nearly always changes its size, and times differ in every copy.
    """
    works, said = _tables(paths)
    if pictures:
        works = works.assign(bytes=[_file_size(paths.wikiart / path) for path in works["path"]])
    shards = said["key"].map(works.set_index("key")["shard"])
    words = {shard: _digest(frame) for shard, frame in said.groupby(shards)}
    return {
        shard: fingerprint(_digest(works[works["shard"] == shard]), words.get(shard))
        for shard in works["shard"].unique().tolist()
    }


def read_artworks(paths: Paths, shard: int) -> list[dict[str, Any]]:
    """Rows of `schema.ARTWORKS` in a shard, sorted by key."""
    works, _ = _tables(paths)
    rows: list[dict[str, Any]] = works[works["shard"] == shard].to_dict("records")  # type: ignore[assignment]
    return rows


def read_groups(paths: Paths, shard: int) -> Groups:
    """What was said about a shard's artworks, by key, then in the order of `EMOTIONS`.

    Utterances are in the order of the csv; those of "something else" are left out.
    """
    works, said = _tables(paths)
    rows = said[said["key"].isin(works["key"][works["shard"] == shard])]
    groups: Groups = {}
    names = ("key", "emotion", "artemis_id", "utterance")
    for key, emotion, artemis_id, utterance in zip(*(rows[name].tolist() for name in names), strict=True):
        group = groups.setdefault((key, emotion), {"artemis_id": [], "utterance": []})
        group["artemis_id"].append(artemis_id)
        group["utterance"].append(utterance)
    order = sorted(groups, key=lambda pair: (pair[0], EMOTIONS.index(pair[1])))
    return {pair: groups[pair] for pair in order}


def read_regions(paths: Paths, shard: int) -> dict[str, tuple[np.ndarray, str]]:
    """Key -> boxes, float32 (N, 4) xyxy in pixels of the upright picture, and the detector's name."""
    table = pq.read_table(
        shard_file(paths, "regions", shard), schema=REGIONS, columns=["key", "boxes", "source"]
    )
    return {
        row["key"]: (np.array(row["boxes"], np.float32).reshape(-1, 4), row["source"])
        for row in table.to_pylist()
    }


def _tables(paths: Paths) -> tuple[pd.DataFrame, pd.DataFrame]:
    folder = paths.step("utterances")
    files = (folder / "artworks.parquet", folder / "utterances.parquet")
    for file in files:
        if not file.is_file():
            raise UserError(f"{file} does not exist; run the utterances step first")
    return _read_tables(*files, tuple(file.stat().st_mtime_ns for file in files))


@functools.lru_cache(maxsize=1)
def _read_tables(
    artworks: Path, utterances: Path, _stamp: tuple[int, ...]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All artworks, and all utterances with one of the eight emotions, each in a settled order."""
    works = pq.read_table(artworks).to_pandas()
    said = pq.read_table(utterances, filters=[("emotion", "in", list(EMOTIONS))]).to_pandas()
    return works.sort_values("key"), said.sort_values(["key", "artemis_id"], kind="stable")


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _digest(frame: pd.DataFrame) -> str:
    rows = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    return hashlib.sha256(rows.tobytes()).hexdigest()
