"""What a saved model was made from: the frozen encoders it needs, its data, its training.

Stands in config.json under ``about``, so that a model taken elsewhere still knows whose features it reads.
Folders saved before there was such a record load without it.
"""

from dataclasses import field
from typing import Any, Literal

import pydantic

FORGIVING = pydantic.ConfigDict(extra="ignore", strict=True)
"""Config of what is read back: keys of another version of this code are no reason to refuse a model."""


@pydantic.dataclasses.dataclass(frozen=True, config=FORGIVING)
class SamProvenance:
    """The SAM whose features the model was trained on, and how they were stored; see step `features`."""

    arch: str
    sha256: str
    """Of the weights file."""
    dtype: Literal["float16", "int8"] = "float16"
    precision: Literal["float32", "bf16"] = "float32"


@pydantic.dataclasses.dataclass(frozen=True, config=FORGIVING)
class ClipProvenance:
    """The CLIP whose patch tokens the model was trained on; see step `features`."""

    name: str
    sha256: str
    """Of the weights file."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    normalisation: Literal["clip", "imagenet"] = "clip"


@pydantic.dataclasses.dataclass(frozen=True, config=FORGIVING)
class DatasetProvenance:
    """The shards that the model was trained on, as their card and statistics describe them."""

    name: str
    description: str
    license: str
    url: str
    citation: str
    artworks: int
    masks: int
    utterances: int
    splits: dict[str, dict[str, int]]
    """Artworks, masks and utterances of each split."""
    drawn: bool = False
    """Whether it is the built-in gallery."""


@pydantic.dataclasses.dataclass(frozen=True, config=FORGIVING)
class Provenance:
    """Encoders, data and training of a model; what was not known is None or empty."""

    sam: SamProvenance | None = None
    clip: ClipProvenance | None = None
    dataset: DatasetProvenance | None = None
    variant: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    """The `train` section of the params, as the variant changes it."""
    started_from: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the pretrained parts that the training began with, by what they are."""
    validation: dict[str, float] = field(default_factory=dict)
    """Of the last epoch, against pseudo-masks."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of the packages that trained it."""
