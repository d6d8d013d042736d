"""Rows of `bench peers` at tiny sizes: both sides agree, a wrong side is found, and a failure stays a row."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.bench.peers import apolo_scoring, isolated, mask_painting, run, shard_reading, table, training_step
from model.bench.peers.isolated import Effort, Found, measure
from model.bench.peers.pair import Differ, Job, Pair, Spent, Turn, close, cpu_seconds, same_directions, turns
from model.bench.peers.rows import ROWS, preparation
from pipeline.common.errors import UserError
from pipeline.masks.recipe import MasksParams, pseudo_masks
from stages.commands.bench import BenchWhat, bench
from tests.imports import ROOT

TOKENIZER = ROOT / "weights" / "tiny" / "gpt2"
QUICK = Effort(least=2, most=2, seconds=0.0, limit=500.0)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    torch.set_num_threads(1)
    monkeypatch.setattr(isolated, "START", "fork")  # spares each row's process the imports
    return Job(tmp_path, "cpu", TOKENIZER, tiny=True)


@pytest.mark.parametrize("name", ROWS)
def test_both_sides_of_every_row_agree(name: str, job: Job) -> None:
    module = ROWS[name].module
    if module and importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    pair = preparation(name)(job)
    assert pair.check() and pair.items > 0
    assert all(spent.wall > 0 for spent in next(turns(pair)))


def test_a_wrong_side_is_found() -> None:
    assert close([1.0, 2.0], [1.0, 2.0001], 1e-3, "x")
    for wrong in ([1.0, 2.1], [1.0], [1.0, np.nan]):
        with pytest.raises(Differ):
            close(wrong, [1.0, 2.0], 1e-3, "x")
    with pytest.raises(Differ):
        close([], [], 1e-3, "x")
    assert same_directions(np.eye(3), 5 * np.eye(3), 0.999)
    for wrong in (np.eye(3)[::-1], np.eye(3)[:2], np.zeros((3, 3))):
        with pytest.raises(Differ), np.errstate(invalid="ignore"):
            same_directions(wrong, np.eye(3), 0.999)


def test_the_loop_over_boxes_is_the_recipe_by_hand() -> None:
    """Two boxes of 0.2 and 0.4 that share the middle of six pixels: 0, 0.2, 0.6, 0.6, 0.4, 0."""
    boxes, scores = np.array([[1.0, 0, 4, 4], [2, 0, 5, 4]]), np.array([[0.2, 0.4]])
    expected = [0, 85, 255, 255, 170, 0]
    assert mask_painting.looped(boxes, scores, 4, 6, 6).tolist() == [[expected] * 4]
    assert pseudo_masks(boxes, scores, 4, 6, MasksParams(long_side=6)).tolist() == [[expected] * 4]


def matrix(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    classes = sorted({*truth.tolist(), *prediction.tolist()})
    return np.array([[np.sum((truth == a) & (prediction == b)) for b in classes] for a in classes])


def test_the_released_arithmetic_is_foreground_iou(monkeypatch: pytest.MonkeyPatch, job: Job) -> None:
    """Without scikit-learn: its matrix by counting, in whose place it stands."""
    label = np.zeros((14, 14), bool)
    label[:7] = True
    map_ = np.zeros((7, 7))
    map_[:, :4] = 1.0
    inside = np.zeros((14, 14), bool)
    inside[:, :8] = True  # 0.25 of the way from 1 to 0 is the last above 0.35
    iou = (label & inside).sum() / (label | inside).sum()
    for boxed in (False, True):
        assert apolo_scoring.released([map_], [label], boxed, matrix) == [pytest.approx(iou)]
    assert apolo_scoring.released([map_], [inside], False, matrix) == [1.0]
    if importlib.util.find_spec("sklearn") is None:
        fake = type(sys)("sklearn.metrics")
        fake.confusion_matrix = matrix  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "sklearn", type(sys)("sklearn"))
        monkeypatch.setitem(sys.modules, "sklearn.metrics", fake)
    assert apolo_scoring.prepare(job).check()


def test_a_peer_that_reads_something_else_is_found(job: Job) -> None:
    shards = shard_reading.Shards.write(job)
    rows = [
        shard_reading.decode(shards, *(shard_reading.load_npy(m[f"{n}.npy"]) for n in ("sam", "clip")), m)
        for _, m in shards.stored()
    ]
    batches = [shard_reading.collate(rows[:5]), shard_reading.collate(rows[5:])]
    assert "bit-identical" in shard_reading.pair(job, shards, 0, batches).check()
    assert "bit-identical" in shard_reading.pair(job, shards, 2, batches[::-1]).check()
    with pytest.raises(Differ, match="alone"):
        shard_reading.pair(job, shards, 0, batches[:1]).check()
    for name in ("sam", "clip", "target", "tokens"):
        changed = {**batches[0], name: batches[0][name].clone()}
        changed[name].view(-1)[7] += 1
        with pytest.raises(Differ, match="differ"):
            shard_reading.pair(job, shards, 0, [changed, batches[1]]).check()


def test_encoders_that_saw_another_picture_are_found(job: Job) -> None:
    torch.manual_seed(0)
    model, encoders = training_step.tiny_model()
    model.tokenizer = training_step.load_tokenizer(job.tokenizer)
    step = training_step.Step(job, model, encoders)
    before = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    assert "sam grids" in step.check()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert any(not torch.equal(a, b) for a, b in zip(before, trained, strict=True))
    step.pixels[1] = step.pixels[1] + 1
    with pytest.raises(Differ, match="clip grids"):
        step.check()


# ---- rows in processes of their own --------------------------------------------------------------------


def counting(job: Job, wrong: bool = False) -> Pair:
    def check() -> str:
        if wrong:
            raise Differ("3 is not 4")
        return "both count to a million"

    def count() -> None:
        sum(range(1_000_000))

    return Pair("counting", "numbers", 1_000_000, count, lambda: [count() for _ in range(2)], check)


def good() -> Callable[[Job], Pair]:
    return counting


def different() -> Callable[[Job], Pair]:
    return partial(counting, wrong=True)


def broken() -> Callable[[Job], Pair]:
    raise ImportError("libpeer.so: no such file")


def killed() -> Callable[[Job], Pair]:
    os.kill(os.getpid(), 9)
    return counting


def leave_child(job: Job) -> Pair:
    child = subprocess.Popen(["/bin/sleep", "300"])
    (job.folder / "pid").write_text(str(child.pid))
    time.sleep(300)
    return counting(job)


def slow() -> Callable[[Job], Pair]:
    return leave_child


def test_a_row_is_checked_and_timed_in_its_own_process(job: Job) -> None:
    found = measure(good, job, QUICK)
    assert found.problem is None and len(found.turns) == 2
    assert found.about["agreement"] == "both count to a million" and found.about["items"] == 1_000_000
    for turn in found.turns:
        assert turn.ours.cpu > 0 and turn.theirs.cpu > 0


def test_a_new_process_can_have_workers(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without inheriting what is imported here; webdataset's dataset cannot be pickled for its workers."""
    pytest.importorskip("webdataset")
    monkeypatch.setattr(isolated, "START", "spawn")
    found = measure(partial(preparation, "webdataset-2"), job, QUICK)
    assert found.problem is None and len(found.turns) == 2 and "bit-identical" in found.about["agreement"]


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (different, "the results differ, so there is nothing to time: 3 is not 4"),
        (broken, "ImportError: libpeer.so: no such file"),
        (killed, "its process ended with exit code -9 (killed; is the memory full?)"),
    ],
)
def test_a_failing_peer_is_a_row_with_its_reason(prepare: Any, said: str, job: Job) -> None:
    values = run.row(ROWS["masks"], measure(prepare, job, QUICK), QUICK)
    assert values["problem"] == said and "ratio" not in values
    assert run.failed({"rows": {"masks": values}})


