"""What a check of `doctor` looks at and what it says."""

import contextlib
import dataclasses
import functools
import importlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pipeline.common.errors import UserError
from pipeline.common.params import Params, Paths, parse_section
from pipeline.common.sections import SECTIONS

Status = Literal["ok", "warn", "fail"]


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

    def __init__(self, params_file: Path, java: Callable[[], Path]) -> None:
        self.params_file = params_file
        self.find_java = java

    @functools.cached_property
    def params(self) -> Params:
        """The params file, read once. Raises `UserError`."""
        return Params.read(self.params_file)

    def parse(self, name: str) -> Any:
        """A section as its dataclass. Raises `UserError`, and whatever importing its module raises."""
        module, _, cls = SECTIONS[name].partition(":")
        kind = getattr(importlib.import_module(module), cls)
        return parse_section(self.params.sections.get(name), name, kind, str(self.params_file))

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
        from pipeline.regions.sources.choose import resolve_source

        with contextlib.redirect_stderr(io.StringIO()):
            return resolve_source(self.section("regions"), self.paths).source

    @functools.cached_property
    def plan(self) -> dict[str, Any]:
        """The plan without measured rates. Raises `NotChecked`."""
        from pipeline.plan.plan import make_plan

        try:
            with contextlib.redirect_stderr(io.StringIO()):
                return make_plan(self.params, measuring="never")
        except UserError as error:
            raise NotChecked(f"no plan can be made: {error}") from None


Check = Callable[[Context], Iterator[Finding]]
