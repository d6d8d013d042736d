"""A made-up world on disk: the folders of the data steps, small, without running any step."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from pipeline.common import schema
from pipeline.common.digests import digests, seal, write_sidecar
from pipeline.common.files import write_bytes, write_json, write_parquet
from pipeline.common.params import Paths
from pipeline.common.tars import npy_bytes, read_tar, write_tar
from pipeline.parallel.shard_folder import shard_files
from pipeline.shards.step import ShardsParams, build_shards
from pipeline.shards.verify import Problem, verify_shards

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
        "sam.npy": npy_bytes(rng.normal(size=(8, 4, 4)).astype(np.float16)),
        "clip.npy": npy_bytes(rng.normal(size=(9, 8)).astype(np.float16)),
        "json": json.dumps(
            {"key": key, "height": 32, "width": 48, "sam": "made up", "clip": "made up"}, sort_keys=True
        ).encode(),
    }


def vouch(folder: Path, shard: int, rejects: Iterable[tuple[str, str]] = (), recipe: str = "one") -> None:
    """The sidecar of a shard as it is now, as if a step had just made it."""
    listed = [{"key": key, "reason": reason} for key, reason in rejects]
    content = {"fingerprint": "", "recipe": recipe, "kept": 2, "rejects": listed, "counts": {}}
    write_sidecar(folder, shard, {**content, "files": digests(shard_files(folder, shard))})


def write_shards(paths: Paths, count: int = 6, shards: int = 2) -> None:
    """Features and masks tars, sidecars and the artworks table of `count` artworks in `shards` shards."""
    samples = list(enumerate(artworks(count)))
    for shard in range(shards):
        here = samples[shard::shards]
        stem = schema.shard_stem(shard)
        write_tar(paths.step("features") / f"{stem}.tar", ((k, feature_sample(k, n)) for n, (k, _) in here))
        write_tar(paths.step("masks") / f"{stem}.tar", ((k, mask_sample(k, n, p)) for n, (k, p) in here))
        for step in ("features", "masks"):
            vouch(paths.step(step), shard)
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
    write_parquet(
        paths.step("utterances") / "artworks.parquet", pa.Table.from_pylist(rows, schema=schema.ARTWORKS)
    )
    rejects = [{"source": "artemis.csv", "row": 4, "reason": "unknown-emotion", "detail": "joy"}]
    write_parquet(
        paths.step("utterances") / "rejects.parquet", pa.Table.from_pylist(rejects, schema=schema.REJECTS)
    )


HOSTILE = "<script>alert(1)</script> & <img src=https://example.org/x.png onerror=alert(2)>"
"""What a csv may hold where a sentence is expected."""

SIZE = (32, 48)
METHODS = {"single": ("emosem-single", "emosem-single:other-emotion"), "multi": ("emosem-multi",)}


def truth_of(number: int, emotion: str) -> np.ndarray:
    """What evokes the emotion in an artwork: a bool (H, W) rectangle."""
    truth = np.zeros(SIZE, dtype=bool)
    left = 4 + 22 * EMOTIONS_OF[number % len(EMOTIONS_OF)].index(emotion)
    truth[8:24, left : left + 16] = True
    return truth


def write_sources(paths: Paths, count: int = 8, hostile: bool = False) -> None:
    """Pictures, the utterances table and an APOLO release in which every pair of the world is a test item."""
    rows, records = [], []
    for number, (key, painting) in enumerate(artworks(count)):
        picture = np.full((*SIZE, 3), (40 + 20 * number, 120, 200), np.uint8)
        for emotion in EMOTIONS_OF[number % len(EMOTIONS_OF)]:
            truth = truth_of(number, emotion)
            picture[truth] = (200, 60 + 20 * number, 40)
            write_bytes(
                paths.apolo / "apolo_pixel_map" / f"{painting}_{emotion}.npy",
                npy_bytes(truth.astype(np.uint8)),
            )
            records.append({"painting": painting, "artemis_id": [len(rows), len(rows) + 1], "split": "test"})
            for text in (HOSTILE if hostile else f"{emotion} one of {number}", f"{emotion} two of {number}"):
                rows.append(
                    {
                        "key": key,
                        "artemis_id": len(rows),
                        "emotion": emotion,
                        "utterance": text,
                        "repetition": 5,
                        "split": "test",
                    }
                )
        write_bytes(paths.wikiart / "Drawn" / f"{painting}.jpg", png(picture[..., ::-1]))
    write_json(paths.apolo / "apolo.json", records)
    table = pa.Table.from_pylist(rows, schema=schema.UTTERANCES)
    write_parquet(paths.step("utterances") / "utterances.parquet", table)


def write_predictions(paths: Paths, count: int = 8, hostile: bool = False) -> None:
    """Two variants: single finds the truth, its control the other emotion's, multi half of the truth."""
    for variant, methods in METHODS.items():
        rows: list[dict[str, Any]] = []
        samples: dict[str, dict[str, bytes]] = {}
        for number, (key, painting) in enumerate(artworks(count)):
            pair = EMOTIONS_OF[number % len(EMOTIONS_OF)]
            for emotion in pair:
                for method in methods:
                    asked = pair[1 - pair.index(emotion)] if ":" in method else emotion
                    map_ = truth_of(number, asked).astype(np.float16)
                    map_[: 16 if variant == "multi" else 0] = 0
                    name = schema.map_name(method, emotion)
                    samples.setdefault(key, {})[name] = npy_bytes(map_)
                    rows.append(
                        {
                            "method": method,
                            "key": key,
                            "painting": painting,
                            "split": "test",
                            "item_emotion": emotion,
                            "asked_emotion": asked,
                            "explanation": HOSTILE if hostile else f"it looks like {asked}",
                            "seed": 0,
                        }
                    )
        folder = paths.step("predict") / variant
        table = pa.Table.from_pylist(rows, schema=schema.PREDICTIONS)
        write_parquet(folder / "predictions.parquet", table)
        write_tar(folder / "maps.tar", samples.items())


