"""params/ablations.yaml and docs/paper.md: every row of the paper has a variant and a command that works."""

import dataclasses
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from dvc.utils.hydra import apply_overrides

from cli import app
from model.maps.predictions import read_predictions
from model.predict import step as predict_module
from model.predict.params import PredictParams
from model.predict.step import predict_items
from model.relabel.params import RelabelParams
from model.score.paper_tables.tables import build_tables, published
from model.train.ablations import DATA_STEPS, NEEDED, AblationsParams, seed_paths, share, share_with_seed
from model.train.params import TrainParams
from model.train.train import train
from pipeline.backbones.params import BackbonesParams
from pipeline.common.errors import UserError
from pipeline.common.files import write_parquet
from pipeline.common.params import Paths, load_params, parse_section
from pipeline.common.protocol import THRESHOLD
from pipeline.common.schema import ARTWORKS, UTTERANCES
from pipeline.gallery.world import GalleryParams
from pipeline.reader.index import Index
from pipeline.releases.apolo import ApoloItem
from tests.imports import ROOT
from tests.worlds import trained_shards

FILE = ROOT / "params" / "ablations.yaml"
SECTIONS = yaml.safe_load(FILE.read_text())
PROOF = yaml.safe_load((ROOT / "params" / "proof.yaml").read_text())
GALLERY = yaml.safe_load((ROOT / "params.yaml").read_text())
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PAGE = (ROOT / "docs" / "paper.md").read_text()
COMMANDS = re.findall(r"`((?:python|dvc) [^`\n]+)`", PAGE) + re.findall(r"(?m)^(?:python|dvc) .+$", PAGE)
ABLATIONS = ("table2", "table4", "table5", "table6", "figure7")


# ---- the params ------------------------------------------------------------------------------------


def test_every_variant_is_valid_and_differs_from_the_papers_model_in_what_its_row_says() -> None:
    params = load_params(FILE, "train", TrainParams)
    assert len(params.variants) == 9 and params.epochs < GALLERY["train"]["epochs"]
    plain = params.of("single")
    for variant in params.variants:
        changed = params.of(variant)
        assert (changed == plain) is (variant == "single")
        assert changed.epochs == plain.epochs and changed.seed == plain.seed
    assert parse_section(SECTIONS["ablations"], "ablations", AblationsParams, "file").data == Path("data")
    load_params(FILE, "backbones", BackbonesParams)


def test_but_for_epochs_and_variants_it_is_the_gallerys_settings() -> None:
    for section in ("backbones", "predict", "score"):
        assert SECTIONS[section] == GALLERY[section]
    own = {"epochs", "variants"}
    assert {k: v for k, v in SECTIONS["train"].items() if k not in own} == {
        k: v for k, v in GALLERY["train"].items() if k not in own
    }
    shared = ("artemis", "wikiart", "apolo", "weights")
    assert all(SECTIONS["paths"][name] == GALLERY["paths"][name] for name in shared)


def test_the_proof_gallery_is_another_gallery_and_else_the_same() -> None:
    params = load_params(ROOT / "params" / "proof.yaml", "train", TrainParams)
    every = load_params(FILE, "train", TrainParams)
    assert {name: params.of(name) for name in params.variants} == {
        name: dataclasses.replace(every.of(name), epochs=GALLERY["train"]["epochs"])
        for name in every.variants
    }
    assert list(params.variants)[:2] == ["single", "multi"]  # whoever stops early has the two paradigms
    same = ("backbones", "regions", "similarity", "masks", "alignment", "baselines")
    assert all(PROOF[section] == GALLERY[section] for section in same)
    drawn, default = (parse_section(x["gallery"], "gallery", GalleryParams, "") for x in (PROOF, GALLERY))
    shares = [round(g.artworks * (1 - g.val_share - g.test_share)) for g in (drawn, default)]
    assert shares == [480, 480]  # a training costs the same
    assert drawn.seed not in (default.seed, 0, 1, 2, 3) and drawn.seed < 1_000_000


def test_the_data_keys_say_what_is_made_here() -> None:
    assert AblationsParams(data=None).made_here == DATA_STEPS and AblationsParams().made_here == ()
    own = AblationsParams(own=("shards", "masks"))
    assert own.made_here == ("masks", "shards")
    assert load_params(ROOT / "params" / "proof.yaml", "ablations", AblationsParams).seeds == (0, 1, 2)


def test_relabel_takes_the_place_of_masks(tmp_path: Path) -> None:
    paths, params = world(tmp_path)
    own = AblationsParams(data=params.data, own=("shards", "relabel"))
    assert own.made_here == ("relabel", "shards") and own.folders_here == ("masks", "shards")
    share(paths, params)
    assert paths.step("masks").is_symlink()
    share(paths, own)  # or the new labels would be written over those that they are made of
    assert not paths.step("masks").is_symlink() and not paths.step("relabel").exists()
    assert paths.step("features").is_symlink()
    for wrong in ({"data": None, "own": ("relabel",)}, {"own": ("masks", "relabel")}):
        with pytest.raises(ValueError, match="takes the place of masks"):
            AblationsParams(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["proof", "proof_beyond"])
