"""`plan`: what a run will take, step by step, before anything heavy starts.

Items and bytes follow from the csv, the pictures' directory entries and the params. Times are measured: the
steps themselves run on a few artworks in a temporary folder (`timing`) on the device of the params.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from pipeline.common.errors import UserError
from pipeline.common.machine import device_name, filesystem, free_bytes, shown_bytes
from pipeline.common.params import STRICT, ParamsFile, Paths, load_params
from pipeline.common.progress import duration, waiting
from pipeline.features.size_estimate import bytes_per_artwork
from pipeline.plan.finished import finished
from pipeline.plan.thread_counts import threads_of, threads_text
from pipeline.plan.timing import STEPS, Settings, Timing, measure
from pipeline.plan.workload import Counts, count
from pipeline.regions.sources.choose import resolve_source
from pipeline.releases import apolo_arrays

Measuring = Literal["needed", "always", "never"]
"""Whether rates are measured: "needed": when anything is left to do."""
NOTHING_LEFT = "nothing is left to do; `plan --measure` measures all the same"
DETECTORS = ("vinvl", "faster_rcnn", "sam")
"""Sources of regions that read the pictures."""


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class PlanParams:
    """How rates are measured."""

    artworks: Annotated[int, Field(ge=1)] = 16
    """Artworks measured on, as far as `seconds` go."""
    seconds: Annotated[float, Field(gt=0)] = 60.0
    """How long measuring may take; loading the weights, and the first two artworks, come on top."""


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """One step of the whole run."""

    step: str
    items: int
    unit: str
    """What the items are."""
    read_bytes: int
    write_bytes: int | None
    """None where that cannot be known yet."""
    done: int
    """Parts that today's run would keep, see `finished`."""
    parts: int
    """Shards of the step, or 1."""
    rate: float | None
    """`rate_unit` on this machine, measured; None where it could not be."""
    rate_unit: str
    measured_on: int
    """Items of `rate_unit` that the rate was measured on."""
    hours: float | None
    """Of one device, for the whole step, nothing done yet."""
    problem: str = ""
    """Why there is no rate."""
    folder: str = ""
    """Where it writes."""

    @property
    def left(self) -> float:
        """Share of the step that is still to do."""
        return 1 - min(self.done / self.parts, 1)

    @property
    def room(self) -> int:
        """Bytes that its folder will grow by, at least: what is made again takes the place of the old."""
        size = self.write_bytes or 0
        there = sum(file.stat().st_size for file in Path(self.folder).rglob("*") if file.is_file())
        return max(0, min(int(size * self.left), size - there))


TrainPlan = Callable[[ParamsFile, Counts, Paths | None, int], list[StepPlan]]
"""Plans training, which lies outside this package: (params file, counts, where the shards of a few
artworks lie to measure on, features' bytes an artwork)."""


