"""Official files by their SHA-256 alone: what a trained model says of the encoders that it needs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.fetch.catalog import CLIP, FASTER_RCNN, LANGUAGE_MODELS, SAM, RemoteFile, Weights
from pipeline.fetch.order import Wanted, mirrored

SHELF = 16
"""Digits of the hash in the name of a fetched file's folder: several publishers use the same file name."""


def known(sha256: str) -> tuple[Weights, RemoteFile] | None:
    """The published file of this hash, or None where the catalog has none."""
    return next(((weights, file) for weights, file in _all() if file.sha256 == sha256), None)


def place(folder: Path, remote: RemoteFile) -> Path:
    """Where a file belongs in a folder of files by hash: ``FOLDER/FIRST_DIGITS/PUBLISHED_NAME``."""
    return folder / str(remote.sha256)[:SHELF] / Path(urlsplit(remote.url).path).name


def order_by_hash(digests: Mapping[str, str], folder: Path) -> list[Wanted]:
    """An order for `pipeline.fetch.fetch.fetch` of files by name and hash, each to its `place`.

    HF_ENDPOINT and HF_HUB_OFFLINE count as for every order. Raises `KeyError` for a hash that is not `known`,
    `UserError` where the hub may not be asked.
    """
    found = []
    for name, digest in digests.items():
        entry = known(digest)
        if entry is None:
            raise KeyError(digest)
        weights, remote = entry
        url = mirrored(remote.url, None, weights.title)
        found.append(Wanted(name, weights, remote, url, place(folder, remote)))
    return found


def _all() -> Iterator[tuple[Weights, RemoteFile]]:
    for group in (SAM, CLIP, FASTER_RCNN, LANGUAGE_MODELS):
        for weights in group.values():
            yield from ((weights, file) for file in weights.files.values())
