"""The section `predict`. No torch here, so that bad params are refused before it is imported."""

from typing import Annotated

import pydantic
from pydantic import Field

from pipeline.common import machine
from pipeline.common.params import STRICT


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class PredictParams:
    """How masks and explanations are drawn from a trained model."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Nucleus sampling's probability (Sec. 4.1); near 0 is greedy."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Divides the logits before sampling."""
    max_new_tokens: Annotated[int, Field(gt=0)] = 25
    """Budget of an explanation, its end-of-text token included (Sec. 4.1)."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """One explanation per item and seed; a text also depends on its artwork and emotion, on nothing else."""
    batch: Annotated[int, Field(gt=0)] = 16
    """Artworks predicted at once; changes speed, and results by float noise only."""
    device: str = "auto"
    """auto (the GPU where there is one), cpu, cuda."""

    def torch_device(self) -> str:
        """See `machine.torch_device`."""
        return machine.torch_device(self.device, "predict.device")
