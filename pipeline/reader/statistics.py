"""What the shards hold, in numbers and in words."""

from pathlib import Path
from typing import Any

from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.reader.freshness import check_fresh


def read_statistics(folder: Path) -> dict[str, Any]:
    """The statistics that the step wrote to `folder`, see `check_fresh`. Raises `UserError`."""
    found = check_fresh(folder)
    if found is None:
        raise UserError(f"there is no stats.json in {folder}; run the shards step")
    return found


def statistics_text(statistics: dict[str, Any]) -> str:
    """The statistics as a few lines that a person reads."""
    totals = (f"{statistics[name]:,} {name}" for name in ("artworks", "masks", "utterances"))
    size = sum(statistics["bytes"].values()) / 2**20
    lines = [f"{', '.join(totals)} in {len(statistics['shards'])} shards, {size:,.1f} MiB"]
    for name, count in statistics["splits"].items():
        lines.append(
            f"  {name:<12} {count['artworks']:>9,} artworks {count['masks']:>9,} masks "
            f"{count['utterances']:>9,} utterances"
        )
    for name in EMOTIONS:
        if count := statistics["emotions"].get(name):
            lines.append(
                f"  {name:<12} {count['masks']:>9,} masks    {count['utterances']:>9,} utterances "
                f"{count['mean_area']:>6.0%} of the artwork"
            )
    for step, reasons in sorted(statistics["rejects"].items()):
        lines += [f"  left out by {step}: {reason}: {count:,}" for reason, count in sorted(reasons.items())]
    return "\n".join(lines)
