"""What every stage shares: reads its params, makes one library call, writes metrics/STEP.json.

A stage file is a `Stage` and a main guard, so that `python -m stages.X` (DVC) and `cli.py` (people) run the
same code on the same folders:

    STAGE = Stage("regions", RegionsParams, regions.build, (("backbones", BackbonesParams),))

    if __name__ == "__main__":
        STAGE.main()
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import storage
from pipeline.params import Paths, UserError, load_params


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
    variants: bool = False
    """Whether the call takes a VARIANT last; metrics then go to metrics/STEP/VARIANT.json."""

    def run(self, params_file: Path, variant: str | None = None) -> dict[str, Any]:
        """Run the stage; returns the metrics that it also wrote. Raises `UserError`."""
        paths = load_params(params_file, "paths", Paths)
        params = load_params(params_file, self.step, self.params)
        others = [load_params(params_file, name, cls) for name, cls in self.sections]
        start = time.monotonic()
        metrics = self.build(paths, params, *others, *([variant] if self.variants else []))
        metrics.setdefault("seconds", round(time.monotonic() - start, 1))
        name = f"{self.step}/{variant}" if self.variants else self.step
        storage.write_json(paths.metrics / f"{name}.json", metrics)
        shown = [f"{key} {value}" for key, value in metrics.items() if not isinstance(value, dict | list)]
        print(f"{name}: " + ", ".join(shown), file=sys.stderr)
        return metrics

    def main(self) -> None:
        """Command line ``python -m stages.STEP [VARIANT] [--params FILE]``; exits with 2 on `UserError`."""
        parser = argparse.ArgumentParser(prog=f"python -m stages.{self.step}")
        if self.variants:
            parser.add_argument("variant")
        parser.add_argument("--params", type=Path, default=Path("params.yaml"))
        arguments = parser.parse_args()
        try:
            self.run(arguments.params, getattr(arguments, "variant", None))
        except UserError as error:
            print(f"{self.step}: {error}", file=sys.stderr)
            raise SystemExit(2) from None
