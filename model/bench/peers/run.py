"""`bench peers`: what is here beside what a user would take instead, on the same work, in one run.

Each row prepares both sides, compares their results, and only then lets them take turns: ratios of neighbours
in time, so that what else the machine does falls on both. Threads are as many on both sides.
"""

import contextlib
import dataclasses
import datetime
import functools
import importlib.metadata
import importlib.util
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model.bench.peers.isolated import Effort, Found, measure
from model.bench.peers.pair import Job
from model.bench.peers.rows import ROWS, Row, preparation
from model.bench.rounding import significant
from pipeline.backbones.params import BackbonesParams
from pipeline.common.errors import UserError
from pipeline.common.machine import device_name
from pipeline.common.params import ParamsFile, load_params
from pipeline.common.progress import waiting

LIMIT = 1200.0
"""Seconds for a row, on two quiet cores at most two thirds of it."""
QUIET = 0.5
"""Load a core below which a machine counts as quiet."""


def run(params_file: ParamsFile, only: Sequence[str] = (), limit: float | None = None) -> dict[str, Any]:
    """Every row, or those named.

    Args:
        params_file: as every command takes it; says the device, and has the tokenizer.
        only: names of `rows.ROWS`; none for all.
        limit: seconds for each row; None for `LIMIT`.

    Returns:
        ``machine`` (device, cores, load at the start, date, versions) and ``rows``, by name: see `row`.
    """
    effort = Effort(limit=limit or LIMIT)
    backbones = load_params(params_file, "backbones", BackbonesParams)
    names = [name for name in ROWS if not only or name in only]
    with waiting("bench peers", "loading PyTorch"):
        found = {"machine": machine(backbones.torch_device())}
    rows = {}
    for number, name in enumerate(names, 1):
        job = Job(Path(), backbones.torch_device(), Path(backbones.language_model).absolute())
        rows[name] = _measured(name, f"{number}/{len(names)} {name}", job, effort)
        print(f"bench peers: {name}: {outcome(rows[name])}", file=sys.stderr, flush=True)
    return found | {"rows": rows}


def _measured(name: str, words: str, job: Job, effort: Effort) -> dict[str, Any]:
    """One row, or that its peer is not there."""
    one = ROWS[name]
    if one.module and importlib.util.find_spec(one.module) is None:
        return {**about(one), "left_out": f"{one.distribution} is not installed: {one.install}"}
    words = f"{words}: {one.ours} beside {one.peer}, at most {effort.limit:.0f} s"
    with (
        waiting("bench peers", words),
        tempfile.TemporaryDirectory(prefix="emosem-peers-", ignore_cleanup_errors=True) as folder,
    ):
        job = dataclasses.replace(job, folder=Path(folder))
        return row(one, measure(functools.partial(preparation, name), job, effort), effort)


def outcome(values: dict[str, Any]) -> str:
    """A row in a few words, when it is done."""
    words = [values[key] for key in ("problem", "left_out") if key in values]
    if "ratio" in values:
        low, high = values["ratio_spread"]
        words.insert(
            0, f"{values['ratio']} times as fast ({low} to {high}), {values['cpu_ratio']} by processor time"
        )
    return "; ".join(words)


def chosen(only: Sequence[str]) -> list[str]:
    """Rows by name, several with commas between them. Raises `UserError` for a name of no row."""
    names = [name.strip() for some in only for name in some.split(",")]
    if unknown := [name for name in names if name not in ROWS]:
        raise UserError(f"--only {unknown[0]}: no such row; there are {', '.join(ROWS)}")
    return names


def machine(device: str) -> dict[str, Any]:
    """Where and when."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "device": device_name(device),
        "cores": cores,
        "load": load and round(load, 2),
        "quiet": load is not None and load < QUIET * (cores or 1),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "torch": importlib.metadata.version("torch"),
    }


def about(one: Row) -> dict[str, Any]:
    """What both sides are."""
    version = {}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
        version = {"version": f"{one.distribution} {importlib.metadata.version(one.distribution)}"}
    return {"ours": one.ours, "peer": one.peer, **version}


def row(one: Row, found: Found, effort: Effort) -> dict[str, Any]:
    """What a row says.

    Returns:
        ``ours``, ``peer``, its ``version``, ``work``, ``agreement``, ``threads``; ``turns``; ``ratio`` of
        seconds, theirs to ours, above 1 where we are faster, the median over turns, and ``ratio_spread``, the
        smallest and largest; the same of processor time, ``cpu_ratio`` and ``cpu_ratio_spread``;
        ``ours_per_second`` and ``peer_per_second`` of ``unit``. With too few turns also ``problem``.
    """
    values = {**about(one), **{k: v for k, v in found.about.items() if k != "items"}}
    values["turns"] = len(found.turns)
    if found.turns:
        for name, which in (("ratio", "wall"), ("cpu_ratio", "cpu")):
            values |= _ratios(name, [_ratio(turn, which) for turn in found.turns])
        for name, side in (("ours_per_second", "ours"), ("peer_per_second", "theirs")):
            seconds = statistics.median(getattr(turn, side).wall for turn in found.turns)
            values[name] = significant(found.about["items"] / seconds, 3)
    if found.problem:
        few = f", after {len(found.turns)} of {effort.least} turns" if found.about else ""
        if len(found.turns) < effort.least:
            values["problem"] = found.problem + few
    return values


def _ratio(turn: Any, which: str) -> float:
    return getattr(turn.theirs, which) / max(getattr(turn.ours, which), 1e-9)


def _ratios(name: str, values: Sequence[float]) -> dict[str, Any]:
    spread = [significant(end, 3) for end in (min(values), max(values))]
    return {name: significant(statistics.median(values), 3), f"{name}_spread": spread}


def failed(found: dict[str, Any]) -> bool:
    """Whether a row that was tried has no, or too few, timings."""
    return any("problem" in one for one in found["rows"].values())
