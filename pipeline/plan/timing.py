"""The factory's own steps, timed on a few artworks in a temporary folder: how `plan` and `bench` measure.

The steps run as they always do (`build_X`), decode and write included. A step whose weights are missing is
replaced by made-up results of its usual size, so that the steps after it, and the bytes of all, can still be
measured.
"""

import contextlib
import csv
import dataclasses
import functools
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.backbones.decode_ahead import WAITED
from pipeline.backbones.params import BackbonesParams
from pipeline.common.files import write_bytes, write_parquet
from pipeline.common.params import ParamsFile, Paths, load_params
from pipeline.common.progress import duration, waiting
from pipeline.common.schema import REGIONS, SIMILARITY, shard_stem
from pipeline.common.tables import read_artworks, read_groups, read_regions
from pipeline.features.params import FeaturesParams
from pipeline.features.step import encode_shard
from pipeline.masks.recipe import MasksParams
from pipeline.masks.step import build_masks
from pipeline.parallel.map_shards import ParallelParams, map_shards
from pipeline.regions.params import RegionsParams
from pipeline.regions.step import build_regions
from pipeline.releases.artemis import COLUMNS, Annotation
from pipeline.releases.source import PLAIN
from pipeline.shards.step import ShardsParams, build_shards
from pipeline.similarity.params import SimilarityParams
from pipeline.similarity.step import build_similarity
from pipeline.utterances.params import UtterancesParams
from pipeline.utterances.step import build_utterances

STEPS = ("utterances", "regions", "similarity", "masks", "features", "shards")
"""In the order they run."""


NEEDS_FEATURES = "needs the features step, which could not run"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Every section of a params file that the factory's steps read."""

    paths: Paths
    backbones: BackbonesParams
    utterances: UtterancesParams
    regions: RegionsParams
    similarity: SimilarityParams
    features: FeaturesParams
    masks: MasksParams
    shards: ShardsParams
    parallel: ParallelParams

    @classmethod
    def load(cls, params_file: ParamsFile) -> "Settings":
        """Read the sections. Raises `UserError`."""
        sections: dict[str, Any] = {
            field.name: load_params(params_file, field.name, field.type)  # type: ignore[arg-type]
            for field in dataclasses.fields(cls)
        }
        return cls(**sections)


@dataclasses.dataclass(frozen=True)
class Timing:
    """One step on a few artworks."""

    artworks: int
    seconds: float
    waited: float
    """Of those, how long no decoded picture was ready."""
    written: int
    """Bytes in the step's folder."""
    problem: str = ""
    """Why the step could not run, or "". The bytes are then those of made-up results."""

    @property
    def rate(self) -> float | None:
        """Artworks a second; None when the step could not run."""
        return None if self.problem else self.artworks / max(self.seconds, 1e-9)


def by_artwork(rows: Sequence[Annotation]) -> list[list[Annotation]]:
    """Rows grouped by artwork, in the order of each one's first row."""
    groups: dict[tuple[str, str], list[Annotation]] = {}
    for row in rows:
        groups.setdefault((row.art_style, row.painting), []).append(row)
    return list(groups.values())


_Run = tuple[dict[str, Timing], Paths, float]
"""Timings, where the data lies, seconds."""


def measure(
    settings: Settings,
    rows: Sequence[Annotation],
    folder: Path,
    artworks: int,
    seconds: float,
    command: str = "plan",
) -> tuple[dict[str, Timing], Paths]:
    """Time the steps on as many artworks as the time allows.

    One artwork first, which loads the weights; then another, which says how many can be afforded; then those.

    Args:
        settings: as in the params file.
        rows: of the csv, of one artwork more than are to be timed.
        folder: an empty folder; it holds a folder a run afterwards.
        artworks: most to time.
        seconds: how long it may take, apart from the first two artworks.
        command: whose progress it is.

    Returns:
        The timings of the last run (of the first one, weights loaded in it, if even that took too long), and
        where it left its data. Without rows: no timings.
    """
    works = by_artwork(rows)
    if not works:
        return {}, settings.paths

    def run(chosen: Sequence[Sequence[Annotation]], name: str, told: str) -> _Run:
        paths = dataclasses.replace(settings.paths, data=folder / name)
        start = time.perf_counter()
        with waiting(command, f"timing {len(STEPS)} steps on {len(chosen)} artwork(s), {told}"):
            return time_steps(settings, chosen, paths.data), paths, time.perf_counter() - start

    rest = works[1:] or works
    timings, paths, spent = run(works[:1], "cold", "weights loaded in it")
    if spent < seconds:
        timings, paths, spent = run(rest[:1], "one", f"about {duration(spent)} or less")
        affordable = min(len(rest), artworks, int(seconds / spent))
        if affordable > 1:
            timings, paths, spent = run(
                rest[:affordable], "more", f"about {duration(affordable * spent)} or less"
            )
        if settings.backbones.torch_device() != "cpu" and spent < seconds / 2:
            # kernels were chosen for these shapes before
            timings, paths, _ = run(rest[:affordable], "again", f"about {duration(spent)}")
    return timings, paths