def write_scores(
    paths: Paths, count: int = 8, methods: tuple[str, ...] = ("clip+vinvl", *sum(METHODS.values(), ()))
) -> None:
    """data/score/items.parquet and metrics/score.json, with numbers made up by rank."""
    items = [
        {
            "method": method,
            "key": key,
            "painting": painting,
            "emotion": emotion,
            "split": "test",
            "iou_seg": round(1 - (2 * number + place) / (2 * count) - 0.05 * rank, 4),
            "iou_box": 0.5,
            "explanation": "it looks like awe",
            "ea": "awe",
        }
        for rank, method in enumerate(methods)
        for number, (key, painting) in enumerate(artworks(count))
        for place, emotion in enumerate(EMOTIONS_OF[number % len(EMOTIONS_OF)])
    ]
    write_parquet(paths.step("score") / "items.parquet", pa.Table.from_pylist(items))
    rows = [{"method": "entire-artwork", "items": 2 * count, "seg_pr25": 10.0, "seg_pr50": 5.0}]
    for rank, method in enumerate(methods):
        rows.append(
            {
                "method": method,
                "items": 2 * count,
                "seg_pr25": 60.0 + rank,
                "seg_pr50": 40.0,
                "ea": 70.0 + rank,
            }
        )
    score = {
        "data": "built-in gallery",
        "drawn": {"apolo": {"version": 1, "seed": 7, "artworks": count}},
        "tiny": True,
        "backbones": "tiny (not the paper's)",
        "split": "test",
        "rows": rows,
        "protocol": {"threshold": 0.35, "scaling": "before-resize"},
        "items": {"apolo": 2 * count, "counted": 2 * count, "rejected": 0, "val": 4},
        "problems": [],
    }
    write_json(paths.metrics / "score.json", seal(score))
    write_statistics(paths, rows)


