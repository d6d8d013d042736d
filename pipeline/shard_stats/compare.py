"""Two shards folders side by side: two recipes, or two dates."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.shard_stats.labels import FLAGS, Labels
from pipeline.shard_stats.summary import percentiles
from pipeline.shard_stats.text import Grid

SAME = 0.01
"""Areas that differ by less are the same."""


def compare(one: Labels, other: Labels, left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """What changed from one folder to another.

    Args:
        one, other: their labels.
        left, right: their summaries (`summary.summarise`).

    Returns:
        ``numbers``: name -> (before, after); ``masks``: how many are in both, in one only, changed in area,
        or moved between splits, and the percentiles of the change in area of those in both.
    """
    places = [_places(labels) for labels in (one, other)]
    both = sorted(places[0].keys() & places[1].keys())
    rows = [np.array([place[pair] for pair in both], int) for place in places]
    shift = other.floats("area")[rows[1]] - one.floats("area")[rows[0]]
    moved = other.texts("split")[rows[1]] != one.texts("split")[rows[0]]
    numbers: dict[str, tuple[Any, Any]] = {}
    for name in ("artworks", "masks", "utterances", "shards", "flagged"):
        numbers[name] = left["totals"][name], right["totals"][name]
    for flag in FLAGS:
        numbers[f"flag {flag}"] = left["flags"][flag], right["flags"][flag]
    for name in sorted(left["by"]["emotion"].keys() | right["by"]["emotion"].keys()):
        before, after = (side["by"]["emotion"].get(name) for side in (left, right))
        numbers[f"{name}: masks"] = before["masks"] if before else 0, after["masks"] if after else 0
        nothing = float("nan")
        areas = (part["area"][1] if part else nothing for part in (before, after))
        numbers[f"{name}: median area"] = next(areas), next(areas)
    return {
        "numbers": numbers,
        "masks": {
            "in_both": len(both),
            "only_before": len(places[0]) - len(both),
            "only_after": len(places[1]) - len(both),
            "area_changed": int((np.abs(shift) >= SAME).sum()),
            "split_changed": int(np.sum(moved)),
            "area_shift": percentiles(shift),
        },
        "lineage": [side["lineage"] for side in (left, right)],
    }


def comparison_grid(found: Mapping[str, Any]) -> Grid:
    """The numbers, those that changed marked."""
    rows = []
    for name, (before, after) in found["numbers"].items():
        cells = [f"{v:.1%}" if isinstance(v, float) else f"{v:,}" for v in (before, after)]
        rows.append([name, *cells, "" if cells[0] == cells[1] else "changed"])
    masks = found["masks"]
    rows += [
        ["masks in both", "", f"{masks['in_both']:,}", ""],
        ["masks only before, only after", f"{masks['only_before']:,}", f"{masks['only_after']:,}", ""],
        [f"masks whose area moved by {SAME:.0%} or more", "", f"{masks['area_changed']:,}", ""],
        ["masks that changed their split", "", f"{masks['split_changed']:,}", ""],
        ["change of area, p10 / p50 / p90", "", " / ".join(f"{v:+.1%}" for v in masks["area_shift"]), ""],
    ]
    return Grid("compared", ("", "before", "after", " "), rows)


def _places(labels: Labels) -> dict[tuple[str, str], int]:
    pairs = zip(labels.texts("key"), labels.texts("emotion"), strict=True)
    return {pair: place for place, pair in enumerate(pairs)}
