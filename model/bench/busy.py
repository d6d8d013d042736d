"""Does a step of the factory leave others their share of this machine, and get its own?

Processes make artworks by the heaviest step: by our waiting policy and thread counts (`common.threads`), and
by what the libraries do without. Each is measured alone, with a second copy beside it, and beside as many
busy loops as there are cores (a stand-in for ``make -j``), with one worker and with two. All of them are
started and warm before the first turn, and take turns of seconds, so that other work on the machine, which
comes and goes, meets all alike: read the ratios.

A share that is fair: a machine that treats all threads alike gives C computing threads beside L busy loops
min(1, cores / (C + L)) of what they have alone.
"""

import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.bench.busy_crew import Crew, Pace, Probe
from model.bench.rounding import significant
from pipeline.common import threads
from pipeline.common.errors import UserError
from pipeline.common.machine import device_name
from pipeline.common.params import ParamsFile, read_params
from pipeline.common.progress import waiting
from pipeline.plan.plan import DETECTORS
from pipeline.plan.timing import Settings, by_artwork, time_steps
from pipeline.plan.workload import count

ROUNDS = 7
"""Turns of every setting in every situation."""
SECONDS = 3.0
"""Of a turn."""
ARTWORKS = 6
"""Of each process's shard; every process has the same ones, in a folder of its own."""
WORKERS = 2
"""Processes of a copy with several workers."""
COPIES = 2
"""Copies of the step at once."""
SPLIT_STEPS = ("regions", "similarity", "features")
"""Steps by which one process with all threads is compared with processes that divide them."""
GOALS = {"alone_against_defaults": 0.97, "two_at_once": 0.8, "fair_share": 0.8}
"""Least ratio of each kind that `bench` calls reached."""
OURS = "from model.bench.busy_probe import main; import sys; main(*sys.argv[1:])"
DEFAULTS = f"import torch, cv2, pyarrow; cv2.getNumThreads(); {OURS}"
"""What is imported before this package reads the environment as the user left it."""
SETTINGS = {
    "one_worker": (OURS, 1),
    "one_worker_defaults": (DEFAULTS, 1),
    "workers": (OURS, WORKERS),
    "workers_defaults": (DEFAULTS, WORKERS),
}
"""Setting -> what its processes run, and how many a copy has."""


def run(params_file: ParamsFile) -> dict[str, Any]:
    """Ratios of throughput with their spread, and the rates that they are of.

    Variables for threads that the user has set are left out: this is about what is set without them.

    Args:
        params_file: as every command takes it. Its pictures and weights are read; results go to a temporary
            folder.

    Raises:
        UserError: no csv, no picture, or a step that cannot run, for example for want of weights.
        RunFailed: a process ended while it was measured.
    """
    settings = Settings.load(params_file)
    step = "regions" if settings.regions.source in DETECTORS else "features"
    with tempfile.TemporaryDirectory(prefix="emosem-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        with waiting("bench busy", f"preparing {ARTWORKS} artworks for {COPIES * WORKERS} processes"):
            split_steps = _prepare(settings, folder, step)
        crews = _start(params_file, folder, step, split_steps, stack)
        found = measure(crews, step, split_steps, threads.cores())
    return {"device": device_name(settings.backbones.torch_device()), "cores": threads.cores(), **found}


def _prepare(settings: Settings, folder: Path, step: str) -> list[str]:
    """A folder of data for every process and step, and the steps that can run there. Raises as `run`."""
    counts = count(settings.paths, settings.utterances, ARTWORKS)
    works = by_artwork(counts.sample)[:ARTWORKS]
    if not works:
        raise UserError(f"no artwork of {settings.paths.artemis} has a picture in {settings.paths.wikiart}")
    timings = time_steps(settings, works, folder / "one", ("utterances", *SPLIT_STEPS))
    for name in ("utterances", step):
        if timings[name].problem:
            raise UserError(f"bench busy: the {name} step cannot run: {timings[name].problem}")
    for number in range(COPIES * WORKERS):
        for name in SPLIT_STEPS:
            shutil.copytree(folder / "one", folder / str(number) / name)
    return [name for name in SPLIT_STEPS if not timings[name].problem and (name != "regions" or name == step)]


def _start(
    params_file: ParamsFile, folder: Path, step: str, split_steps: Sequence[str], stack: contextlib.ExitStack
) -> dict[str, Crew]:
    """The processes of all settings, one after another, so that none warms up beside one that spins."""
    file = folder / "params.json"  # JSON is YAML; the user's own may be a pipe
    file.write_text(json.dumps(dict(read_params(params_file).sections)), encoding="utf-8")
    names = {*threads.WAITING, *threads.COUNTS, *threads.BLAS}
    plain = {name: value for name, value in os.environ.items() if name not in names}
    plain |= {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), plain.get("PYTHONPATH", "")])}
    crews = {}
    for name, (code, workers) in SETTINGS.items():
        ours = code == OURS
        environment = plain | (threads.for_workers(workers, plain) if ours and workers > 1 else {})
        copies = []
        for copy in range(COPIES):
            steps = [step, *split_steps] if ours and copy == 0 else [step]
            probes = []
            for worker in range(workers):
                data = folder / str(copy * WORKERS + worker)
                command = [sys.executable, "-c", code, str(file), str(data), *dict.fromkeys(steps)]
                log = folder / f"{name}-{copy}-{worker}.log"
                with waiting("bench busy", f"starting {name}, copy {copy + 1}, process {worker + 1}"):
                    probes.append(stack.enter_context(Probe(command, environment, log)))
            copies.append(probes)
        crews[name] = Crew(copies)
    return crews


