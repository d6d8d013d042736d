"""Shards whose masks the real recipe made of random regions and similarities: what shard-stats judges."""

import json

import cv2
import numpy as np
import pyarrow as pa

from pipeline.common import schema
from pipeline.common.emotions import EMOTIONS
from pipeline.common.files import write_parquet
from pipeline.common.params import Paths
from pipeline.common.tars import read_tar, write_tar
from pipeline.masks.recipe import MasksParams
from pipeline.masks.step import build_masks
from pipeline.parallel.map_shards import ParallelParams
from pipeline.shards.step import ShardsParams, build_shards
from tests.worlds import indexed_shards

HEIGHT, WIDTH, REGIONS = 180, 240, 12
NAMES = ("tree", "house", "boat", "[b]x")


def write_labelled(paths: Paths, count: int = 60, shards: int = 3, each: int = 4) -> int:
    """Tables, masks and features of `count` artworks with `each` emotions; returns the number of masks."""
    rng = np.random.default_rng(7)
    works = indexed_shards.artworks(count)
    rows = [
        {
            "key": key,
            "art_style": ("Cubism", "Baroque")[number % 2],
            "painting": painting,
            "path": f"{painting}.jpg",
            "width": WIDTH,
            "height": HEIGHT,
            "split": ("train", "train", "val", "test")[number % 4],
            "shard": schema.shard_of(key, shards),
        }
        for number, (key, painting) in enumerate(works)
    ]
    folder = paths.step("utterances")
    write_parquet(folder / "artworks.parquet", pa.Table.from_pylist(rows, schema=schema.ARTWORKS))
    said = [
        {
            "key": row["key"],
            "artemis_id": 100 * number + 10 * place + turn,
            "emotion": emotion,
            "utterance": f"{emotion} {turn}",
            "repetition": 5,
            "split": row["split"],
        }
        for number, row in enumerate(rows)
        for place, emotion in enumerate((*np.roll(EMOTIONS, number)[:each], "something else"))
        for turn in range(1 + (number + place) % 3)
    ]
    write_parquet(folder / "utterances.parquet", pa.Table.from_pylist(said, schema=schema.UTTERANCES))
    rejects = [{"source": "a.csv", "row": n, "reason": "empty-utterance", "detail": ""} for n in range(5)]
    write_parquet(folder / "rejects.parquet", pa.Table.from_pylist(rejects, schema=schema.REJECTS))
    for shard in range(shards):
        here = [row for row in rows if row["shard"] == shard]
        _write_tables(paths, shard, here, said, rng)
        features = ((row["key"], indexed_shards.feature_sample(row["key"], 0)) for row in here)
        write_tar(paths.step("features") / f"{schema.shard_stem(shard)}.tar", features)
        for step in ("regions", "similarity", "features"):
            indexed_shards.vouch(paths.step(step), shard)
    build_masks(paths, MasksParams(), ParallelParams())
    return count * each


def _write_tables(paths: Paths, shard: int, works: list, said: list, rng: np.random.Generator) -> None:
    regions, similar = [], []
    for work in works:
        corner = rng.uniform([0, 0], [WIDTH * 0.8, HEIGHT * 0.8], (REGIONS, 2))
        size = rng.uniform(12, [WIDTH * 0.5, HEIGHT * 0.5], (REGIONS, 2))
        boxes = np.concatenate([corner, np.minimum(corner + size, [WIDTH, HEIGHT])], 1)
        labels = [NAMES[number % len(NAMES)] for number in range(REGIONS)]
        regions.append(
            {"key": work["key"], "boxes": boxes.tolist(), "scores": [0.9] * REGIONS, "labels": labels}
            | {"source": "made up"}
        )
        emotions = sorted({row["emotion"] for row in said if row["key"] == work["key"]} & set(EMOTIONS))
        similar += [
            {
                "key": work["key"],
                "emotion": emotion,
                "artemis_ids": [1],
                "scores": rng.uniform(-0.2, 0.6, REGIONS),
                "own_rank": rng.uniform(0.3, 1.0),
            }
            for emotion in emotions
        ]
    name = f"{schema.shard_stem(shard)}.parquet"
    write_parquet(paths.step("regions") / name, pa.Table.from_pylist(regions, schema=schema.REGIONS))
    lineage = {"lineage": json.dumps({"clip": {"name": "made up", "sha256": "0" * 64}})}
    write_parquet(
        paths.step("similarity") / name,
        pa.Table.from_pylist(similar, schema=schema.SIMILARITY.with_metadata(lineage)),
    )


def index_labelled(paths: Paths) -> None:
    """Run the `shards` step on them."""
    build_shards(paths, ShardsParams())


def plant_faults(paths: Paths, shards: int, count: int, seed: int) -> set[tuple[str, str]]:
    """Swap, shift, empty and fill stored masks, as a bug or a slip would; (key, emotion) of those harmed."""
    rng = np.random.default_rng(seed)
    masks: dict[tuple[str, str], np.ndarray] = {}
    tars = {shard: paths.step("masks") / f"{schema.shard_stem(shard)}.tar" for shard in range(shards)}
    samples = {shard: list(read_tar(tar)) for shard, tar in tars.items()}
    for found in samples.values():
        for key, members in found:
            for name, data in members.items():
                if name.endswith(".png"):
                    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
                    masks[key, name.removesuffix(".png")] = pixels
    pairs = sorted(masks)
    chosen = [pairs[place] for place in rng.choice(len(pairs), count, replace=False)]
    before = {pair: masks[pair].copy() for pair in chosen}
    quarter = count // 4
    for place, pair in enumerate(chosen):
        if place < quarter:
            masks[pair] = before[chosen[(place + 1) % quarter]]
        elif place < 2 * quarter:
            masks[pair] = np.roll(
                before[pair], (int(rng.integers(60, 120)), int(rng.integers(80, 160))), (0, 1)
            )
        else:
            masks[pair] = np.full_like(before[pair], 0 if place < 3 * quarter else 255)
    for shard, found in samples.items():
        for key, members in found:
            for name in members:
                if name.endswith(".png"):
                    members[name] = indexed_shards.png(masks[key, name.removesuffix(".png")])
        write_tar(tars[shard], found)
        indexed_shards.vouch(paths.step("masks"), shard)
    return set(chosen)
