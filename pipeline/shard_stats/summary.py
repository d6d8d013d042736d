"""The numbers of `shard-stats`: what came in, what was kept, how labels lie by shard, emotion, style."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.common.digests import check_file, read_sidecar
from pipeline.common.emotions import EMOTIONS, SOMETHING_ELSE
from pipeline.common.schema import ARTWORKS, shard_stem
from pipeline.reader.statistics import read_statistics
from pipeline.reader.tar_paths import FILES
from pipeline.shard_stats.labels import FLAGS, Labels, ShardStatsParams
from pipeline.shard_stats.near_duplicates import near_pairs

By = Literal["shard", "emotion", "style"]
BY_COLUMN: dict[By, str] = {"shard": "shard", "emotion": "emotion", "style": "art_style"}
PERCENTILES = (10, 50, 90)
BINS = 20
EXAMPLES = 10
"""Pairs of like pictures that are named."""
NAMES = 5
"""Region names listed per group."""
DISTRIBUTIONS = ("area", "entropy", "own_rank", "agreement")
"""Columns whose histogram over [0, 1] is drawn."""
MADE_BY = ("regions", "features", "similarity", "masks")


def summarise(folder: Path, params: ShardStatsParams) -> dict[str, Any]:
    """All numbers of a shards folder (``data/shards``), as JSON knows them; NaN where nothing is known.

    What lies beside it (tables of the utterances step, sidecars) is used where it is there.
    Raises `UserError` when the folder's own files are missing or damaged, or older than the tars.
    """
    statistics = read_statistics(folder)
    labels = Labels.read(folder, params)
    return {
        "rows": count_rows(folder.parent, statistics),
        "totals": {
            "artworks": statistics["artworks"],
            "masks": statistics["masks"],
            "utterances": statistics["utterances"],
            "shards": len(statistics["shards"]),
            "bytes": statistics["bytes"],
            "flagged": int(labels.any_flag().sum()),
        },
        "splits": statistics["splits"],
        "flags": {flag: int(labels.flags[flag].sum()) for flag in FLAGS},
        "by": {by: group(labels, by) for by in BY_COLUMN},
        "shards": shard_rows(folder, statistics, labels),
        "distributions": {name: histogram(labels.floats(name)) for name in DISTRIBUTIONS},
        "lineage": {"masks": statistics.get("lineage", []), "recipes": recipes(folder.parent)},
        "rejects": statistics["rejects"],
        "duplicates": count_duplicates(folder.parent, params.near),
    }


def count_rows(data: Path, statistics: dict[str, Any]) -> dict[str, Any] | None:
    """Rows of the csv in, kept with one of the eight emotions, "something else", and rejected by reason.

    None where the tables of the utterances step are not there. ``in`` is the sum of the others; of the kept
    rows ``in_shards`` have an artwork in the shards.
    """
    tables = {name: data / "utterances" / f"{name}.parquet" for name in ("utterances", "rejects")}
    if not all(path.is_file() for path in tables.values()):
        return None
    emotions = pq.read_table(check_file(tables["utterances"]), columns=["emotion"])["emotion"]
    counts = {row["values"]: row["counts"] for row in pc.value_counts(emotions).to_pylist()}
    other = counts.pop(SOMETHING_ELSE, 0)
    rejects = pq.read_table(check_file(tables["rejects"]), columns=["row", "reason"])
    of_rows = rejects.filter(pc.greater_equal(rejects["row"], 0))["reason"].to_pylist()
    return {
        "in": sum(counts.values()) + other + len(of_rows),
        "kept": sum(counts.values()),
        "in_shards": statistics["utterances"],
        "something_else": other,
        "rejected": dict(Counter(of_rows).most_common()),
    }


def group(labels: Labels, by: By) -> dict[str, dict[str, Any]]:
    """Numbers of the labels of each shard, emotion (in `EMOTIONS`' order) or style."""
    names = labels.texts(BY_COLUMN[by]) if by != "shard" else labels.floats("shard").astype(int)
    kinds, member = np.unique(names.astype(str), return_inverse=True)
    order = np.argsort(member, kind="stable")
    bounds = np.searchsorted(member[order], np.arange(len(kinds) + 1))
    columns = {
        name: labels.floats(name) for name in ("area", "contrast", "entropy", "own_rank", "utterances")
    }
    splits, regions = labels.texts("split"), labels.texts("best_region")
    found = {}
    for place, kind in enumerate(kinds):
        rows = order[bounds[place] : bounds[place + 1]]
        found[str(kind)] = {
            "masks": len(rows),
            "splits": dict(Counter(splits[rows].tolist())),
            "utterances_per_mask": float(columns["utterances"][rows].mean()),
            "area": percentiles(columns["area"][rows]),
            "contrast": median(columns["contrast"][rows]),
            "entropy": median(columns["entropy"][rows]),
            "own_rank": median(columns["own_rank"][rows]),
            "best_regions": Counter(name for name in regions[rows] if name).most_common(NAMES),
            "flags": {flag: int(hits[rows].sum()) for flag, hits in labels.flags.items()},
        }
    if by == "emotion":
        return {name: found[name] for name in EMOTIONS if name in found}
    return found


def count_duplicates(data: Path, distance: int) -> dict[str, Any] | None:
    """Pictures that are there twice: with the same bytes, or alike to the eye, see `near_pairs`.

    ``across_splits`` of the near pairs are in two splits, ``train_and_test`` in train and in val or test;
    these are named first among the examples. None where the artworks' table is absent or has no hashes.
    """
    table = data / "utterances" / "artworks.parquet"
    if not table.is_file():
        return None
    works = pq.read_table(check_file(table), schema=ARTWORKS)
    works = works.filter(pc.is_valid(works["phash"]))
    if not works.num_rows:
        return None
    hashes = np.array([int(text, 16) for text in works["phash"].to_pylist()], np.uint64)
    pairs = near_pairs(hashes, distance)
    split = works["split"].to_numpy(zero_copy_only=False)
    sides = np.stack([split[pairs.left], split[pairs.right]])
    across = sides[0] != sides[1]
    leaks = (sides == "train").any(0) & np.isin(sides, ("val", "test")).any(0)
    styles, paintings = (works[name].to_pylist() for name in ("art_style", "painting"))
    names = [f"{style}/{painting}" for style, painting in zip(styles, paintings, strict=True)]
    order = np.lexsort((pairs.right, pairs.left, ~leaks, ~across))[:EXAMPLES]
    examples = [
        {"left": names[pairs.left[n]], "right": names[pairs.right[n]], "splits": sides[:, n].tolist()}
        for n in order
    ]
    digests = Counter(works["sha256"].to_pylist())
    return {
        "same_bytes": sum(count for digest, count in digests.items() if digest and count > 1),
        "near_pairs": len(pairs.left),
        "across_splits": int(across.sum()),
        "train_and_test": int(leaks.sum()),
        "not_compared": pairs.plain,
        "crowds": pairs.crowds,
        "examples": examples,
    }


def shard_rows(folder: Path, statistics: dict[str, Any], labels: Labels) -> list[dict[str, Any]]:
    """A row a shard: artworks, masks, bytes, artworks left out by the steps, labels with a flag."""
    index = pq.read_table(check_file(folder / "index.parquet"), columns=["shard"])["shard"].to_numpy()
    shards = [int(entry["shard"]) for entry in statistics["shards"]]
    size = max(shards, default=0) + 1
    artworks = np.bincount(index, minlength=size)
    of_label = labels.floats("shard").astype(int)
    masks = np.bincount(of_label, minlength=size)
    flagged = np.bincount(of_label[labels.any_flag()], minlength=size)
    rows = []
    for entry in statistics["shards"]:
        shard = int(entry["shard"])
        rejected: Counter[str] = Counter()
        for step in MADE_BY:
            sidecar = read_sidecar(folder.parent / step, shard) or {}
            rejected.update(f"{step}: {reject['reason']}" for reject in sidecar.get("rejects", ()))
        rows.append(
            {
                "shard": shard_stem(shard),
                "artworks": int(artworks[shard]),
                "masks": int(masks[shard]),
                "bytes": sum(entry[file]["bytes"] for file in FILES),
                "rejected": dict(rejected),
                "flagged": int(flagged[shard]),
            }
        )
    return rows


def recipes(data: Path) -> dict[str, dict[str, int]]:
    """Step -> recipe (params, weights and code, as a fingerprint) -> shards made by it; two are a mixture."""
    found: dict[str, dict[str, int]] = {}
    for step in MADE_BY:
        names = (path.stem for path in sorted((data / step).glob("[0-9]*.json")))
        sidecars = (read_sidecar(data / step, int(name)) or {} for name in names if name.isdigit())
        counts = Counter(str(sidecar["recipe"])[:12] for sidecar in sidecars if "recipe" in sidecar)
        if counts:
            found[step] = dict(counts.most_common())
    return found


def worst_rows(labels: Labels, count: int) -> list[dict[str, Any]]:
    """The `count` most suspicious labels, with their flags, see `Labels.worst_first`."""
    places = labels.worst_first()[:count]
    rows: list[dict[str, Any]] = labels.table.take(pa.array(places)).to_pylist()
    for row, place in zip(rows, places, strict=True):
        row["flags"] = [flag for flag in FLAGS if labels.flags[flag][place]]
    return rows


def histogram(values: np.ndarray) -> dict[str, list[Any]]:
    """Counts of the known values in `BINS` equal bins of [0, 1], and the bins' edges; below 0 counts as 0."""
    counts, edges = np.histogram(np.clip(values[~np.isnan(values)], 0, 1), bins=BINS, range=(0, 1))
    return {"edges": [round(float(edge), 6) for edge in edges], "counts": counts.tolist()}


def percentiles(values: np.ndarray) -> list[float]:
    """`PERCENTILES` of the known values, NaN where there are none."""
    known = values[~np.isnan(values)]
    if not len(known):
        return [float("nan")] * len(PERCENTILES)
    return [float(value) for value in np.percentile(known, PERCENTILES)]


def median(values: Sequence[float] | np.ndarray) -> float:
    """Median of the known values, NaN where there are none."""
    return percentiles(np.asarray(values, np.float64))[1]