def test_nothing_is_left_of_a_row_that_takes_too_long(job: Job) -> None:
    found = measure(slow, job, replace(QUICK, limit=2.0))
    assert found.problem == "stopped after 2 s, its time limit (--limit)"
    pid = int((job.folder / "pid").read_text())
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":  # dead; whoever adopts it has not looked yet
            return
        time.sleep(0.05)
    pytest.fail("its child is still there")


def test_children_count_as_processor_time() -> None:
    before = cpu_seconds()
    subprocess.run([sys.executable, "-c", "sum(range(5_000_000))"], check=True)
    assert cpu_seconds() - before > 0.02


def test_ratios_are_of_neighbours_in_time() -> None:
    """Medians of 2, 4, 3 by the clock and of 1, 1, 4 by the processor; nothing but division."""
    seconds = [((1, 2), (2, 2)), ((2, 1), (8, 1)), ((4, 1), (12, 4))]
    found = Found(
        {"unit": "steps", "items": 10, "agreement": "equal"},
        [Turn(Spent(*ours), Spent(*theirs)) for ours, theirs in seconds],
    )
    values = run.row(ROWS["masks"], found, QUICK)
    assert (values["ratio"], values["ratio_spread"]) == (3, [2, 4])
    assert (values["cpu_ratio"], values["cpu_ratio_spread"]) == (1, [1, 4])
    assert (values["ours_per_second"], values["peer_per_second"], values["turns"]) == (5, 1.25, 3)
    assert "problem" not in values
    found.problem = "stopped after 9 s, its time limit (--limit)"
    assert "problem" not in run.row(ROWS["masks"], found, QUICK)  # it had its turns
    few = run.row(ROWS["masks"], found, replace(QUICK, least=5))
    assert (
        few["problem"] == "stopped after 9 s, its time limit (--limit), after 3 of 5 turns"
        and few["ratio"] == 3
    )


