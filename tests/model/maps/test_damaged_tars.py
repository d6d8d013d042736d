"""A damaged tar is one clear error in whatever reads maps: never a method that is scored as missing."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from model.baselines.other_recipes import copy_maps
from model.baselines.rows import read_rows, write_rows
from model.report.look import look
from model.report.step import ReportParams, build_report
from model.score.inputs import find_methods
from model.score.params import ScoreParams
from pipeline.backbones.params import BackbonesParams
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.releases.apolo import ApoloItem, load_items
from tests.imports import ROOT
from tests.worlds import indexed_shards
from tests.worlds.damaged_tars import DAMAGES, damage

TARS = {
    "predictions": ("predict/single/maps.tar", "run the predict step"),
    "masks": ("masks/000001.tar", "run the masks step"),
}


def items_of(paths: Paths) -> list[ApoloItem]:
    tables = (pq.read_table(paths.step("utterances") / f"{n}.parquet") for n in ("utterances", "artworks"))
    return load_items(paths.apolo, *tables)[0]


def score(paths: Paths) -> None:
    find_methods(paths, items_of(paths), ScoreParams())


def report(paths: Paths) -> None:
    build_report(paths, ReportParams(items=2), BackbonesParams())


def look_at(paths: Paths) -> None:
    look(paths, indexed_shards.keys(8)[1], paths.data / "page.html")


@pytest.fixture
def world(tmp_path: Path) -> Paths:
    return indexed_shards.write_everything(tmp_path)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("which", TARS)
def test_score_report_and_look_name_a_damaged_tar(world: Paths, which: str, how: str) -> None:
    readers: list[Callable[[Paths], None]] = [score, report, look_at]
    for reader in readers:
        reader(world)
    name, advice = TARS[which]
    damage(world.data / name, how)
    for reader in readers:
        other_size = r"has \d+ bytes and the indexed one had \d+: .*run masks and shards"
        message = rf"^{world.data / name} (is damaged: .*{advice}.* again|{other_size})$"
        with pytest.raises(UserError, match=message) as error:
            reader(world)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_tar_of_a_baseline_names_its_step(world: Paths, how: str) -> None:
    folder = world.step("baselines")
    copy_maps(folder / "clip+sam", "clip+sam", world.step("masks"), items_of(world))
    write_rows(folder, ["clip+sam"])
    assert [method.name for method in read_rows(world, "before-resize")] == ["clip+sam"]
    damage(folder / "clip+sam" / "maps.tar", how)
    with pytest.raises(UserError, match=r"clip\+sam/maps.tar is damaged: .*run the baselines step again"):
        read_rows(world, "before-resize")


def test_the_command_prints_one_line_and_exits_with_2(world: Paths, tmp_path: Path) -> None:
    folders = {name: str(getattr(world, name)) for name in vars(world)}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"paths": folders}))
    damage(world.step("predict") / "multi" / "maps.tar", "cut-between-members")
    for command in (
        ["-m", "stages.report", "--params", "params.yaml"],
        [str(ROOT / "cli.py"), "look", indexed_shards.keys(8)[0], "--params", "params.yaml"],
    ):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        *before, message = done.stderr.splitlines()  # first what the command is doing
        assert len(before) <= 1 and "multi/maps.tar is damaged" in message
