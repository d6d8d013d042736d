"""The paper's ablations share the data of another params file's run, and write to a folder of their own.

Training reads shards, features and masks; scoring also what was said, and the EA classifier. Those folders
are links to the run's; predictions and scores are the ablations' own, so neither run disturbs the other.
"""

import os
from pathlib import Path

import pydantic

from pipeline.common.errors import UserError
from pipeline.common.params import STRICT, Paths

NEEDED = ("utterances", "features", "masks", "shards", "alignment")
"""Steps whose folders are shared."""
WELCOME = ("gallery", "regions", "similarity", "baselines")
"""Shared where they are there."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class AblationsParams:
    """Where the ablations get their data."""

    data: Path = Path("data")
    """Data folder of the run that made it."""


def share(paths: Paths, params: AblationsParams) -> None:
    """Link the shared steps of `params.data` into `paths.data`.

    Raises `UserError` where a step has not run, or something else is in a link's place.
    """
    if absent := [step for step in NEEDED if not (params.data / step).is_dir()]:
        raise UserError(
            f"the ablations need {', '.join(str(params.data / step) for step in absent)}; run `dvc repro` "
            "first, or name another run's data folder in ablations.data"
        )
    if paths.data.resolve() == params.data.resolve():
        raise UserError(f"paths.data and ablations.data are both {paths.data}; give the ablations their own")
    paths.data.mkdir(parents=True, exist_ok=True)
    for step in (*NEEDED, *WELCOME):
        source, link = params.data / step, paths.step(step)
        if link.is_symlink():
            link.unlink()
        elif link.exists():
            raise UserError(f"{link} is in the way: the ablations would link it to {source}. Remove it")
        if source.is_dir():
            link.symlink_to(os.path.relpath(source, paths.data), target_is_directory=True)