def make_plan(
    params_file: ParamsFile, train: TrainPlan | None = None, measuring: Measuring = "needed"
) -> dict[str, Any]:
    """The plan of a params file, JSON-ready.

    Args:
        params_file: as every command takes it.
        train: adds the training steps, where given and rates may be measured.
        measuring: without it all rates are left out, and with them everything slow.

    Returns:
        ``device``, ``threads`` (see `threads_of`), ``data`` (the counts), ``steps`` (fields of `StepPlan`,
        and ``hours_left``), ``disk`` (per file system what will be written and what is free), ``hours_left``.

    Raises:
        UserError: bad params, or no readable csv.
    """
    settings = Settings.load(params_file)
    settings = dataclasses.replace(settings, regions=resolve_source(settings.regions, settings.paths))
    params = load_params(params_file, "plan", PlanParams)
    with waiting("plan", f"counting the rows of {settings.paths.artemis} and their pictures"):
        wanted = 0 if measuring == "never" else params.artworks + 1
        counts = count(settings.paths, settings.utterances, wanted)
        done = finished(settings, counts)
    trained = [] if train is None or measuring == "never" else train(params_file, counts, None, 0)
    left = any(there < parts for there, parts in done.values()) or any(step.left for step in trained)
    if measuring == "never" or (measuring == "needed" and not left):
        problem = NOTHING_LEFT if measuring == "needed" else "not measured"
        steps = _factory(settings, counts, done, {}, problem)
        steps += [dataclasses.replace(step, problem=problem) for step in trained]
    else:
        with tempfile.TemporaryDirectory(prefix="emosem-plan-") as folder:
            timings, sample = measure(settings, counts.sample, Path(folder), params.artworks, params.seconds)
            steps = _factory(settings, counts, done, timings)
            if train is not None:
                usable = sample if "shards" in timings and not timings["shards"].problem else None
                steps += train(params_file, counts, usable, _feature_bytes(settings, timings) or 0)
    data = dataclasses.asdict(counts)
    del data["sample"], data["per_shard"]
    hours = [step.hours * step.left for step in steps if step.hours is not None]
    return {
        "device": device_name(settings.backbones.torch_device()),
        "threads": threads_of(settings),
        "data": data,
        "steps": [dataclasses.asdict(step) | {"hours_left": _hours_left(step)} for step in steps],
        "disk": _disk(steps),
        "hours_left": round(sum(hours), 6),
        "unmeasured": [step.step for step in steps if step.hours is None],
    }


def _hours_left(step: StepPlan) -> float | None:
    if not step.left:
        return 0.0
    return None if step.hours is None else round(step.hours * step.left, 6)


def _factory(
    settings: Settings,
    counts: Counts,
    done_parts: dict[str, tuple[int, int]],
    timings: dict[str, Timing],
    unmeasured: str = "not measured",
) -> list[StepPlan]:
    """Every step up to the shards; `unmeasured`: the problem of those without a timing."""
    written = {step: _scaled(timings.get(step), counts.artworks) for step in STEPS}
    features_each = _feature_bytes(settings, timings)
    written["features"] = None if features_each is None else features_each * counts.artworks
    written["utterances"] = counts.csv_bytes + 128 * counts.artworks  # parquet is smaller than its csv
    known = {step: size or 0 for step, size in written.items()}
    regions = _region_bytes(settings, counts)
    read = {
        "utterances": counts.csv_bytes + counts.picture_bytes,
        "regions": regions,
        "similarity": counts.picture_bytes + known["regions"],
        "masks": known["regions"] + known["similarity"],
        "features": counts.picture_bytes,
        "shards": known["features"] + known["masks"],
    }
    items = {
        "utterances": (counts.rows, "rows"),
        "similarity": (counts.utterances, "utterances"),
        "masks": (counts.pairs, "masks"),
    }
    steps = []
    for step in STEPS:
        amount, unit = items.get(step, (counts.artworks, "artworks"))
        timing = timings.get(step)
        seconds = _seconds(step, timing, counts)
        done, parts = done_parts[step]
        steps.append(
            StepPlan(
                step=step,
                items=amount,
                unit=unit,
                read_bytes=read[step],
                write_bytes=written[step],
                done=done,
                parts=parts,
                rate=None if seconds is None else _digits(counts.artworks / max(seconds, 1e-9)),
                rate_unit="artworks/s",
                measured_on=timing.artworks if timing else 0,
                hours=None if seconds is None else seconds / 3600,
                problem=unmeasured if timing is None else timing.problem,
                folder=settings.paths.step(step).as_posix(),
            )
        )
    return steps


def _scaled(timing: Timing | None, artworks: int) -> int | None:
    return None if timing is None or not timing.written else timing.written * artworks // timing.artworks


def _digits(value: float) -> float:
    return float(f"{value:.3g}")


def _seconds(step: str, timing: Timing | None, counts: Counts) -> float | None:
    """Of a step over all artworks."""
    if timing is None or timing.rate is None:
        return None
    reading = counts.csv_seconds if step == "utterances" else 0.0
    return reading + counts.artworks / timing.rate


