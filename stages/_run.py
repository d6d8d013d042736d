"""What every stage shares: reads its params, makes one library call, writes metrics/STEP.json.

A stage file is a `Stage` and a main guard, so that `python -m stages.X` (DVC) and `cli.py` (people) run the
same code on the same folders:

    STAGE = Stage("regions", RegionsParams, regions.build, (("backbones", BackbonesParams),))

    if __name__ == "__main__":
        STAGE.main()
"""

import argparse
import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.common import command
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.files import write_json
from pipeline.common.lock import only_writer
from pipeline.common.params import Params, ParamsFile, Paths, read_params
from pipeline.common.progress import alive
from pipeline.common.tally import Tally, of_shards, tally_text

OF_THIS_RUN = ("seconds", "done", "skipped")
"""Numbers of what one call did, not of what stands there: shown, and kept out of the metrics file, so that a
call which finds its work done leaves that file as it was."""


def tally_artworks(step: str) -> Callable[[Paths, Mapping[str, Any]], Sequence[Tally]]:
    """The tally of a step that takes artworks, shard by shard."""
    return lambda paths, _: [of_shards(step, paths)]


def check_said(params: Params, section: str, keys: Sequence[str]) -> None:
    """Raise `UserError` where the file leaves one of these to a default, which would be a guess."""
    values = params.sections.get(section)
    if missing := [key for key in keys if not isinstance(values, dict) or key not in values]:
        named = ", ".join(f"{section}.{key}" for key in missing)
        raise UserError(f"{params.file} does not say {named}, and a default would be a guess; add it")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One DVC stage."""

    step: str
    """Its name, its params section, and the stem of its metrics file."""
    params: type[Any]
    """Dataclass of the section."""
    build: Callable[..., dict[str, Any]]
    """Library call ``build(paths, params, *others[, variant])``; returns what goes to metrics/STEP.json."""
    sections: tuple[tuple[str, type[Any]], ...] = ()
    """Other sections that the call takes after its own, (name, dataclass), in this order."""
    tally: Callable[[Paths, Mapping[str, Any]], Sequence[Tally]] | None = None
    """(Folders, what `build` returned) -> what was kept and left out, for the table on stderr."""
    unless: str | None = None
    """A section whose step takes this one's place: a params file that has it is refused."""
    says: tuple[str, ...] = ()
    """Keys of its section that a params file has to have, see `check_said`."""
    variants: bool = False
    """Whether the call takes a VARIANT last; metrics then go to metrics/STEP/VARIANT.json."""

    def read(
        self, params_file: ParamsFile, parallel: Mapping[str, Any] | None = None
    ) -> tuple[Paths, Any, dict[str, Any]]:
        """The folders, the stage's own section, and the other sections by name. Raises `UserError`.

        `parallel`: fields of that section that the command line has the last word on.
        """
        file = read_params(params_file)
        if self.unless in file.sections:
            raise UserError(
                f"{file.file} has a section {self.unless}: its {self.step} are that step's, and this one "
                f"would overwrite them. Run `python cli.py {self.unless} --params {file.file}`, or take the "
                "section out"
            )
        check_said(file, self.step, self.says)
        paths = file.section("paths", Paths)
        self._check_own(file, paths)
        changes = {"parallel": dict(parallel or {})}
        others = {name: file.section(name, cls, **changes.get(name, {})) for name, cls in self.sections}
        return paths, file.section(self.step, self.params), others

    def _check_own(self, file: Params, paths: Paths) -> None:
        """Raise `UserError` where this step's folder is a link to that of the run whose data are shared."""
        here = paths.step(self.step)
        for section, key in (("ablations", "data"), ("relabel", "labels")):
            values = file.sections.get(section)
            data = values.get(key) if isinstance(values, dict) else None
            if isinstance(data, str) and here.is_symlink():
                there = Path(data) / self.step
                if here.resolve() == there.resolve():
                    raise UserError(
                        f"{here} is a link to {there} ({section}.{key}): this step would write into that "
                        "run. Use that run's params file; or remove the link, and it is made here"
                    )

    def run(
        self, params_file: ParamsFile, variant: str | None = None, parallel: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the stage; returns its metrics, those `OF_THIS_RUN` too. Raises `UserError`, `RunFailed`."""
        paths, params, others = self.read(params_file, parallel)
        name = f"{self.step}/{variant}" if self.variants else self.step
        file = paths.metrics / f"{name}.json"
        start = time.monotonic()
        first = os.environ.get("RANK", "0") == "0"  # of a distributed run's processes, the one that writes
        held = only_writer(file) if first else contextlib.nullcontext()  # each build holds its own folder
        with held, alive(name) if first else contextlib.nullcontext():
            metrics = self.build(paths, params, *others.values(), *([variant] if self.variants else []))
            metrics.setdefault("seconds", round(time.monotonic() - start, 1))
            if first:
                write_json(file, {key: value for key, value in metrics.items() if key not in OF_THIS_RUN})
        shown = [f"{key} {value}" for key, value in metrics.items() if not isinstance(value, dict | list)]
        print(f"{name}: " + ", ".join(shown), file=sys.stderr)
        if first and self.tally is not None:
            print(tally_text(name, self.tally(paths, metrics)), file=sys.stderr)
        return metrics

    def main(self) -> None:
        """Command line ``python -m stages.STEP [VARIANT] [--params FILE]``.

        Exits with 2 on `UserError`, with 1 on `RunFailed`.
        """
        parser = argparse.ArgumentParser(prog=f"python -m stages.{self.step}")
        if self.variants:
            parser.add_argument("variant")
        parser.add_argument("--params", type=Path, default=Path("params.yaml"))
        command.main(lambda: self._run_whole(parser.parse_args()), self.step)

    def _run_whole(self, arguments: argparse.Namespace) -> None:
        with command.stdout_for_results():
            params = Params.read(arguments.params)
            self.run(params, getattr(arguments, "variant", None))
            if "DVC_STAGE" in os.environ:
                self._check_unedited(params)

    def _check_unedited(self, params: Params) -> None:
        """Raise `RunFailed` where DVC would note values beside results that were made with others.

        It reads the params when a stage has ended. Those of `parallel` it does not note.
        """
        now = Params.read(params.file)
        asked = {"paths", self.step, *(name for name, _ in self.sections)} - {"parallel"}
        changed = [name for name in sorted(asked) if now.sections.get(name) != params.sections.get(name)]
        if changed:
            raise RunFailed(
                f"{params.file} was edited while this ran ({', '.join(changed)}): the results are those of "
                "the values before, and DVC would note them as those of the values now. Run it again"
            )
