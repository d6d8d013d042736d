"""One writer at a time, and nothing left over of those that were killed."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.common.errors import UserError
from pipeline.common.lock import only_writer, sweep, writes
from tests.imports import ROOT

HOLD = """
import os, sys, time
from pathlib import Path
from pipeline.common.lock import only_writer
with only_writer(Path(sys.argv[1])):
    if sys.argv[2:] == ["fork"] and os.fork() == 0:
        time.sleep(5)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def holder(target: Path, *how: str) -> subprocess.Popen[str]:
    """Another process that holds `target`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(target), *how], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_second_run_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    first = holder(tmp_path / "data" / "masks")
    try:
        named = rf"another run is writing to .*masks: process {first.pid} on {socket.gethostname()};"
        with pytest.raises(UserError, match=named), only_writer(tmp_path / "data" / "masks"):
            pass
        with only_writer(tmp_path / "data" / "regions"):
            pass
    finally:
        first.kill()
        first.wait()
    with only_writer(tmp_path / "data" / "masks"):
        pass
    assert list((tmp_path / "data").iterdir()) == []


def test_a_folder_that_was_removed_meanwhile_is_still_held(tmp_path: Path) -> None:
    """DVC removes a stage's folder before it runs the stage."""
    out = tmp_path / "shards"
    with only_writer(out):
        out.mkdir()
        out.rmdir()
        out.mkdir()
        with pytest.raises(UserError, match="another run"), only_writer(out):
            pass


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_no_child_of_a_killed_run_goes_on_holding(tmp_path: Path, kill: signal.Signals) -> None:
    first = holder(tmp_path / "x", "fork")
    first.send_signal(kill)
    assert first.wait() == -kill
    with only_writer(tmp_path / "x"):
        pass


def test_one_process_is_its_own_rival_and_another_spelling_is_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to("x")
    refused = []

    def other() -> None:
        try:
            with only_writer(tmp_path / "link"):
                pass
        except UserError as error:
            refused.append(str(error))

    with only_writer(tmp_path / "x"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        first_still_holds = multiprocessing.get_context("spawn").Process(target=_take, args=(tmp_path / "x",))
        first_still_holds.start()
        first_still_holds.join()
    assert len(refused) == 1 and str(os.getpid()) in refused[0]
    assert first_still_holds.exitcode == 2


def _take(target: Path) -> None:
    try:
        with only_writer(target):
            pass
    except UserError:
        raise SystemExit(2) from None


COMPETE = """
import os, sys
from pathlib import Path
from pipeline.common.errors import UserError
from pipeline.common.lock import only_writer
target, mark, entered = Path(sys.argv[1]), sys.argv[1] + ".in", 0
while entered < 100:
    try:
        with only_writer(target):
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))  # raises when another is in
            os.unlink(mark)
            entered += 1
    except UserError:
        pass
"""


def test_of_many_at_once_never_two_are_in(tmp_path: Path) -> None:
    """They race for a lock file that its holder removes: each must find today's file, not a removed one."""
    command = [sys.executable, "-c", COMPETE, str(tmp_path / "x")]
    rivals = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [rival.wait(timeout=60) for rival in rivals] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []


def test_where_the_folder_above_is_not_ours_the_lock_lies_within(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with only_writer(tmp_path / "out"):
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".out.lock"]
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        with pytest.raises(UserError, match="another run"), only_writer(tmp_path / "out"):
            pass
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_in_the_way_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write to the folder"), only_writer(tmp_path / "data" / "x"):
        pass


def test_leftovers_go_and_others_stay(tmp_path: Path) -> None:
    left = [
        "out/.000000.tar.ab1_defg.tmp",
        "out/checkpoint/.last.pt.abcdefgh.tmp",
        ".out.abcdefgh.tmp/model.safetensors",
        ".page.md.abcdefgh.tmp",
    ]
    mine = ["out/notes.tmp", "out/.hidden.tmp", "out/000000.tar", ".other.abcdefgh.tmp", "page.md"]
    for name in (*left, *mine):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def files() -> set[str]:
        return {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}

    with only_writer(tmp_path / "out", tmp_path / "page.md"):
        assert files() == {*mine, "out/checkpoint/.last.pt.abcdefgh.tmp", ".out.lock"}
    with only_writer(tmp_path / "out", nested=True):
        assert files() == {*mine, ".out.lock"}
    sweep(tmp_path / "absent")


def test_a_decorated_call_holds_what_it_writes_or_nothing(tmp_path: Path) -> None:
    @writes(lambda folder, first=True: [folder] if first else [])
    def step(out: Path, first: bool = True) -> str:
        """Say who else could be in."""
        try:
            with only_writer(out):
                return "free"
        except UserError:
            return "held"

    assert (step(tmp_path / "x"), step(tmp_path / "x", first=False)) == ("held", "free")
    assert step(out=tmp_path / "x") == "held"
    assert step.__name__ == "step" and step.__doc__