def _feature_bytes(settings: Settings, timings: dict[str, Timing]) -> int | None:
    """Of one artwork: what the step wrote a moment ago, else what the encoders' sizes say."""
    timing = timings.get("features")
    if timing is not None and not timing.problem:
        return timing.written // timing.artworks
    try:
        return bytes_per_artwork(settings.features, settings.backbones)
    except UserError:
        return None


def _region_bytes(settings: Settings, counts: Counts) -> int:
    """What the source of regions reads."""
    params = settings.regions
    if params.source in DETECTORS:
        return counts.picture_bytes
    if params.source == "apolo":
        folder = settings.paths.apolo / apolo_arrays.BOXES
        return sum(file.stat().st_size for file in folder.glob("*.npy")) if folder.is_dir() else 0
    return params.tsv.stat().st_size if params.tsv is not None and params.tsv.is_file() else 0


def _disk(steps: Sequence[StepPlan]) -> list[dict[str, Any]]:
    """Per file system: the folders written to, how much they will grow, what is free."""
    places: dict[int, list[StepPlan]] = {}
    for step in steps:
        places.setdefault(filesystem(Path(step.folder)), []).append(step)
    found = []
    for there in places.values():
        needed = sum(step.room for step in there)
        free = free_bytes(Path(there[0].folder))
        folders = sorted({str(Path(step.folder).parent) for step in there})
        found.append({"folders": folders, "needed": needed, "free": free, "enough": needed < free})
    return found


def plan_text(plan: dict[str, Any]) -> str:
    """The plan as a table that a person reads."""
    data, steps = plan["data"], plan["steps"]
    lines = [
        f"{data['artworks']:,} artworks ({shown_bytes(data['picture_bytes'])} of pictures), "
        f"{data['missing_pictures']:,} without a picture; {data['rows']:,} csv rows, "
        f"{data['rows_rejected']:,} unusable; {data['utterances']:,} utterances of the eight emotions",
        f"one device: {plan['device']}",
        *threads_text(plan["threads"]),
        "",
        f"{'step':<18}{'items':>20}{'read':>9}{'write':>9}{'measured rate':>18}"
        f"{'time':>11}{'done':>10}{'left':>11}",
    ]
    lines += [_line(step) for step in steps]
    whole = sum(step["hours"] or 0 for step in steps)
    rest = f"; and {', '.join(plan['unmeasured'])}" if plan["unmeasured"] else ""
    in_all = f"in all {duration(3600 * whole)}, of which {duration(3600 * plan['hours_left'])} left{rest}"
    problems = list(dict.fromkeys(step["problem"] for step in steps if step["problem"]))
    lines += ["", NOTHING_LEFT if problems == [NOTHING_LEFT] else in_all]
    for place in plan["disk"]:
        lines.append(
            f"disk: {shown_bytes(place['needed'])} more for {', '.join(place['folders'])}, "
            f"{shown_bytes(place['free'])} free: {'enough' if place['enough'] else 'NOT ENOUGH'}"
        )
    if any(step["done"] for step in steps):
        lines.append(
            "done: shards made, with all that they are made from, by today's params, weights, code and data; "
            "of utterances, shards and train only that they are there for this data"
        )
    for problem in problems if problems != [NOTHING_LEFT] else []:
        names = ", ".join(step["step"] for step in steps if step["problem"] == problem)
        lines.append(f"not measured: {names}: {problem}")
    return "\n".join(lines)


def _line(step: dict[str, Any]) -> str:
    rate = "unknown" if step["rate"] is None else f"{step['rate']:,g} {step['rate_unit']}"
    size = "unknown" if step["write_bytes"] is None else shown_bytes(step["write_bytes"])
    whole, left = (
        "unknown" if step[name] is None else duration(3600 * step[name]) for name in ("hours", "hours_left")
    )
    items = f"{step['items']:>9,} {step['unit']:<10}"
    done = f"{step['done']}/{step['parts']}"
    return (
        f"{step['step']:<18}{items}{shown_bytes(step['read_bytes']):>9}{size:>9}{rate:>18}{whole:>11}"
        f"{done:>10}{left:>11}"
    )
