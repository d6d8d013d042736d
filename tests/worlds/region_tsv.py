"""Artworks whose regions come from a .tsv file, such a file, and what the step makes of it."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.backbones.params import BackbonesParams
from pipeline.common.files import write_parquet
from pipeline.common.params import Paths
from pipeline.common.schema import ARTWORKS, artwork_key
from pipeline.parallel.map_shards import ParallelParams
from pipeline.regions.params import RegionsParams
from pipeline.regions.step import build_regions
from tests.worlds.indexed_shards import paths_in

WORKS = [  # (style, painting); pictures are 200 wide and 100 high
    ("Realism", "anna_mill"),
    ("Realism", "eugène_le-port.-5"),
    ("Romanticism", "twin_storm"),
    ("Realism", "twin_storm"),
    ("Realism", "zed_last"),
]
BACKBONES = BackbonesParams(device="cpu")


def write_artworks(folder: Path) -> Paths:
    """An artworks table in two shards; no picture is needed."""
    paths = paths_in(folder)
    rows = [
        {
            "key": artwork_key(style, painting),
            "art_style": style,
            "painting": painting,
            "path": f"{style}/{painting}.jpg",
            "width": 200,
            "height": 100,
            "split": "train",
            "shard": number % 2,
        }
        for number, (style, painting) in enumerate(WORKS)
    ]
    table = pa.Table.from_pylist(rows, schema=ARTWORKS)
    write_parquet(paths.step("utterances") / "artworks.parquet", table)
    return paths


def thing(rect: Any, name: Any = "tree", conf: Any = 0.9, **more: Any) -> dict[str, Any]:
    feature = base64.b64encode(np.zeros(2048, np.float32)).decode()
    return {"rect": rect, "bbox_id": 0, "class": name, "conf": conf, "feature": feature, **more}


def predictions(path: Path, rows: list[tuple[str, list[Any]]]) -> Path:
    lines = [f"{name}\t{json.dumps({'objects': objects, 'relations': None})}\n" for name, objects in rows]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def params_of(path: Path, source: str = "predictions_tsv", **more: Any) -> RegionsParams:
    return RegionsParams(source=source, tsv=path, **more)  # type: ignore[arg-type]


def build(
    world: Paths, params: RegionsParams
) -> tuple[dict[str, Any], dict[tuple[str, str], dict[str, Any]]]:
    """Counts, and the stored row of each (style, painting)."""
    counts = build_regions(world, params, BACKBONES, ParallelParams())
    by_key = {
        row["key"]: row
        for path in sorted(world.step("regions").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    }
    return counts, {work: by_key[artwork_key(*work)] for work in WORKS if artwork_key(*work) in by_key}
