"""params/rounds.dvc.yml and the params files of its rounds agree, and disturb no stage of dvc.yaml."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from model.relabel.params import RelabelParams
from model.train.ablations import AblationsParams
from model.train.params import TrainParams
from pipeline.common.errors import UserError
from pipeline.common.params import Params, Paths, load_params
from pipeline.common.protocol import THRESHOLD
from stages.commands.run_stage import stage_of
from tests.imports import ROOT

FILE = yaml.safe_load((ROOT / "params" / "rounds.dvc.yml").read_text())
ROUNDS: dict[str, dict[str, str]] = FILE["vars"][0]["rounds"]
STAGE: dict[str, Any] = FILE["stages"]["round"]["do"]
GALLERY = yaml.safe_load((ROOT / "params.yaml").read_text())


def filled(text: str, name: str) -> str:
    for key, value in {"key": name, **{f"item.{k}": v for k, v in ROUNDS[name].items()}}.items():
        text = text.replace("${" + key + "}", value)
    return text


@pytest.mark.parametrize("name", ROUNDS)
def test_a_round_reads_and_writes_where_dvc_looks(name: str) -> None:
    file = ROOT / "params" / f"{name}.yaml"
    paths, relabel = load_params(file, "paths", Paths), load_params(file, "relabel", RelabelParams)
    outs = {filled(next(iter(out)), name) for out in STAGE["outs"]}
    assert outs == {
        *(str(paths.step(step)) for step in ("masks", "shards", "predict", "score")),
        str(paths.runs),
        str(paths.metrics),
    }
    assert all(next(iter(out.values())) == {"persist": True} for out in STAGE["outs"])  # it goes on
    deps = {filled(dep, name) for dep in STAGE["deps"]}
    read = [relabel.labels / "masks", relabel.labels / "shards", *relabel.students, paths.weights]
    assert {str(path) for path in read} <= deps
    assert load_params(file, "ablations", AblationsParams).data == relabel.labels
    assert filled(STAGE["cmd"], name).split()[-1] == f"params/{name}.yaml"


@pytest.mark.parametrize("name", ROUNDS)
def test_the_old_recipe_does_not_paint_over_a_rounds_labels(name: str) -> None:
    file = ROOT / "params" / f"{name}.yaml"
    with pytest.raises(UserError, match=rf"has a section relabel.*cli\.py relabel --params .*{name}\.yaml"):
        stage_of("masks").read(file)
    assert stage_of("relabel").read(file)
    assert stage_of("masks").read(ROOT / "params.yaml")


def test_a_step_does_not_write_through_a_link_into_the_finished_round(tmp_path: Path) -> None:
    (tmp_path / "data" / "features").mkdir(parents=True)
    (tmp_path / "next").mkdir()
    link = tmp_path / "next" / "features"
    link.symlink_to("../data/features", target_is_directory=True)
    paths = {"data": str(tmp_path / "next")}
    data, elsewhere = str(tmp_path / "data"), str(tmp_path / "disk")
    for section, shared in (("relabel", {"labels": data}), ("ablations", {"data": data})):
        params = Params(tmp_path / "params.yaml", {"paths": paths, section: shared})
        with pytest.raises(
            UserError, match=rf"features is a link to .*data/features \({section}\..*into that run"
        ):
            stage_of("features").read(params)
        assert stage_of("similarity").read(params)  # no link: made here
    assert stage_of("features").read(Params(tmp_path / "p.yaml", {"paths": paths}))  # a disk of the user's
    assert stage_of("features").read(
        Params(tmp_path / "p.yaml", {"paths": paths, "ablations": {"data": elsewhere}})
    )


@pytest.mark.parametrize("missing", ["labels", "students", "label_threshold", "student_threshold"])
def test_what_differs_from_round_to_round_has_to_be_said(missing: str) -> None:
    sections = Params.read(ROOT / "params" / "round1.yaml").sections
    said = {name: value for name, value in sections["relabel"].items() if name != missing}
    with pytest.raises(UserError, match=rf"relabel\.{missing}"):
        stage_of("relabel").read(Params(Path("p.yaml"), {**sections, "relabel": said}))


def test_what_a_round_depends_on_is_what_dvc_makes() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    outs = [out if isinstance(out, str) else next(iter(out)) for s in stages.values() for out in s["outs"]]
    made = {out.replace("${paths.data}", "data").replace("${paths.runs}", "runs") for out in outs}
    made |= {"runs/multi", "data/gallery/apolo"}  # of a matrix, and within a folder
    deps = {filled(dep, "round1") for dep in STAGE["deps"]}
    assert {dep for dep in deps if dep.startswith(("data/", "runs/"))} <= made
    written = {filled(next(iter(out)), "round1") for out in STAGE["outs"]}
    read = {dep for stage in stages.values() for dep in stage["deps"]}
    read = {dep.replace("${paths.data}", "data").replace("${paths.runs}", "runs") for dep in read}
    for path in map(Path, made | read):  # a round inside what a stage reads would be run before it
        assert not any(path in (Path(out), *Path(out).parents) for out in written), path


def test_dvc_knows_of_no_round_until_asked() -> None:
    """Every dvc.yaml of a repository is part of `dvc status`."""
    listed = subprocess.run(
        ["git", "ls-files", "*dvc.yaml"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert [file for file in listed.stdout.split() if Path(file).name == "dvc.yaml"] == ["dvc.yaml"]


def test_the_first_round_departs_from_the_gallery_in_its_labels_alone() -> None:
    file = ROOT / "params" / "round1.yaml"
    ours = yaml.safe_load(file.read_text())
    changed = {name for name in ours if ours[name] != GALLERY.get(name)} | (GALLERY.keys() - ours.keys())
    assert changed == {"ablations", "paths", "relabel", "train", "pretrain"}
    assert {k for k in ours["train"] if ours["train"][k] != GALLERY["train"][k]} == {"binarise", "variants"}
    assert ours["train"]["variants"].items() <= GALLERY["train"]["variants"].items()
    assert load_params(file, "relabel", RelabelParams).label_threshold == GALLERY["train"]["binarise"]
    assert load_params(file, "train", TrainParams).binarise == THRESHOLD
