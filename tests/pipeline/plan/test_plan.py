"""`plan` against hand counts of a small gallery: what there is to do, what it costs, what is done already."""

import csv
import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common import machine
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.features import step as features
from pipeline.features.params import FeaturesParams
from pipeline.features.size_estimate import bytes_per_artwork
from pipeline.features.step import build_features
from pipeline.masks.step import build_masks
from pipeline.parallel.map_shards import ParallelParams
from pipeline.plan import plan, workload
from pipeline.plan.timing import Settings, by_artwork, time_steps
from pipeline.regions.step import build_regions
from pipeline.shards.step import build_shards
from pipeline.similarity import step as similarity
from pipeline.similarity.step import build_similarity
from pipeline.utterances.step import UtterancesParams, build_utterances
from tests.imports import ROOT
from tests.worlds.backbones import write_backbones


@pytest.fixture(scope="module")
def params_file(tiny_gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Params of the 12-artwork gallery with random small encoders; nothing has run."""
    root = tmp_path_factory.mktemp("plan")
    backbones = write_backbones(root / "weights")
    sections = {
        "paths": {
            "artemis": str(next(tiny_gallery.rglob("*.csv"))),
            "wikiart": str(tiny_gallery / "wikiart"),
            "apolo": str(tiny_gallery / "apolo"),
            **{name: str(root / name) for name in ("data", "runs", "metrics", "report")},
        },
        "backbones": {
            "sam": {"arch": "tiny", "checkpoint": str(backbones.sam.checkpoint)},
            "clip": {"name": "tiny", "checkpoint": str(backbones.clip.checkpoint)},
            "vinvl": {"checkpoint": str(ROOT / "weights/tiny/vinvl.safetensors")},
            "device": "cpu",
        },
        "utterances": {"num_shards": 3},
        "regions": {"source": "vinvl", "min_detections": 3, "max_detections": 5},
        "plan": {"artworks": 2, "seconds": 60.0},
    }
    file = root / "params.yaml"
    file.write_text(yaml.safe_dump(sections))
    return file


@pytest.fixture(scope="module")
def made(params_file: Path) -> dict:
    return plan.make_plan(params_file)


def step(made: dict, name: str) -> dict:
    return next(row for row in made["steps"] if row["step"] == name)


def rows_of(paths: Paths) -> list[dict[str, str]]:
    with paths.artemis.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_items_are_what_the_csv_and_the_folder_hold(params_file: Path, made: dict) -> None:
    paths = Settings.load(params_file).paths
    rows = rows_of(paths)
    said = [row for row in rows if row["emotion"] in EMOTIONS]
    works = {(row["art_style"], row["painting"]) for row in rows}
    assert step(made, "utterances")["items"] == len(rows)
    assert step(made, "similarity")["items"] == len(said)
    assert step(made, "masks")["items"] == len({(r["art_style"], r["painting"], r["emotion"]) for r in said})
    assert step(made, "features")["items"] == len(works) == 12
    on_disk = sum(file.stat().st_size for file in paths.wikiart.rglob("*.jpg"))
    assert made["data"]["picture_bytes"] == on_disk
    assert step(made, "features")["read_bytes"] == on_disk


def test_the_split_is_the_one_that_the_utterances_step_draws(params_file: Path, tmp_path: Path) -> None:
    settings = Settings.load(params_file)
    for apolo in (settings.paths.apolo, tmp_path / "none"):
        paths = dataclasses.replace(settings.paths, data=tmp_path / apolo.name, apolo=apolo)
        counted = workload.count(paths, settings.utterances)
        build_utterances(paths, settings.utterances)
        said = pq.read_table(paths.step("utterances") / "utterances.parquet").to_pylist()
        train = [row for row in said if row["split"] == "train" and row["emotion"] in EMOTIONS]
        assert counted.train_utterances == len(train)
        assert counted.train_artworks == len({row["key"] for row in said if row["split"] == "train"})


def test_every_step_is_measured_and_takes_its_items_over_its_rate(made: dict) -> None:
    for row in made["steps"]:
        assert row["rate"] > 0, row
        assert row["problem"] == ""
        assert row["measured_on"] == 2
        if row["step"] != "utterances":  # its csv comes on top
            assert row["hours"] == pytest.approx(12 / row["rate"] / 3600, rel=0.01)
    assert made["hours_left"] == pytest.approx(sum(row["hours"] for row in made["steps"]), rel=0.01)
    assert made["device"] == machine.device_name("cpu")


def test_planned_bytes_are_what_the_steps_then_write(params_file: Path, made: dict, tmp_path: Path) -> None:
    settings = Settings.load(params_file)
    paths = dataclasses.replace(settings.paths, data=tmp_path)
    one = ParallelParams()
    build_utterances(paths, settings.utterances)
    build_regions(paths, settings.regions, settings.backbones, one)
    build_similarity(paths, settings.similarity, settings.backbones, one)
    build_masks(paths, settings.masks, one)
    build_features(paths, settings.features, settings.backbones, one)
    build_shards(paths, settings.shards)

    def written(name: str) -> int:
        return sum(file.stat().st_size for file in paths.step(name).iterdir())

    # Tars grow by the artwork; every shard adds at most 10 KiB of end, which 12 artworks do not hide.
    for name in ("features", "masks"):
        assert abs(step(made, name)["write_bytes"] - written(name)) <= 4 * 10_240 + 0.35 * written(name)
    assert written("utterances") < step(made, "utterances")["write_bytes"] + 16_000


# ---- what is done -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class World:
    """Params in a file, and where their data lies."""

    file: Path

    def change(self, **sections: dict[str, Any]) -> "World":
        """The same data by other params: these sections, laid over those of the file."""
        found = yaml.safe_load(self.file.read_text())
        for name, values in sections.items():
            found[name] = {**found.get(name, {}), **values}
        file = self.file.with_name("changed.yaml")
        file.write_text(yaml.safe_dump(found))
        return World(file)

    @property
    def paths(self) -> Paths:
        return Settings.load(self.file).paths

    def look_again(self) -> None:
        """Run the utterances step."""
        settings = Settings.load(self.file)
        build_utterances(settings.paths, settings.utterances)

    def resume(self) -> dict[str, int]:
        """Run the steps after utterances; step -> shards that were made."""
        s, one = Settings.load(self.file), ParallelParams()
        made = {
            "regions": build_regions(s.paths, s.regions, s.backbones, one),
            "similarity": build_similarity(s.paths, s.similarity, s.backbones, one),
            "masks": build_masks(s.paths, s.masks, one),
            "features": build_features(s.paths, s.features, s.backbones, one),
        }
        build_shards(s.paths, s.shards)
        return {name: counts["done"] for name, counts in made.items()}

    def done(self) -> dict[str, int]:
        """Step -> finished parts, by the plan."""
        rows = plan.make_plan(self.file, measuring="never")["steps"]
        assert {row["parts"] for row in rows} <= {1, PARTS}
        return {row["step"]: row["done"] for row in rows}


PARTS = 3
ALL = {"utterances": 1, "regions": 3, "similarity": 3, "masks": 3, "features": 3, "shards": 1}


def copy_world(params_file: Path, folder: Path) -> World:
    """These params with pictures and data of their own in a new folder."""
    found = yaml.safe_load(params_file.read_text())
    for name in ("wikiart", "data"):
        if Path(found["paths"][name]).is_dir():
            shutil.copytree(found["paths"][name], folder / name)
        found["paths"][name] = str(folder / name)
    file = folder / "params.yaml"
    file.write_text(yaml.safe_dump(found))
    return World(file)


@pytest.fixture(scope="module")
def built(params_file: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """All steps have run, and one picture could not be read: it is damaged, and only its header is sound."""
    world = copy_world(params_file, tmp_path_factory.mktemp("built"))
    picture = min(world.paths.wikiart.rglob("*.jpg"))
    whole = picture.read_bytes()
    build_utterances(world.paths, Settings.load(world.file).utterances)
    picture.write_bytes(whole[:300] + bytes(len(whole) - 300))
    world.resume()
    return world


@pytest.fixture
def own(built: World, tmp_path: Path) -> World:
    """A copy of it to spoil."""
    return copy_world(built.file, tmp_path)


def test_after_a_run_all_is_done_with_rejects_and_all(built: World) -> None:
    for step in ("regions", "similarity", "masks", "features"):
        found = [json.loads(file.read_text()) for file in built.paths.step(step).glob("[0-9]*.json")]
        assert sum(len(sidecar["rejects"]) for sidecar in found) == 1
    assert built.done() == ALL
    assert built.change(parallel={"retry_failed": True}).done() == ALL


@pytest.mark.parametrize(
    ("change", "undone"),
    [
        ({"regions": {"max_detections": 4}}, ("regions", "similarity", "masks", "shards")),
        ({"regions": {"sam_support": True}}, ("regions", "similarity", "masks", "shards")),
        ({"similarity": {"fit": "center"}}, ("similarity", "masks", "shards")),
        ({"masks": {"long_side": 128}}, ("masks", "shards")),
        ({"features": {"sam_dtype": "int8"}}, ("features", "shards")),
        ({"utterances": {"num_shards": 2}}, tuple(ALL)),
        ({"similarity": {"batch": 3}, "features": {"batch": 2}, "parallel": {"workers": 2}}, ()),
    ],
    ids=str,
)
def test_a_changed_param_undoes_its_step_and_those_after_it(
    built: World, change: dict[str, Any], undone: tuple[str, ...]
) -> None:
    changed = built.change(**change)
    parts = len(workload.count(changed.paths, Settings.load(changed.file).utterances).per_shard)
    assert parts == change.get("utterances", {}).get("num_shards", PARTS)
    rows = plan.make_plan(changed.file, measuring="never")["steps"]
    assert {row["step"]: row["done"] for row in rows} == ALL | dict.fromkeys(undone, 0)
    for row in rows:
        assert row["parts"] == (parts if ALL[row["step"]] > 1 else 1)


@pytest.mark.parametrize(
    ("encoder", "undone"),
    [
        ("clip", ("similarity", "masks", "features", "shards")),
        ("sam", ("features", "shards")),
        ("vinvl", ("regions", "similarity", "masks", "shards")),
    ],
)
def test_without_its_weights_nothing_of_a_step_is_done(
    built: World, encoder: str, undone: tuple[str, ...]
) -> None:
    values = yaml.safe_load(built.file.read_text())["backbones"].get(encoder, {})
    changed = built.change(backbones={encoder: {**values, "checkpoint": "nowhere/at.all"}})
    assert changed.done() == ALL | dict.fromkeys(undone, 0)


def test_files_that_are_gone_or_cut_short_are_not_done_nor_what_is_made_of_them(own: World) -> None:
    (own.paths.step("regions") / "000001.parquet").unlink()
    assert own.done() == ALL | {"regions": 2, "similarity": 2, "masks": 2, "shards": 0}
    tar = own.paths.step("features") / "000000.tar"
    tar.write_bytes(tar.read_bytes()[:-1024])
    (own.paths.step("similarity") / "000002.json").write_text("{")
    assert own.done() == ALL | {"regions": 2, "similarity": 1, "masks": 1, "features": 2, "shards": 0}
    shutil.rmtree(own.paths.step("utterances"))
    assert own.done() == dict.fromkeys(ALL, 0)


def test_a_changed_picture_undoes_its_shard_alone_and_the_run_does_what_the_plan_says(own: World) -> None:
    own.look_again()  # at the damaged picture, which is now left out by the utterances step
    own.resume()
    works = pq.read_table(own.paths.step("utterances") / "artworks.parquet").to_pylist()
    picture = own.paths.wikiart / works[-1]["path"]
    picture.write_bytes(picture.read_bytes() + b"x")  # after its end, where no decoder looks
    found = own.done()
    assert found == ALL | {"regions": 2, "similarity": 2, "masks": 2, "features": 2, "shards": 0}
    own.look_again()
    assert own.done() == found
    assert own.resume() == {
        **{step: PARTS - found[step] for step in ("regions", "similarity", "features")},
        "masks": 0,  # the picture is the same to look at, and so are its boxes and cosines
    }
    assert own.done() == ALL


def test_a_picture_of_the_same_size_undoes_its_shard_once_the_utterances_step_saw_it(own: World) -> None:
    own.look_again()
    own.resume()
    works = pq.read_table(own.paths.step("utterances") / "artworks.parquet").to_pylist()
    picture = own.paths.wikiart / works[-1]["path"]
    data = bytearray(picture.read_bytes())
    place = data.index(b"JFIF") + 8  # the density of its dots: nothing to see
    data[place] ^= 1
    picture.write_bytes(data)
    own.look_again()
    assert own.done() == ALL | {"regions": 2, "similarity": 2, "masks": 2, "features": 2, "shards": 0}
    own.resume()
    assert own.done() == ALL


def test_a_shard_is_only_fingerprinted_where_there_is_something(
    built: World, params_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first plan must not wait for gigabytes of weights to be hashed."""
    hashed: list[Path] = []

    def note(path: Path) -> str:
        hashed.append(path)
        return verify_weights(path)

    for module in (similarity, features):
        monkeypatch.setattr(module, "verify_weights", note)
    plan.make_plan(params_file, measuring="never")
    assert hashed == []
    built.done()
    assert {path.name for path in hashed} == {"clip.safetensors", "sam.safetensors"}


def test_rates_are_measured_where_something_is_left(built: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def timed(settings: Settings, rows: list[Any], *_: Any) -> tuple[dict[str, Any], Paths]:
        asked.append(bool(rows))
        return {}, settings.paths

    monkeypatch.setattr(plan, "measure", timed)
    finished = plan.make_plan(built.file)
    assert not asked and finished["hours_left"] == 0
    assert plan.NOTHING_LEFT in plan.plan_text(finished)
    plan.make_plan(built.file, measuring="always")
    changed = plan.make_plan(built.change(masks={"aggregate": "max"}).file)
    assert asked == [True, True] and plan.NOTHING_LEFT not in plan.plan_text(changed)


def test_another_csv_undoes_everything(own: World, tmp_path: Path) -> None:
    shorter = tmp_path / "shorter.csv"
    lines = own.paths.artemis.read_text(encoding="utf-8").splitlines(keepends=True)
    shorter.write_text("".join(lines[:-1]))
    assert own.change(paths={"artemis": str(shorter)}).done() == dict.fromkeys(ALL, 0)


def test_what_is_made_again_needs_no_room_of_its_own(built: World) -> None:
    def needed(world: World) -> int:
        return sum(place["needed"] for place in plan.make_plan(world.file, measuring="never")["disk"])

    assert needed(built) == 0
    each = bytes_per_artwork(FeaturesParams(), Settings.load(built.file).backbones)
    smaller = built.change(features={"sam_dtype": "int8"})
    assert smaller.done()["features"] == 0 and needed(smaller) == 0
    empty = built.change(paths={"data": str(built.file.parent / "none")})
    assert needed(empty) >= 12 * each


def test_without_weights_bytes_are_given_and_rates_are_unknown(params_file: Path, tmp_path: Path) -> None:
    sections = yaml.safe_load(params_file.read_text())
    sections["backbones"] = {
        "sam": {"arch": "vit_b", "checkpoint": "nowhere/sam_vit_b_01ec64.pth"},
        "clip": {"name": "ViT-B-16-quickgelu", "checkpoint": "nowhere/ViT-B-16.pt"},
        "vinvl": {"checkpoint": "nowhere/vinvl_vg_x152c4.pth"},
    }
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(sections))
    made = plan.make_plan(file)
    for name in ("regions", "similarity", "features"):
        assert step(made, name)["rate"] is None
        assert "nowhere" in step(made, name)["problem"]
        assert step(made, name)["write_bytes"] > 0
    grids = 2 * (256 * 64 * 64 + 196 * 768)  # float16: SAM ViT-B and CLIP ViT-B/16
    assert grids < step(made, "features")["write_bytes"] / 12 < grids + 4096
    assert step(made, "masks")["rate"] > 0  # of made-up similarities: masks need no weights
    assert made["unmeasured"] == ["regions", "similarity", "features", "shards"]
    shown = plan.plan_text(made)
    assert "nowhere/ViT-B-16.pt" in shown
    assert "unknown" in shown


def test_too_small_a_disk_is_said(params_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "free_bytes", lambda _path: 1000)
    made = plan.make_plan(params_file, measuring="never")
    assert [place["enough"] for place in made["disk"]] == [False]
    assert "NOT ENOUGH" in plan.plan_text(made)


def test_a_missing_csv_is_a_users_mistake(params_file: Path, tmp_path: Path) -> None:
    sections = yaml.safe_load(params_file.read_text())
    sections["paths"]["artemis"] = str(tmp_path / "none.csv")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(sections))
    with pytest.raises(UserError, match=r"none\.csv"):
        plan.make_plan(tmp_path / "params.yaml")


