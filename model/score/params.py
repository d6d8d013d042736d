"""Params section `score`: the APOLO protocol and its open ends."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from model.metrics.segmentation import Boxes, Scaling
from model.metrics.thresholds import MAX_STEPS
from pipeline.backbones.params import ClipParams
from pipeline.common.params import STRICT
from pipeline.common.protocol import THRESHOLD


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class StatisticsParams:
    """The bootstrap, see `statistics.bootstrap`."""

    resamples: Annotated[int, Field(ge=100)] = 10_000
    """Resamples of all items."""
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Of the intervals."""
    unit: Literal["item", "painting"] = "item"
    """What is drawn: items, or paintings with all their items (wider: items of one painting are alike)."""
    seed: int = 0
    """Of the resamples."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ScoreParams:
    """The protocol. The defaults are those of the published tables."""

    split: Literal["val", "test"] = "test"
    """Which APOLO items."""
    threshold: Annotated[float, Field(ge=0, lt=1)] = THRESHOLD
    """Foreground is above this, after min-max (APOLO: 0.35)."""
    sweep: Annotated[int, Field(gt=1, le=MAX_STEPS)] = 100
    """Each method is also scored at the one of the thresholds k / sweep that the val items like best."""
    box_truth: bool = True
    """Whether the box scenario boxes the label too. The released script does not, the published rows do."""
    boxes: Boxes = "components"
    """What gets a box: every 8-connected component, as in the release, or all foreground a single one."""
    scaling: Scaling = "before-resize"
    """When a map is brought to [0, 1]: before it is resized to the label, as in the release, or after."""
    clip: ClipParams | None = None
    """The CLIP behind CLIPScore (the published: ViT-B-32); null: that of `backbones`."""
    statistics: StatisticsParams = StatisticsParams()
    """Intervals and tests, metrics/statistics.json."""
