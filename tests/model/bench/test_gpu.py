"""`bench gpu` without a GPU: every part runs at tiny size, and one that breaks costs itself alone."""

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState

from model.bench import gpu
from model.bench.gpu_parts import parity, parity_network, runner, summary, timing
from model.bench.gpu_parts.runner import Part
from model.bench.gpu_parts.worker import Job, Rows
from pipeline.common.errors import UserError
from tests.imports import ROOT

QUICK = ("ceilings", "pictures", "sam-vit_b", "training", "generation")
"""Parts that take seconds on a processor; the others run in the slow test."""


@pytest.fixture(autouse=True, scope="module")
def own_arithmetic() -> Iterator[None]:
    """accelerate keeps one arithmetic a process, and refuses another: bf16 here, float32 in other tests."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def new_job(folder: Path) -> Job:
    return Job("", "cpu", True, folder, folder / "rows.jsonl", ROOT / "weights/tiny/gpt2", 600.0)


def run_here(name: str, job: Job) -> dict[str, dict[str, Any]]:
    """Rows of one part, run in this process."""
    part = next(part for part in gpu.PARTS if part.name == name)
    module, _, function = part.function.partition(":")
    results = job.folder / f"{name}.jsonl"
    call = getattr(importlib.import_module(module), function)
    call(dataclasses.replace(job, function=part.function, results=results), Rows(results))
    return runner._read(results)


@pytest.fixture(scope="module")
def tiny_rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("gpu")
    before = Path.cwd()
    os.chdir(ROOT)  # whose small weights are the backbones
    try:
        return {name: run_here(name, new_job(folder)) for name in QUICK}
    finally:
        os.chdir(before)


def test_parts_measure_all_that_they_promise(tiny_rows: dict[str, dict[str, dict[str, Any]]]) -> None:
    assert not [row for rows in tiny_rows.values() for row in rows.values() if "problem" in row]
    assert {"machine", "matmul.bf16", "matmul.tf32", "copy"} <= tiny_rows["ceilings"].keys()
    assert tiny_rows["pictures"]["pictures"]["artworks"] == 8
    assert tiny_rows["sam-vit_b"].keys() == {
        f"{what}.{how}" for what in ("device", "end_to_end") for how in ("eager", "compiled")
    }
    assert tiny_rows["training"].keys() == {
        "parts", *(f"batch_{size}.{how}" for size in (16, 64) for how in ("loader", "resident")),
    }  # fmt: skip
    rates = [row for rows in tiny_rows.values() for row in rows.values() if "per_second" in row]
    assert len(rates) > 12
    assert all(0 < row["lowest"] <= row["per_second"] <= row["highest"] for row in rates)


def test_a_step_is_timed_on_the_shards_after_the_first(
    tiny_rows: dict[str, dict[str, dict[str, Any]]],
) -> None:
    """8 artworks in 2 shards by their keys: the first shard's warm up, the other's count."""
    from pipeline.common.schema import artwork_key, shard_of

    numbers = [shard_of(artwork_key("Realism", f"artist_{n}"), 2) for n in range(8)]
    for how in ("eager", "compiled"):
        row = tiny_rows["sam-vit_b"][f"end_to_end.{how}"]
        assert (row["items"], row["rejected"]) == (sum(number > 0 for number in numbers), 0)


def test_operations_are_those_counted_by_hand() -> None:
    layer, x = torch.nn.Linear(30, 7), torch.randn(5, 30, requires_grad=True)
    assert timing.flops(lambda: layer(x)) == 2 * 5 * 30 * 7
    assert timing.flops(lambda: layer(x).sum().backward()) == 3 * 2 * 5 * 30 * 7  # of x and of the weight

    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval().requires_grad_(False)
    tokens = torch.randn(3, 5, 8)
    projections, products = 3 * 5 * 8 * (3 * 8 + 8), 2 * 3 * 5 * 5 * 8  # q, k, v and out; q k^T and its v
    with torch.inference_mode():  # as the encoders run, where torch would take one kernel for all of it
        assert timing.flops(lambda: attention(tokens, tokens, tokens, need_weights=False)) == 2 * (
            projections + products
        )
        assert timing.flops(lambda: layer(x.detach())) == 2 * 5 * 30 * 7

    def refuses() -> None:
        raise RuntimeError("no such kernel")

    assert timing.flops(refuses) is None


def test_the_roofline_by_hand(tmp_path: Path) -> None:
    job = new_job(tmp_path)
    assert "share_of_roofline" not in timing.roofline(job, [1.0], 50, 20, "bf16")
    timing.Ceilings({"bf16": 100.0}, 10.0).save(tmp_path)
    found = timing.roofline(job, [4.0, 9.0, 3.0], 50, 20, "bf16")  # 0.5 s of arithmetic, 2 s of copying
    assert (found["bound"], found["share_of_roofline"]) == ("memory", 0.5)
    found = timing.roofline(job, [4.0], 300, 20, "bf16")
    assert (found["bound"], found["share_of_roofline"]) == ("arithmetic", 0.75)
    assert timing.roofline(job, [4.0], None, 20, "bf16") == {}


def test_the_table_has_the_units_of_ceilings() -> None:
    row = {"per_second": 7.881e14, "lowest": 7.8e14, "highest": 7.9e14, "tflop_per_second": 788.1}
    machine = {"device": "a card", "torch": "2.11.0"}
    rates = {
        "per_second": 161.2,
        "lowest": 160.0,
        "highest": 163.4,
        "share_of_roofline": 0.213,
        "peak_memory": 5e9,
    }
    rows = {"matmul.bf16": row, "machine": machine, "sam": rates}
    part = {"status": "done", "seconds": 9.6, "rows": rows}
    said = gpu.text({"device": "cuda", "tiny": False, "parts": {"ceilings": part}, "goals": []}).splitlines()
    assert said[2:4] == [
        "| ceilings: matmul.bf16 | 788.1 TFLOP | 780.0 to 790.0 |  |  |",
        "| ceilings: sam | 161.2 | 160.0 to 163.4 | 21.3% | 5.00 |",
    ]
    assert said[-1] == "0 of 0 checks passed; 10 s for 1 part(s) on a card, torch 2.11.0."


def test_rates_are_medians() -> None:
    found = timing.rate([2.0, 1.0, 4.0], 8)
    assert found == {"per_second": 4.0, "lowest": 2.0, "highest": 8.0, "rounds": 3}


def test_a_check_fails_on_a_wrong_answer_and_on_no_number() -> None:
    right = torch.tensor([3.0, 4.0])
    assert parity.relative(torch.tensor([3.0, 5.0]), right) == pytest.approx(0.2)
    assert parity.largest(torch.tensor([3, 7]), torch.tensor([4, 5])) == 2
    assert parity.within(0.2, 0.2)["passed"] and not parity.within(0.21, 0.2)["passed"]
    assert not parity.within(parity.relative(torch.tensor([3.0, float("nan")]), right), 1e9)["passed"]
    with pytest.raises(ValueError, match="shapes"):
        parity.relative(right[:1], right)


def test_a_broken_network_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy "on the device" loses one weight matrix's row: masks and gradients are not the processor's."""
    job = dataclasses.replace(new_job(tmp_path), function="here:network")
    assert parity_network._gradients(job, parity_network.networks.TINY)["passed"]
    whole = parity_network._pair

    def broken(*arguments: Any) -> Any:
        here, there, samples, numbers = whole(*arguments)
        with torch.no_grad():
            there.mask_decoder.output_upscaling[0].weight[0].zero_()
        return here, there, samples, numbers

    monkeypatch.setattr(parity_network, "_pair", broken)
    assert not parity_network._forward(job, parity_network.networks.TINY)["passed"]
    assert not parity_network._gradients(job, parity_network.networks.TINY)["passed"]


