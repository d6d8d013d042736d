"""Settings of SAM's automatic masks, readable without torch."""

from typing import Annotated

import pydantic
from pydantic import Field

from pipeline.params import STRICT


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class SamMasksParams:
    """`source: sam`. Names, meanings and defaults of segment_anything's SamAutomaticMaskGenerator, whose
    thresholds are for the official weights; the most regions per artwork are regions.max_detections."""

    points_per_side: Annotated[int, Field(ge=1)] = 32
    """The picture is asked at a grid of as many points each way; every point gives three masks."""
    points_per_batch: Annotated[int, Field(ge=1)] = 64
    """Points decoded at once. Changes speed and memory."""
    pred_iou_thresh: Annotated[float, Field(ge=0)] = 0.88
    """Masks of which SAM itself predicts no higher IoU go. The small SAM is far less sure: about 0.4."""
    stability_score_thresh: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Masks go that change more than this when the cut is moved: IoU of the two extremes."""
    stability_score_offset: Annotated[float, Field(ge=0)] = 1.0
    """How far the cut is moved, either way, in logits."""
    box_nms_thresh: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Of two masks whose boxes overlap more (IoU), that with the lower predicted IoU goes."""
    min_area: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Masks that cover a smaller share of the picture go. SAM's generator has no such limit."""
