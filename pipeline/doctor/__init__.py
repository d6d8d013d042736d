"""`doctor`: what stands in the way of a run, found before it starts, each with its way out.

Every check is on its own: one that breaks is a finding, and the others go on. Nothing heavy is imported
before the check that needs it, so that a broken installation can be examined too.
"""

import contextlib
import dataclasses
import difflib
import functools
import importlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline.params import Paths, UserError, parse_section, read_sections

Status = Literal["ok", "warn", "fail"]
FACTORY_SECTIONS = {
    "paths": "pipeline.params:Paths",
    "backbones": "pipeline.backbones:BackbonesParams",
    "parallel": "pipeline.parallel:ParallelParams",
    "gallery": "pipeline.gallery:GalleryParams",
    "utterances": "pipeline.utterances:UtterancesParams",
    "regions": "pipeline.regions:RegionsParams",
    "similarity": "pipeline.similarity:SimilarityParams",
    "features": "pipeline.features:FeaturesParams",
    "masks": "pipeline.masks:MasksParams",
    "shards": "pipeline.shards:ShardsParams",
    "plan": "pipeline.plan:PlanParams",
}
"""Sections of a params file and the dataclass of each, as MODULE:CLASS. Training's come from the caller."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report."""

    check: str
    status: Status
    found: str
    way_out: str = ""


class NotChecked(Exception):  # noqa: N818 - no error: something else has to be mended first
    """A check whose input another check already complains about."""


class Context:
    """What the checks look at."""

    def __init__(self, params_file: Path, sections: Mapping[str, str], java: Callable[[], Path]) -> None:
        self.params_file = params_file
        self.types = {**FACTORY_SECTIONS, **sections}
        self.find_java = java

    @functools.cached_property
    def raw(self) -> dict[str, Any]:
        """The params file as YAML gives it. Raises `UserError`."""
        return read_sections(self.params_file)

    def parse(self, name: str) -> Any:
        """A section as its dataclass. Raises `UserError`, and whatever importing its module raises."""
        module, _, cls = self.types[name].partition(":")
        kind = getattr(importlib.import_module(module), cls)
        return parse_section(self.raw.get(name), name, kind, str(self.params_file))

    def section(self, name: str) -> Any:
        """As `parse`, for checks of other things. Raises `NotChecked`."""
        try:
            return self.parse(name)
        except (UserError, ImportError) as error:
            raise NotChecked(f"section {name} cannot be read") from error

    @property
    def paths(self) -> Paths:
        """The section `paths`."""
        paths: Paths = self.section("paths")
        return paths

    @functools.cached_property
    def region_source(self) -> str:
        """Where regions come from, "auto" resolved (which says so on stderr: here the report does)."""
        from pipeline.regions import sources

        with contextlib.redirect_stderr(io.StringIO()):
            return sources.resolve(self.section("regions"), self.paths).source

    @functools.cached_property
    def plan(self) -> dict[str, Any]:
        """The plan without measured rates. Raises `NotChecked`."""
        from pipeline.plan import make_plan

        try:
            with contextlib.redirect_stderr(io.StringIO()):
                return make_plan(self.params_file, measured=False)
        except UserError as error:
            raise NotChecked(f"no plan can be made: {error}") from None


Check = Callable[[Context], Iterator[Finding]]


def examine(params_file: Path, sections: Mapping[str, str], java: Callable[[], Path]) -> list[Finding]:
    """Run every check.

    Args:
        params_file: as every command takes it; it may be missing or broken.
        sections: more sections of it, as `FACTORY_SECTIONS`.
        java: gives a Java that runs, or raises `UserError`.
    """
    from pipeline.doctor import data, device, machine, weights

    context = Context(params_file, sections, java)
    checks = {"packages": machine.packages, "params": params_are_valid, **data.CHECKS, **weights.CHECKS}
    checks |= device.CHECKS | machine.CHECKS
    return [finding for name, check in checks.items() for finding in run_check(name, check, context)]


def run_check(name: str, check: Check, context: Context) -> Iterator[Finding]:
    """Yield a check's findings; whatever stops it is the last of them."""
    try:
        yield from check(context)
    except NotChecked as error:
        yield Finding(name, "warn", f"not checked: {error}", "mend that first")
    except UserError as error:
        yield Finding(name, "fail", str(error))
    except ImportError as error:
        yield Finding(name, "fail", f"a package is missing: {error}", "pip install -e .")
    except Exception as error:  # broken input of a kind that nobody thought of must not hide the other checks
        yield Finding(name, "fail", f"this check broke: {error!r}", "please report it, with this line")


def params_are_valid(context: Context) -> Iterator[Finding]:
    """Every section of the params file, unknown ones included: a misspelt section would be ignored."""
    unknown = [name for name in context.raw if name not in context.types]
    bad = 0
    for name in context.types:
        for finding in run_check("params", functools.partial(_section, name=name), context):
            bad += finding.status == "fail"
            yield finding
    for section in unknown:
        near = difflib.get_close_matches(str(section), context.types, n=1)
        way_out = f"did you mean {near[0]}?" if near else f"known are {', '.join(context.types)}"
        yield Finding("params", "fail", f"nothing reads the section {section!r}", way_out)
    if not bad and not unknown:
        yield Finding("params", "ok", f"{len(context.raw)} sections of {context.params_file} are valid")


def _section(context: Context, name: str) -> Iterator[Finding]:
    context.parse(name)
    yield from ()


def failed(findings: Iterable[Finding]) -> bool:
    """Whether anything stands in the way."""
    return any(finding.status == "fail" for finding in findings)


def describe(findings: Iterable[Finding]) -> str:
    """One line a finding, and its way out below it."""
    lines = []
    counts = {"fail": 0, "warn": 0, "ok": 0}
    for finding in findings:
        counts[finding.status] += 1
        lines.append(f"{finding.status:<5} {finding.check:<15} {finding.found}")
        if finding.way_out:
            lines.append(f"{'':<22}→ {finding.way_out}")
    return "\n".join([*lines, ", ".join(f"{count} {status}" for status, count in counts.items())])
