"""The section `relabel`. No torch here, so that bad params are refused before it is imported."""

from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from pipeline.common import machine
from pipeline.common.params import STRICT

Share = Annotated[float, Field(ge=0, le=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]

SAID = ("labels", "students", "label_threshold", "student_threshold")
"""What differs from round to round: a params file has to say it, or it is not a round's."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class RelabelParams:
    """From a finished round's labels and its students' masks to the next round's labels."""

    labels: Path = Path("data")
    """Data folder of the finished round: its masks, and the features that its students were trained on, by
    the index of its `shards` step."""
    students: Annotated[tuple[Path, ...], Field(min_length=1)] = (Path("runs/multi"),)
    """Trained models, such as runs/multi. Of several the mean of their maps counts."""
    label_threshold: Inside = 0.65
    """A label's foreground lies above; what `train.binarise` was in the finished round: 0.65 of the paper's
    labels, 0.35 of labels that this step wrote."""
    student_threshold: Inside = 0.35
    """A student's foreground lies above, in its map brought to [0, 1]; the one that val likes best is in the
    score tables."""
    weight: Share = 0.7
    """What the students count for where both agree; the label counts for the rest."""
    agree: Share = 0.05
    """Least IoU of the two foregrounds; below it the label stays as it is. 0: all are blended."""
    batch: Annotated[int, Field(gt=0)] = 16
    """Artworks predicted at once; changes speed, and labels by a level of 255 here and there."""
    device: str = "auto"
    """auto (the GPU where there is one), cpu, cuda."""

    def __post_init__(self) -> None:
        if len({run.resolve() for run in self.students}) < len(self.students):
            raise ValueError("students has one twice: it would count as two")

    def rule(self) -> dict[str, Any]:
        """What decides a new label but the label and the student."""
        names = ("label_threshold", "student_threshold", "weight", "agree")
        return {name: getattr(self, name) for name in names}

    def torch_device(self) -> str:
        """See `machine.torch_device`."""
        return machine.torch_device(self.device, "relabel.device")
