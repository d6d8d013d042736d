"""`ablations` as a whole: order, going on, failures, signals. Stages are stood in for by what they write."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from model.emosem.config import EmoSEMConfig
from pipeline.common.errors import RunFailed, UserError
from pipeline.common.files import write_bytes, write_json
from pipeline.common.fingerprint import as_json, sha256_text
from pipeline.common.lock import only_writer
from pipeline.common.params import Params
from stages import _ablations
from stages._ablation_parts import Ablations
from stages._ablations import Board, run_ablations
from stages._children import Children, Stopped, last_line
from tests.imports import ROOT

SEEDS = (0, 3)


class Stages:
    """In the place of `Children.run`: notes each call, and writes what the stage would."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.fail: Callable[[str], bool] = lambda _: False
        self.at_once: set[int] = set()
        self._lock = threading.Lock()

    def run(self, name: str, words: Sequence[str], at_once: int, log: Path | None = None) -> None:
        module, *rest = words
        params = Params.read(Path(rest[rest.index("--params") + 1]))
        paths, step = params.sections["paths"], module.removeprefix("stages.")
        variant = rest[0] if rest[0] != "--params" else ""
        seed = params.sections["train"].get("seed")
        with self._lock:
            self.calls.append(
                (step, *filter(None, [variant, "" if seed is None or step in DATA else f"{seed}"]))
            )
            self.at_once.add(at_once)
        if self.fail(name):
            raise RunFailed(f"{name} failed")
        folder = {
            "train": Path(paths["runs"]) / variant,
            "predict": Path(paths["data"]) / "predict" / variant,
        }.get(step, Path(paths["data"]) / step)
        own = params.sections["train"]["variants"][variant] if step == "train" else params.sections.get(step)
        told = f"{sha256_text(yaml.safe_dump([own, seed]))}  file\n"
        write_bytes(folder / "SHA256SUMS", told.encode())
        if step == "predict":
            write_bytes(folder / "predictions.parquet", b"")
        if step == "score":
            write_bytes(Path(paths["metrics"]) / "score.json", b"{}")

    def since(self) -> list[tuple[str, ...]]:
        """The calls since the last time."""
        with self._lock:
            calls, self.calls = self.calls, []
        return calls


DATA = {
    "gallery", "utterances", "regions", "similarity", "features", "alignment", "masks", "shards", "baselines",
}  # fmt: skip
ALWAYS = DATA - {"gallery", "alignment", "baselines"}
"""Steps that look at their shards themselves."""


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    fake = Stages()
    monkeypatch.setattr(Children, "run", lambda self, *a, **k: self.signal or fake.run(*a, **k))
    monkeypatch.setattr(
        _ablations,
        "answer",
        lambda todo, scored: ({"seeds": [s.seed for s in scored]}, "page", Path("there")),
    )
    return fake


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Params]:
    monkeypatch.chdir(tmp_path)

    def params(**changes: Any) -> Params:
        sections = yaml.safe_load((ROOT / "params/proof.yaml").read_text(encoding="utf-8"))
        weights = ROOT / "weights" / "tiny"
        sections["backbones"] = {
            "sam": {"arch": "tiny", "checkpoint": str(weights / "sam.safetensors")},
            "clip": {"name": "tiny", "checkpoint": str(weights / "clip.safetensors")},
            "language_model": str(weights / "gpt2"),
        }
        sections["ablations"] = {"data": None, "seeds": list(SEEDS), "workers": 1}
        sections["train"]["variants"] = {"single": {}, "multi": {"paradigm": "multi", "prefix": "mask"}}
        for name, values in changes.items():
            sections[name] = {**sections.get(name, {}), **values}
        return Params(tmp_path / "params.yaml", sections)

    return params


