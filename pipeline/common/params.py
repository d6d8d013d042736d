"""`params.yaml`: one section per step, read into a frozen dataclass beside the code it configures.

A command reads its file once, as `Params`, and hands that on: a file that is edited meanwhile, or piped,
cannot give two steps of one command different numbers.
"""

import dataclasses
import difflib
import json
import os
import sys
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from pipeline.common.errors import UserError
from pipeline.common.plain_yaml import read_yaml
from pipeline.common.sections import SECTIONS

STRICT = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""Config of every params dataclass: unknown keys, values of the wrong type, NaN and infinity are refused."""
LONGEST_NAME = 255
"""Bytes of a file's or folder's name, for every common file system."""
LONGEST_PATH = 4095
"""Bytes of a path, for Linux."""
SHOWN = 80
"""Characters of a value in a message."""

T = TypeVar("T")


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class Paths:
    """Where the data lies. All relative to the folder the command runs in."""

    artemis: Path = Path("data/gallery/artemis/artemis_dataset_release_v0.csv")
    """The ArtEmis csv."""
    wikiart: Path = Path("data/gallery/wikiart")
    """Folder of ART_STYLE/PAINTING.jpg."""
    apolo: Path = Path("data/gallery/apolo")
    """The APOLO release: apolo.json, apolo_pixel_map/, and what else of it is there."""
    weights: Path = Path("weights/tiny")
    """Folder of the weights that `backbones` names: DVC watches all of it for regions, which needs one or
    another of them, or none."""
    data: Path = Path("data")
    """Every step writes to data/STEP/."""
    runs: Path = Path("runs")
    """Trained models, runs/VARIANT/."""
    metrics: Path = Path("metrics")
    """Counts and scores, metrics/STEP.json."""
    report: Path = Path("report")
    """The report page, report/index.html."""
    reviews: Path = Path("reviews")
    """What people think of pseudo-masks, reviews/NAME.jsonl; kept in git."""

    def step(self, name: str) -> Path:
        """Output folder of a step."""
        return self.data / name


@dataclasses.dataclass(frozen=True)
class Params:
    """A params file as it was when a command began."""

    file: Path
    """Where it was read from, for messages."""
    sections: Mapping[str, Any]
    """All sections as YAML gives them."""

    @classmethod
    def read(cls, file: Path) -> "Params":
        """Read a file, once. Raises `UserError` when it is missing, or holds what `read_yaml` refuses."""
        require_utf8()
        try:
            return cls(file, read_yaml(file, "params file"))
        except FileNotFoundError:
            raise UserError(f"params file {file} does not exist; name one with --params FILE") from None

    def section(self, name: str, cls: type[T], **changes: Any) -> T:
        """One section as its dataclass; an absent section means all defaults. `changes` have the last word.

        Raises `UserError` for bad values, and for sections that nothing reads, whichever is asked for.
        """
        if unknown := [key for key in self.sections if key not in SECTIONS]:
            near = difflib.get_close_matches(unknown[0], SECTIONS, n=1)
            way_out = f"did you mean {near[0]}?" if near else f"known are {', '.join(SECTIONS)}"
            listed = ", ".join(key[:SHOWN] for key in unknown[:5]) + ", …" * (len(unknown) > 5)
            raise UserError(f"{self.file}: nothing reads the section {listed}; {way_out}")
        values = self.sections.get(name)
        if changes and (values is None or isinstance(values, dict)):
            values = (values or {}) | changes
        return parse_section(values, name, cls, str(self.file))


ParamsFile = Path | Params
"""What names the params to a library call: the file, which is read at each call, or what was read of it."""


def read_params(params: ParamsFile) -> Params:
    """The params, read now unless they were before. Raises `UserError`."""
    return params if isinstance(params, Params) else Params.read(params)


def load_params(params: ParamsFile, section: str, cls: type[T]) -> T:
    """As `Params.section`."""
    return read_params(params).section(section, cls)


def parse_section(values: Any, section: str, cls: type[T], origin: str) -> T:
    """Build `cls` from one section's values; every error of the section in one `UserError`.

    Validated as JSON, so that lists become tuples and strings become paths while types stay strict.
    """
    adapter = pydantic.TypeAdapter(cls)
    try:
        parsed = adapter.validate_json(json.dumps({} if values is None else values))
    except pydantic.ValidationError as error:
        lines = [_problem(problem, section, cls) for problem in error.errors(include_url=False)]
    except TypeError as error:
        raise UserError(f"{origin}, section {section}: {error}") from None
    else:
        lines = [f"{where} = {_shown(value)}: {why}" for where, value, why in _bad_paths(parsed, section)]
        if not lines:
            return parsed
    raise UserError(f"{origin} has {len(lines)} bad value(s):\n" + "\n".join(f"  {line}" for line in lines))


def _problem(problem: Any, section: str, cls: type[Any]) -> str:
    """One of pydantic's errors as a line."""
    where = ".".join([section, *(str(part) for part in problem["loc"])])
    known = ""
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = f" ({_advice(str(problem['loc'][-1]), problem['loc'][:-1], cls)})"
    why = problem["msg"].removeprefix("Value error, ")
    return f"{where} = {_shown(problem['input'])}: {why}{known}"


def _advice(key: str, where: tuple[Any, ...], cls: type[Any]) -> str:
    """What an unknown key may have meant, or the keys that there are."""
    names = [field.name for field in dataclasses.fields(_at(cls, where))]
    near = difflib.get_close_matches(key, names, n=1)
    return f"did you mean {near[0]}?" if near else f"known keys: {', '.join(names)}"


def _at(cls: type[Any], where: tuple[Any, ...]) -> type[Any]:
    """The dataclass at a place below `cls`; the innermost that can be found."""
    for part in where:
        kind = typing.get_type_hints(cls, include_extras=True).get(str(part))
        kinds = (kind, *typing.get_args(kind))
        inner = next((k for k in kinds if isinstance(k, type) and dataclasses.is_dataclass(k)), None)
        if inner is None:
            break
        cls = inner
    return cls


def _bad_paths(value: Any, where: str) -> Iterator[tuple[str, Any, str]]:
    """Paths below a value that no step can use, or that two libraries would take for two places."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _bad_paths(getattr(value, field.name), f"{where}.{field.name}")
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _bad_paths(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _bad_paths(inner, f"{where}.{number}")
    elif isinstance(value, str | Path) and (why := _bad_path(value)):
        yield where, value, why


def _bad_path(value: str | Path) -> str | None:
    """What is wrong with a path, or with a text that may be one."""
    text = str(value)
    if text.startswith("~"):
        home = os.path.expanduser(text)  # noqa: PTH111 - pathlib's raises where there is no home
        return f"some read ~ as the home folder, others as a folder of that name, such as DVC; write {home}"
    if isinstance(value, str):
        return None
    if "\0" in text:
        return "a path has no NUL character"
    if any(len(part.encode()) > LONGEST_NAME for part in value.parts) or len(text.encode()) > LONGEST_PATH:
        return f"too long for a path: names may have {LONGEST_NAME} bytes, all of it {LONGEST_PATH}"
    return None


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, Path) else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def require_utf8() -> None:
    """Raise `UserError` where file names are not UTF-8: pictures with accents would be lost or garbled."""
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        raise UserError(
            f"Python takes file names for {encoding} here, and pictures have accents in their names; set "
            "PYTHONUTF8=1, or LC_ALL to a UTF-8 locale such as C.UTF-8"
        )
