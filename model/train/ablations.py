"""The paper's ablations: where their data comes from, and a set of folders for each training seed.

Training reads shards, features and masks; scoring also what was said, and the EA classifier. Folders of steps
that another params file's run has made are linked; predictions and scores are the ablations' own, so neither
run disturbs the other. With several seeds, ``paths.data`` holds the data, and for each seed there are folders
``seed-0``, ``seed-1`` … of data, runs, metrics and report, and a params file of these folders: every command
works on it.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from pipeline.common.errors import UserError
from pipeline.common.fingerprint import as_json
from pipeline.common.links import link_text
from pipeline.common.params import STRICT, Params, Paths

NEEDED = ("utterances", "features", "masks", "shards", "alignment")
"""Steps whose folders are shared."""
WELCOME = ("gallery", "regions", "similarity", "baselines")
"""Shared where they are there."""
DataStep = Literal[
    "gallery", "utterances", "regions", "similarity", "features", "masks", "relabel", "shards", "alignment",
    "baselines",
]  # fmt: skip
EVERY_STEP: tuple[DataStep, ...] = DataStep.__args__  # type: ignore[attr-defined]
"""In the order of the data."""
DATA_STEPS: tuple[DataStep, ...] = tuple(step for step in EVERY_STEP if step != "relabel")
"""What makes data from nothing. `relabel` takes the place of `masks`, and needs another run's labels."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class AblationsParams:
    """Where the ablations get their data, and how often each of them is trained."""

    data: Path | None = Path("data")
    """Data folder of the run that made it; null: all of it is made here, by this file's own sections."""
    own: tuple[DataStep, ...] = ()
    """Steps that are made here, by this file's own sections, though `data` has them too."""
    seeds: tuple[int, ...] = ()
    """Values of train.seed that every variant is trained with; none: train.seed alone, in `paths` itself."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Trainings side by side, which share the cores."""
    beside: dict[str, Path] = Field(default_factory=dict)
    """Name -> data folder of another run of several seeds on the same items: a recipe to compare with."""

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} has one twice: it would count as two trainings")
        if "relabel" in self.own and (self.data is None or "masks" in self.own):
            raise ValueError("own names relabel, which takes the place of masks and needs another run's data")

    @property
    def made_here(self) -> tuple[DataStep, ...]:
        """Steps that are not linked, in the order of the data."""
        return DATA_STEPS if self.data is None else tuple(step for step in EVERY_STEP if step in self.own)

    @property
    def folders_here(self) -> tuple[str, ...]:
        """Folders that the steps made here write to."""
        return tuple("masks" if step == "relabel" else step for step in self.made_here)


def share(paths: Paths, params: AblationsParams) -> None:
    """Link the steps of `params.data` that are not made here into `paths.data`.

    Raises `UserError` where a step has not run, or something else is in a link's place.
    """
    if params.data is not None:
        _check_shared(paths, params, params.data)
        _link(params.data, paths, (step for step in (*NEEDED, *WELCOME) if step not in params.folders_here))
    for step in params.folders_here:
        if paths.step(step).is_symlink():
            paths.step(step).unlink()  # of an earlier choice: the step would write into another run's data


def _check_shared(paths: Paths, params: AblationsParams, data: Path) -> None:
    linked = [step for step in NEEDED if step not in params.folders_here]
    if absent := [step for step in linked if not (data / step).is_dir()]:
        raise UserError(
            f"the ablations need {', '.join(str(data / step) for step in absent)}; run `dvc repro` "
            "first, or name another run's data folder in ablations.data"
        )
    if paths.data.resolve() == data.resolve():
        raise UserError(f"paths.data and ablations.data are both {data}; give the ablations their own")


def _link(data: Path, paths: Paths, steps: Iterable[str]) -> None:
    """Make `paths`' folders of these steps links to those of `data`. Raises `UserError`."""
    paths.data.mkdir(parents=True, exist_ok=True)
    for step in steps:
        source, link = data / step, paths.step(step)
        target = link_text(source, paths.data)
        if link.is_symlink():
            if source.is_dir() and str(link.readlink()) == target:
                continue  # never absent for a moment: another command may be reading through it
            link.unlink()
        elif link.exists():
            raise UserError(f"{link} is in the way: the ablations would link it to {source}. Remove it")
        if source.is_dir():
            link.symlink_to(target, target_is_directory=True)


def seed_paths(paths: Paths, seed: int) -> Paths:
    """The folders of one training seed, inside those of all."""
    inner = {name: getattr(paths, name) / f"seed-{seed}" for name in ("data", "runs", "metrics", "report")}
    return dataclasses.replace(paths, **inner)


def share_with_seed(paths: Paths, seed: int) -> None:
    """Link the data of `paths` into the folders of a seed. Raises `UserError`."""
    _link(paths.data, seed_paths(paths, seed), (*NEEDED, *WELCOME))


def sections_of_seed(read: Params, seed: int) -> dict[str, Any]:
    """All sections for one seed: its folders, its train.seed, and no ablations.

    Raises `UserError` where a variant has a seed of its own.
    """
    train = dict(read.sections.get("train") or {})
    for variant, changes in (train.get("variants") or {}).items():
        if "seed" in changes:
            raise UserError(
                f"{read.file}: train.variants.{variant}.seed would stand against ablations.seeds; remove one"
            )
    others = {name: values for name, values in read.sections.items() if name != "ablations"}
    paths = as_json(seed_paths(read.section("paths", Paths), seed))
    return {**others, "paths": paths, "train": {**train, "seed": seed}}
