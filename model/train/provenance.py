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
from pipeline.reader.index import Index

PACKAGES = ("torch", "transformers", "open_clip_torch", "segment-anything")
"""Packages whose versions are noted."""
Encoder = TypeVar("Encoder", SamProvenance, ClipProvenance)


def describe_run(
    index: Index,
    variant: str,
    training: Any,
    sam_checkpoint: Path,
    language_model: Path,
    *,
    validation: Mapping[str, float],
    threads: int | None = None,
) -> Provenance:
    """The provenance of a training run's model.

    Args:
        index: of the shards it was trained on.
        variant: its name in ``train.variants``.
        training: its params, of `TrainParams`.
        sam_checkpoint, language_model: pretrained parts that it began with.
        validation: the scores of its last epoch.
        threads: that computed, on a CPU.
    """
    rows = index.rows("train") or index.rows()
    card = json.loads(index.read(rows[0].key, "features/json")) if rows else {}
    return Provenance(
        sam=_encoder(SamProvenance, card.get("sam", {})),
        clip=_encoder(ClipProvenance, card.get("clip", {})),
        dataset=_dataset(index.folder),
        variant=variant,
        training=_training(training),
        started_from=pretrained_digests(sam_checkpoint, language_model),
        validation=dict(validation),
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
        threads=threads,
    )


def _encoder(kind: type[Encoder], card: Mapping[str, Any]) -> Encoder | None:
    """An encoder from its part of ``KEY.json``; None where it does not say which weights it was."""
    return pydantic.TypeAdapter(kind).validate_json(json.dumps(card)) if card.get("sha256") else None


def _dataset(shards: Path) -> DatasetProvenance | None:
    """The shards' own description; None where the folder has none."""
    try:
        card, counts = (json.loads((shards / f).read_text()) for f in ("croissant.json", "stats.json"))
    except FileNotFoundError:
        return None
    return DatasetProvenance(
        **{key: card[key] for key in ("name", "description", "license", "url")},
        drawn={"artemis", "wikiart"} <= counts.get("drawn", {}).keys(),
        citation=card["citeAs"],
        **{key: counts[key] for key in ("artworks", "masks", "utterances", "splits")},
    )


def _training(params: Any) -> dict[str, Any]:
    """The params as a model tells them: of an URL that was streamed from its protocol alone, as it may name a
    disk or hold a password."""
    told = {key: value for key, value in as_json(params).items() if key != "variants"}
    if told.get("stream"):
        told["stream"] = f"{told['stream'].partition('://')[0]}://"
    return told
