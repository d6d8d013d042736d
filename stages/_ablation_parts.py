"""The parts of `ablations`, each a stage with a params file, and whether it is finished.

A finished part has a note with a digest of all that decides its result: params, weights, code and the sums of
the files that it reads. Stages that work shard by shard look themselves, and are always called.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from model.train.ablations import (
    AblationsParams,
    DataStep,
    sections_of_seed,
    seed_paths,
    share,
    share_with_seed,
)
from model.train.params import TrainParams
from pipeline.backbones.params import BackbonesParams
from pipeline.common.code import code_fingerprint
from pipeline.common.files import write_bytes
from pipeline.common.fingerprint import fingerprint, sha256_file
from pipeline.common.params import Params, Paths
from pipeline.common.sums import SUMS
from stages._children import Children

READS: dict[DataStep, tuple[str, ...]] = {
    "gallery": (),
    "alignment": ("utterances",),
    "baselines": ("utterances", "shards"),
}
"""Data steps that do not look themselves, and the steps whose files decide theirs."""


@dataclass(frozen=True)
class SeedRun:
    """What one training seed has: a params file, and the folders in it."""

    seed: int | None
    """None: the only one, which train.seed says."""
    params: Params
    paths: Paths

    @property
    def suffix(self) -> str:
        """Of a message, after what is meant."""
        return "" if self.seed is None else f", seed {self.seed}"


@dataclass(frozen=True)
class Part:
    """One stage with one params file."""

    name: str
    words: tuple[str, ...]
    """Module and arguments."""
    outputs: tuple[Path, ...] = ()
    digest: Callable[[], str] | None = None
    """Of all that decides its result, asked for before it begins and when it has ended; None: always run."""
    note: Path = Path()
    """File of the digest."""
    log: Path | None = None

    @property
    def finished(self) -> bool:
        """Whether it was finished with what decides it today."""
        try:
            noted = self.note.read_text(encoding="utf-8") if self.digest else None
        except OSError:
            return False
        return self.digest is not None and all(map(Path.exists, self.outputs)) and noted == self.digest()

    def run(self, children: Children, at_once: int) -> None:
        """Run it unless it is finished. Raises as `Children.run`."""
        if self.finished:
            return
        if self.digest:
            self.note.unlink(missing_ok=True)
        children.run(self.name, self.words, at_once, self.log)
        if self.digest:
            write_bytes(self.note, self.digest().encode())


class Ablations:
    """All parts of one params file. Raises `UserError` for what can be seen to be wrong in it."""

    def __init__(self, read: Params, variants: Sequence[str] = ()) -> None:
        self.read = read
        self.params = read.section("ablations", AblationsParams)
        self.paths = read.section("paths", Paths)
        train = read.section("train", TrainParams)
        self.variants = tuple(variants or train.variants)
        self.epochs = {variant: train.of(variant).epochs for variant in self.variants}
        self.backbones = read.section("backbones", BackbonesParams)
        self.seeds = [self._seed_run(seed) for seed in self.params.seeds or (None,)]

    def _seed_run(self, seed: int | None) -> SeedRun:
        if seed is None:
            return SeedRun(None, Params(self.paths.data / "params.yaml", self.read.sections), self.paths)
        paths = seed_paths(self.paths, seed)
        return SeedRun(seed, Params(paths.data / "params.yaml", sections_of_seed(self.read, seed)), paths)

    def link_data(self) -> None:
        """Link what is shared with another run. Raises `UserError`."""
        share(self.paths, self.params)
        write_params(self._data_file, self.read.sections)

    def link_seeds(self) -> None:
        """Link the data into every seed's folders, and write its params file. Raises `UserError`."""
        for one in self.seeds:
            if one.seed is not None:
                share_with_seed(self.paths, one.seed)
            write_params(one.params.file, one.params.sections)

    # ---- parts -------------------------------------------------------------------------------------

    @property
    def _data_file(self) -> Path:
        return self.paths.data / "params.yaml"

    def data_part(self, step: DataStep) -> Part:
        """A step of the data; what it prints goes to the screen."""
        words = (f"stages.{step}", "--params", str(self._data_file))
        if step not in READS:
            return Part(step, words)
        digest = functools.partial(self._data_digest, step)
        return Part(step, words, (self.paths.step(step),), digest, self.paths.data / "finished" / step)

    def variant_parts(self, one: SeedRun, variant: str) -> tuple[Part, Part]:
        """Training and prediction of a variant; what they print goes to one log."""

        def part(step: str, output: Path, digest: Callable[[SeedRun, str], str]) -> Part:
            return Part(
                f"{step} {variant}{one.suffix}",
                (f"stages.{step}", variant, "--params", str(one.params.file)),
                (output / SUMS,),
                functools.partial(digest, one, variant),
                one.paths.data / "finished" / f"{step}-{variant}",
                one.paths.data / "logs" / f"{variant}.log",
            )

        train = part("train", one.paths.runs / variant, self._train_digest)
        return train, part("predict", one.paths.step("predict") / variant, self._predict_digest)

    def score_part(self, one: SeedRun) -> Part:
        """Scores of all that a seed has predicted."""
        return Part(
            f"score{one.suffix}",
            ("stages.score", "--params", str(one.params.file)),
            (one.paths.metrics / "score.json", one.paths.step("score") / SUMS),
            functools.partial(self._score_digest, one),
            one.paths.data / "finished" / "score",
            one.paths.data / "logs" / "score.log",
        )

    # ---- what decides them -------------------------------------------------------------------------

    @functools.cached_property
    def _weights(self) -> list[Any]:
        """Of the backbones that parts with a note read."""
        parts = self.backbones
        return [digests(path) for path in (parts.sam.checkpoint, parts.clip.checkpoint, parts.language_model)]

    def _data_digest(self, step: DataStep) -> str:
        inputs = [sums(self.paths.step(name)) for name in READS[step]]
        return fingerprint(step, self.read.sections.get(step), code_fingerprint(f"stages.{step}"), inputs)

    def _train_digest(self, one: SeedRun, variant: str) -> str:
        values = one.params.section("train", TrainParams).of(variant)
        data = [sums(self.paths.step(step)) for step in ("utterances", "shards")]
        return fingerprint("train", values, self._weights, code_fingerprint("stages.train"), data)

    def _predict_digest(self, one: SeedRun, variant: str) -> str:
        values, code = one.params.sections.get("predict"), code_fingerprint("stages.predict")
        inputs = [sums(one.paths.runs / variant), sums(self.paths.step("shards")), self._items]
        return fingerprint("predict", values, code, inputs)

    def _score_digest(self, one: SeedRun) -> str:
        values, code = one.params.sections.get("score"), code_fingerprint("stages.score")
        steps = ("utterances", "shards", "alignment", "baselines")
        data = [sums(self.paths.step(step)) for step in steps] + [sums(one.paths.step("predict"))]
        return fingerprint("score", values, code, self._weights, data, self._items)

    @property
    def _items(self) -> list[Any]:
        return digests(self.paths.apolo / "apolo.json")


def sums(folder: Path) -> list[Any]:
    """Digests of the sums that steps left in a folder and below."""
    return [[file.relative_to(folder).as_posix(), sha256_file(file)] for file in sorted(folder.rglob(SUMS))]


def digests(path: Path) -> list[Any]:
    """Digests of a file, or of a folder's files; [] where there is none."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [[file.name, sha256_file(file)] for file in files if file.is_file()]


def write_params(file: Path, sections: Any) -> None:
    """Write a params file of these sections, unless it holds them."""
    head = "# Written by `ablations`: what its parts read. Every command takes it with --params.\n"
    data = (head + yaml.safe_dump(dict(sections), sort_keys=False, allow_unicode=True)).encode()
    if not file.is_file() or file.read_bytes() != data:
        write_bytes(file, data)
