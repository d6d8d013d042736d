"""Params section `baselines`: which rows step `baselines` gives to the score table, and how."""

import re
from pathlib import Path
from typing import Annotated

import pydantic
from pydantic import Field

from pipeline.common.params import STRICT

Positive = Annotated[int, Field(gt=0)]
NAME = re.compile(r"[a-z0-9][a-z0-9+._-]*")
TAKEN = ("entire-artwork", "clip+vinvl", "vinvl", "faster-rcnn", "wesd")


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class ObjectsParams:
    """A detector's objects as the foreground of every emotion."""

    confidence: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Objects at or above this score are foreground. Neither paper says which were taken."""
    regions: Path | None = None
    """Where the detector's regions lie: the folder ``data/regions`` of another params file's run, or null for
    this one's, whose row is left out when they come from something else."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class WesdParams:
    """How WESD is trained. The defaults are its authors' code."""

    epochs: Positive = 20
    """Passes over the training pairs (artwork, emotion)."""
    batch_size: Positive = 128
    """Pairs of an optimiser step."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """AdamW's, at its peak."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's, of all parameters but biases."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps over which the learning rate rises from 0; afterwards it falls to 0, straight."""
    double_sigmoid: bool = True
    """The authors' loss takes the sigmoid of a probability, of which it asks for 0 wherever a mask is below
    0.5: masks that are mostly low, as the gallery's, teach it nothing else. false: of the logit, once."""
    seed: int = 0
    """Decides first weights and order."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class BaselinesParams:
    """One key, one row of the score table (Tab. 1)."""

    vinvl: ObjectsParams | None = ObjectsParams()
    """Row ``vinvl``: the union of VinVL's objects; null for none."""
    faster_rcnn: ObjectsParams | None = ObjectsParams()
    """Row ``faster-rcnn``: the union of Faster R-CNN's objects; null for none."""
    maps: dict[str, Path] = Field(default_factory=dict)
    """Rows of pseudo-masks by another recipe: name -> the folder ``data/masks`` of another params file's run
    over the same artworks. CLIP+SAM, ``regions.source: sam`` there, is ``{clip+sam: data_sam/masks}``."""
    wesd: WesdParams | None = WesdParams()
    """Row ``wesd``, trained on ``data/masks``; null for none."""

    def __post_init__(self) -> None:
        for name in self.maps:
            if not NAME.fullmatch(name) or name in TAKEN or name.startswith("emosem"):
                raise ValueError(
                    f"maps cannot be called {name!r}: a name has small letters, digits and + . _ -, and is "
                    f"none of {', '.join(TAKEN)}, emosem..."
                )
