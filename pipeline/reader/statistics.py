"""What the shards hold, in numbers."""

from pathlib import Path
from typing import Any

from pipeline.common.errors import UserError
from pipeline.reader.freshness import check_fresh


def read_statistics(folder: Path) -> dict[str, Any]:
    """The statistics that the step wrote to `folder`, see `check_fresh`. Raises `UserError`."""
    found = check_fresh(folder)
    if found is None:
        raise UserError(f"there is no stats.json in {folder}; run the shards step")
    return found
