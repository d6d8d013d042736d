"""What became of the artworks and the boxes, for the table that ends the step."""

from collections.abc import Mapping
from typing import Any

from pipeline.common.params import Paths
from pipeline.common.tally import LeftOut, Tally, of_shards


def tally_regions(paths: Paths, counts: Mapping[str, Any]) -> list[Tally]:
    """Artworks from the sidecars, boxes from the step's counts."""
    reasons = {
        "below score_threshold, or beyond max_detections": counts["weak_boxes"],
        "no area inside the picture": counts["dropped_boxes"],
    }
    left_out = {reason: LeftOut(count) for reason, count in reasons.items() if count}
    return [
        of_shards("regions", paths),
        Tally("boxes", counts["regions"] - counts["whole_artworks"], left_out),
    ]
