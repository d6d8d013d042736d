"""The folders of two rounds: what is shared, and what must not be one. No torch, see `stages._ready`."""

import json
from collections.abc import Sequence
from pathlib import Path

from model.emosem.config import read_config
from model.relabel.params import RelabelParams
from pipeline.common.errors import UserError
from pipeline.common.links import link_text
from pipeline.common.params import Paths
from pipeline.common.protocol import THRESHOLD
from pipeline.reader.index import Index

LINKED = ("gallery", "utterances", "regions", "similarity", "features", "alignment", "baselines")
"""Steps that a round does not make anew: linked from the finished one where they are not there."""


def check_round(labels: Path) -> Path:
    """The index of a finished round. Raises `UserError` where there is none."""
    index = labels / "shards" / "index.parquet"
    if not index.is_file():
        raise UserError(
            f"relabel.labels is {labels}, which holds no finished round: {index} does not exist; name "
            "a data folder whose shards step has run"
        )
    return index


def check_students(runs: Sequence[Path]) -> None:
    """Raise `UserError` where one of these holds no trained model, or only half of one."""
    for run in runs:
        read_config(run)
        if not (file := run / "model.safetensors").is_file():
            raise UserError(f"{run} holds half a model: {file} does not exist; copy it, or train it again")


def check_scale(index: Index, params: RelabelParams) -> None:
    """Raise `UserError` where these labels are of `relabel`, and `label_threshold` is not theirs."""
    for key in index.table["key"].to_pylist()[:1]:
        card = json.loads(index.read(key, "masks/json"))
        if "relabel" in (card.get("lineage") or {}) and params.label_threshold != THRESHOLD:
            raise UserError(
                f"relabel.label_threshold is {params.label_threshold}, and the labels in {params.labels} are "
                f"those of an earlier round, whose foreground lies above {THRESHOLD}; set it to that"
            )


def check_folders(paths: Paths, labels: Path) -> None:
    """Raise `UserError` where the new labels would be written over those that they are made of."""
    for step in ("masks", "shards"):
        here, there = paths.step(step), labels / step
        if here.resolve() == there.resolve():
            raise UserError(
                f"{here} is the finished round's {there} (relabel.labels): the new labels would be written "
                "over those that they are made of. Give the new round a folder of its own in paths.data"
            )


def link_steps(paths: Paths, labels: Path) -> list[str]:
    """Link the steps that the new round shares with the finished one, where nothing is; those linked.

    Raises `UserError` where the round's folder is a file.
    """
    if paths.data.exists() and not paths.data.is_dir():
        raise UserError(f"paths.data is {paths.data}, which is no folder; give the round a folder of its own")
    linked = []
    for step in LINKED:
        source, link = labels / step, paths.step(step)
        if source.is_dir() and not link.is_symlink() and not link.exists():
            paths.data.mkdir(parents=True, exist_ok=True)
            link.symlink_to(link_text(source, paths.data), target_is_directory=True)
            linked.append(step)
    return linked
