"""What a saved model was made from: the frozen encoders it needs, its data, its training.

Stands in config.json under ``about``, so that a model taken elsewhere still knows whose features it reads.
Folders saved before there was such a record load without it.
"""

import dataclasses
from dataclasses import field
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

FORGIVING = pydantic.ConfigDict(extra="ignore", strict=True)
"""Config of what is read back: keys of another version of this code are no reason to refuse a model."""


@pydantic.dataclasses.dataclass(frozen=True, config=FORGIVING)
class EncoderFile:
    """A file of an encoder: its weights, or what is read beside them."""

    name: Annotated[str, Field(pattern=r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]*$")]
    """Without a folder."""
    bytes: int
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@pydantic.dataclasses.dataclass(frozen=True, config=FORGIVING)
class Preprocessing:
    """How a uint8 RGB picture becomes an encoder's input."""

    size: int
    """Pixels a side of the square input."""
    resize: str
    """In words: which side is fitted, by which filter, and what fills the rest."""
    mean: tuple[float, float, float]
    """Subtracted per channel: of values from 0 to 255 for SAM, from 0 to 1 for CLIP."""
    std: tuple[float, float, float]
    """Divided by, likewise."""


@pydantic.dataclasses.dataclass(frozen=True, config=FORGIVING)
class SamProvenance:
    """The SAM whose features the model was trained on, and how they were stored; see step `features`."""

    arch: str
    sha256: str
    """Of the weights file."""
    dtype: Literal["float16", "int8"] = "float16"
    precision: Literal["float32", "bf16"] = "float32"
    format: str = ""
    """What the weights file is (`pipeline.backbones.weights_file.Kind`); noted by `export`, as all below."""
    files: tuple[EncoderFile, ...] = ()
    """What is read of the encoder, its weights (or their index) first."""
    beside: tuple[EncoderFile, ...] = ()
    """The files of the same tensors in this model's own folder, weights first; empty where it has none."""
    preprocessing: Preprocessing | None = None
    """Compared with that of the encoder which is loaded."""


@pydantic.dataclasses.dataclass(frozen=True, config=FORGIVING)
class ClipProvenance:
    """The CLIP whose patch tokens the model was trained on; see step `features`."""

    name: str
    sha256: str
    """Of the weights file."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    normalisation: Literal["clip", "imagenet"] = "clip"
    format: str = ""
    files: tuple[EncoderFile, ...] = ()
    beside: tuple[EncoderFile, ...] = ()
    preprocessing: Preprocessing | None = None
    """These four as SAM's."""


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
    """Whether pictures and utterances both are the built-in gallery's."""


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
    threads: int | None = None
    """Of the CPU that trained it: their number decides the last digits. None: a GPU, or not known."""

    def without_encoders(self) -> "Provenance":
        """The same of a folder that holds no encoders: they belong to the folder, not to the model."""
        sam = self.sam and dataclasses.replace(self.sam, beside=())
        return dataclasses.replace(
            self, sam=sam, clip=self.clip and dataclasses.replace(self.clip, beside=())
        )
