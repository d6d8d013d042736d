"""From names and a params file to a list of files: the source, the place and what is known of each."""

import difflib
import importlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.backbones.weight_hashes import HASHES
from pipeline.common.errors import UserError
from pipeline.common.params import Params, ParamsFile, read_params
from pipeline.common.sections import SECTIONS
from pipeline.fetch.catalog import (
    BY_HAND,
    CLIP,
    FASTER_RCNN,
    HUB,
    LANGUAGE_MODELS,
    SAM,
    VINVL,
    RemoteFile,
    Weights,
)

NAMES = ("sam", "clip", "clip-score", "vinvl", "faster-rcnn", *LANGUAGE_MODELS)
"""What can be fetched."""


@dataclass(frozen=True)
class Wanted:
    """One file of an order."""

    name: str
    """As it was asked for."""
    weights: Weights
    remote: RemoteFile
    url: str
    """The file's address, at the mirror if there is one."""
    path: Path
    """Where the params expect it."""
    note: str = ""
    """What is to be changed in the params before a step reads it, or ""."""


def make_order(names: Sequence[str], params: ParamsFile, mirror: str | None = None) -> list[Wanted]:
    """The files behind names; those that no program may fetch are left out.

    Args:
        names: of `NAMES` or `BY_HAND`.
        params: file whose sections `backbones` and `score` say which weights, and where they belong.
        mirror: address that takes the place of every source's scheme and host; without one, HF_ENDPOINT does
            for the hub's.

    Raises:
        UserError: an unknown name, params of the built-in small weights, or a place that is another file's.
    """
    for name in names:
        if name not in (*NAMES, *BY_HAND):
            near = difflib.get_close_matches(name, (*NAMES, *BY_HAND), n=1)
            way_out = f"did you mean {near[0]}?" if near else f"known are {', '.join((*NAMES, *BY_HAND))}"
            raise UserError(f"nothing is known of {name!r}; {way_out}")
    params = read_params(params)
    found: dict[Path, Wanted] = {}
    for name in dict.fromkeys(names):
        for weights, remote, path, note in () if name in BY_HAND else _files(name, params):
            _check_place(path, params)
            if path in found and found[path].remote != remote:
                raise UserError(
                    f"{name} and {found[path].name} both belong at {path}, and differ; give them two names "
                    f"in {params.file}"
                )
            found.setdefault(
                path, Wanted(name, weights, remote, mirrored(remote.url, mirror, name), path, note)
            )
    return list(found.values())


def _files(name: str, params: Params) -> Iterator[tuple[Weights, RemoteFile, Path, str]]:
    backbones = _section(params, "backbones")
    if name == "sam":
        yield _sam(backbones.sam, params)
    elif name == "clip":
        yield _clip("backbones.clip", backbones.clip, params)
    elif name == "clip-score":
        own = _section(params, "score").clip
        yield _clip("score.clip", own or backbones.clip, params)
    elif name == "vinvl":
        path = backbones.vinvl.checkpoint
        checkpoint, label_map = VINVL.files.items()
        yield VINVL, checkpoint[1], path, ""
        yield VINVL, label_map[1], path.with_name(label_map[0]), ""
    elif name == "faster-rcnn":
        weights = FASTER_RCNN[backbones.faster_rcnn.name]
        path = backbones.faster_rcnn.checkpoint
        yield weights, _only(weights, path, FASTER_RCNN.values()), path, ""
    else:
        yield from _language_model(name, backbones.language_model)


def _sam(sam: Any, params: Params) -> tuple[Weights, RemoteFile, Path, str]:
    if sam.arch not in SAM:
        raise _built_in("backbones.sam.arch", sam.arch, params)
    weights = SAM[sam.arch]
    return weights, _only(weights, sam.checkpoint, SAM.values()), sam.checkpoint, ""


def _clip(key: str, clip: Any, params: Params) -> tuple[Weights, RemoteFile, Path, str]:
    if clip.name == "tiny":
        raise _built_in(f"{key}.name", clip.name, params)
    weights = CLIP.get(clip.name)
    if weights is None:
        raise UserError(
            f"{key}.name is {clip.name}; `fetch` knows {', '.join(CLIP)}. Other weights of open_clip are "
            f"listed in its docs/PRETRAINED.md: put the file at {clip.checkpoint} yourself"
        )
    remote = weights.files.get(clip.checkpoint.suffix)
    if remote is None:
        raise UserError(
            f"{key}.checkpoint is {clip.checkpoint}; {weights.title} is published as "
            f"{' and as '.join(weights.files)}: give it such an ending"
        )
    return weights, remote, clip.checkpoint, ""


def _language_model(name: str, folder: Path) -> Iterator[tuple[Weights, RemoteFile, Path, str]]:
    """Files of a GPT-2, in the params' folder, or beside it when that is named for another."""
    weights, note = LANGUAGE_MODELS[name], ""
    if folder.name != name:
        folder = folder.parent / name
        note = f"to use it, set backbones.language_model: {folder}"
    for file, remote in weights.files.items():
        yield weights, remote, folder / file, note


def _only(weights: Weights, path: Path, others: Iterable[Weights]) -> RemoteFile:
    """The one file of `weights`. Raises `UserError` when `path` has the published name of another one."""
    ((name, remote),) = weights.files.items()
    if path.name != name and any(path.name in other.files for other in others):
        raise UserError(f"{weights.title} is {name}, and the params want it at {path}, the name of another")
    return remote


def _check_place(path: Path, params: Params) -> None:
    """Raise `UserError` for a folder whose files are listed by hash: official weights are no part of it."""
    for folder in (path.parent, path.parent.parent):
        try:
            listed = (folder / HASHES).is_file()
        except OSError as error:
            raise UserError(f"{params} wants {path}: {error.strerror}") from None
        if listed:
            raise UserError(
                f"{params.file} wants {path} in {folder}, which holds the weights listed in its {HASHES}: "
                "name another folder in `backbones`, or take --params params/artemis.yaml"
            )


def _built_in(key: str, value: str, params: Params) -> UserError:
    return UserError(
        f"{key} is {value} in {params.file}: the built-in small weights, which come with this repository. "
        "For the official ones take --params params/artemis.yaml, or a file of your own"
    )


def _section(params: Params, name: str) -> Any:
    """A section by its name alone: that of `score` belongs to a package that this one may not import."""
    module, _, cls = SECTIONS[name].partition(":")
    return params.section(name, getattr(importlib.import_module(module), cls))


def mirrored(url: str, mirror: str | None, name: str) -> str:
    """A source's address at a mirror, or where HF_ENDPOINT says. Raises `UserError`."""
    base, given = mirror, "--mirror"
    if base is None and url.startswith(f"{HUB}/"):
        base, given = os.environ.get("HF_ENDPOINT") or HUB, "HF_ENDPOINT"
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            raise UserError(
                f"HF_HUB_OFFLINE is set, and {name} comes from {base}: unset it, or name a --mirror"
            )
    if base is None:
        return url
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UserError(f"{given} is {base!r}; it must be like https://HOST or https://HOST/FOLDER")
    return base.rstrip("/") + urlsplit(url).path


def shown_url(url: str) -> str:
    """Without a password and without the signature that storage servers put behind a ?."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
