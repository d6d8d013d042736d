"""What stands in this folder, and what to do next: `emosem` without a command.

Only names, sidecars and dvc.lock are looked at, so that it answers at once; `dvc status` compares every byte.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from pipeline.common.params import Params, Paths

State = Literal["done", "partly", "stale", "to do"]
MARKS: Mapping[State, str] = {"done": "+", "partly": "~", "stale": "!", "to do": " "}
SHARDED = ("regions", "similarity", "masks", "features")
"""Steps that write a sidecar for each shard."""
TABLES = {
    "utterances": "artworks.parquet",
    "shards": "index.parquet",
    "alignment": "model.safetensors",
    "baselines": "rows.json",
}
"""Steps that are done with one file of their folder."""
VARIANTS = ["single", "multi", "no-prefix"]
"""Models where params name none, `TrainParams.variants`."""
FALLBACK = 8
"""Shards where params do not say, `UtterancesParams.num_shards`."""


@dataclass(frozen=True)
class StepStatus:
    """How far a step is."""

    step: str
    """Its name, of a trained model with the variant: train@single."""
    state: State
    detail: str


def status_text(params_file: Path) -> str:
    """The folder in a few lines. Raises `UserError` for params that cannot be read."""
    if not params_file.is_file():
        return f"no params file {params_file} in {Path.cwd()}\n\n" + _next_without_params()
    params = Params.read(params_file)
    steps = list(statuses(params))
    lines = [f"{params_file}, in {Path.cwd()}", *(f"  {line}" for line in _inputs(params)), ""]
    width = max(len(step.step) for step in steps)
    lines += [f"  {MARKS[step.state]} {step.step:<{width}}  {step.detail}".rstrip() for step in steps]
    return "\n".join([*lines, "", *_next(params_file, params, steps)])


def statuses(params: Params) -> Iterator[StepStatus]:
    """How far every step is, in the order of the data. Raises `UserError` for bad paths."""
    paths = params.section("paths", Paths)
    locked = _locked(Path("dvc.lock"))
    for step in _steps(params, paths):
        changed = _changed(locked.get(step.step, {}), params)
        if step.state == "done" and changed:
            yield StepStatus(step.step, "stale", f"{changed} changed in the params since it ran")
        else:
            yield step


def _steps(params: Params, paths: Paths) -> Iterator[StepStatus]:
    shards = _of(params, "utterances").get("num_shards", FALLBACK)
    yield _by_file("utterances", paths.step("utterances") / TABLES["utterances"])
    for step in SHARDED:
        done = sum(1 for _ in paths.step(step).glob("[0-9]*.json"))
        state: State = "done" if done == shards else "partly" if done else "to do"
        yield StepStatus(step, state, f"{done} of {shards} shards" if done else "to do")
    yield _by_file("shards", paths.step("shards") / TABLES["shards"])
    variants = _of(params, "train").get("variants")
    variants = list(map(str, variants)) if isinstance(variants, dict) else VARIANTS
    for variant in variants:
        yield _trained(variant, paths.runs / variant)
    for variant in variants:
        yield _by_file(f"predict@{variant}", paths.step("predict") / variant / "predictions.parquet")
    for step in ("alignment", "baselines"):
        yield _by_file(step, paths.step(step) / TABLES[step])
    yield _by_file("score", paths.metrics / "score.json")
    yield _by_file("report", paths.report / "index.html")


def _by_file(step: str, file: Path) -> StepStatus:
    return StepStatus(step, "done", str(file)) if file.is_file() else StepStatus(step, "to do", "to do")


def _trained(variant: str, run: Path) -> StepStatus:
    """A run has its config.json when it has ended, and a checkpoint before that."""
    name = f"train@{variant}"
    if (run / "config.json").is_file():
        return StepStatus(name, "done", str(run))
    if (run / "checkpoint").is_dir():
        return StepStatus(name, "partly", f"{run} has a checkpoint; the same command goes on")
    return StepStatus(name, "to do", "to do")


def _of(params: Params, section: str) -> dict[str, Any]:
    """A section as the file has it: values are not judged here."""
    found = params.sections.get(section)
    return found if isinstance(found, dict) else {}


def _locked(file: Path) -> dict[str, dict[str, Any]]:
    """Stage -> its params when DVC last ran it, by dotted name; nothing where DVC never ran."""
    try:
        read = yaml.load(file.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - safe
        return {
            name: {key: value for values in stage.get("params", {}).values() for key, value in values.items()}
            for name, stage in read["stages"].items()
        }
    except (OSError, ValueError, KeyError, AttributeError, TypeError, yaml.YAMLError):
        return {}


def _changed(noted: Mapping[str, Any], params: Params) -> str:
    """Names of the params whose values are others now."""
    return ", ".join(name for name, value in noted.items() if _value(params.sections, name) != value)


def _value(sections: Mapping[str, Any], name: str) -> Any:
    found: Any = sections
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _inputs(params: Params) -> Iterator[str]:
    paths = params.section("paths", Paths)
    for name, path in (("ArtEmis csv", paths.artemis), ("pictures", paths.wikiart), ("APOLO", paths.apolo)):
        yield f"{name:<12} {path}{'' if path.exists() else '  (missing)'}"
    drawn = paths.artemis.parents[1] / "gallery.json" if len(paths.artemis.parts) > 2 else None
    if drawn is not None and drawn.is_file():
        yield f"{'':<12} the built-in drawn gallery: its numbers are not the paper's"


def _next_without_params() -> str:
    return (
        "Next: go to a checkout of emosem, whose params.yaml is the built-in gallery; or\n"
        "`emosem init --images DIR` for pictures of your own; or give a command --params FILE.\n"
        "`emosem --help` lists the commands."
    )


def _next(file: Path, params: Params, steps: list[StepStatus]) -> Iterator[str]:
    """What to type."""
    own = "" if file == Path("params.yaml") else f" --params {file}"
    open_steps = [step for step in steps if step.state != "done"]
    paths = params.section("paths", Paths)
    if not open_steps:
        yield f"Next: open {paths.report / 'index.html'}, or try pictures of your own:"
        yield f"`emosem predict {paths.runs}/VARIANT PICTURE{own}`. `dvc status` compares every byte."
        return
    if "ablations" in params.sections:
        yield f"Next: `emosem ablations{own}` makes what is left, several trainings of each model where asked"
        yield "for, and goes on where it was stopped; with --tables it prints what is finished."
        return
    by_dvc = Path("dvc.yaml").is_file() and not own
    drawn_by_dvc = by_dvc and "gallery" in paths.artemis.parts
    if not paths.artemis.is_file() and not drawn_by_dvc and steps[0].state == "to do":
        yield f"Next: `emosem doctor{own}` says what is missing and where each file is published."
        return
    first = open_steps[0]
    if by_dvc:
        yield f"Next: `dvc repro` makes what is left, from {first.step} on; `emosem plan` says how long."
    else:
        step, _, variant = first.step.partition("@")
        command = f"python -m stages.{step}{f' {variant}' if variant else ''}{own}"
        yield f"Next: `{command}`; `emosem plan{own}` says how long a whole run takes."
