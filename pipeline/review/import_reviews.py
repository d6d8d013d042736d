"""What the command `import-reviews` does."""

import sys
from pathlib import Path
from typing import Any, Literal

from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.review.foreign import import_all
from pipeline.review.from_cvat import read_cvat
from pipeline.review.from_label_studio import read_label_studio
from pipeline.review.material import Material
from pipeline.reviews.verdicts import is_name

SHOWN = 20
"""Rejected annotations that are listed."""


def import_reviews(
    file: Path, format_: Literal["label-studio", "cvat"], paths: Paths, by: str | None
) -> dict[str, Any]:
    """Append what an export of another tool says of the current shards' masks to `paths.reviews`.

    Returns counts, see `foreign.import_all`. Raises `UserError`, `RunFailed`.
    """
    if by is not None and not is_name(by):
        raise UserError(f"{by[:80]!r} is no reviewer's name: 1 to 60 printable characters")
    if not file.is_file():
        raise UserError(f"{file} does not exist; name the file that the tool exported")
    material = Material(paths)
    found = (
        read_label_studio(file, by) if format_ == "label-studio" else read_cvat(file, material.pictures(), by)
    )
    counts, rejected = import_all(found, material, paths.reviews)
    for one in rejected[:SHOWN]:
        print(f"import-reviews: {one.source}: {one.reason}: {one.detail}", file=sys.stderr)
    if len(rejected) > SHOWN:
        print(f"import-reviews: and {len(rejected) - SHOWN} more", file=sys.stderr)
    return counts
