"""What stands in the way of a new params file, and what its run will take: `doctor`, then `plan`."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.common.errors import RunFailed, UserError
from pipeline.doctor.examine import examine, failed, findings_text
from pipeline.plan.plan import TrainPlan, make_plan, plan_text


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
    first = f"python cli.py build-pseudo-masks --params {file}"
    if failed(findings):
        ways = [finding.way_out for finding in findings if finding.status == "fail" and finding.way_out]
        again = f"python cli.py doctor --params {file}"
        first = "\n".join([*dict.fromkeys(ways), again, first])
    return values, f"{text}\n\nNext:\n{first}"