def test_artworks_without_a_picture_are_counted_apart(tmp_path: Path, tiny_gallery: Path) -> None:
    lines = next(tiny_gallery.rglob("*.csv")).read_text(encoding="utf-8").splitlines()
    (tmp_path / "a.csv").write_text("\n".join([*lines, "Baroque,gone,awe,it is lost,5", "x,y"]) + "\n")
    paths = Paths(artemis=tmp_path / "a.csv", wikiart=tiny_gallery / "wikiart", apolo=tmp_path)
    found = workload.count(paths, UtterancesParams(), sample=3)
    assert (found.artworks, found.missing_pictures, found.rows_rejected) == (12, 1, 1)
    assert found.rows == len(lines) - 1 + 2
    assert len(by_artwork(found.sample)) == 3
    assert sum(found.per_shard.values()) == 12


def test_spellings_of_one_file_are_one_artwork_as_in_the_step(tmp_path: Path, tiny_gallery: Path) -> None:
    lines = next(tiny_gallery.rglob("*.csv")).read_text(encoding="utf-8").splitlines()
    style, painting, _ = lines[1].split(",", 2)
    (tmp_path / "a.csv").write_text("\n".join([*lines, f"{style.upper()},{painting},awe,so odd,5"]) + "\n")
    paths = Paths(artemis=tmp_path / "a.csv", wikiart=tiny_gallery / "wikiart", apolo=tmp_path, data=tmp_path)
    found = workload.count(paths, UtterancesParams())
    made = build_utterances(paths, UtterancesParams())
    assert (found.artworks, found.missing_pictures) == (12, 0) == (made["artworks_kept"], 0)
    assert found.train_artworks == made["artwork_splits"]["train"]
    shards = pq.read_table(paths.step("utterances") / "artworks.parquet")["shard"].to_pylist()
    assert found.per_shard == Counter(shards)


def test_a_sample_run_leaves_what_the_steps_would(params_file: Path, tmp_path: Path) -> None:
    settings = Settings.load(params_file)
    sample = by_artwork(workload.count(settings.paths, settings.utterances, 2).sample)
    timings = time_steps(settings, sample, tmp_path)
    index = pq.read_table(tmp_path / "shards" / "index.parquet").to_pylist()
    assert len(index) == 2
    assert {row["split"] for row in index} == {"train"}  # so that training can be measured on them
    assert all(timing.artworks == 2 and timing.seconds > 0 for timing in timings.values())
    assert 0 <= timings["features"].waited <= timings["features"].seconds


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (2_097_152 * 80_031, "168 GB"), (1.69e12, "1.69 TB")],
)
def test_bytes_are_shown_with_three_digits(count: float, shown: str) -> None:
    assert machine.shown_bytes(count) == shown


def test_the_plan_is_json(made: dict) -> None:
    assert json.loads(json.dumps(made)) == made
