"""Data and labels in numbers, as `shard-stats` counts them: what is suspicious, what is there twice."""

from pathlib import Path
from typing import Any

from model.report.verdict import listed
from pipeline.common.emotions import EMOTIONS
from pipeline.shard_stats.labels import FLAGS, Labels, ShardStatsParams
from pipeline.shard_stats.summary import count_duplicates, count_rows, group

FLAG_WORDS = {
    "altered": "the stored mask is not what its recipe makes of the tables",
    "nothing": "hardly a pixel is above the threshold",
    "everything": "nearly all pixels are above the threshold",
    "flat": "all regions fit the utterances about as well",
    "twin": "another emotion of the artwork has the same mask",
    "lost": "the utterances fit most other artworks of the shard better",
}


def label_quality(shards: Path, statistics: dict[str, Any]) -> dict[str, Any]:
    """Flags in all and by emotion, rows of the csv, and duplicates; see `pipeline.shard_stats`.

    Raises `UserError` when the labels' table is missing or damaged.
    """
    params = ShardStatsParams()
    labels = Labels.read(shards, params)
    by_emotion = group(labels, "emotion")
    return {
        "masks": len(labels),
        "flagged": int(labels.any_flag().sum()),
        "flags": [(flag, FLAG_WORDS[flag], int(labels.flags[flag].sum())) for flag in FLAGS],
        "by_emotion": {name: by_emotion[name]["flags"] for name in EMOTIONS if name in by_emotion},
        "rows": row_sentence(count_rows(shards.parent, statistics)),
        "duplicates": duplicate_sentence(count_duplicates(shards.parent, params.near), params.near),
    }


def row_sentence(rows: dict[str, Any] | None) -> str:
    """Where the rows of the csv went; in = kept + something else + rejected."""
    if rows is None:
        return ""
    rejected = sum(rows["rejected"].values())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in rows["rejected"].items())
    return (
        f"Of {rows['in']:,} rows of the csv, {rows['kept']:,} name one of the eight emotions "
        f"({rows['in_shards']:,} of them are in the shards), {rows['something_else']:,} are "
        f"\N{LEFT DOUBLE QUOTATION MARK}something else\N{RIGHT DOUBLE QUOTATION MARK}, and {rejected:,} were "
        f"rejected{f' ({reasons})' if reasons else ''}."
    )


def duplicate_sentence(found: dict[str, Any] | None, near: int) -> str:
    """What is there twice, and whether it crosses the splits."""
    if found is None:
        return "Pictures were not compared with each other: there are no hashes of them."
    parts = [
        f"{found['same_bytes']:,} pictures have a file of equal bytes more than once",
        f"{found['near_pairs']:,} pairs look alike (perceptual hashes within {near} bits of 64), "
        f"{found['across_splits']:,} of them across splits and {found['train_and_test']:,} across train and "
        "val or test",
    ]
    return listed(parts) + "."
