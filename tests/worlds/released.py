"""An APOLO release of made-up labels and the ArtEmis csv that its items need; no picture, no step's files."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.common.params import Paths
from tests.worlds.indexed_shards import paths_in


def write_release(folder: Path, labels: Mapping[tuple[str, str, str], np.ndarray]) -> Paths:
    """`labels`: (painting, emotion, split) -> mask (H, W). The csv's rows are the items, in their order."""
    paths = paths_in(folder)
    (paths.apolo / "apolo_pixel_map").mkdir(parents=True)
    rows, records = [], []
    for number, ((painting, emotion, split), mask) in enumerate(labels.items()):
        np.save(paths.apolo / "apolo_pixel_map" / f"{painting}_{emotion}.npy", mask)
        rows.append(["Drawn", painting, emotion, f"Number {number} moves me.", 5])
        records.append({"painting": painting, "artemis_id": [number], "split": split})
    (paths.apolo / "apolo.json").write_text(json.dumps(records), encoding="utf-8")
    with paths.artemis.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["art_style", "painting", "emotion", "utterance", "repetition"])
        writer.writerows(rows)
    return paths
