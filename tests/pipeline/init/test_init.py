"""`init` writes params by which every row is read as a person would read it, and never over a file."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from pipeline.common.errors import UserError
from pipeline.common.params import Paths, load_params
from pipeline.common.sections import SECTIONS
from pipeline.init.write import PRESETS, init_csv, init_pictures
from pipeline.releases.apolo_ids import RELEASE
from pipeline.utterances.params import UtterancesParams
from pipeline.utterances.step import build_utterances
from tests.imports import ROOT
from tests.test_cli import run
from tests.worlds import published


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    published.wikiart(Path())
    return Path()


def init(csv: str, images: str, apolo: Path | None = None, **options: Any) -> tuple[dict[str, Any], str]:
    """Write the file, run the utterances step by it; its metrics, and what `init` said."""
    chosen = {"preset": None, "out": None, "force": False} | options
    file, text = init_csv(Path(csv), Path(images), apolo, **chosen)
    metrics = build_utterances(
        load_params(file, "paths", Paths), load_params(file, "utterances", UtterancesParams)
    )
    assert metrics["rows_in"] == metrics["rows_kept"] + metrics["rows_rejected"]
    return metrics, text


def line(text: str, what: str) -> str:
    return next(row for row in text.splitlines() if row.startswith(f"{what} "))


@pytest.mark.parametrize(
    ("name", "layout", "kept"),
    [
        ("release_v0", "artemis", 18),
        ("combined_v2", "artemis-v2", 23),
        ("contrastive", "artemis-v2", 5),
        ("preprocessed", "artemis-preprocessed", 16),
        ("artelingo", "artelingo", 6),
    ],
)
def test_paintings(here: Path, name: str, layout: str, kept: int) -> None:
    getattr(published, name)().to_csv("My Table.csv", index=False)
    metrics, text = init("My Table.csv", "wikiart")
    assert (metrics["layout"], metrics["rows_kept"]) == (layout, kept)
    assert line(text, "layout").split()[1] == f"{layout}:"
    values = yaml.safe_load(Path("my-table.yaml").read_text())
    assert values["utterances"]["layout"] == layout  # and is not guessed again
    assert values["paths"]["data"] == "data/my-table"


def test_photographs_and_plain_tables(here: Path) -> None:
    published.photographs(here)
    published.affection().to_csv("affection.csv", index=False)
    assert init("affection.csv", "photographs")[0]["rows_kept"] == 5
    published.plain(here).to_csv("plain.csv", index=False)
    metrics, text = init("plain.csv", "photos")
    assert metrics["reasons"] == {"unknown-emotion": 1}
    assert "not understood: joy 1" in line(text, "emotions")


def test_columns_in_another_language_are_known_by_what_stands_in_them(here: Path) -> None:
    table = published.plain(here)
    table["utterance"] = "weil der Himmel so weit ist"
    table["emotion"] = ["amused", "Awe", "scared", "something else"]
    table.insert(0, "Nr", range(4))
    table.columns = pd.Index(["Nr", "Datei", "Gefühl", "Warum"])
    table.to_csv("umfrage.csv", index=False, sep=";", encoding="utf-16")
    metrics, text = init("umfrage.csv", "photos")
    assert metrics["emotions"] == {"amusement": 1, "awe": 1, "fear": 1, "something else": 1}
    assert "image from Datei, emotion from Gefühl, utterance from Warum; 1 not used" in text
    assert "UTF-16" in line(text, "csv") and "semicolons" in line(text, "csv")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"])
def test_every_dialect_is_read_as_the_plain_one(
    here: Path, separator: str, quote: str, encoding: str
) -> None:
    table = published.release_v0()
    quoting = 0 if quote == '"' else 1
    table.to_csv("t.csv", index=False, sep=separator, quotechar=quote, quoting=quoting, encoding=encoding)
    metrics, _ = init("t.csv", "wikiart")
    assert (metrics["layout"], metrics["rows_kept"], metrics["artworks_kept"]) == ("artemis", len(table), 6)


def test_a_folder_one_off_and_a_flat_one(here: Path) -> None:
    published.release_v0().to_csv("t.csv", index=False)
    shutil.copytree("wikiart", "unzipped/wikiart")
    assert init("t.csv", "unzipped", out=Path("a.yaml"))[0]["artworks_kept"] == 6
    assert init("t.csv", "unzipped/wikiart/Realism", out=Path("b.yaml"))[0]["artworks_kept"] == 6
    Path("flat").mkdir()
    for file in Path("wikiart").rglob("*.jpg"):
        shutil.copy(file, "flat")
    release = published.apolo(here)
    metrics, text = init("t.csv", "flat", release, out=Path("c.yaml"))
    assert (metrics["artworks_kept"], metrics["apolo_items"]) == (6, 12)
    assert "by their files' names alone" in line(text, "pictures")


def test_apolo_is_checked_before_anything_is_written(here: Path) -> None:
    release = published.apolo(here)
    published.combined_v2().to_csv("v2.csv", index=False)
    assert "12 of 12 items" in line(init("v2.csv", "wikiart", release)[1], "apolo")
    published.preprocessed().to_csv("p.csv", index=False)
    with pytest.raises(UserError, match=f"put its {RELEASE} into"):
        init("p.csv", "wikiart", release)
    assert not Path("p.yaml").exists()
    with pytest.raises(UserError, match=r"has no apolo\.json"):
        init("v2.csv", "wikiart", Path("wikiart"), force=True)


def test_no_file_is_written_over(here: Path) -> None:
    published.release_v0().to_csv("t.csv", index=False)
    Path("t.yaml").write_text("mine")
    with pytest.raises(UserError, match="--force"):
        init("t.csv", "wikiart")
    assert Path("t.yaml").read_text() == "mine"
    init("t.csv", "wikiart", force=True)
    first = Path("t.yaml").read_bytes()
    init("t.csv", "wikiart", force=True)
    assert Path("t.yaml").read_bytes() == first


@pytest.mark.parametrize(
    ("data", "images", "words"),
    [
        (None, "wikiart", "cannot be opened"),
        (b"", "wikiart", "is empty"),
        (b"PK\x03\x04", "wikiart", "zip file"),
        (b"art_style,painting,emotion,utterance,repetition\n", "wikiart", "no rows"),
        (b"a,b\n1,2\n", "wikiart", "no column can be the emotion and the utterance and the image"),
        (b"image,emotion,utterance\na.jpg,joy,oh\n", "wikiart", "unknown-emotion 1; row 0: 'joy'"),
        (b"image,emotion,utterance\na.jpg,awe,oh\n", "wikiart", r"none of the csv's: no a\.jpg"),
        (b"image,emotion,utterance\na.jpg,awe,oh\n", "nowhere", "is no folder"),
        (b"image,emotion,utterance\na.jpg,awe,oh\n", "empty", "has no picture in it"),
    ],
)
def test_what_cannot_be_used_is_said(here: Path, data: bytes | None, images: str, words: str) -> None:
    Path("empty").mkdir()
    if data is not None:
        Path("t.csv").write_bytes(data)
    with pytest.raises(UserError, match=words):
        init("t.csv", images)
    assert not list(Path().glob("*.yaml"))


def test_names_with_anything_in_them(here: Path) -> None:
    table = published.plain(here)
    name = 'Umfrage: "2024" #1 – été.csv'
    table.rename(columns={"emotion": 'how "do" you: feel?'}).to_csv(name, index=False)
    assert init(name, "photos")[0]["rows_kept"] == 3
    assert Path("umfrage-2024-1-ete.yaml").is_file()


def test_pictures_alone(here: Path) -> None:
    published.plain(here)
    file, text = init_pictures(Path("photos"), None, None, False)
    assert file == Path("photos.yaml") and "python cli.py predict runs/single photos" in text
    Path("runs/best").mkdir(parents=True)
    Path("runs/best/model.safetensors").touch()
    assert "predict runs/best photos" in init_pictures(Path("photos"), "tiny", None, True)[1]
    with pytest.raises(UserError, match="--force"):
        init_pictures(Path("photos"), None, None, False)


def blocks(text: str) -> dict[str, str]:
    """Top-level section -> its lines."""
    parts = re.split(r"(?m)^(?=\w+:)", text)
    return {part.partition(":")[0]: part.rstrip() for part in parts if re.match(r"\w+:", part)}


@pytest.mark.parametrize(("preset", "file"), [("official", "params/artemis.yaml"), ("tiny", "params.yaml")])
def test_presets_are_the_params_files_word_for_word(preset: str, file: str) -> None:
    ours, theirs = blocks((PRESETS / f"{preset}.yaml").read_text()), blocks((ROOT / file).read_text())
    own = {"regions"} | ({"parallel"} - set(theirs))
    assert {name: text for name, text in ours.items() if name not in own}.items() <= theirs.items()
    assert set(theirs) - set(ours) <= {"paths", "gallery", "utterances", "shards", "pretrain"}
    limits = {
        key: yaml.safe_load(ours["regions"])["regions"][key] for key in ("min_detections", "max_detections")
    }
    assert limits.items() <= yaml.safe_load(theirs["regions"])["regions"].items()


def test_a_written_file_has_every_section_that_dvc_asks_for(here: Path) -> None:
    published.release_v0().to_csv("t.csv", index=False)
    init("t.csv", "wikiart", preset="tiny")
    values = yaml.safe_load(Path("t.yaml").read_text())
    assert set(values) <= set(SECTIONS) and values["gallery"] == {"artworks": 0}
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    assert {key.split(".")[0] for stage in stages for key in stage["params"]} <= set(values)
    assert Path(values["paths"]["apolo"]).is_dir()


def test_the_command(here: Path) -> None:
    published.plain(here)
    done = run("init", "--images", "photos", "--json", cwd=here)
    assert done.returncode == 0 and json.loads(done.stdout)["params"] == "photos.yaml"
    done = run("init", "--images", "photos", "--artemis", "none.csv", cwd=here)
    assert done.returncode == 2 and "none.csv cannot be opened" in done.stderr
