"""The frozen encoders of a saved model: found by hash, fetched when asked to, or one message about them."""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from model.emosem.config import read_config
from model.emosem.encoder_search import (
    VARIABLE,
    Encoder,
    Search,
    cache_folder,
    find,
    named_folders,
    shelves,
    title,
)
from model.emosem.hub import is_on_hub, model_folder
from model.emosem.provenance import ClipProvenance, Provenance, SamProvenance
from pipeline.backbones.params import BackbonesParams
from pipeline.common.errors import UserError
from pipeline.common.machine import shown_bytes
from pipeline.fetch.by_hash import known, order_by_hash

SHOWN = 5
"""Files of another hash that the message names per encoder."""


class EncoderFiles(NamedTuple):
    """The weights of both encoders."""

    sam: Path
    clip: Path


@dataclass(frozen=True)
class Sources:
    """Where the encoders of a saved model may come from."""

    weights: tuple[Path, ...] = ()
    """Folders of weights, looked at before those in EMOSEM_WEIGHTS, ./weights and the cache."""
    fetch: bool = False
    """Whether official files that are missing are downloaded: into the first folder that is named, or the
    cache."""
    first: BackbonesParams | None = None
    """Checkpoints that are looked at before any folder."""


def find_model(
    name: str | Path, sources: Sources, hub: Mapping[str, Any] | None = None
) -> tuple[Path, EncoderFiles]:
    """The folder of a saved model and the weights of its encoders.

    Of a model on the hub they are fetched with it where it holds them and no folder here does. Raises as
    `Predictor.from_pretrained`.
    """
    folder = model_folder(name, hub)
    _, provenance = read_config(folder)
    holds = provenance is not None and any(one and one.beside for one in (provenance.sam, provenance.clip))
    try:
        return folder, locate(
            folder, provenance, dataclasses.replace(sources, fetch=sources.fetch and not holds)
        )
    except UserError:
        if not is_on_hub(name) or not holds:
            raise
    folder = model_folder(name, hub, encoders=True)
    return folder, locate(folder, provenance, sources)


def encoders_of(name: str | Path, provenance: Provenance | None) -> tuple[SamProvenance, ClipProvenance]:
    """The encoders that a saved model names. Raises `UserError` for one that names none."""
    if provenance is None or provenance.sam is None or provenance.clip is None:
        raise UserError(
            f"{name} does not say which SAM and CLIP it was trained on; name them in the `backbones` section "
            "of a params file: `--params FILE`, or in Python Predictor.from_params(FOLDER, FILE)"
        )
    return provenance.sam, provenance.clip


def locate(model: Path, provenance: Provenance | None, sources: Sources) -> EncoderFiles:
    """The weights of a saved model's encoders, checked by their hash.

    Args:
        model: its folder, which may hold them.
        provenance: what it says about itself.
        sources: where else they may be.

    Raises:
        UserError: they are nowhere, or another file is in their place; it says how to get them.
        RunFailed: they could not be fetched.
    """
    named = encoders_of(model, provenance)
    for folder in () if sources.fetch else sources.weights:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder; name one that holds weights")
    first = sources.first
    given = (first.sam.checkpoint, first.clip.checkpoint) if first else (None, None)
    found = _search(model, named, sources, given)
    if sources.fetch and any(one.found is None for one in found):
        _fetch(model, named, found, sources)
        found = _search(model, named, sources, given)
    sam, clip = (one.found for one in found)
    if sam is None or clip is None:
        raise UserError(_missing_text(model, named, found, sources))
    return EncoderFiles(sam, clip)


def _search(
    model: Path, named: Sequence[Encoder], sources: Sources, first: Sequence[Path | None]
) -> list[Search]:
    places = shelves(model, sources.weights)
    return [find(encoder, places, path) for encoder, path in zip(named, first, strict=True)]


def _fetch(model: Path, named: Sequence[Encoder], found: Sequence[Search], sources: Sources) -> None:
    """Download what is missing. Raises `UserError` before the first byte where not all of it is official."""
    digests = _missing(named, found)
    if any(known(digest) is None for digest in digests.values()):
        raise UserError(_missing_text(model, named, found, sources))
    from pipeline.fetch.fetch import fetch
    from pipeline.fetch.report import order_text

    order = order_by_hash(digests, _fetched_to(sources))
    print(order_text(order), file=sys.stderr, flush=True)
    fetch(order)


def _fetched_to(sources: Sources) -> Path:
    return next(iter([*sources.weights, *named_folders()]), cache_folder())


def _missing(named: Sequence[Encoder], found: Sequence[Search]) -> Mapping[str, str]:
    """Hash of each missing encoder by what it is called."""
    both = zip(named, found, strict=True)
    return {title(encoder): encoder.sha256 for encoder, search in both if search.found is None}


def _missing_text(model: Path, named: Sequence[Encoder], found: Sequence[Search], sources: Sources) -> str:
    """What is missing, where it was looked for, and how to get it."""
    lines = [f"{model} needs the frozen encoders that it was trained on, and not all of them are here:"]
    for encoder, search in zip(named, found, strict=True):
        if search.found is None:
            lines.append(f"  {title(encoder)}, SHA-256 {encoder.sha256}: {_published(encoder)}")
            lines += [f"    not this one: {other}" for other in search.others[:SHOWN]]
            lines += ["    …"] * (len(search.others) > SHOWN)
    looked = [shown(place.folder) for place in shelves(model, sources.weights)]
    lines.append(f"Looked in {', '.join(looked)}.")
    lines.append(
        f"Put the files into a folder and name it: --weights DIR, weights=DIR in Python, or {VARIABLE}=DIR."
    )
    digests = _missing(named, found)
    official = [known(digest) for digest in digests.values()]
    if all(official):
        size = sum(entry[1].size or 0 for entry in official if entry)
        lines.append(
            f"Or have them fetched ({shown_bytes(size)} into {shown(_fetched_to(sources))}): --fetch, or "
            "fetch=True in Python."
        )
    else:
        lines.append(
            "Or ask whoever gave you the model for a copy that holds them (`python cli.py export` with "
            "--with-encoders)."
        )
    return "\n".join(lines)


def _published(encoder: Encoder) -> str:
    """What the file is, for people."""
    if entry := known(encoder.sha256):
        weights, remote = entry
        return f"{weights.title}, official ({shown_bytes(remote.size or 0)}, licence {weights.licence})"
    name = f"{encoder.files[0].name}, " if encoder.files else ""
    return f"{name}not among the official files that can be fetched"


def shown(path: Path) -> str:
    """A path without the name of the user's home folder."""
    home = os.path.expanduser("~")  # noqa: PTH111 - pathlib's raises where there is no home
    text = str(path)
    return f"~{text[len(home) :]}" if text.startswith(f"{home}/") and home != "/" else text
