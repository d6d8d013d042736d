"""What stands in the way of a new params file, and what its run will take: `doctor`, then `plan`."""

import dataclasses
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.common.errors import RunFailed, UserError
from pipeline.doctor.examine import examine, failed, findings_text
from pipeline.doctor.finding import Finding
from pipeline.plan.plan import TrainPlan, make_plan, plan_text

FETCH = re.compile(r"cli\.py fetch ([\w-]+) --params")
"""The command in a finding's way out."""


def follow_up(file: Path, java: Callable[[], Path], train: TrainPlan | None) -> tuple[dict[str, Any], str]:
    """Examine a params file and plan its run.

    What was found is said on stderr at once, for the plan takes longer. Returns both as JSON-ready values,
    and the text that is left to say. `java`, `train`: as `examine` and `make_plan` take them.
    """
    print(f"doctor of {file}:", file=sys.stderr, flush=True)
    findings = examine(file, java)
    print(
        f"{findings_text(findings)}\n\nplan of {file}, measured on a few artworks:",
        file=sys.stderr,
        flush=True,
    )
    values: dict[str, Any] = {"findings": [dataclasses.asdict(finding) for finding in findings], "plan": None}
    try:
        values["plan"] = make_plan(file, train)
        text = plan_text(values["plan"])
    except (UserError, RunFailed) as error:
        text = f"no plan yet: {error}"
    return values, "\n".join([text, "", "Next:", *_next(file, findings)])


def _next(file: Path, findings: Sequence[Finding]) -> list[str]:
    """The commands that bring what is missing, and the first step's."""
    steps = [f"python cli.py build-pseudo-masks --params {file}"]
    if not failed(findings):
        return steps
    names = dict.fromkeys(name for finding in findings for name in FETCH.findall(finding.way_out or ""))
    fetch = [f"python cli.py fetch {' '.join(names)} --params {file}"] if names else []
    tiny = ["(or, to try the steps without: init again, with --preset tiny --force)"] if names else []
    return [*fetch, *tiny, f"python cli.py doctor --params {file}   # until it says 0 fail", *steps]
