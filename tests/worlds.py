"""A made-up world on disk: the folders of the data steps, small, without running any step."""

import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from pipeline import schema, storage
from pipeline.params import Paths

EMOTIONS_OF = (("awe", "fear"), ("contentment", "sadness"), ("amusement", "disgust"), ("excitement", "anger"))


def paths_in(root: Path) -> Paths:
    """Paths that all lie under `root`."""
    return Paths(
        artemis=root / "artemis.csv",
        wikiart=root / "wikiart",
        apolo=root / "apolo",
        data=root / "data",
        runs=root / "runs",
        metrics=root / "metrics",
        report=root / "report",
    )


def artworks(count: int) -> list[tuple[str, str]]:
    """(key, painting) of the world's artworks, in the order of their keys. Titles hold a dot, as many do."""
    paintings = [f"ada-artist_title.{n}" for n in range(count)]
    return sorted((schema.artwork_key("Drawn", painting), painting) for painting in paintings)


def keys(count: int) -> list[str]:
    """Keys of the world's artworks."""
    return [key for key, _ in artworks(count)]


def png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


def mask_sample(key: str, number: int, painting: str = "") -> dict[str, bytes]:
    """Members of one artwork in the masks tar."""
    rng = np.random.default_rng(number)
    emotions = EMOTIONS_OF[number % len(EMOTIONS_OF)]
    members = {}
    for place, emotion in enumerate(emotions):
        mask = np.zeros((16, 24), np.uint8)
        mask[2:10, 3 + 6 * place : 10 + 6 * place] = 120 + rng.integers(100)
        members[f"{emotion}.png"] = png(mask)
    card = {
        "key": key,
        "art_style": "Drawn",
        "painting": painting,
        "width": 48,
        "height": 32,
        "split": ("train", "train", "val", "test")[number % 4],
        "emotions": {
            emotion: {
                "utterances": [f"{emotion} one", f"{emotion} two"],
                "artemis_ids": [number, 100 + number],
                "area": 0.1,
            }
            for emotion in emotions
        },
        "lineage": {"detector": "made up"},
    }
    return members | {"json": json.dumps(card, sort_keys=True).encode()}


def feature_sample(key: str, number: int) -> dict[str, bytes]:
    """Members of one artwork in the features tar."""
    rng = np.random.default_rng(1000 + number)
    return {
        "sam.npy": storage.npy_bytes(rng.normal(size=(8, 4, 4)).astype(np.float16)),
        "clip.npy": storage.npy_bytes(rng.normal(size=(9, 8)).astype(np.float16)),
        "json": json.dumps(
            {"key": key, "height": 32, "width": 48, "sam": "made up"}, sort_keys=True
        ).encode(),
    }


def write_shards(paths: Paths, count: int = 6, shards: int = 2) -> None:
    """Features and masks tars, sidecars and the artworks table of `count` artworks in `shards` shards."""
    samples = list(enumerate(artworks(count)))
    for shard in range(shards):
        here = samples[shard::shards]
        stem = schema.shard_stem(shard)
        storage.write_tar(
            paths.step("features") / f"{stem}.tar", ((k, feature_sample(k, n)) for n, (k, _) in here)
        )
        storage.write_tar(
            paths.step("masks") / f"{stem}.tar", ((k, mask_sample(k, n, p)) for n, (k, p) in here)
        )
    rows = [
        {
            "key": key,
            "art_style": "Drawn",
            "painting": painting,
            "path": f"Drawn/{painting}.jpg",
            "width": 48,
            "height": 32,
            "split": ("train", "train", "val", "test")[n % 4],
            "shard": n % shards,
        }
        for n, (key, painting) in samples
    ]
    storage.write_parquet(
        paths.step("utterances") / "artworks.parquet", pa.Table.from_pylist(rows, schema=schema.ARTWORKS)
    )
    rejects = [{"source": "artemis.csv", "row": 4, "reason": "unknown-emotion", "detail": "joy"}]
    storage.write_parquet(
        paths.step("utterances") / "rejects.parquet", pa.Table.from_pylist(rejects, schema=schema.REJECTS)
    )
