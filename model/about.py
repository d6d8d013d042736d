"""What a saved model says about itself: the frozen encoders it needs, its data, its training.

Stands in config.json under ``about``, so that a model taken elsewhere still knows whose grids it reads.
Folders saved before there was such an account load without it.
"""

import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Literal, TypeVar

import pydantic

from pipeline.params import Paths, as_json
from pipeline.shard_index import Index
from pipeline.storage import sha256_file

FORGIVING = pydantic.ConfigDict(extra="ignore", strict=True)
"""Config of what is read back: keys of another version of this code are no reason to refuse a model."""
PACKAGES = ("torch", "transformers", "open_clip_torch", "segment-anything")
"""Packages whose versions are noted."""

GALLERY = "emosem-gallery"
"""Name of the built-in gallery's shards, the default of ``shards.name``."""
UNDESCRIBED = "not described (section shards of the params)"

T = TypeVar("T")


@pydantic.dataclasses.dataclass(frozen=True, config=FORGIVING)
class SamSeen:
    """The SAM whose grids the model was trained on, and how they were stored; see `features`."""

    arch: str
    sha256: str
    """Of the weights file."""
    dtype: Literal["float16", "int8"] = "float16"
    precision: Literal["float32", "bf16"] = "float32"


@pydantic.dataclasses.dataclass(frozen=True, config=FORGIVING)
class ClipSeen:
    """The CLIP whose patch tokens the model was trained on; see `features`."""

    name: str
    sha256: str
    """Of the weights file."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    normalisation: Literal["clip", "imagenet"] = "clip"


@pydantic.dataclasses.dataclass(frozen=True, config=FORGIVING)
class Dataset:
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
class About:
    """All of it; what was not known is None or empty."""

    sam: SamSeen | None = None
    clip: ClipSeen | None = None
    dataset: Dataset | None = None
    variant: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    """The `train` section of the params, as the variant changes it."""
    started_from: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the pretrained parts that the training began with, by what they are."""
    validation: dict[str, float] = field(default_factory=dict)
    """Of the last epoch, against pseudo-masks."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of the packages that trained it."""


def describe(
    paths: Paths,
    index: Index,
    *,
    variant: str,
    training: Any,
    sam_checkpoint: Path,
    language_model: Path,
    validation: Mapping[str, float],
) -> About:
    """The account of a training run.

    Args:
        paths: of the pipeline that made the shards.
        index: of the shards it was trained on.
        variant: its name in ``train.variants``.
        training: its params, of `train_params.TrainParams`.
        sam_checkpoint, language_model: pretrained parts that it began with.
        validation: the scores of its last epoch.
    """
    rows = index.rows("train") or index.rows()
    card = json.loads(index.read(rows[0].key, "features/json")) if rows else {}
    return About(
        sam=_seen(SamSeen, card.get("sam", {})),
        clip=_seen(ClipSeen, card.get("clip", {})),
        dataset=_dataset(index.folder, _drawn(paths, index)),
        variant=variant,
        training={key: value for key, value in as_json(training).items() if key != "variants"},
        started_from={
            "SAM": sha256_file(sam_checkpoint),
            "language model": sha256_file(language_model / "model.safetensors"),
        },
        validation=dict(validation),
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
    )


def _seen(kind: type[T], card: Mapping[str, Any]) -> T | None:
    """An encoder from its part of ``KEY.json``; None where it does not say which weights it was."""
    return pydantic.TypeAdapter(kind).validate_json(json.dumps(card)) if card.get("sha256") else None


def _drawn(paths: Paths, index: Index) -> bool:
    """Whether the shards are the built-in gallery's: it lies in the pipeline's own data/gallery."""
    gallery = paths.step("gallery").resolve()
    sources = (paths.artemis.resolve(), paths.wikiart.resolve())
    return index.folder == paths.step("shards") and all(gallery in source.parents for source in sources)


def _dataset(shards: Path, drawn: bool) -> Dataset | None:
    """The shards' own description; None where the folder has none.

    The gallery's words, which are the params' defaults, are not taken for other data.
    """
    try:
        card, counts = (json.loads((shards / f).read_text()) for f in ("croissant.json", "stats.json"))
    except FileNotFoundError:
        return None
    words = {key: card[key] for key in ("name", "description", "license", "url")}
    if not drawn and card["name"] == GALLERY:
        words = dict.fromkeys(words, UNDESCRIBED)
    return Dataset(
        **words,
        drawn=drawn,
        citation=card["citeAs"],
        **{key: counts[key] for key in ("artworks", "masks", "utterances", "splits")},
    )
