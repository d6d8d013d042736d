"""A push to a hub and back, against a server on this machine; and what is said where there is none."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from model.emosem.export import Push, export
from model.emosem.hub import check_push
from pipeline.backbones.params import BackbonesParams
from pipeline.common.errors import RunFailed, UserError
from tests.imports import ROOT
from tests.worlds.hub import Hub, serve_hub
from tests.worlds.own_pictures import new_run, provenance_of, write_pictures, write_weights


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_hub() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", served.token)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield served


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> BackbonesParams:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def run(backbones: BackbonesParams, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_run(backbones, tmp_path_factory.mktemp("runs") / "single", provenance_of(backbones))


@pytest.mark.parametrize("name", ["me/model", "museum/my.model-2"])
def test_who_may_write_is_let_through(hub: Hub, name: str) -> None:
    check_push(name)
    assert hub.asked == ["GET /api/whoami-v2"]


@pytest.mark.parametrize("account", [{}, [], {"name": "me", "orgs": None, "auth": None}, "me"])
def test_a_hub_that_says_little_is_no_reason_to_refuse(hub: Hub, account: Any) -> None:
    hub.account = account
    check_push("me/model")
    assert hub.asked == ["GET /api/whoami-v2"]


def test_all_that_is_missing_here_is_said_at_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.emosem.hub.get_token", lambda: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "ENDPOINT", "hub.example")
    for name in ("model", "a/b/c", "../x", "me/", "me/a b", "mé/x"):
        with pytest.raises(UserError) as raised:
            check_push(name)
        for words in ("nothing was written", repr(name), "HF_HUB_OFFLINE", "hf auth login", "'hub.example'"):
            assert words in str(raised.value)
    assert hub.asked == []


def test_what_the_hub_objects_to_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"you are me on .*, and other is neither you nor .*\(museum\)"):
        check_push("other/model")
    hub.account["auth"]["accessToken"]["role"] = "read"
    with pytest.raises(UserError, match="may only read"):
        check_push("me/model")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="does not accept your token"):
        check_push("me/model")
    monkeypatch.setattr(constants, "ENDPOINT", f"{hub.url}/elsewhere")
    with pytest.raises(RunFailed, match="answers 404"):
        check_push("me/model")


def test_without_a_network_nothing_is_written(
    hub: Hub, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and does not listen
        port = free.getsockname()[1]
        monkeypatch.setattr(constants, "ENDPOINT", f"http://somebody:secret@127.0.0.1:{port}")
        with pytest.raises(RunFailed, match=r"http://127.0.0.1:\d+ cannot be reached") as raised:
            export(run, tmp_path / "out" / "model", tmp_path, Push("me/model"))
    assert "secret" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


ROUND_TRIP = """
import json, sys
from pathlib import Path
from model.emosem.export import Push, export
from model.emosem.network import EmoSEM
from model.predictor import Predictor
from pipeline.backbones.params import BackbonesParams, ClipParams, SamParams
run, sam, clip, picture = sys.argv[1:]
backbones = BackbonesParams(SamParams("tiny", Path(sam)), ClipParams("tiny", Path(clip)), device="cpu")
done = export(Path(run), Path("out"), Path("metrics"), Push("me/model"), backbones)
EmoSEM.from_pretrained("me/model")
cached = sorted(str(p.relative_to("cache")) for p in Path("cache").rglob("encoders"))
predictor = Predictor.from_pretrained("me/model", device="cpu")
found = predictor.predict(picture, "awe")[0]["awe"]
mean = float(found.mask.mean())
print(json.dumps({"hub": done["hub"], "before": cached, "mean": mean, "says": found.explanations[0]}))
"""


def test_pushed_to_a_hub_it_comes_back_whole(
    hub: Hub, run: Path, backbones: BackbonesParams, tmp_path: Path
) -> None:
    """By huggingface_hub itself, over HTTP; of two programs, the second has nothing but the name."""
    pictures = write_pictures(tmp_path / "pictures")
    hub.files["me/model"] = {"encoders/old.safetensors": b"of an earlier push", "notes.txt": b"kept"}
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "XDG_CACHE_HOME": str(tmp_path / "xdg"),
        "HF_HUB_DISABLE_XET": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    (tmp_path / "cache").mkdir()
    weights = [str(backbones.sam.checkpoint), str(backbones.clip.checkpoint)]
    command = [sys.executable, "-c", ROUND_TRIP, str(run), *weights, str(pictures / "wide.png")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["hub"].startswith(f"{hub.url}/me/model/commit/") and said["before"] == []
    local = {
        f.relative_to(tmp_path / "out").as_posix(): f for f in (tmp_path / "out").rglob("*") if f.is_file()
    }
    served = {name: data for name, data in hub.files["me/model"].items() if name != "notes.txt"}
    assert served == {name: file.read_bytes() for name, file in local.items()}
    assert {"encoders/sam/sam.safetensors", "encoders/clip/bpe.txt.gz"} <= set(served)
    assert 'from_pretrained("me/model")' in served["README.md"].decode()
    fetched = {p.name for p in (tmp_path / "cache").rglob("snapshots/*/encoders/*/*")}
    assert fetched == {"sam.safetensors", "sam.json", "clip.safetensors", "clip.json", "bpe.txt.gz"}
    assert 0 < said["mean"] < 1 and isinstance(said["says"], str)