def of(step: str, calls: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [call[1:] for call in calls if call[0] == step]


def test_the_data_then_one_seed_after_the_other_then_nothing_is_left(
    stages: Stages, write: Callable[..., Params]
) -> None:
    values, _ = run_ablations(write())
    calls = stages.since()
    assert values == {"seeds": list(SEEDS)}
    order = [call for call in calls if call[0] not in DATA]
    one = [("train", "single"), ("predict", "single"), ("train", "multi"), ("predict", "multi"), ("score",)]
    assert order == [(*call, f"{seed}") for seed in SEEDS for call in one]
    data = [call[0] for call in calls if call[0] in DATA]
    assert set(data) == DATA and len(data) == len(DATA)
    for before, after in (
        ("gallery", "utterances"), ("utterances", "features"), ("regions", "similarity"),
        ("similarity", "masks"), ("features", "shards"), ("masks", "shards"), ("shards", "baselines"),
    ):  # fmt: skip
        assert data.index(before) < data.index(after)
    run_ablations(write())
    assert {call[0] for call in stages.since()} == ALWAYS


def test_a_round_of_self_training_makes_labels_and_shards_alone(
    stages: Stages, write: Callable[..., Params], capsys: pytest.CaptureFixture[str]
) -> None:
    run_ablations(write())
    stages.since()
    own: dict[str, Any] = {"data": "data/proof", "own": ["shards", "relabel"], "seeds": [0], "workers": 1}
    paths = {name: f"data/round1/{name}" for name in ("runs", "metrics", "report")} | {"data": "data/round1"}
    relabel: dict[str, Any] = {"labels": "data/proof", "students": ["data/proof/runs/seed-0/multi"]}
    relabel |= {"label_threshold": 0.65, "student_threshold": 0.38}
    with pytest.raises(UserError, match=r"holds no finished round: .*index\.parquet does not exist"):
        run_ablations(write(ablations=own, paths=paths, relabel=relabel))
    write_bytes(Path("data/proof/shards/index.parquet"), b"")
    with pytest.raises(UserError, match="seed-0/multi holds no trained model"):
        run_ablations(write(ablations=own, paths=paths, relabel=relabel))
    write_json(Path("data/proof/runs/seed-0/multi/config.json"), as_json(EmoSEMConfig()))
    write_bytes(Path("data/proof/runs/seed-0/multi/model.safetensors"), b"")
    Path("data/proof/runs/seed-0/multi/SHA256SUMS").unlink()  # which knows nothing of it
    run_ablations(write(ablations=own, paths=paths, relabel=relabel))
    assert [call for call in stages.since() if call[0] in (*DATA, "relabel")] == [("relabel",), ("shards",)]
    assert not Path("data/round1/masks").is_symlink() and Path("data/round1/features").is_symlink()


def test_only_what_a_change_concerns_is_done_again(stages: Stages, write: Callable[..., Params]) -> None:
    run_ablations(write())
    stages.since()

    def again(**changes: Any) -> list[tuple[str, ...]]:
        run_ablations(write(**changes))
        return [call for call in stages.since() if call[0] not in ALWAYS]

    assert [call[0] for call in again(score={"threshold": 0.3})] == ["score", "score"]
    assert {call[0] for call in again(score={"threshold": 0.3}, predict={"seeds": [1]})} == {
        "predict", "score",
    }  # fmt: skip
    run_ablations(write())
    stages.since()
    others = {"single": {"epochs": 2}, "multi": {"paradigm": "multi", "prefix": "mask"}}
    found = again(train={"variants": others})
    assert of("train", found) == [("single", "0"), ("single", "3")]
    assert of("predict", found) == [("single", "0"), ("single", "3")]
    more = again(ablations={"data": None, "seeds": [0, 3, 4], "workers": 1}, train={"variants": others})
    assert of("train", more) == [("single", "4"), ("multi", "4")]


def test_a_deleted_model_is_made_again_and_scored(stages: Stages, write: Callable[..., Params]) -> None:
    read = write()
    run_ablations(read)
    stages.since()
    for file in Path("data/proof/runs/seed-3/multi").iterdir():
        file.unlink()
    run_ablations(read)
    assert ("train", "multi", "3") in stages.since()


def test_one_failed_training_is_named_and_the_others_go_on(
    stages: Stages, write: Callable[..., Params], capsys: pytest.CaptureFixture[str]
) -> None:
    stages.fail = lambda name: name == "train single, seed 0"
    with pytest.raises(RunFailed, match="train single, seed 0 failed") as error:
        run_ablations(write())
    assert "there" in str(error.value)
    calls = stages.since()
    assert of("predict", calls) == [("multi", "0"), ("single", "3"), ("multi", "3")]
    assert of("score", calls) == [("0",), ("3",)]
    assert "3 of 4 trainings done, 1 failed" in capsys.readouterr().err
    stages.fail = lambda _: False
    run_ablations(write())
    calls = [call for call in stages.since() if call[0] not in DATA]
    assert calls == [("train", "single", "0"), ("predict", "single", "0"), ("score", "0")]


def test_data_that_fails_stops_all(stages: Stages, write: Callable[..., Params]) -> None:
    stages.fail = lambda name: name == "features"
    with pytest.raises(RunFailed, match="features failed"):
        run_ablations(write())
    assert not {"train", "masks"} & {call[0] for call in stages.since()}


def test_tables_of_what_is_there_train_nothing(stages: Stages, write: Callable[..., Params]) -> None:
    with pytest.raises(UserError, match="nothing is predicted yet"):
        run_ablations(write(), tables=True)
    stages.fail = lambda name: name.endswith("multi, seed 0") or name.endswith("seed 3")
    with pytest.raises(RunFailed):
        run_ablations(write())
    stages.since()
    stages.fail = lambda _: False
    with only_writer(Path("data/proof/finished")):  # another terminal trains
        values, _ = run_ablations(write(), tables=True)
    assert values == {"seeds": [0]} and stages.since() == []


def test_what_is_trained_again_is_not_in_the_tables_meanwhile(
    stages: Stages, write: Callable[..., Params]
) -> None:
    run_ablations(write())
    stages.fail = lambda name: name.startswith("train")
    with pytest.raises(RunFailed):
        run_ablations(write(train={"variants": {"single": {"epochs": 1}, "multi": {"epochs": 1}}}))
    with pytest.raises(UserError, match="nothing is predicted yet"):
        run_ablations(write(), tables=True)


def test_a_run_to_compare_with_must_have_scores(stages: Stages, write: Callable[..., Params]) -> None:
    with pytest.raises(UserError, match=r"ablations\.beside\.paper: data/nowhere holds no scored seed"):
        run_ablations(write(ablations={"data": None, "seeds": [0], "beside": {"paper": "data/nowhere"}}))
    assert stages.since() == []


def test_two_at_once_share_the_cores(stages: Stages, write: Callable[..., Params]) -> None:
    run_ablations(write(ablations={"data": None, "seeds": [0], "workers": 2}))
    assert stages.at_once == {1, 2}


def test_named_variants_alone(stages: Stages, write: Callable[..., Params]) -> None:
    run_ablations(write(), ["multi"])
    assert of("train", stages.since()) == [("multi", "0"), ("multi", "3")]
    with pytest.raises(UserError, match="no 'mulit'"):
        run_ablations(write(), ["mulit"])


def test_a_wrong_section_is_refused_before_anything_runs(
    stages: Stages, write: Callable[..., Params]
) -> None:
    with pytest.raises(UserError, match=r"masks\.agregate"):
        run_ablations(write(masks={"agregate": "sum"}))
    with pytest.raises(UserError, match=r"single\.seed would stand against"):
        run_ablations(write(train={"variants": {"single": {"seed": 1}}}))
    with pytest.raises(UserError, match="one twice"):
        run_ablations(write(ablations={"seeds": [0, 0]}))
    assert stages.since() == []


def test_each_seed_has_params_of_its_own_folders(stages: Stages, write: Callable[..., Params]) -> None:
    run_ablations(write())
    told = yaml.safe_load(Path("data/proof/seed-3/params.yaml").read_text(encoding="utf-8"))
    assert told["train"]["seed"] == 3 and "ablations" not in told
    assert told["paths"]["runs"] == "data/proof/runs/seed-3"
    assert told["paths"]["apolo"] == "data/proof/gallery/apolo"
    assert Path("data/proof/seed-3/shards").resolve() == Path("data/proof/shards").resolve()


def test_the_time_left_is_by_epochs(write: Callable[..., Params]) -> None:
    variants = {"single": {"epochs": 4}, "multi": {"epochs": 2}}
    todo = Ablations(write(train={"variants": variants}))
    now = [0.0]
    board = Board(todo, clock=lambda: now[0])
    assert board.text() == "ablations: 0 of 4 trainings done"
    board.begin(todo.seeds[0], "single", todo.variant_parts(todo.seeds[0], "single"))
    assert "single, seed 0: starting" in board.text()
    now[0] = 100.0
    assert board.end(todo.seeds[0], "single") is False
    assert board.text() == "ablations: 1 of 4 trainings done, 3 min left"  # 8 of 12 epochs are: 200 s


# ---- children --------------------------------------------------------------------------------------


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[str, ...]]:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # else an old one of the same second and size

    def module(text: str) -> tuple[str, ...]:
        (tmp_path / "some_stage.py").write_text(text, encoding="utf-8")
        return ("some_stage",)

    return module