@pytest.fixture
def params_file(tmp_path: Path) -> Path:
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump({"backbones": {"device": "cpu"}}))
    return file


def test_what_breaks_costs_itself_alone(
    tmp_path: Path, params_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("fine", "raises", "hangs", "is_killed")
    parts = [Part(name, f"tests.worlds.broken_parts:{name}", 60.0, timed=name == "raises") for name in names]
    parts[2] = dataclasses.replace(parts[2], limit=5.0)
    monkeypatch.setattr(gpu, "PARTS", tuple(parts))
    monkeypatch.setattr(gpu, "NAMES", names)
    monkeypatch.setattr(gpu, "cores", lambda: 8)  # the last two side by side
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    goals = (
        summary.Goal("best", 20, "fine", ("one", "two")),
        summary.Goal("none", 1, "fine", ("bad", "three")),
    )
    monkeypatch.setattr(summary, "GOALS", goals)
    out = tmp_path / "found" / "gpu.json"
    found = gpu.run(params_file, tiny=True, out=out)
    assert json.loads(out.read_text()) == json.loads(json.dumps(found))
    done = found["parts"]
    assert {name: part["status"] for name, part in done.items()} == {
        "fine": "done", "raises": "failed", "hangs": "over its limit", "is_killed": "failed",
    }  # fmt: skip
    assert done["fine"]["rows"]["bad"] == {"problem": "ZeroDivisionError: division by zero"}
    assert done["fine"]["rows"]["infinite"]["difference"] == "nan"
    assert done["raises"]["reason"].startswith("RuntimeError: CUDA error: an illegal memory access")
    assert "what it printed before" in done["raises"]["output"]
    assert [list(part["rows"]) for part in done.values()] == [
        ["one", "bad", "infinite", "two"],
        *[["one"]] * 3,
    ]
    assert "exit code -9" in done["is_killed"]["reason"]
    child = int((tmp_path / "child.pid").read_text())
    assert _ended(child)
    assert [(g["found"], g["reached"]) for g in found["goals"]] == [(30.0, True), (None, None)]
    said = gpu.text(found)
    assert "| fine: one | 12.0 | 11.0 to 13.0 |" in said and "1 of 2 checks passed" in said
    assert len(gpu.failures(found)) == 5 and "| best | 20 | 30.0 | tiny |" in said
    assert "| best | 20 | 30.0 | reached |" in gpu.text({**found, "tiny": False})
    assert not list(tmp_path.glob("emosem-gpu-*"))


def _ended(pid: int) -> bool:
    """Whether a process is gone or nobody's zombie, within some seconds."""
    for _ in range(100):
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


def test_what_there_is_no_time_for_is_not_begun(
    tmp_path: Path, params_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "gpu.json"
    found = gpu.run(params_file, tiny=True, out=out, minutes=0.01, only=["crops"])
    assert list(found["parts"]) == ["ceilings", "pictures", "crops"]  # which crops needs
    assert {part["status"] for part in found["parts"].values()} == {"not begun"}
    assert len(gpu.failures(found)) == 3


def test_parts_of_before_stay_where_others_are_asked_for(
    tmp_path: Path, params_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = tuple(Part(name, f"tests.worlds.broken_parts:{name}", 60.0) for name in ("fine", "raises"))
    monkeypatch.setattr(gpu, "PARTS", parts)
    monkeypatch.setattr(gpu, "NAMES", ("fine", "raises"))
    out = tmp_path / "gpu.json"
    first = gpu.run(params_file, tiny=True, out=out, only=["raises"])
    both = gpu.run(params_file, tiny=True, out=out, only=["fine"])
    assert list(both["parts"]) == ["fine", "raises"] and json.loads(out.read_text()) == both
    assert both["parts"]["raises"] == first["parts"]["raises"]
    out.write_text(json.dumps({**both, "device": "cuda"}))
    with pytest.raises(UserError, match=r"gpu.json is of another device or size .*--out"):
        gpu.run(params_file, tiny=True, out=out, only=["fine"])
    out.write_text("[]")
    with pytest.raises(UserError, match=r"gpu.json is not of bench gpu"):
        gpu.run(params_file, tiny=True, out=out, only=["fine"])


STOPPED = """
import sys
from pathlib import Path
from model.bench import gpu
from model.bench.gpu_parts.runner import Part
gpu.NAMES = ("fine", "hangs")
gpu.PARTS = tuple(Part(name, f"tests.worlds.broken_parts:{name}", 600.0) for name in gpu.NAMES)
gpu.run(Path(sys.argv[1]), tiny=True, out=Path(sys.argv[2]))
"""


def test_a_stopped_command_stops_its_parts_and_keeps_what_there_is(tmp_path: Path, params_file: Path) -> None:
    out, temporary = tmp_path / "gpu.json", tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(params_file), str(out)],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temporary)},
        stderr=subprocess.DEVNULL,
    )
    child = temporary / "child.pid"
    for _ in range(1200):
        if child.exists() and child.read_text():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert _ended(int(child.read_text()))
    assert list(json.loads(out.read_text())["parts"]) == ["fine"]
    assert [path.name for path in temporary.iterdir()] == ["child.pid"]