def time_steps(
    settings: Settings, works: Sequence[Sequence[Annotation]], folder: Path, steps: Sequence[str] = STEPS
) -> dict[str, Timing]:
    """Run steps on these artworks, in an empty folder.

    Args:
        settings: as in the params file; data goes to `folder` instead, in one shard, in this process.
        works: rows of the csv by artwork, see `by_artwork`.
        folder: holds the results afterwards, as `Paths.data` would.
        steps: which of `STEPS`, in that order, with those that they need.
    """
    run = _SampleRun(settings, works, folder)
    timings: dict[str, Timing] = {}
    for step in steps:
        if step == "shards" and timings["features"].problem:
            timings[step] = Timing(len(works), 0.0, 0.0, 0, problem=NEEDS_FEATURES)
        else:
            timings[step] = run.time(step)
    return timings


class _SampleRun:
    """The steps on a world of their own."""

    def __init__(self, settings: Settings, works: Sequence[Sequence[Annotation]], folder: Path) -> None:
        self.settings = settings
        self.works = works
        sources = folder / "sources"
        self.paths = dataclasses.replace(
            settings.paths, data=folder, artemis=sources / "artemis.csv", apolo=sources / "apolo"
        )
        _write_csv(self.paths.artemis, works)

    def time(self, step: str) -> Timing:
        """One step; whatever stops it becomes `Timing.problem`."""
        start, waited = time.perf_counter(), WAITED.seconds
        problem = ""
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # its progress is not the caller's
                self._build(step)
        except Exception as error:  # damaged weights raise anything; the other steps can still be measured
            problem = str(error) or repr(error)
        seconds, waited = time.perf_counter() - start, WAITED.seconds - waited
        if problem:
            self._make_up(step)
        files = self.paths.step(step).glob("**/*")
        written = sum(file.stat().st_size for file in files if file.is_file())
        return Timing(len(self.works), seconds, waited, written, problem)

    def _build(self, step: str) -> None:
        s, one = self.settings, ParallelParams()
        real = dataclasses.replace(self.paths, apolo=s.paths.apolo)
        alone = dataclasses.replace(
            s.utterances,
            **{field.name: getattr(PLAIN, field.name) for field in dataclasses.fields(PLAIN)},
            num_shards=1,
            rest_repetition=0,
            fractions=(1.0, 0.0, 0.0),
        )
        builds: dict[str, Callable[[], Any]] = {
            "utterances": lambda: build_utterances(self.paths, alone),
            "regions": lambda: build_regions(real, s.regions, s.backbones, one),
            "similarity": lambda: build_similarity(self.paths, s.similarity, s.backbones, one),
            "masks": lambda: build_masks(self.paths, s.masks, one),
            "features": self._features,
            "shards": lambda: build_shards(self.paths, s.shards),
        }
        builds[step]()

    def _features(self) -> None:
        """Not `build_features`, which measures a rate of its own first."""
        s = self.settings
        process = functools.partial(encode_shard, paths=self.paths, params=s.features, backbones=s.backbones)
        map_shards("features", self.paths.step("features"), {0: ""}, process, ParallelParams())

    def _make_up(self, step: str) -> None:
        """Regions or similarities out of thin air, where the real ones could not be computed."""
        if step not in ("regions", "similarity"):
            return
        try:
            works = read_artworks(self.paths, 0)
            rows, schema = (
                (self._boxes(works), REGIONS) if step == "regions" else (self._cosines(), SIMILARITY)
            )
        except Exception:  # no utterances either: there is nothing to make up for
            return
        path = self.paths.step(step) / f"{shard_stem(0)}.parquet"
        write_parquet(path, pa.Table.from_pylist(rows, schema=schema))

    def _boxes(self, works: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        count = self.settings.regions.max_detections
        rng = np.random.default_rng(0)
        rows = []
        for work in works:
            size = np.array([work["width"], work["height"]])
            corners = np.sort(rng.random((count, 2, 2)), axis=1) * size
            row = {"key": work["key"], "boxes": corners.reshape(count, 4).tolist(), "scores": [0.5] * count}
            rows.append(row | {"labels": ["made up"] * count, "source": "made up"})
        return rows

    def _cosines(self) -> list[dict[str, Any]]:
        rng = np.random.default_rng(0)
        counts = {key: len(found[0]) for key, found in read_regions(self.paths, 0).items()}
        return [
            {
                "key": key,
                "emotion": emotion,
                "artemis_ids": group["artemis_id"],
                "scores": rng.random(counts[key]),
            }
            for (key, emotion), group in read_groups(self.paths, 0).items()
            if key in counts
        ]


def _write_csv(path: Path, works: Sequence[Sequence[Annotation]]) -> None:
    """The artworks' rows as an ArtEmis csv, or as one of pictures that are named by their files."""
    rows = [row for work in works for row in work]
    columns = ("image", *COLUMNS[2:]) if any(row.image for row in rows) else COLUMNS
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([getattr(row, column) for column in columns] for row in rows)
    write_bytes(path, text.getvalue().encode())
