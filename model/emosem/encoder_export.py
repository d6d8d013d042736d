"""What an exported model says about its frozen encoders, and copies of them to lie beside it.

A single safetensors file is copied as it is. Everything else (pickles, TorchScript, several files) becomes
one safetensors file of the same values, so that what travels is never a program.
"""

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file

from model.emosem import preprocessing
from model.emosem.encoder_search import ENCODERS, Encoder, find, shelves, title
from model.emosem.provenance import ClipProvenance, EncoderFile, Provenance
from pipeline.backbones.clip import BPE, Clip, load_clip, named_config, read_config
from pipeline.backbones.clip_of_transformers import CONFIG, PROCESSORS, is_of_transformers
from pipeline.backbones.clip_weights import HUB_CONFIG
from pipeline.backbones.params import BackbonesParams
from pipeline.backbones.sam import load_sam_model
from pipeline.backbones.tensors import read_tensors, sizes_beside, weight_files
from pipeline.backbones.weight_hashes import READ_BESIDE
from pipeline.backbones.weights_file import sniff
from pipeline.common.files import write_json
from pipeline.common.fingerprint import sha256_file

OPEN_CLIP = "open_clip_model.safetensors"
"""Name under which open_clip's config is looked for beside the weights."""
TINY = "tiny"


class Described(NamedTuple):
    """A model's account of its encoders, and what is to lie beside it."""

    provenance: Provenance
    files: dict[str, Path]
    """Name in the model's folder -> the file to be copied there."""


def locate(
    run: Path, provenance: Provenance | None, backbones: BackbonesParams | None
) -> tuple[Path, Path] | list[str]:
    """The weights of SAM and CLIP that a run was trained on, or the names of those that are not here."""
    if provenance is None or provenance.sam is None or provenance.clip is None:
        return ["SAM and CLIP (the run does not say which)"]
    first = (backbones.sam.checkpoint, backbones.clip.checkpoint) if backbones else (None, None)
    named: tuple[Encoder, Encoder] = (provenance.sam, provenance.clip)
    places = shelves(run)
    sam, clip = (find(one, places, path).found for one, path in zip(named, first, strict=True))
    if sam and clip:
        return sam, clip
    here = zip(named, (sam, clip), strict=True)
    return [f"{title(one)} (SHA-256 {one.sha256})" for one, path in here if path is None]


def bytes_of(provenance: Provenance, checkpoints: tuple[Path, Path]) -> int:
    """Bytes of both encoders' files."""
    named = (provenance.sam, provenance.clip)
    files = (file for one, path in zip(named, checkpoints, strict=True) if one for file in read_of(one, path))
    return sum(file.stat().st_size for file in files)


def describe(
    provenance: Provenance, checkpoints: tuple[Path, Path], scratch: Path, *, copies: bool
) -> Described:
    """Load both encoders and note what they are.

    Args:
        provenance: of the model; names both.
        checkpoints: SAM's and CLIP's weights, which are those that it names.
        scratch: an empty folder, for files that are made to lie beside the model.
        copies: whether they shall.

    Raises `UserError` for weights that cannot be loaded as what the model says they are.
    """
    sam, clip = provenance.sam, provenance.clip
    if sam is None or clip is None:
        raise ValueError("the provenance names no encoders")
    network = load_sam_model(sam.arch, checkpoints[0])
    size = network.image_encoder.img_size
    sam = dataclasses.replace(
        sam,
        preprocessing=preprocessing.of_sam(size, network.pixel_mean, network.pixel_std),
        **_noted(sam, checkpoints[0]),
    )
    found: dict[str, Path] = {}
    if copies:
        own = _copies(sam, checkpoints[0], scratch / "sam", network, None)
        found |= {f"{ENCODERS}/sam/{file.name}": file for file in own}
        sam = dataclasses.replace(sam, beside=_files(own))
    del network
    loaded = load_clip(clip.name, checkpoints[1], "cpu", precision=clip.precision)
    clip = dataclasses.replace(
        clip,
        preprocessing=preprocessing.of_clip(loaded, clip.normalisation),
        **_noted(clip, checkpoints[1]),
    )
    if copies:
        own = _copies(clip, checkpoints[1], scratch / "clip", loaded.model, loaded)
        found |= {f"{ENCODERS}/clip/{file.name}": file for file in own}
        clip = dataclasses.replace(clip, beside=_files(own))
    return Described(dataclasses.replace(provenance, sam=sam, clip=clip), found)


def read_of(encoder: Encoder, checkpoint: Path) -> list[Path]:
    """Every file that is read of an encoder's checkpoint, its weights (or their index) first."""
    weights = weight_files(checkpoint)
    if checkpoint.is_dir():  # as its hash counts them
        beside = (file for file in checkpoint.iterdir() if file.suffix in READ_BESIDE and file.is_file())
        return [*weights, *sorted(set(beside) - set(weights))]
    file = weights[0]
    names = [sizes_beside(checkpoint).name] if _is_tiny(encoder) else []
    if isinstance(encoder, ClipProvenance):
        names += [BPE] if _is_tiny(encoder) else []
        names += [HUB_CONFIG] if file.name.startswith("open_clip_") else []
        if file.with_name(CONFIG).is_file() and is_of_transformers(read_tensors(checkpoint, device="meta")):
            names += [CONFIG, *PROCESSORS]
    return [*weights, *(path for name in names if (path := file.with_name(name)).is_file())]


def _is_tiny(encoder: Encoder) -> bool:
    """Whether its sizes stand in a json beside its weights."""
    return (encoder.name if isinstance(encoder, ClipProvenance) else encoder.arch) == TINY


def _noted(encoder: Encoder, checkpoint: Path) -> dict[str, Any]:
    return {
        "format": sniff(weight_files(checkpoint)[-1])[0],
        "files": _files(read_of(encoder, checkpoint)),
        "beside": (),
    }


def _files(files: Iterable[Path]) -> tuple[EncoderFile, ...]:
    return tuple(EncoderFile(file.name, file.stat().st_size, sha256_file(file)) for file in files)


def _copies(
    encoder: Encoder, checkpoint: Path, scratch: Path, network: torch.nn.Module, clip: Clip | None
) -> list[Path]:
    """The files to lie beside the model, weights first: those that are read, or one safetensors file."""
    files = read_of(encoder, checkpoint)
    if len(weight_files(checkpoint)) == 1 and sniff(files[0])[0] == "safetensors":
        return files
    scratch.mkdir()
    weights = scratch / ("sam.safetensors" if clip is None else OPEN_CLIP)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, weights)
    made = [weights]
    if _is_tiny(encoder):
        made += [Path(shutil.copyfile(sizes_beside(checkpoint), weights.with_suffix(".json")))]
    if clip is not None:
        if _is_tiny(encoder):
            merges = weight_files(checkpoint)[0].with_name(BPE)
            made += [Path(shutil.copyfile(merges, scratch / BPE))]
        sizes = read_config(sizes_beside(checkpoint)) if _is_tiny(encoder) else named_config(clip.name)
        made += [_write_hub_config(scratch / HUB_CONFIG, clip, sizes)]
    return made


def _write_hub_config(file: Path, clip: Clip, sizes: dict[str, Any]) -> Path:
    """What `pipeline.backbones.clip_weights` reads beside open_clip's weights."""
    own = preprocessing.of_clip(clip, "clip")
    write_json(file, {"model_cfg": sizes, "preprocess_cfg": {"mean": own.mean, "std": own.std}})
    return file
