"""`plan`: what a run will take, step by step, before anything heavy starts.

Items and bytes follow from the csv, the pictures' directory entries and the params. Times are measured: the
steps themselves run on a few artworks in a temporary folder (`sample_run`) on the device of the params.
"""

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
import pydantic
from pydantic import Field

from pipeline import apolo, features
from pipeline.counts import Counts, count
from pipeline.machine import device_name, filesystem, free_bytes, shown_bytes
from pipeline.parallel import read_sidecar
from pipeline.params import STRICT, Paths, UserError, load_params
from pipeline.progress import duration
from pipeline.regions import sources
from pipeline.sample_run import STEPS, Settings, Timing, measure
from pipeline.schema import shard_stem

DETECTORS = ("vinvl", "faster_rcnn", "sam")
"""Sources of regions that read the pictures."""
SUFFIX = {"regions": ".parquet", "similarity": ".parquet", "masks": ".tar", "features": ".tar"}
"""What a sharded step writes for a shard."""


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
    """Finished parts on disk. Whether they still fit today's params, the step itself checks."""
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


TrainPlan = Callable[[Path, Counts, Paths | None, int], list[StepPlan]]
"""Plans training, which lies outside this package: (params file, counts, where the shards of a few
artworks lie to measure on, features' bytes an artwork)."""


def make_plan(params_file: Path, train: TrainPlan | None = None, measured: bool = True) -> dict[str, Any]:
    """The plan of a params file, JSON-ready.

    Args:
        params_file: as every command takes it.
        train: adds the training steps, where given.
        measured: False leaves all rates out, and with them everything slow.

    Returns:
        ``device``, ``data`` (the counts), ``steps`` (fields of `StepPlan`, and ``hours_left``), ``disk`` (per
        file system what will be written and what is free), ``hours_left``.

    Raises:
        UserError: bad params, or no readable csv.
    """
    settings = Settings.load(params_file)
    params = load_params(params_file, "plan", PlanParams)
    counts = count(settings.paths, settings.utterances, params.artworks + 1 if measured else 0)
    with tempfile.TemporaryDirectory(prefix="emosem-plan-") as folder:
        timings, sample = measure(settings, counts.sample, Path(folder), params.artworks, params.seconds)
        steps = _factory(settings, counts, timings)
        if train is not None and measured:
            usable = sample if "shards" in timings and not timings["shards"].problem else None
            steps += train(params_file, counts, usable, _feature_bytes(settings, timings) or 0)
    data = dataclasses.asdict(counts)
    del data["sample"], data["per_shard"]
    hours = [step.hours * step.left for step in steps if step.hours is not None]
    return {
        "device": device_name(settings.backbones.torch_device()),
        "data": data,
        "steps": [
            dataclasses.asdict(step)
            | {"hours_left": None if step.hours is None else round(step.hours * step.left, 6)}
            for step in steps
        ],
        "disk": _disk(steps),
        "hours_left": round(sum(hours), 6),
        "unmeasured": [step.step for step in steps if step.hours is None],
    }


def _factory(settings: Settings, counts: Counts, timings: dict[str, Timing]) -> list[StepPlan]:
    """Every step up to the shards."""
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
    done_parts = finished(settings.paths, counts)
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
                problem="not measured" if timing is None else timing.problem,
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
        return features.bytes_per_artwork(settings.features, settings.backbones)
    except UserError:
        return None


def _region_bytes(settings: Settings, counts: Counts) -> int:
    """What the source of regions reads."""
    params = sources.resolve(settings.regions, settings.paths)
    if params.source in DETECTORS:
        return counts.picture_bytes
    if params.source == "apolo":
        folder = settings.paths.apolo / apolo.BOXES
        return sum(file.stat().st_size for file in folder.glob("*.npy")) if folder.is_dir() else 0
    return params.tsv.stat().st_size if params.tsv is not None and params.tsv.is_file() else 0


