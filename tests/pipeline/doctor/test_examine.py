"""`doctor` as a whole: every defect is named with its way out, and none stops the other checks."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.metrics.text import find_java
from pipeline.doctor.examine import failed as failed_
from pipeline.doctor.examine import findings_text, run_check
from pipeline.doctor.finding import Context, Finding
from tests.imports import ROOT
from tests.worlds.checkout import examine, of


def test_a_healthy_folder_has_no_failure(checkout: Path) -> None:
    findings = examine()
    assert not failed_(findings), findings_text(findings)
    assert {"packages", "params", "artemis", "wikiart", "apolo", "sam", "clip", "vinvl", "java"} <= {
        finding.check for finding in findings
    }
    assert findings_text(findings).splitlines()[-1].startswith("0 fail")


def test_a_whole_folder_with_several_defects_names_them_all(checkout: Path) -> None:
    (checkout / "weights" / "clip.safetensors").unlink()
    (checkout / "weights" / "sam.safetensors").write_bytes(b"<html>quota exceeded</html>")
    shutil.rmtree(checkout / "gallery" / "apolo")
    (checkout / "gallery" / "artemis" / "artemis_dataset_release_v0.csv").write_text(
        "art_style,painting\nx,y\n"
    )
    findings = examine()
    failed = {finding.check for finding in findings if finding.status == "fail"}
    assert failed == {"artemis", "sam", "clip"}
    assert of("apolo", findings)[0].status == "warn"
    assert "lacks the column(s) emotion, utterance, repetition" in of("artemis", findings)[0].found
    assert of("device", findings)  # what comes later is still checked
    assert all(finding.way_out for finding in findings if finding.status != "ok" and finding.check != "java")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("utterances: {num_shards: 0}", "utterances.num_shards = 0"),
        ("utterences: {num_shards: 4}", "'utterences'"),
        ("regions: [1, 2]", "regions"),
        ("- a list", "must be a mapping"),
        ("a: [", "cannot be read"),
    ],
)
def test_bad_params_are_found_and_nothing_crashes(checkout: Path, text: str, word: str) -> None:
    Path("params.yaml").write_text(text)
    findings = examine()
    failed = [finding for finding in of("params", findings) if finding.status == "fail"]
    assert any(word in finding.found for finding in failed)
    assert not any("this check broke" in finding.found for finding in findings), findings_text(findings)
    if "utterences" in text:
        assert failed[0].way_out == "did you mean utterances?"


def test_params_that_do_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    findings = examine()
    assert failed_(findings)
    assert not any("this check broke" in finding.found for finding in findings)


def test_a_check_that_breaks_is_a_finding(checkout: Path) -> None:
    def broken(_context: Context) -> Iterator[Finding]:
        yield Finding("it", "ok", "first")
        raise ZeroDivisionError

    context = Context(Path("params.yaml"), find_java)
    found = list(run_check("it", broken, context))
    assert [finding.status for finding in found] == ["ok", "fail"]


def test_the_command_exits_with_1_and_prints_json(checkout: Path) -> None:
    (checkout / "weights" / "sam.safetensors").unlink()
    command = [sys.executable, str(ROOT / "cli.py"), "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    findings = json.loads(done.stdout)["findings"]
    assert done.returncode == 1
    assert [f["check"] for f in findings if f["status"] == "fail"] == ["sam"]
    assert "Traceback" not in done.stderr