def test_mistakes_are_said_before_anything_starts(tmp_path: Path, params_file: Path) -> None:
    with pytest.raises(UserError, match=r"no part speed; it has ceilings, "):
        gpu.run(params_file, tiny=True, only=["speed"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to the folder .*file"):
        gpu.run(params_file, tiny=True, out=tmp_path / "file" / "gpu.json")
    with pytest.raises(UserError, match=r"torch sees none .*--tiny"):
        gpu.run(params_file)


def test_parts_without_clocks_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "cores", lambda: 16)
    batches = [[part.timed for part in batch] for batch in gpu._batches(gpu.PARTS)]
    assert max(map(len, batches)) == 5
    assert all(len(batch) == 1 or not any(batch) for batch in batches)
    assert [part for batch in gpu._batches(gpu.PARTS) for part in batch] == list(gpu.PARTS)


@pytest.mark.gpu
@pytest.mark.parametrize("name", [part.name for part in gpu.PARTS if part.name.startswith("parity")])
def test_a_gpu_gives_the_processors_answers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    monkeypatch.chdir(ROOT)
    rows = run_here(name, dataclasses.replace(new_job(tmp_path), device="cuda"))
    assert rows and not {row: values for row, values in rows.items() if not values.get("passed")}


@pytest.mark.slow
def test_the_whole_of_it_from_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, "cli.py", "bench", "gpu", "--tiny", "--minutes", "20", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = json.loads(out.read_text())
    assert gpu.failures(found) == [] and done.returncode == 0, done.stderr
    assert list(found["parts"]) == list(gpu.NAMES)
    assert all(goal["found"] for goal in found["goals"])