def test_a_round_on_the_proof_gallery_departs_in_its_labels_alone(name: str) -> None:
    before = yaml.safe_load((ROOT / "params" / f"{name}.yaml").read_text())
    ours = yaml.safe_load((ROOT / "params" / f"{name.replace('proof', 'proof_round1')}.yaml").read_text())
    relabel = parse_section(ours["relabel"], "relabel", RelabelParams, "")
    paths, new = (parse_section(each["paths"], "paths", Paths, "") for each in (before, ours))
    assert relabel.labels == paths.data != new.data and relabel.label_threshold == before["train"]["binarise"]
    asked, seeds = ours["ablations"], before["ablations"]["seeds"]
    assert relabel.students == tuple(seed_paths(paths, seed).runs / "multi" for seed in seeds)
    assert Path(asked["data"]) == Path(*asked["beside"].values()) == paths.data
    assert (asked["seeds"], asked["own"]) == (seeds, ["relabel", "shards"])
    assert ours["train"]["binarise"] == THRESHOLD
    changed = {part for part in ours if ours[part] != before.get(part)} | (before.keys() - ours.keys())
    assert changed - {"train"} == {"ablations", "paths", "relabel"}
    own = {"binarise", "variants"}
    kept = ({k: v for k, v in each["train"].items() if k not in own} for each in (ours, before))
    assert next(kept) == next(kept)
    assert ours["train"]["variants"].items() <= before["train"]["variants"].items()


@pytest.mark.parametrize("sections", [SECTIONS, PROOF], ids=["ablations", "proof"])
def test_nothing_is_written_where_a_dvc_stage_writes(sections: dict[str, Any]) -> None:
    """Else `dvc repro` would find its outputs, or what it depends on, changed."""
    known = {
        re.sub(r"\$\{paths\.(\w+)\}", lambda m: GALLERY["paths"][m[1]], path)
        for stage in DVC.values()
        for path in [*stage["deps"], *(o if isinstance(o, str) else next(iter(o)) for o in stage["outs"])]
    }
    for name in ("data", "runs", "metrics", "report"):
        written = Path(sections["paths"][name])
        assert not any(written == Path(path) or Path(path) in written.parents for path in known), name


# ---- the links -------------------------------------------------------------------------------------


def world(folder: Path) -> tuple[Paths, AblationsParams]:
    for step in (*NEEDED, "gallery"):
        (folder / "data" / step).mkdir(parents=True)
        (folder / "data" / step / "file").write_text(step)
    return Paths(data=folder / "data" / "ablations"), AblationsParams(data=folder / "data")


def test_data_is_linked_and_linked_again(tmp_path: Path) -> None:
    paths, params = world(tmp_path)
    for _ in range(2):
        share(paths, params)
        assert {path.name for path in paths.data.iterdir()} == {*NEEDED, "gallery"}
        assert all((paths.step(step) / "file").read_text() == step for step in NEEDED)
    tmp_path.rename(tmp_path.with_name("moved"))  # a whole checkout may move
    moved = tmp_path.with_name("moved") / "data" / "ablations" / "shards" / "file"
    assert moved.read_text() == "shards"


def test_what_stands_in_the_way_is_named_and_left_alone(tmp_path: Path) -> None:
    paths, params = world(tmp_path)
    with pytest.raises(UserError, match=r"ablations\.data are both"):
        share(Paths(data=params.data), params)
    paths.step("masks").mkdir(parents=True)
    with pytest.raises(UserError, match="in the way"):
        share(paths, params)
    assert paths.step("masks").is_dir() and not paths.step("masks").is_symlink()
    with pytest.raises(UserError, match="dvc repro"):
        share(paths, AblationsParams(data=tmp_path / "none"))


def test_own_steps_are_not_written_through_a_link(tmp_path: Path) -> None:
    """Labels of one's own beside another run's gallery: what was linked before becomes a folder."""
    paths, params = world(tmp_path)
    share(paths, params)
    own = AblationsParams(data=params.data, own=("masks", "shards"))
    share(paths, own)
    assert not paths.step("masks").exists() and paths.step("features").is_symlink()
    paths.step("masks").mkdir()
    share(paths, own)
    assert paths.step("masks").is_dir() and not paths.step("masks").is_symlink()
    (tmp_path / "data" / "masks" / "file").unlink()  # an own step need not be there
    (tmp_path / "data" / "masks").rmdir()
    share(paths, own)


def test_a_seed_has_folders_of_its_own_on_the_same_data(tmp_path: Path) -> None:
    paths, params = world(tmp_path)
    share(paths, params)
    inner = seed_paths(paths, 2)
    for _ in range(2):
        share_with_seed(paths, 2)
        assert (inner.step("shards") / "file").read_text() == "shards"
    assert inner.data == paths.data / "seed-2" and inner.apolo == paths.apolo
    assert {inner.runs, inner.metrics, inner.report} & {paths.runs, paths.metrics, paths.report} == set()


