"""`doctor`: what stands in the way of a run, found before it starts, each with its way out.

Every check is on its own: one that breaks is a finding, and the others go on. Nothing heavy is imported
before the check that needs it, so that a broken installation can be examined too.
"""

import difflib
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pipeline.common.errors import UserError
from pipeline.common.sections import SECTIONS
from pipeline.doctor.finding import Check, Context, Finding, NotChecked


def examine(params_file: Path, java: Callable[[], Path]) -> list[Finding]:
    """Run every check.

    Args:
        params_file: as every command takes it; it may be missing or broken.
        java: gives a Java that runs, or raises `UserError`.
    """
    from pipeline.doctor import check_data, check_device, check_machine, check_weights

    context = Context(params_file, java)
    checks = {
        "packages": check_machine.packages,
        "params": params_are_valid,
        **check_data.CHECKS,
        **check_weights.CHECKS,
    }
    checks |= check_device.CHECKS | check_machine.CHECKS
    return [finding for name, check in checks.items() for finding in run_check(name, check, context)]


def run_check(name: str, check: Check, context: Context) -> Iterator[Finding]:
    """Yield a check's findings; whatever stops it is the last of them."""
    try:
        yield from check(context)
    except NotChecked as error:
        yield Finding(name, "warn", f"not checked: {error}", "fix that first")
    except UserError as error:
        yield Finding(name, "fail", str(error))
    except ImportError as error:
        yield Finding(name, "fail", f"a package is missing: {error}", "pip install -e '.[all]'")
    except Exception as error:  # broken input of a kind that nobody thought of must not hide the other checks
        yield Finding(name, "fail", f"this check broke: {error!r}", "please report it, with this line")


def params_are_valid(context: Context) -> Iterator[Finding]:
    """Every section of the params file, unknown ones included: a misspelt section would be ignored."""
    unknown = [name for name in context.params.sections if name not in SECTIONS]
    bad = 0
    for name in SECTIONS:
        for finding in run_check("params", functools.partial(_section, name=name), context):
            bad += finding.status == "fail"
            yield finding
    for section in unknown:
        near = difflib.get_close_matches(str(section), SECTIONS, n=1)
        way_out = f"did you mean {near[0]}?" if near else f"known are {', '.join(SECTIONS)}"
        yield Finding("params", "fail", f"nothing reads the section {section!r}", way_out)
    if not bad and not unknown:
        yield Finding(
            "params", "ok", f"{len(context.params.sections)} sections of {context.params_file} are valid"
        )


def _section(context: Context, name: str) -> Iterator[Finding]:
    context.parse(name)
    yield from ()


def failed(findings: Iterable[Finding]) -> bool:
    """Whether anything stands in the way."""
    return any(finding.status == "fail" for finding in findings)


def findings_text(findings: Iterable[Finding]) -> str:
    """One line a finding, and its way out below it."""
    lines = []
    counts = {"fail": 0, "warn": 0, "ok": 0}
    for finding in findings:
        counts[finding.status] += 1
        lines.append(f"{finding.status:<5} {finding.check:<15} {finding.found}")
        if finding.way_out:
            lines.append(f"{'':<22}→ {finding.way_out}")
    return "\n".join([*lines, ", ".join(f"{count} {status}" for status, count in counts.items())])