def test_a_side_alternates_in_going_first() -> None:
    order: list[str] = []
    pair = Pair("", "", 1, lambda: order.append("a"), lambda: order.append("b"), str)
    for _ in zip(range(4), turns(pair), strict=False):
        pass
    assert "".join(order)[:8] == "abbaabba"


# ---- the command ---------------------------------------------------------------------------------------


def test_the_command_says_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One row at its real size: seven artworks' masks are quick."""
    monkeypatch.setattr(isolated, "START", "fork")
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n\n{table.START}\n\nold\n\n{table.END}\n\nAfter.\n")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(run, "Effort", lambda limit: replace(QUICK, limit=limit))
    answer, code = bench(BenchWhat.peers, limit=500.0, only=["masks"], markdown=page, as_json=True)
    assert code == 0
    found = json.loads(answer)
    assert list(found["rows"]) == ["masks"] and found["rows"]["masks"]["turns"] == 2
    assert found["rows"]["masks"]["threads"] >= 1 and found["machine"]["cores"] >= 1
    assert "masks: pseudo-masks from boxes beside NumPy" in capsys.readouterr().err
    written = page.read_text()
    assert written.startswith("# Before\n") and written.endswith("\n\nAfter.\n") and "old" not in written
    assert f"| `masks` | **{found['rows']['masks']['ratio']}** |" in written


def test_rows_are_left_out_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda _: None)
    file = tmp_path / "params.yaml"
    file.write_text(f"backbones: {{language_model: {TOKENIZER}, device: cpu}}")
    found = run.run(file, ["litdata", "mosaicml-2"])
    assert found["rows"]["litdata"]["left_out"] == "litdata is not installed: pip install litdata"
    assert "pip install --no-deps mosaicml-streaming" in found["rows"]["mosaicml-2"]["left_out"]
    assert not run.failed(found)
    assert "| `litdata` | – |" in table.markdown(found) and "not installed" in table.text(found)


def test_wrong_names_and_pages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--only dali: no such row; there are sam, crops"):
        run.chosen(["sam, dali"])
    assert run.chosen(["sam,masks", "apolo"]) == ["sam", "masks", "apolo"]
    page = tmp_path / "page.md"
    table.check_page(page)
    for text in ("no place", f"{table.END} {table.START}", f"{table.START}{table.START}{table.END}"):
        page.write_text(text)
        with pytest.raises(UserError, match="add both"):
            table.check_page(page)
    (tmp_path / "code.py").write_text("")
    for wrong in (tmp_path, tmp_path / "none" / "page.md", tmp_path / "code.py"):
        with pytest.raises(UserError, match="--markdown"):
            table.check_page(wrong)


def test_words_of_a_package_cannot_break_the_table() -> None:
    row = {"ours": "a", "peer": "b", "turns": 0, "problem": "Error: <script>|\nx"}
    place = {"device": "d", "cores": 1, "load": None, "quiet": False, "date": "2026-01-01", "torch": "2"}
    lines = table.markdown({"machine": place, "rows": {"sam": row}}).splitlines()
    assert lines[-1] == "- `sam`: a beside b; Error: &lt;script&gt;\\| x."
