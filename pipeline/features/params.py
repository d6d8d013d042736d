"""The section `features`."""

import dataclasses
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from pipeline.backbones.params import Normalisation, SamPrecision
from pipeline.common.params import STRICT


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class FeaturesParams:
    """The cached encoder outputs. docs/features.md has the bytes and the drift of every choice."""

    sam_dtype: Literal["float16", "int8", "none"] = "float16"
    """How SAM's grid is stored; int8 halves the bytes. none leaves the grid out (and training needs it)."""
    clip_dtype: Literal["float16", "none"] = "float16"
    """How CLIP's grid is stored; none leaves it out (and training needs it)."""
    clip_normalisation: Normalisation = "clip"
    """Of the pixels that CLIP's grid is made of. imagenet is what SEVLM does, which EmoSEM's language model
    comes from; clip is what CLIP was trained with."""
    precision: SamPrecision = "float32"
    """Arithmetic of SAM's transformer; bf16 is several times faster on a GPU. CLIP's is
    ``backbones.clip.precision``."""
    compile: bool = False
    """Let torch.compile fuse SAM's transformer: a slow start and then faster on a GPU; ignored on a CPU.
    Changes results by float noise only."""
    batch: Annotated[int, Field(gt=0)] = 1
    """Pictures encoded at once; 1 is fastest on a CPU, 16 or more fill a GPU. Changes speed, and results by
    float noise only."""

    def __post_init__(self) -> None:
        if self.sam_dtype == self.clip_dtype == "none":
            raise ValueError("sam_dtype and clip_dtype are both none: there would be nothing to cache")

    @property
    def results(self) -> "FeaturesParams":
        """With the defaults for what changes speed alone, or is of an encoder that is left out: this belongs
        in a fingerprint."""
        idle = ["compile", "batch"]
        idle += ["precision"] * (self.sam_dtype == "none")
        idle += ["clip_normalisation"] * (self.clip_dtype == "none")
        return dataclasses.replace(self, **{name: getattr(FeaturesParams, name) for name in idle})

    @property
    def dtypes(self) -> str:
        """How both feature maps are stored, for people."""
        parts = (("SAM", self.sam_dtype), ("CLIP", self.clip_dtype))
        return " + ".join(f"{name} {dtype}" for name, dtype in parts if dtype != "none")
