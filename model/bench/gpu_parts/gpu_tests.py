"""The tests that need a GPU, run by pytest as a developer would."""

import subprocess
import sys
from pathlib import Path

from model.bench.gpu_parts.worker import Job, Rows

ROOT = Path(__file__).resolve().parents[3]
MARK = "pytest.mark.gpu"
OWN = "test_gpu.py"
"""Runs the parity parts once more, for those who have a GPU and run pytest alone."""


def gpu_tests(job: Job, rows: Rows) -> None:
    """Row ``pytest``: its exit code and last line. Only files with such a test are read, for the others may
    need packages that a borrowed machine lacks."""
    files = [
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        if file.name != OWN and MARK in file.read_text(encoding="utf-8")
    ]
    if not files:
        rows.add("pytest", {"problem": "there are no tests here; run it in a checkout"})
        return
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-o",
        "addopts=",
        "-p",
        "no:cacheprovider",
        "-rfEs",
    ]
    done = subprocess.run(  # noqa: S603 - our own tests
        [*command, *files], cwd=ROOT, capture_output=True, text=True, check=False, timeout=job.limit
    )
    print(done.stdout, done.stderr)
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""]
    values = {"files": len(files), "exit_code": done.returncode, "summary": lines[-1].strip("= ")}
    ran = " passed" in lines[-1] or not job.device.startswith("cuda")  # without a GPU they skip
    rows.add("pytest", {**values, "passed": done.returncode == 0 and ran})
