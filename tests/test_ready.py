"""Commands refuse bad input before torch is imported, in the words of the step itself."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.common.errors import UserError
from pipeline.common.params import Params, Paths
from stages import _ready
from tests.imports import ROOT

EACH_IN_A_FORK = """
import json, os, sys
import cli
heavy = {"torch", "transformers", "open_clip"}
for arguments in json.load(sys.stdin):
    if (child := os.fork()) == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.argv = ["cli.py", *arguments]
        try:
            cli.main()
        except SystemExit as end:
            os._exit(end.code + 100 * bool(heavy & set(sys.modules)))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
REFUSED = [
    ["trian"],
    ["train"],
    ["train", "--params", "typo.yaml"],
    ["train", "--params", "nowhere.yaml"],
    ["cache-features"],
    ["build-pseudo-masks"],
    ["relabel"],
    ["predict", "runs/single", "nowhere.jpg"],
    ["predict", "runs/single", "here.jpg"],
    ["predict", "runs/single", "here.jpg", "--emotion", "angst"],
    ["export", "runs/single", "out"],
    ["score"],
    ["score", "--maps", "nowhere"],
    ["label-card"],
    ["ablations", "--params", "params.yaml"],
    ["shard-stats"],
    ["look", "x"],
    ["report"],
    ["bench", "train"],
    ["bench", "factory"],
    ["bench", "drift"],
    ["plan"],
    ["fetch", "sma"],
    ["pretrain-tiny", "params.yaml"],
    ["gallery", "params.yaml"],
]


def test_every_refusal_comes_before_torch(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("{}")
    (tmp_path / "typo.yaml").write_text("train: {epoch: 3}")
    (tmp_path / "here.jpg").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-c", EACH_IN_A_FORK],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(ROOT)},
        input=json.dumps(REFUSED),
        capture_output=True,
        text=True,
        check=False,
    )
    codes = [int(line) for line in done.stdout.split()]
    assert dict(zip(map(" ".join, REFUSED), codes, strict=True)) == {" ".join(r): 2 for r in REFUSED}


def said(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        call()
    return str(error.value)


@pytest.mark.parametrize("weights", [True, False])
def test_the_early_word_is_the_steps_own(
    weights: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import stages.features
    import stages.score
    import stages.train
    from pipeline.plan.workload import count
    from pipeline.utterances.params import UtterancesParams

    monkeypatch.chdir(tmp_path)
    if weights:
        (tmp_path / "weights").symlink_to(ROOT / "weights")
    params = Params(Path("params.yaml"), {})
    assert said(lambda: _ready.before_train(params, "single")) == said(
        lambda: stages.train.STAGE.run(params, "single")
    )
    assert said(lambda: _ready.before_features(params)) == said(lambda: stages.features.STAGE.run(params))
    assert said(lambda: _ready.before_score(params)) == said(lambda: stages.score.STAGE.run(params))
    assert said(lambda: _ready.before_plan(params)) == said(lambda: count(Paths(), UtterancesParams()))
