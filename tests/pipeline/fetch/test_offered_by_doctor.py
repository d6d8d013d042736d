"""`doctor` names a command that exists for every file that is not there."""

import re
from pathlib import Path

import pytest

from pipeline.doctor.check_weights import CHECKS
from pipeline.doctor.finding import Context
from pipeline.fetch.order import make_order
from tests.imports import ROOT

FULL = ROOT / "params" / "artemis.yaml"


def offered(params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    context = Context(params, lambda: tmp_path)
    findings = [finding for check in CHECKS.values() for finding in check(context)]
    commands = {}
    for finding in findings:
        if finding.status == "fail":
            found = re.search(r"python cli\.py fetch (\S+) --params (\S+)$", finding.way_out)
            assert found and found[2] == str(params), finding
            commands[finding.check] = found[1]
    return commands


@pytest.mark.parametrize("source", ["apolo", "vinvl", "faster_rcnn"])
def test_each_missing_file_has_its_command(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = FULL.read_text().replace("source: apolo", f"source: {source}")
    (tmp_path / "mine.yaml").write_text(text)
    commands = offered(tmp_path / "mine.yaml", tmp_path, monkeypatch)
    detector = {"apolo": {}, "vinvl": {"vinvl": "vinvl"}, "faster_rcnn": {"faster_rcnn": "faster-rcnn"}}[
        source
    ]
    assert commands == detector | {
        "sam": "sam",
        "clip": "clip",
        "score.clip": "clip-score",
        "language_model": "distilgpt2",
    }
    assert make_order(list(commands.values()), tmp_path / "mine.yaml")
