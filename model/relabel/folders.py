"""The folders of two rounds: what is shared, and what must not be one. No torch, see `stages._ready`."""

import os
from pathlib import Path

from pipeline.common.errors import UserError
from pipeline.common.params import Paths

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
    """Link the steps that the new round shares with the finished one, where nothing is; those linked."""
    linked = []
    for step in LINKED:
        source, link = labels / step, paths.step(step)
        if source.is_dir() and not link.is_symlink() and not link.exists():
            paths.data.mkdir(parents=True, exist_ok=True)
            target = os.path.relpath(source.resolve(), paths.data.resolve())  # either may be a link itself
            link.symlink_to(target, target_is_directory=True)
            linked.append(step)
    return linked
