"""A made-up release for the factory's steps: pictures as large as paintings', utterances, 36 regions each."""

import csv
import functools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from model.bench.gpu_parts.worker import Job, Rows
from model.bench.score import SIZES, blobs
from model.bench.true_size_shards import WORDS
from pipeline.common.emotions import EMOTIONS
from pipeline.common.files import write_parquet
from pipeline.common.params import Paths
from pipeline.common.schema import REGIONS, shard_stem
from pipeline.common.tables import open_artworks, rows_by_shard
from pipeline.utterances.params import UtterancesParams
from pipeline.utterances.step import build_utterances

ARTWORKS, SHARDS = 512, 8
"""The first shard warms a step up, the others are timed."""
TINY_ARTWORKS, TINY_SHARDS, TINY_SIZES = 8, 2, ((60, 90), (80, 50))
DIFFERENT = 56
"""Pictures that are drawn; the other files hold the same bytes, which cost as much to decode."""
BOXES = 36
"""Regions of an artwork, the mean of VinVL's."""
EMOTIONS_EACH, UTTERANCES_EACH = 3, 2
STYLE = "Realism"


def paths_in(folder: Path) -> Paths:
    """Where the release and the steps' results lie."""
    return Paths(
        artemis=folder / "artemis.csv",
        wikiart=folder / "wikiart",
        apolo=folder / "apolo",
        data=folder / "data",
        metrics=folder / "metrics",
    )


def pictures(job: Job, rows: Rows) -> None:
    """Write the release, run `utterances` on it, and make regions up; row ``pictures``."""
    paths, count = paths_in(job.folder), job.size(ARTWORKS, TINY_ARTWORKS)
    total = _draw(paths.wikiart / STYLE, count, TINY_SIZES if job.tiny else SIZES)
    names = [f"artist_{number}" for number in range(count)]
    with paths.artemis.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("art_style", "painting", "emotion", "utterance", "repetition"))
        said = [(e, f"{WORDS} {n}") for e in EMOTIONS[:EMOTIONS_EACH] for n in range(UTTERANCES_EACH)]
        writer.writerows((STYLE, name, *each, len(said)) for name in names for each in said)
    shards = job.size(SHARDS, TINY_SHARDS)
    build_utterances(paths, UtterancesParams(num_shards=shards, fractions=(1.0, 0.0, 0.0)))
    artworks = write_regions(paths)
    sizes = TINY_SIZES if job.tiny else SIZES
    pixels = sum(h * w for h, w in sizes) / len(sizes)
    megapixels = round(pixels / 1e6, 3)
    rows.add("pictures", {"artworks": artworks, "megapixels": megapixels, "bytes_each": total // count})


def _draw(folder: Path, count: int, sizes: tuple[tuple[int, int], ...]) -> int:
    """JPEG files of brush-like noise over blobs, about as large as scans of paintings; their bytes."""
    folder.mkdir(parents=True)
    different = min(count, DIFFERENT)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        drawn = list(pool.map(functools.partial(_jpeg, sizes=sizes), range(different)))
    for number in range(count):
        (folder / f"artist_{number}.jpg").write_bytes(drawn[number % different])
    return sum(len(drawn[number % different]) for number in range(count))


def _jpeg(number: int, sizes: tuple[tuple[int, int], ...]) -> bytes:
    rng = np.random.default_rng(number)
    height, width = sizes[number % len(sizes)]
    colours = np.stack([blobs(rng, height, width) for _ in range(3)], axis=2)
    strokes = cv2.blur(rng.normal(0, 60, (height, width, 3)).astype(np.float32), (5, 2))
    pixels = np.clip(255 * colours + strokes, 0, 255).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])[1])


def write_regions(paths: Paths) -> int:
    """Tables of 36 boxes for every artwork, as `regions` writes them; artworks."""
    rng = np.random.default_rng(0)
    works = rows_by_shard(open_artworks(paths), ("shard", "key", "width", "height"))
    for shard, here in works.items():
        rows = []
        for work in here:
            size = np.array([work["width"], work["height"]])
            corners = np.sort(rng.random((BOXES, 2, 2)), axis=1) * size
            row = {"key": work["key"], "boxes": corners.reshape(BOXES, 4).tolist(), "source": "made up"}
            rows.append(row | {"scores": [0.5] * BOXES, "labels": ["thing"] * BOXES})
        table = pa.Table.from_pylist(rows, schema=REGIONS)
        write_parquet(paths.step("regions") / f"{shard_stem(shard)}.parquet", table)
    return sum(map(len, works.values()))
