"""The command as a person types it, in processes of its own: killed, twice at once, for programs."""

import contextlib
import hashlib
import json
import os
import pickle
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.backbones.weight_hashes import verify_weights
from tests.imports import ROOT
from tests.pipeline.fetch.server import Hostile, serve, slowly, until

FOLDER = "/michelecafagna26/vinvl_vg_x152c4/resolve/main/"
DETECTOR = pickle.dumps({"weights": bytes(range(256)) * 4000})
LABELS = json.dumps({"label_to_idx": {"tree": 1}}).encode()


@pytest.fixture
def server() -> Iterator[Hostile]:
    files = {f"{FOLDER}vinvl_vg_x152c4.pth": DETECTOR, f"{FOLDER}VG-SGG-dicts-vgoi6-clipped.json": LABELS}
    with serve(Hostile(files)) as hostile:
        yield hostile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    vinvl = {"checkpoint": "weights/vinvl_vg_x152c4.pth"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"backbones": {"vinvl": vinvl}}))
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "cli.py"), "fetch", *arguments]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=folder, capture_output=True, text=True, check=False)


def test_a_killed_fetch_goes_on_and_two_at_once_do_not_mix(server: Hostile, folder: Path) -> None:
    server.turns = [slowly]
    part = folder / "weights" / "vinvl_vg_x152c4.pth.part"
    arguments = ("vinvl", "--mirror", server.url)
    with subprocess.Popen(
        command(*arguments), cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as one:
        until(lambda: part.is_file() and part.stat().st_size >= len(DETECTOR) // 4)
        other = run(folder, *arguments)
        one.send_signal(signal.SIGKILL)
        one.communicate()
    assert other.returncode == 2
    assert "another run is writing to weights/vinvl_vg_x152c4.pth: process" in other.stderr

    kept = part.stat().st_size
    assert (
        DETECTOR.startswith(part.read_bytes()) and not (folder / "weights" / "vinvl_vg_x152c4.pth").exists()
    )
    again = run(folder, *arguments, "--json")
    assert again.returncode == 0, again.stderr
    assert server.asked[1] == (f"{FOLDER}vinvl_vg_x152c4.pth", f"bytes={kept}-")
    told = {one["path"]: one["sha256"] for one in json.loads(again.stdout)["files"]}
    assert told == {
        "weights/vinvl_vg_x152c4.pth": hashlib.sha256(DETECTOR).hexdigest(),
        "weights/VG-SGG-dicts-vgoi6-clipped.json": hashlib.sha256(LABELS).hexdigest(),
    }
    assert sorted(path.name for path in (folder / "weights").iterdir()) == sorted(
        name + ending
        for name in ("vinvl_vg_x152c4.pth", "VG-SGG-dicts-vgoi6-clipped.json")
        for ending in ("", ".sha256")
    )
    digest = verify_weights(folder / "weights" / "vinvl_vg_x152c4.pth")
    assert digest == told["weights/vinvl_vg_x152c4.pth"]


def test_a_dry_run_shows_all_and_asks_nobody(server: Hostile, folder: Path) -> None:
    dry = run(folder, "vinvl", "apolo", "--dry-run", "--mirror", server.url)
    assert dry.returncode == 0
    for word in ("licence MIT", f"{server.url}{FOLDER}", "SHA-256", "size", "Tianwei3989/apolo"):
        assert word in dry.stdout
    told = json.loads(run(folder, "vinvl", "apolo", "--dry-run", "--json", "--mirror", server.url).stdout)
    assert [one["state"] for one in told["files"]] == ["to fetch"] * 2
    assert [one["name"] for one in told["by_hand"]] == ["apolo"]
    assert server.asked == [] and not (folder / "weights").exists()


def test_a_terminal_shows_rate_and_time_left(server: Hostile, folder: Path) -> None:
    """Of no known width, as many are that are not a person's."""
    master, slave = pty.openpty()
    with subprocess.Popen(command("vinvl", "--mirror", server.url), cwd=folder, stderr=slave, stdout=slave):
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal ends
            while some := os.read(master, 1 << 16):
                shown += some
    os.close(master)
    assert re.search(rb"fetch vinvl_vg_x152c4\.pth: .*%.*B/s\]", shown), shown


def test_what_no_program_may_fetch_is_a_failure_with_a_page(folder: Path) -> None:
    done = run(folder, "artemis-classifier", "--json")
    assert done.returncode == 1
    assert "https://github.com/optas/artemis" in json.loads(done.stdout)["by_hand"][0]["where"]


def test_a_refusal_is_one_line_and_stdout_stays_empty(server: Hostile, folder: Path) -> None:
    server.files.clear()
    done = run(folder, "vinvl", "--json", "--mirror", server.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert "404" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_before_the_first_word_nothing_slow_is_imported() -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from pipeline.fetch.order import make_order\n"
        "from pipeline.fetch.report import order_text\n"
        "print(order_text(make_order(['sam'], Path('params/artemis.yaml'))), file=sys.stderr)\n"
        "slow = ('torch', 'pyarrow', 'requests', 'transformers', 'huggingface_hub', 'open_clip', 'cv2')\n"
        "print([name for name in slow if name in sys.modules])\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
