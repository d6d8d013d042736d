"""Every command of ours that README and docs show runs as it stands, in a folder where a small run has ended.

Minutes long: ``pytest -m slow tests/test_documented_commands.py``. Words in capitals become a reader's; what
needs a network, a cluster, a GPU or hours is listed with its reason, and the list holds nothing else.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from typer.main import get_command

import cli
from tests.imports import ROOT
from tests.test_docs import TEXT
from tests.worlds import whole_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

COMMAND = re.compile(r"(?:^ *|`)((?:python cli\.py|emosem)(?: [^`\n#]*)?)", re.MULTILINE)
LEFT_OUT = {
    r"(fetch|predict)$": "named in a sentence",
    r"fetch (?!.*--dry-run)": "downloads gigabytes",
    r".*--params params/beyond\.yaml": "SAM's masks of a whole gallery: minutes",
    r"relabel": "needs a finished run of multi; tested in tests/model/relabel",
    r"ablations": "trains every ablation; its parts are tested in tests/model/train/test_ablations.py",
    r"pretrain-tiny": "hours",
    r"bench": "minutes at true size; small ones are tested in tests/model/bench",
    r"review$": "serves until it is stopped",
    r".*--scheduler": "needs a cluster",
    r".*(\.\./before|data_sam|export\.json|annotations\.zip)": "needs a second run, or another tool's export",
    r"init .*survey": "needs the reader's own csv, which README's line with TABLE.csv stands for",
    r".*survey\.yaml": "the file that the line before would write",
    r"--install-completion": "writes to the user's shell",
    r".*--params (params/artemis|gpu)\.yaml$(?<!--dry-run)": "needs the official data",
    r"train --paradigm single --params params/artemis": "needs the official data",
}


def shown() -> list[str]:
    """The commands, each once, without comments and alternatives in words."""
    pages = (text for name, text in TEXT.items() if name not in ("CHANGELOG.md", "CONTRIBUTING.md"))
    found = (" ".join(match.split()) for text in pages for match in COMMAND.findall(text))
    ours = (
        re.sub(r"^emosem\b", "python cli.py", line) for line in found if re.match(r"(python|emosem)", line)
    )
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]
    real = {
        line for line in ours if arguments(line).partition(" ")[0] in (*commands, "", "--install-completion")
    }
    return sorted(
        (line for line in real if " alignment " not in line), key=lambda line: (" init " not in line, line)
    )


def arguments(command: str) -> str:
    return command.removeprefix("python cli.py").strip()


def reason(command: str) -> str | None:
    return next((why for rule, why in LEFT_OUT.items() if re.match(rule, arguments(command))), None)


RUNNABLE = [command for command in shown() if reason(command) is None]


def run(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command.replace("python cli.py", f"{shlex.quote(sys.executable)} {ROOT / 'cli.py'}"))
    online = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    return subprocess.run(words, cwd=folder, env=online, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a checkout in which `make repro` has ended, and the reader's own files."""
    folder = tmp_path_factory.mktemp("done")
    whole_run.write_params(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["train"]["variants"]["multi"] = {"paradigm": "multi", "prefix": "mask"}
    params["plan"] = {"artworks": 2}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    for name in ("weights", "params"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "reviews", folder / "reviews")
    steps = [*whole_run.STEPS[:8], "train multi", "predict single", "predict multi", *whole_run.STEPS[9:]]
    for step in steps:
        words = [sys.executable, "-m", f"stages.{step.split()[0]}", *step.split()[1:]]
        paths = {**os.environ, "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(words, cwd=folder, env=paths, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, f"{step}: {ended.stderr[-2000:]}"
    works = pq.read_table(folder / "data/utterances/artworks.parquet").to_pylist()
    (folder / "my_photos").mkdir()
    rows = ["image,emotion,utterance"]
    for number, work in enumerate(works[:3]):
        shutil.copy(folder / "data/gallery/wikiart" / work["path"], folder / "my_photos" / f"{number}.jpg")
        rows.append(f"{number}.jpg,awe,it makes me feel small")
    for name in ("TABLE.csv", "yours.csv"):
        (folder / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    shutil.copy(folder / "my_photos/0.jpg", folder / "PAINTING.jpg")
    (folder / "DIR_MAPS").mkdir()
    for truth in (folder / "data/gallery/apolo/apolo_pixel_map").iterdir():
        np.save(folder / "DIR_MAPS" / f"{truth.stem}.npy", np.eye(8, dtype=np.float32))
    return folder


def as_typed(command: str, folder: Path) -> str:
    """A command with the reader's words in place of those in capitals."""
    key = pq.read_table(folder / "data/utterances/artworks.parquet")["key"][0].as_py()
    words = {
        r"\bKEY\b": key,
        r"--maps DIR\b": "--maps DIR_MAPS --apolo data/gallery/apolo --artemis "
        "data/gallery/artemis/artemis_dataset_release_v0.csv",
        r"--apolo DIR\b": "--apolo data/gallery/apolo",
        r"--images DIR\b": "--images my_photos",
        r"\bPICTURES\b": "my_photos",
        r"\bMODEL\b": "runs/single",
        r"--format FORMAT\b": "--format png",
        r"\bOUT\b": f"out-{abs(hash(command))}",
        r"--style Baroque --split train": "--split train",  # a small gallery has not every style
    }
    for pattern, word in words.items():
        command = re.sub(pattern, word, command)
    return command


def test_what_is_left_out_is_shown_somewhere() -> None:
    """A rule that nothing needs any more would hide the next command that it happens to match."""
    for rule in LEFT_OUT:
        assert any(re.match(rule, arguments(command)) for command in shown()), rule
    assert len(RUNNABLE) > 25


@pytest.mark.parametrize("command", RUNNABLE)
def test_a_documented_command_runs(done: Path, command: str) -> None:
    typed = as_typed(command, done)
    ended = run(done, typed)
    allowed = (0, 1) if arguments(command).startswith("doctor") else (0,)  # 1: something stands in the way
    assert ended.returncode in allowed, f"{typed}\n{ended.stdout[-1500:]}\n{ended.stderr[-1500:]}"
    assert "Traceback" not in ended.stderr
