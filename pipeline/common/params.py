"""`params.yaml`: one section per step, read into a frozen dataclass beside the code it configures."""

import dataclasses
import difflib
import json
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from pipeline.common.errors import UserError
from pipeline.common.sections import SECTIONS

STRICT = pydantic.ConfigDict(extra="forbid", strict=True)
"""Config of every params dataclass: unknown keys and values of the wrong type are refused."""

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

    def step(self, name: str) -> Path:
        """Output folder of a step."""
        return self.data / name


def read_sections(path: Path) -> dict[str, Any]:
    """All sections of a params file. Raises `UserError` when it is missing or no mapping."""
    try:
        sections = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"params file {path} does not exist; name one with --params FILE") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"params file {path} cannot be read: {error}") from None
    if not isinstance(sections, dict):
        raise UserError(f"params file {path} must be a mapping of sections, not {type(sections).__name__}")
    return sections


def parse_section(values: Any, section: str, cls: type[T], origin: str) -> T:
    """Build `cls` from one section's values; every error of the section in one `UserError`.

    Validated as JSON, so that lists become tuples and strings become paths while types stay strict.
    """
    adapter = pydantic.TypeAdapter(cls)
    try:
        return adapter.validate_json(json.dumps({} if values is None else values))
    except pydantic.ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            where = ".".join([section, *(str(part) for part in problem["loc"])])
            known = ""
            if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
                known = f" (known keys: {', '.join(f.name for f in dataclasses.fields(cls))})"  # type: ignore[arg-type]
            lines.append(f"  {where} = {problem['input']!r}: {problem['msg']}{known}")
        raise UserError(f"{origin} has {len(lines)} bad value(s):\n" + "\n".join(lines)) from None
    except TypeError as error:
        raise UserError(f"{origin}, section {section}: {error}") from None


def load_params(path: Path, section: str, cls: type[T]) -> T:
    """One section of a params file as its dataclass; an absent section means all defaults.

    Raises `UserError` for bad values, and for sections that nothing reads, whichever is asked for.
    """
    sections = read_sections(path)
    if unknown := [str(name) for name in sections if name not in SECTIONS]:
        near = difflib.get_close_matches(unknown[0], SECTIONS, n=1)
        way_out = f"did you mean {near[0]}?" if near else f"known are {', '.join(SECTIONS)}"
        raise UserError(f"{path}: nothing reads the section {', '.join(unknown)}; {way_out}")
    return parse_section(sections.get(section), section, cls, str(path))