# ---- a tiny run of every variant -------------------------------------------------------------------


def test_every_variant_trains_predicts_and_fills_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = trained_shards.shards(tmp_path, {"train": 2, "val": 1, "test": 1})
    sam, gpt2 = trained_shards.backbones(tmp_path / "weights")
    index = Index.load(paths.step("shards"))
    row = index.rows("test")[0]
    items = [ApoloItem("p", row.key, e, "test", (1,), ("words",), Path("nowhere")) for e in row.emotions]
    monkeypatch.setattr(predict_module, "load_items", lambda *_: (items, []))
    for name, schema in (("utterances", UTTERANCES), ("artworks", ARTWORKS)):
        write_parquet(paths.step("utterances") / f"{name}.parquet", schema.empty_table())
    variants = SECTIONS["train"]["variants"]
    params = TrainParams(epochs=1, validation_artworks=1, variants=variants)
    methods: dict[str, str] = {}
    for variant in variants:
        train(paths, params, variant, sam_checkpoint=sam, language_model=gpt2, device="cpu")
        predict_items(paths, PredictParams(max_new_tokens=4, device="cpu"), variant)
        found = [m.name for m in read_predictions(paths.step("predict") / variant, "before-resize")]
        own = [name for name in found if not name.endswith(":other-emotion")]
        assert len(own) == 1 and own[0] not in methods
        methods[own[0]] = variant
    assert methods["emosem-single"] == "single" and methods["emosem-single:ft-md"] == "ft-md"
    printed = {row["method"] for t in ABLATIONS for row in published()["tables"][t]["rows"]}
    assert set(methods) == printed
    scores: dict[str, Any] = {"data": "d", "backbones": "b", "split": "test", "items": {"counted": 1}}
    scores["rows"] = [{"method": method, "items": 1, "seg_pr50": 50.0} for method in methods]
    filled = build_tables(scores, {}, {})
    for name in ABLATIONS:
        sources = [row.source for row in filled[name].rows]
        assert sources == ["paper", "here"] * (len(sources) // 2)


# ---- the page --------------------------------------------------------------------------------------


def test_every_row_has_a_command_for_its_variant() -> None:
    methods = {row["method"] for t in ABLATIONS for row in published()["tables"][t]["rows"]}
    lines = [line for line in PAGE.splitlines() if line.startswith("| Tab.") or line.startswith("| Fig.")]
    assert {re.findall(r"`([^`]+)`", line)[0] for line in lines} == methods
    named = {shlex.split(command)[3] for line in lines for command in re.findall(r"`(python [^`]+)`", line)}
    assert named == set(SECTIONS["train"]["variants"])


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_every_command_on_the_page_names_what_there_is(command: str, tmp_path: Path) -> None:
    words = shlex.split(command)
    if words[:2] == ["dvc", "repro"]:
        assert len(words) == 2
    elif words[:3] == ["dvc", "exp", "run"]:
        check_experiment(words[3:], tmp_path)
    elif words[0] == "dvc":
        assert (
            shlex.join(words[1:3])
            in ("exp show", "metrics diff", "plots show", "plots diff", "dag --mermaid")
            or len(words) == 2
        )
    elif words[:2] == ["python", "-m"]:
        check_stage(words[2:])
    else:
        assert words[:2] == ["python", "cli.py"]
        check_cli(words[2:])


def check_experiment(words: list[str], folder: Path) -> None:
    """Its overrides give valid params, of the gallery and of the paper; it names stages, `score` the last."""
    alone = words[0] == "-s"
    words = words[alone:]
    options = 2 * words.count("-S")
    words, targets = words[:options], words[options:]
    assert words[::2] == ["-S"] * (len(words) // 2)
    for target in targets:
        stage, _, variant = target.partition("@")
        assert variant == "" or variant in DVC[stage]["matrix"]["variant"]
    assert targets == [] or targets[-1] == "score"
    assert alone == (len(targets) > 1)
    variant = "single"
    for base in ("params.yaml", "params/artemis.yaml"):
        file = folder / "params.yaml"
        file.write_text((ROOT / base).read_text())
        before = load_params(file, "train", TrainParams).of(variant)
        apply_overrides(str(file), words[1::2])
        load_params(file, "backbones", BackbonesParams)
        after = load_params(file, "train", TrainParams).of(variant)
        assert (before != after) is any("train." in word for word in words)


def check_stage(words: list[str]) -> None:
    module, *rest = words
    file = ROOT / rest[rest.index("--params") + 1]
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
    if not rest[0].startswith("--"):
        load_params(file, "train", TrainParams).of(rest[0])


def check_cli(words: list[str]) -> None:
    """Parsed, not run."""
    name, *arguments = words
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    context = command.make_context(name, list(arguments))
    if name == "ablations":
        params = load_params(ROOT / context.params["params"], "train", TrainParams)
        for variant in context.params["variants"] or ():
            params.of(variant)


def test_the_sections_are_known_to_the_doctor() -> None:
    assert json.loads(json.dumps(SECTIONS)) == SECTIONS
