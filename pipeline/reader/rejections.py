"""What each step left out, and why."""

from pipeline.common.digests import read_sidecar
from pipeline.common.params import Paths

REJECTING_STEPS = ("regions", "similarity", "masks", "features")
"""Steps whose shard sidecars may reject an artwork, in data order."""


def rejections(paths: Paths, shard: int) -> dict[str, str]:
    """Key -> ``step: reason`` of what the steps rejected in one shard; the earliest step wins."""
    found: dict[str, str] = {}
    for step in REJECTING_STEPS:
        for reject in (read_sidecar(paths.step(step), shard) or {}).get("rejects", ()):
            found.setdefault(reject["key"], f"{step}: {reject['reason']}")
    return found