def write_statistics(paths: Paths, rows: list[dict[str, Any]], apart: float = 3.0) -> None:
    """metrics/statistics.json and the other tables of score: methods are apart from `apart` points on."""
    columns = ("seg_pr25", "seg_pr50", "ea")
    cells: dict[str, Any] = {
        row["method"]: {
            name: {"value": row[name], "low": row[name] - 5, "high": row[name] + 5}
            for name in columns
            if name in row
        }
        for row in rows
    }
    pairs = [
        {
            "column": name,
            "first": one,
            "second": other,
            "difference": cells[one][name]["value"] - cells[other][name]["value"],
            "low": cells[one][name]["value"] - cells[other][name]["value"] - 2,
            "high": cells[one][name]["value"] - cells[other][name]["value"] + 2,
            "p_holm": 0.01 if abs(cells[one][name]["value"] - cells[other][name]["value"]) >= apart else 0.5,
        }
        for name in columns
        for one, other in itertools.combinations(cells, 2)
        if name in cells[one] and name in cells[other]
    ]
    part = {"items": 2, "methods": cells}
    statistics = {
        "params": {"level": 0.95, "resamples": 1000, "seed": 0, "unit": "item"},
        "items": rows[0]["items"],
        "methods": cells,
        "pairs": pairs,
        "by_emotion": {emotion: part for pair in EMOTIONS_OF for emotion in pair},
        "by_style": {"Drawn": part},
        "histograms": {
            "edges": [0.0, 0.5, 1.0],
            "methods": {method: {"seg": [3, 13], "box": [16, 0]} for method in cells},
        },
    }
    write_json(paths.metrics / "statistics.json", seal(statistics))
    sweep = [
        {
            "method": method,
            "threshold": step / 10,
            "items": 4,
            "mean_iou": 50 - abs(step - 4),
            "seg_pr25": 60.0,
            "seg_pr50": 30.0,
        }
        for method in cells
        for step in range(10)
    ]
    write_parquet(paths.step("score") / "sweep.parquet", pa.Table.from_pylist(sweep))
    texts = [
        {
            "method": method,
            "key": "0",
            "emotion": "awe",
            "draw": draw,
            "ea": ("awe", "fear", "awe", "awe")[draw],
        }
        for method in cells
        if "ea" in cells[method]
        for draw in range(4)
    ] or [{"method": "none", "key": "0", "emotion": "awe", "draw": 0, "ea": None}]
    write_parquet(paths.step("score") / "texts.parquet", pa.Table.from_pylist(texts))


def write_curves(paths: Paths, variants: tuple[str, ...] = ("single", "multi")) -> None:
    """Training curves as training writes them, with a row that is no number."""
    for place, variant in enumerate(variants):
        path = paths.runs / variant / "dvclive" / "plots" / "metrics" / "train" / "loss.tsv"
        lines = [f"{step}\t{1 / (step + 1) + place}" for step in range(30)] + ["30\tnan"]
        write_bytes(path, ("step\tloss\n" + "\n".join(lines) + "\n").encode())


def write_everything(root: Path, count: int = 8, hostile: bool = False) -> Paths:
    """A world in which every step has run."""
    paths = paths_in(root)
    write_shards(paths, count)
    write_sources(paths, count, hostile)
    build_shards(paths, ShardsParams())
    write_predictions(paths, count, hostile)
    write_scores(paths, count)
    write_curves(paths)
    return paths


def copy_of(indexed: Path, tmp_path: Path) -> Paths:
    """A copy of a world's data, to be damaged."""
    shutil.copytree(indexed / "data", tmp_path / "data", dirs_exist_ok=True)
    return paths_in(tmp_path)


def rewrite(path: Path, change: Callable[[list[Any]], list[Any]]) -> None:
    """Put a tar's samples through `change` and write them back as a whole, valid tar, as its step would."""
    write_tar(path, change(list(read_tar(path))))
    if path.stem.isdigit():
        vouch(path.parent, int(path.stem))


def verify(paths: Paths) -> list[Problem]:
    """All that is wrong with the world's shards."""
    return verify_shards(paths.step("shards"))
