"""All small backbones by their fixed recipes, with a card that says what they are and what was measured.

`quality.json` holds what each recipe returned; the card and the list of hashes are written from it and from
the files, so that one backbone can be trained again without touching the others.
"""

import functools
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import pydantic

from model.pretrain.clip import ClipPretrainParams
from model.pretrain.language_model import LanguageModelPretrainParams
from model.pretrain.sam import SamPretrainParams
from model.pretrain.vinvl import VinvlPretrainParams
from pipeline.backbones.weight_hashes import HASHES
from pipeline.common.files import write_bytes, write_json
from pipeline.common.fingerprint import as_json, sha256_file
from pipeline.common.lock import writes
from pipeline.common.params import STRICT

Backbone = Literal["clip", "sam", "language_model", "vinvl"]
CARD = "CARD.md"
QUALITY = "quality.json"


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class PretrainParams:
    """The recipes of the four."""

    clip: ClipPretrainParams = ClipPretrainParams()
    sam: SamPretrainParams = SamPretrainParams()
    language_model: LanguageModelPretrainParams = LanguageModelPretrainParams()
    vinvl: VinvlPretrainParams = VinvlPretrainParams()


@writes(lambda out, *_: [out])
def pretrain(out: Path, params: PretrainParams, kept: Path, only: Backbone | None = None) -> dict[str, Any]:
    """Train the backbones into `out`, and write quality.json, CARD.md and sha256.json beside them.

    Args:
        out: folder of the weights; files of backbones that are not trained now stay.
        params: the recipes.
        kept: folder for what a killed training goes on from; not part of the weights.
        only: one of them; None is all.

    Returns:
        What each recipe measured on held-out scenes, by backbone.
    """
    import torch

    from model.pretrain import clip, language_model, sam, vinvl

    trainers: dict[Backbone, Callable[[Path, Any, str], dict[str, Any]]] = {
        "clip": functools.partial(clip.train_clip, kept=kept / "clip"),
        "sam": functools.partial(sam.train_sam, kept=kept / "sam"),
        "language_model": language_model.train_language_model,
        "vinvl": vinvl.train_vinvl,
    }
    device = "cuda" if torch.cuda.is_available() else "cpu"
    hardware = torch.cuda.get_device_name() if device == "cuda" else f"CPU ({platform.machine()})"
    for name in [only] if only else get_args(Backbone):
        measured = trainers[name](out, getattr(params, name), device)
        measured |= {
            "recipe": as_json(getattr(params, name)),
            "hardware": hardware,
            "torch": torch.__version__,
        }
        write_json(out / f"{name}.{QUALITY}", measured)
    return finish(out)


def finish(out: Path) -> dict[str, Any]:
    """Write sha256.json and CARD.md from what lies in `out`; returns the measured quality."""
    quality = {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name in get_args(Backbone)
        if (path := out / f"{name}.{QUALITY}").is_file()
    }
    files = [p for p in sorted(out.rglob("*")) if p.is_file() and p.name not in (HASHES, CARD)]
    hashes = {path.relative_to(out).as_posix(): sha256_file(path) for path in files}
    write_json(out / HASHES, hashes)
    write_bytes(out / CARD, _card(out, quality, hashes).encode())
    return quality


def _card(out: Path, quality: dict[str, Any], hashes: dict[str, str]) -> str:
    lines = [
        "# Tiny backbones of the built-in gallery",
        "",
        "Small networks of the same architectures as SAM, CLIP, GPT-2 and VinVL, trained from random weights",
        "on drawn gallery scenes (seeds from 1,000,000 upwards, which no gallery uses) and sentences of its",
        "grammar. They know nothing else: on real paintings they run, and what they say is not to be",
        "believed.",
        "Stored as float16. Made by `python cli.py pretrain-tiny`; loading checks the hashes below.",
    ]
    for name, measured in quality.items():
        recipe = measured["recipe"]
        shown = {key: value for key, value in measured.items() if not isinstance(value, dict)}
        lines += ["", f"## {name}", "", "| measured | |", "| --- | --- |"]
        lines += [f"| {key} | {value} |" for key, value in sorted(shown.items())]
        lines += ["", "Recipe: " + ", ".join(f"{key} {value}" for key, value in sorted(recipe.items())) + "."]
    lines += ["", "## Files", "", "| file | bytes | SHA-256 |", "| --- | --- | --- |"]
    lines += [f"| {name} | {(out / name).stat().st_size:,} | `{digest}` |" for name, digest in hashes.items()]
    return "\n".join(lines) + "\n"
