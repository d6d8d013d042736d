"""The section `regions`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from pipeline.common.params import STRICT


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class SamMasksParams:
    """`source: sam`. Names, meanings and defaults of segment_anything's SamAutomaticMaskGenerator, whose
    thresholds are for the official weights; the most regions per artwork are regions.max_detections."""

    points_per_side: Annotated[int, Field(ge=1)] = 32
    """SAM is prompted with a grid of as many points each way; every point gives three masks."""
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


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class RegionsParams:
    """Where regions come from, and how many of them."""

    source: Literal["auto", "vinvl", "apolo", "predictions_tsv", "features_tsv", "faster_rcnn", "sam"] = (
        "auto"
    )
    """auto: apolo where paths.apolo holds released boxes, else vinvl. vinvl: run the detector of
    backbones.vinvl. apolo: boxes released with APOLO. predictions_tsv, features_tsv: a file that VinVL's own
    code wrote, named in `tsv`. faster_rcnn: torchvision's detector of backbones.faster_rcnn. sam: the masks
    that SAM finds by itself."""
    tsv: Path | None = None
    """predictions_tsv: scene_graph_benchmark's predictions.tsv. features_tsv: Oscar's features.tsv."""
    tsv_sizes: Path | None = None
    """The hw.tsv beside predictions.tsv: sizes of the pictures that the detector saw. Only needed where they
    were not the pictures of paths.wikiart, but other sizes of them."""
    nms_mode: Literal[0, 1, 2] = 1
    """VinVL's NMS_FILTER: 0 per class, 1 one label per proposal (its usual one), 2 class-agnostic."""
    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Weaker regions go, but never below min_detections. VinVL's README: 0.2."""
    min_detections: Annotated[int, Field(ge=1)] = 30
    """Fewest regions per artwork, as far as there are proposals. VinVL's own: 10. The small detector is
    unsure of names and right about places: from 10 to 30, its recall of motifs doubles."""
    max_detections: Annotated[int, Field(ge=1)] = 40
    """Most regions per artwork. VinVL's own limit is 100."""
    ignore_box_regression: bool = False
    """True: regions are raw proposals, as in VinVL's feature extraction. False: refined by the box head."""
    sgb_config: Path | None = None
    """vinvl: a config file of scene_graph_benchmark (vinvl_x152c4.yaml). It then decides the detector's sizes
    and all of its settings, and the five params above must stay at their defaults."""
    sgb_options: tuple[str, ...] = ()
    """vinvl: "KEY VALUE" texts that win over sgb_config, as on the original's command line: its README adds
    "MODEL.ROI_HEADS.NMS_FILTER 1" and, for features, "TEST.IGNORE_BOX_REGRESSION True"."""
    attributes: bool = True
    """Also name attributes such as colours, where the detector knows any."""
    batch: Annotated[int, Field(ge=1)] = 1
    """Pictures per detector call. More helps a GPU; a CPU only loses by the padding."""
    sam: SamMasksParams = SamMasksParams()
    """source sam: which of its masks become regions."""
    sam_support: bool = False
    """Also store SAM's mask of every box (one encode a picture, boxes as prompts), for masks.support: sam."""

    def __post_init__(self) -> None:
        if self.sgb_options and self.sgb_config is None:
            raise ValueError("sgb_options change an sgb_config, and none is named")
        if self.min_detections > self.max_detections:
            raise ValueError(
                f"min_detections {self.min_detections} is larger than max_detections {self.max_detections}"
            )