SITUATIONS: dict[str, tuple[int, bool]] = {
    "alone": (1, False),
    "two_at_once": (COPIES, False),
    "beside_busy_loops": (1, True),
}
"""Situation -> copies, and whether busy loops run."""


def measure(crews: Mapping[str, Crew], step: str, split_steps: Sequence[str], cores: int) -> dict[str, Any]:
    """Take turns, every round in the other direction; returns what `run` does but for the machine.

    Args:
        crews: setting -> its processes; that of ``X_defaults`` is compared with that of ``X``.
        step: to measure in every situation.
        split_steps: on which ``workers`` are compared with ``one_worker``, alone.
        cores: of this machine; as many busy loops run, where there are any.
    """
    turns = [(setting, situation) for situation in SITUATIONS for setting in crews]
    further = [
        (setting, name) for name in split_steps if name != step for setting in ("one_worker", "workers")
    ]
    rounds: list[dict[tuple[str, str], Pace]] = []
    for number in range(ROUNDS):
        with waiting("bench busy", f"round {number + 1} of {ROUNDS}"):
            paces = {}
            for setting, what in (*turns, *further)[:: 1 if number % 2 == 0 else -1]:
                copies, beside = SITUATIONS.get(what, (1, False))
                asked = what if what in split_steps else step
                paces[setting, what] = crews[setting].turn(asked, SECONDS, copies, cores if beside else 0)
            rounds.append(paces)
    return {
        "step": step,
        "rounds": ROUNDS,
        "seconds_a_turn": SECONDS,
        "busy_loops": cores,
        "threads": {setting: crew.threads for setting, crew in crews.items()},
        "artworks_per_second": {
            setting: {what: _spread([paces[setting, what].rate for paces in rounds]) for what in SITUATIONS}
            for setting in crews
        },
        "cpu_seconds_per_artwork": {
            setting: {what: _spread([paces[setting, what].cpu for paces in rounds]) for what in SITUATIONS}
            for setting in crews
        },
        "ratios": {setting: _ratios(rounds, setting, crew, cores) for setting, crew in crews.items()},
        "workers_against_threads": {
            name: _split(rounds, "alone" if name == step else name) for name in split_steps
        },
    }


def _split(rounds: "Rounds", what: str) -> dict[str, Any]:
    """Workers that divide the cores, by one worker that has all of them."""
    cpu = [paces["workers", what].cpu / paces["one_worker", what].cpu for paces in rounds]
    return {
        "throughput": _ratio(rounds, ("workers", what), ("one_worker", what)),
        "cpu_seconds_per_artwork": _spread(cpu),
    }


def fair_share(computing: int, loops: int, cores: int) -> float:
    """What computing threads may have beside busy loops, as a part of what they have alone."""
    return min(1.0, cores / (computing + loops)) / min(1.0, cores / computing)


Rounds = Sequence[Mapping[tuple[str, str], Pace]]
"""Of each round: (setting, situation or step) -> what its turn gave."""


def _ratios(rounds: Rounds, setting: str, crew: Crew, cores: int) -> dict[str, Any]:
    share = fair_share(crew.threads, cores, cores)
    alone = (setting, "alone")
    found = {
        "two_at_once": _ratio(rounds, (setting, "two_at_once"), alone, goal=GOALS["two_at_once"]),
        "fair_share": _ratio(rounds, (setting, "beside_busy_loops"), alone, 1 / share, GOALS["fair_share"]),
    }
    for what in SITUATIONS if (f"{setting}_defaults", "alone") in rounds[0] else ():
        name = f"{what}_against_defaults"
        found[name] = _ratio(rounds, (setting, what), (f"{setting}_defaults", what), goal=GOALS.get(name))
    return found


def _ratio(
    rounds: Rounds,
    over: tuple[str, str],
    under: tuple[str, str],
    factor: float = 1.0,
    goal: float | None = None,
) -> dict[str, Any]:
    """Ratio of two rates within each round; one in which the second made nothing is left out."""
    found = _spread([factor * paces[over].rate / paces[under].rate for paces in rounds if paces[under].rate])
    return found if goal is None else found | {"goal": goal, "reached": found["median"] >= goal}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    if not values:
        return {"median": 0.0, "lowest": 0.0, "highest": 0.0, "rounds": 0}
    found = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
    return {name: significant(value, 3) for name, value in found.items()} | {"rounds": len(values)}