def finished(paths: Paths, counts: Counts) -> dict[str, tuple[int, int]]:
    """Step -> (finished parts, parts) on disk: shards, or 1.

    A shard counts as finished when its sidecar accounts for every artwork that today's csv puts there;
    whether it fits today's params too, only the step itself finds out.
    """
    said, works, rejects = (
        paths.step("utterances") / f"{name}.parquet" for name in ("utterances", "artworks", "rejects")
    )
    expected = counts.per_shard
    found = {"utterances": (0, 1)}
    if said.is_file() and works.is_file() and rejects.is_file():
        rows = pq.read_table(rejects, columns=["row", "source"]).to_pylist()
        lost = sum(row["row"] >= 0 and row["source"] == paths.artemis.name for row in rows)
        if pq.read_metadata(said).num_rows + lost == counts.rows:
            found["utterances"] = (1, 1)
            expected = Counter(pq.read_table(works, columns=["shard"])["shard"].to_pylist())
    for step, suffix in SUFFIX.items():
        out = paths.step(step)
        done = 0
        for shard, artworks in expected.items():
            sidecar = read_sidecar(out, shard) or {}
            whole = sidecar.get("kept", 0) + len(sidecar.get("rejects", ())) == artworks
            done += whole and (out / f"{shard_stem(shard)}{suffix}").is_file()
        found[step] = (done, max(len(expected), 1))
    index = paths.step("shards") / "index.parquet"
    tars = [tar for step in ("features", "masks") for tar in paths.step(step).glob("*.tar")]
    fresh = index.is_file() and all(tar.stat().st_mtime <= index.stat().st_mtime for tar in tars)
    whole = all(found[step][0] == found[step][1] for step in ("features", "masks"))
    return found | {"shards": (int(fresh and whole), 1)}


def _disk(steps: Sequence[StepPlan]) -> list[dict[str, Any]]:
    """Per file system: the folders written to, what is still to be written, what is free."""
    places: dict[int, list[StepPlan]] = {}
    for step in steps:
        places.setdefault(filesystem(Path(step.folder)), []).append(step)
    found = []
    for there in places.values():
        needed = sum(int((step.write_bytes or 0) * step.left) for step in there)
        free = free_bytes(Path(there[0].folder))
        folders = sorted({str(Path(step.folder).parent) for step in there})
        found.append({"folders": folders, "needed": needed, "free": free, "enough": needed < free})
    return found


def describe(plan: dict[str, Any]) -> str:
    """The plan as a table that a person reads."""
    data, steps = plan["data"], plan["steps"]
    lines = [
        f"{data['artworks']:,} artworks ({shown_bytes(data['picture_bytes'])} of pictures), "
        f"{data['missing_pictures']:,} without a picture; {data['rows']:,} csv rows, "
        f"{data['rows_rejected']:,} unusable; {data['utterances']:,} utterances of the eight emotions",
        f"one device: {plan['device']}",
        "",
        f"{'step':<18}{'items':>20}{'read':>9}{'write':>9}{'measured rate':>18}"
        f"{'time':>11}{'done':>10}{'left':>11}",
    ]
    lines += [_line(step) for step in steps]
    whole = sum(step["hours"] or 0 for step in steps)
    rest = f"; and {', '.join(plan['unmeasured'])}" if plan["unmeasured"] else ""
    lines += [
        "",
        f"in all {duration(3600 * whole)}, of which {duration(3600 * plan['hours_left'])} left{rest}",
    ]
    for place in plan["disk"]:
        lines.append(
            f"disk: {shown_bytes(place['needed'])} to be written in {', '.join(place['folders'])}, "
            f"{shown_bytes(place['free'])} free: {'enough' if place['enough'] else 'NOT ENOUGH'}"
        )
    if any(step["done"] for step in steps):
        lines.append("done: parts on disk for this csv; whether they fit today's params, each step checks")
    for problem in dict.fromkeys(step["problem"] for step in steps if step["problem"]):
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
