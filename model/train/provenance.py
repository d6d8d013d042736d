"""What a trained model was made from: data, encoders, params, versions."""

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from model.emosem.pretrained import pretrained_digests
from model.emosem.provenance import ClipProvenance, DatasetProvenance, Provenance, SamProvenance
from pipeline.common.fingerprint import as_json
from pipeline.common.params import Paths
from pipeline.reader.index import Index

PACKAGES = ("torch", "transformers", "open_clip_torch", "segment-anything")
"""Packages whose versions are noted."""
GALLERY = "emosem-gallery"
"""Name of the built-in gallery's shards, the default of ``shards.name``."""
Encoder = TypeVar("Encoder", SamProvenance, ClipProvenance)

UNDESCRIBED = "not described (section shards of the params)"


def describe_run(
    paths: Paths,
    index: Index,
    variant: str,
    training: Any,
    sam_checkpoint: Path,
    language_model: Path,
    *,
    validation: Mapping[str, float],
) -> Provenance:
    """The provenance of a training run's model.

    Args:
        paths: of the pipeline that made the shards.
        index: of the shards it was trained on.
        variant: its name in ``train.variants``.
        training: its params, of `TrainParams`.
        sam_checkpoint, language_model: pretrained parts that it began with.
        validation: the scores of its last epoch.
    """
    rows = index.rows("train") or index.rows()
    card = json.loads(index.read(rows[0].key, "features/json")) if rows else {}
    return Provenance(
        sam=_encoder(SamProvenance, card.get("sam", {})),
        clip=_encoder(ClipProvenance, card.get("clip", {})),
        dataset=_dataset(index.folder, _is_gallery(paths, index)),
        variant=variant,
        training={key: value for key, value in as_json(training).items() if key != "variants"},
        started_from=pretrained_digests(sam_checkpoint, language_model),
        validation=dict(validation),
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
    )


def _encoder(kind: type[Encoder], card: Mapping[str, Any]) -> Encoder | None:
    """An encoder from its part of ``KEY.json``; None where it does not say which weights it was."""
    return pydantic.TypeAdapter(kind).validate_json(json.dumps(card)) if card.get("sha256") else None


def _is_gallery(paths: Paths, index: Index) -> bool:
    """Whether the shards are the built-in gallery's: it lies in the pipeline's own data/gallery."""
    gallery = paths.step("gallery").resolve()
    sources = (paths.artemis.resolve(), paths.wikiart.resolve())
    return index.folder == paths.step("shards") and all(gallery in source.parents for source in sources)


def _dataset(shards: Path, drawn: bool) -> DatasetProvenance | None:
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
    return DatasetProvenance(
        **words,
        drawn=drawn,
        citation=card["citeAs"],
        **{key: counts[key] for key in ("artworks", "masks", "utterances", "splits")},
    )
