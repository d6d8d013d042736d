"""Detector checkpoints: reading them safely, matching their names strictly, writing our own.

The original loads whatever happens to fit and leaves the rest at random. Here a tensor that is missing,
left over or of another shape ends the load with the list of names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.backbones.tensors import check_finite, read_tensors
from pipeline.common.errors import UserError
from pipeline.common.files import write_bytes, write_json
from pipeline.regions.vinvl.config import VinvlConfig

ANCHORS = "rpn.anchor_generator.cell_anchors.0"
BOX_LAYER4 = "roi_heads.box.feature_extractor.head.layer4."
ATTRIBUTE_LAYER4 = "attribute.feature_extractor.head.layer4."
LABELMAP = "VG-SGG-dicts-vgoi6-clipped.json"
"""The official label map; found by itself when it lies beside the checkpoint."""
SHOWN = 4
"""Names listed per kind of problem before the rest is counted."""


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a detector's checkpoint, on the CPU; see `tensors.read_tensors` for what is taken.

    Raises UserError when the file is absent, unreadable, holds no tensors, or some that are not finite.
    """
    if not path.exists():
        raise UserError(f"no detector checkpoint at {path}; name one in params (backbones.vinvl.checkpoint)")
    state = read_tensors(path)
    check_finite(state, path)
    return state


def match_names(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give every wanted name its tensor from `found`: by its exact name, else by a unique suffix.

    A suffix is a name that ends a wanted one after a dot ("layer1.0.conv1.weight" for
    "backbone.body.layer1.0.conv1.weight"); the longest wins. The two names of layer4 are one module: either
    may stand for both, and if both are there and differ, the attribute head's wins, as in the original.
    Anchors may be absent; present ones must equal `wanted`'s.

    Raises UserError listing names that are missing, left over, used twice or of another shape.
    """
    source: dict[str, str] = {name: name for name in wanted if name in found}
    spare = [name for name in found if name not in source]
    for name in wanted:
        if name not in source and (other := _longest_suffix(name, spare)) is not None:
            source[name] = other
    problems = _used_twice(source)
    state = {name: found[other] for name, other in source.items()}
    _alias_layer4(wanted, state)
    if ANCHORS in wanted and ANCHORS not in state:
        state[ANCHORS] = wanted[ANCHORS]
    problems |= {
        "missing": [name for name in wanted if name not in state],
        "left over": [name for name in found if name not in set(source.values())],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in wanted
            if name in state and state[name].shape != wanted[name].shape
        ],
    }
    if any(problems.values()):
        raise UserError("the checkpoint does not fit this detector:" + _listing(problems))
    _check_anchors(wanted, state)
    return {name: state[name] for name in wanted}


def _longest_suffix(name: str, candidates: list[str]) -> str | None:
    """The longest candidate that ends `name` after a dot; two of one length cannot both do so."""
    return max((c for c in candidates if name.endswith("." + c)), key=len, default=None)


def _used_twice(source: Mapping[str, str]) -> dict[str, list[str]]:
    """Checkpoint names that more than one module claims, apart from the two names of layer4."""
    users: dict[str, set[str]] = {}
    for name, other in source.items():
        users.setdefault(other, set()).add(name.replace(ATTRIBUTE_LAYER4, BOX_LAYER4))
    shared = {other: names for other, names in users.items() if len(names) > 1}
    return {
        "ambiguous": [f"{other} fits {', '.join(sorted(names)[:SHOWN])}" for other, names in shared.items()]
    }


def _alias_layer4(wanted: Mapping[str, Tensor], state: dict[str, Tensor]) -> None:
    """Let both names of layer4 hold one tensor."""
    for name in wanted:
        if name.startswith(ATTRIBUTE_LAYER4):
            box_name = BOX_LAYER4 + name.removeprefix(ATTRIBUTE_LAYER4)
            tensor = state.get(name, state.get(box_name))
            if tensor is not None:
                state[name] = state[box_name] = tensor


def _check_anchors(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    if ANCHORS in wanted and not torch.equal(wanted[ANCHORS], state[ANCHORS].to(wanted[ANCHORS].dtype)):
        raise UserError(
            f"the checkpoint's {ANCHORS} differs from the anchors of this config, so its boxes would be "
            f"wrong: {state[ANCHORS].tolist()}"
        )


def _listing(problems: Mapping[str, list[str]]) -> str:
    text = ""
    for kind, names in problems.items():
        if names:
            more = f" ... and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            text += f"\n  {len(names)} {kind}: " + ", ".join(names[:SHOWN]) + more
    return text


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object, not {type(content).__name__}")
    return content


def config_of(checkpoint: Path) -> VinvlConfig:
    """The sizes in the JSON beside a checkpoint; true size without one."""
    path = checkpoint.with_suffix(".json")
    return VinvlConfig.from_json(_read_json(path).get("config", {})) if path.is_file() else VinvlConfig()


def labelmap_of(checkpoint: Path) -> Path | None:
    """The JSON beside a checkpoint if it names labels, else the official label map if that is there."""
    beside = checkpoint.with_suffix(".json")
    if beside.is_file() and "label_to_idx" in _read_json(beside):
        return beside
    official = checkpoint.with_name(LABELMAP)
    return official if official.is_file() else None


def read_labels(path: Path, table: str, count: int) -> list[str]:
    """Names 0..count-1 from a label map's `label_to_idx` or `attribute_to_idx` (name -> number).

    Numbers may be strings. Index 0 (background, no attribute) need not be in the file. Raises UserError
    when the table is absent, malformed, has gaps, names one number twice or is of another length.
    """
    numbered = _read_json(path).get(table)
    try:
        pairs = [(int(index), str(name)) for name, index in numbered.items()]  # type: ignore[union-attr]
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{path} must hold {table}, an object of names and their numbers") from None
    names = dict(pairs) | {0: "__background__" if table == "label_to_idx" else "__no_attribute__"}
    if sorted(names) != list(range(count)) or len(dict(pairs)) < len(pairs):
        raise UserError(
            f"{table} of {path} must number 1 to {count - 1}, each once; it has {len(pairs)} entries up to "
            f"{max(names)}. The detector and its label map do not belong together"
        )
    return [names[i] for i in range(count)]


def save_weights(
    path: Path, state: Mapping[str, Tensor], config: dict[str, Any], labels: list[str], attributes: list[str]
) -> None:
    """Write PATH.safetensors (float16, layer4 once) and its JSON: sizes and the label map's tables."""
    from safetensors.torch import save

    kept = {
        name: tensor.to(torch.float16).contiguous().cpu()
        for name, tensor in state.items()
        if not name.startswith(ATTRIBUTE_LAYER4) and name != ANCHORS
    }
    write_bytes(path.with_suffix(".safetensors"), save(kept))
    tables: dict[str, Any] = {
        "config": config,
        "label_to_idx": {name: i for i, name in enumerate(labels) if i},
        "attribute_to_idx": {name: i for i, name in enumerate(attributes) if i},
    }
    write_json(path.with_suffix(".json"), tables)