def test_a_childs_exit_code_says_whose_fault_it_is(
    script: Callable[[str], tuple[str, ...]], tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "x.log"
    with Children() as children:
        children.run("x", script("print('fine')"), 1, log)
        for code, kind in ((2, UserError), (1, RunFailed), (7, RunFailed)):
            words = script(f"import sys; print('it is {code}', flush=True); sys.exit({code})")
            with pytest.raises(kind, match=f"x ended with exit code {code}; .*x.log: it is {code}"):
                children.run("x", words, 1, log)
        with pytest.raises(RunFailed, match="exit code -9"):
            children.run("x", script("import os; os.kill(os.getpid(), 9)"), 1, log)
    assert log.read_text().splitlines() == ["fine", "it is 2", "it is 1", "it is 7"]
    assert last_line(tmp_path / "none.log") == ""


def test_children_divide_the_cores(
    script: Callable[[str], tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOSEM_CORES", "4")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    words = script("import os; print(os.environ['OMP_NUM_THREADS'], os.environ['EMOSEM_CORES'])")
    log = tmp_path / "x.log"
    with Children() as children:
        children.run("x", words, 1, log)
        children.run("x", words, 2, log)
    whole, half = (line.split() for line in log.read_text().splitlines())
    assert (whole[1], half[1]) == ("4", "2") and int(half[0]) <= int(whole[0])


def test_a_signal_reaches_every_child_once_and_begins_no_other(
    script: Callable[[str], tuple[str, ...]], tmp_path: Path
) -> None:
    words = script(
        "import signal, sys, time\n"
        "def end(*_):\n"
        " print('asked', flush=True); time.sleep(0.3); print('saved', flush=True); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    log, ended = tmp_path / "x.log", list[type]()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs

    def run() -> None:
        try:
            children.run("x", words, 1, log)
        except Stopped as error:
            ended.append(type(error))

    with Children() as children:
        thread = threading.Thread(target=run)
        thread.start()
        while "ready" not in (log.read_text() if log.exists() else ""):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)
        thread.join()
        assert ended == [Stopped] and children.signal == signal.SIGINT
        with pytest.raises(Stopped):
            children.run("x", words, 1, log)
    assert log.read_text().splitlines() == ["ready", "asked", "saved"]
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def test_a_child_stops_when_its_parent_is_killed(
    script: Callable[[str], tuple[str, ...]], tmp_path: Path
) -> None:
    script("import time\nprint('ready', flush=True)\ntime.sleep(60)")
    parent = (
        "import pathlib\nfrom stages._children import Children\n"
        f"Children().run('x', ('some_stage',), 1, pathlib.Path({str(tmp_path / 'x.log')!r}))"
    )
    paths = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    with subprocess.Popen([sys.executable, "-c", parent], env=paths) as process:
        log = tmp_path / "x.log"
        while "ready" not in (log.read_text() if log.exists() else ""):
            time.sleep(0.02)
        (child,) = _children_of(process.pid)
        process.kill()
    while child in _alive():
        time.sleep(0.05)


def _children_of(parent: int) -> list[int]:
    return [pid for pid, above in _alive().items() if above == parent]


def _alive() -> dict[int, int]:
    """Process -> its parent, of all that run and are no zombies."""
    found = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            found[int(file.parent.name)] = int(parent)
    return found
