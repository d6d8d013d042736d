"""`score` for another paper's reviewer: the release alone, explanations, two methods, rows that add up."""

import csv
import dataclasses
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from model.score.external_maps import ExternalScores, Files, score_external_maps
from model.score.external_rows import COLUMNS, write_rows
from model.score.external_text import scores_text
from model.score.named_maps import open_maps
from model.score.named_texts import open_texts
from model.score.params import ScoreParams, StatisticsParams
from model.score.statistics.bootstrap import mcnemar
from pipeline.backbones.params import ClipParams
from pipeline.common.emotions import ALL_EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from tests.imports import ROOT
from tests.worlds.indexed_shards import png
from tests.worlds.released import write_release

LABEL = np.zeros((16, 24), np.uint8)
LABEL[:8, :12] = 1
ITEMS = (("a", "awe"), ("a", "fear"), ("b", "awe"), ("c", "sadness"))
SAID = {"awe": "the wide sky is calm", "fear": "the storm is dark", "sadness": "an empty bench"}
PARAMS = ScoreParams(statistics=StatisticsParams(resamples=200))


@pytest.fixture
def apolo(tmp_path: Path) -> Path:
    """Four test items as the reconstruction script leaves them, one val item; of one the label is empty."""
    folder = tmp_path / "apolo"
    (folder / "apolo_pixel_map").mkdir(parents=True)
    records = []
    for number, (painting, emotion) in enumerate((*ITEMS, ("d", "awe"), ("e", "awe"))):
        split = "val" if painting == "d" else "test"
        label = LABEL * (painting != "e")
        np.save(folder / "apolo_pixel_map" / f"{painting}_{emotion}.npy", label)
        records.append(
            {"painting": painting, "artemis_id": [number], "split": split, "emotion": emotion}
            | {"utterances": [SAID[emotion], "it moves me"], "art_style": "Old" if painting == "a" else "New"}
        )
    (folder / "apolo.json").write_text(json.dumps(records), encoding="utf-8")
    return folder


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    save(folder, dict.fromkeys(ITEMS, LABEL))
    return folder


def save(folder: Path, maps: dict[tuple[str, str], np.ndarray]) -> Path:
    for (painting, emotion), map_ in maps.items():
        (folder / emotion).mkdir(parents=True, exist_ok=True)
        np.save(folder / emotion / f"{painting}_{emotion}.npy", map_)
    return folder


def write_texts(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def said(painting: str, emotion: str, text: str) -> dict[str, str]:
    return {"painting": painting, "emotion": emotion, "text": text}


def score(apolo: Path, files: Files, **options: Any) -> ExternalScores:
    there = apolo.parent / "nothing"
    paths = Paths(artemis=there / "a.csv", wikiart=apolo.parent / "wikiart", apolo=apolo, data=there)
    return score_external_maps(files, apolo, "test", paths, PARAMS, **options)


# ---- maps ------------------------------------------------------------------------------------------


def test_every_record_file_and_line_is_a_row_and_the_counts_add_up(apolo: Path, maps: Path) -> None:
    (maps / "fear" / "a_fear.npy").unlink()
    (maps / "awe" / "b_awe.npy").write_bytes(b"no map")
    np.save(maps / "a_awe.npy", LABEL)  # before awe/a_awe.npy by path
    np.save(maps / "stranger_awe.npy", LABEL)
    np.save(maps / "d_awe.npy", LABEL)
    (maps / "readme.txt").write_text("x")
    texts = write_texts(
        maps.parent / "t.jsonl",
        [said("a", "awe", "x y"), said("A", "Awe ", "x"), said("z", "awe", "x"), {"painting": "a"}, 3],
    )
    found = score(apolo, Files(maps, texts))
    (counts,) = found.report["counts"]["methods"]
    assert found.report["counts"]["records"] == {"test items": 5, "val items": 1, "unusable": 0}
    assert counts["items"] == {
        "scored": 2,
        "without a map": 1,
        "with an unusable map": 1,
        "without a usable label": 1,
    }
    assert counts["files"] == {
        "test items": 3,
        "val items": 1,
        "map of no item": 1,
        "second map": 1,
        "other file": 1,
    }
    assert sum(counts["files"].values()) == sum(file.is_file() for file in maps.rglob("*"))
    assert counts["texts"] == {"test items": 2, "explanation of no item": 1, "unusable line": 2}
    assert (counts["unexplained"], counts["fewer"]) == (3, 0)
    assert Counter(row["status"] for row in found.rows) == {
        **counts["items"],
        "val item": 1,
        "map of no item": 1,
        "second map": 1,
        "other file": 1,
        "explanation of no item": 1,
        "unusable line": 2,
    }
    assert {row["map"] for row in found.rows if row["status"] == "second map"} == {"awe/a_awe.npy"}
    text = scores_text(found.report)
    assert "7 files in mine = 3 test items + 1 val items + 1 map of no item + 1 second map" in text
    assert "mine: 3 items without an explanation" in text


def test_maps_of_records_that_cannot_be_used_are_not_called_strangers(apolo: Path, maps: Path) -> None:
    """As released, where the two records of a painting may be either map's; other paintings are scored."""
    records = json.loads((apolo / "apolo.json").read_text())
    bare = [{name: record[name] for name in ("painting", "artemis_id", "split")} for record in records]
    bare[0]["split"] = "val"
    (apolo / "apolo.json").write_text(json.dumps(bare))
    texts = write_texts(maps.parent / "t.jsonl", [said(p, e, "x") for p, e in ITEMS])
    found = score(apolo, Files(maps, texts))
    (counts,) = found.report["counts"]["methods"]
    assert found.report["counts"]["records"] == {"test items": 3, "val items": 1, "unusable": 2}
    assert counts["files"] == {"test items": 2, "map of an unusable record": 2}
    assert counts["texts"] == {"test items": 2, "explanation of an unusable record": 2}
    text = scores_text(found.report)
    assert "NOT COMPARABLE with published rows: 2 records of apolo.json cannot be used" in text
    assert "- ambiguous-emotion: record 0: 'a': val, test have no emotion" in text


def test_the_rows_give_the_numbers_again(apolo: Path, maps: Path, tmp_path: Path) -> None:
    """Pr@25 counted from the csv by hand is the report's, by emotion and by style too."""
    np.save(maps / "awe" / "b_awe.npy", 1.0 - LABEL)
    found = score(apolo, Files(maps))
    write_rows(tmp_path / "out.csv", found.rows)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "scored"]
    assert tuple(rows[0]) == COLUMNS
    assert [float(row["iou_seg"]) for row in rows] == [1.0, 1.0, 0.0, 1.0]
    assert found.report["rows"][0]["seg_pr25"] == 75.0
    statistics = found.report["statistics"]
    for key, column in (("by_emotion", "emotion"), ("by_style", "art_style")):
        for group, part in statistics[key].items():
            right = [float(row["iou_seg"]) >= 0.25 for row in rows if row[column] == group]
            assert part["items"] == len(right)
            assert part["methods"]["mine"]["seg_pr25"]["value"] == pytest.approx(100 * np.mean(right))
    assert set(statistics["by_style"]) == {"Old", "New"}


def test_sub_folders_links_and_folders_named_like_maps(maps: Path) -> None:
    (maps / "awe" / "round").symlink_to(maps, target_is_directory=True)
    (maps / "x_awe.npy").mkdir()
    (maps / "._a_fear.npy").write_bytes(b"what macOS leaves")
    found = open_maps(maps)
    assert sorted(name for name, _ in found.readers.values()) == [
        "awe/a_awe.npy",
        "awe/b_awe.npy",
        "fear/a_fear.npy",
        "sadness/c_sadness.npy",
        "x_awe.npy",
    ]
    assert (found.duplicates, found.others) == ([], ["._a_fear.npy"])


def test_two_methods_are_compared_on_the_same_items(apolo: Path, maps: Path, tmp_path: Path) -> None:
    """McNemar's numbers by hand; folders of one name have two names; what one lacks may be left out."""
    other = save(tmp_path / "run2" / "mine", {("a", "awe"): LABEL, ("a", "fear"): 1.0 - LABEL})
    found = score(apolo, Files(maps), against=Files(other)).report
    assert [row["method"] for row in found["rows"]] == [f"{tmp_path.name}/mine", "run2/mine"]
    assert [row["seg_pr25"] for row in found["rows"]] == [100.0, 25.0]
    pair = next(pair for pair in found["statistics"]["pairs"] if pair["column"] == "seg_pr25")
    assert (pair["only_first"], pair["only_second"], pair["difference"]) == (3, 0, 75.0)
    assert pair["p"] == mcnemar(3, 0) == 0.25
    lenient = score(apolo, Files(maps), against=Files(other), allow_missing=True).report
    assert [(row["items"], row["seg_pr25"], row["left_out"]) for row in lenient["rows"]] == [
        (2, 100.0, 2),
        (2, 50.0, 2),
    ]
    assert "minus run2/mine" in scores_text(lenient)
    same = score(apolo, Files(maps), against=Files(maps)).report
    assert {pair["p"] for pair in same["statistics"]["pairs"]} == {1.0}
    assert len({row["method"] for row in same["rows"]}) == 2


def test_names_of_files_do_not_reach_the_terminal_as_commands(apolo: Path, maps: Path) -> None:
    np.save(maps / "x\x1b[31m\ny_awe.npy", LABEL)
    text = scores_text(score(apolo, Files(maps)).report)
    assert "x\\x1b[31m\\ny_awe.npy" in text
    assert "\x1b" not in text


# ---- explanations ----------------------------------------------------------------------------------


def test_explanations_are_judged_and_what_is_lacking_is_said(apolo: Path, tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "t.jsonl", [said(p, e, SAID[e]) for p, e in ITEMS])
    found = score(apolo, Files(explanations=texts))
    (row,) = found.report["rows"]
    assert (row["items"], row["bleu1"], row["rouge_l"]) == (4, pytest.approx(100), pytest.approx(100))
    assert row["meteor"] > 50
    assert not {"seg_pr25", "ea", "clipscore", "missing"} & row.keys()
    ea, clip = found.report["absent"]
    assert ea.startswith("EA is absent: ") and "emotion classifier" in ea
    assert clip.startswith("CLIPScore is absent: ")
    assert found.report["judges"] == []
    assert "Seg Pr@25" not in scores_text(found.report)
    assert found.rows[0]["explanation"] == SAID["awe"]


def test_a_classifier_and_a_clip_judge_where_they_are(apolo: Path, tmp_path: Path) -> None:
    """Both stand in for real ones: what is tested is that they are found, and that the numbers are theirs."""
    from model.alignment.networks import EmotionClassifier, NetworkConfig, build_network

    config = NetworkConfig(num_words=3, embedding=4, hidden=4, dropout=0.0, max_words=8)
    classifier = EmotionClassifier(build_network(config), config, ["", "?", "sky"])
    there = tmp_path / "data"
    classifier.save(there / "alignment")
    for painting, style in (("a", "Old"), ("b", "New"), ("b", "Older"), ("c", "New")):
        file = tmp_path / "wikiart" / style / f"{painting}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(np.full((20, 30, 3), 90, np.uint8)))
    clip = ClipParams(checkpoint=ROOT / "weights" / "tiny" / "clip.safetensors")
    texts = write_texts(tmp_path / "t.jsonl", [said(p, e, SAID[e]) for p, e in ITEMS])
    paths = Paths(artemis=there / "a.csv", wikiart=tmp_path / "wikiart", apolo=apolo, data=there)
    params = dataclasses.replace(PARAMS, clip=clip)
    found = score_external_maps(Files(explanations=texts), apolo, "test", paths, params)
    (row,) = found.report["rows"]
    read = [ALL_EMOTIONS[i] for i in classifier.classify([SAID[e] for _, e in ITEMS])]
    assert row["ea"] == 100 * np.mean([one == emotion for one, (_, emotion) in zip(read, ITEMS, strict=True)])
    assert [each["ea"] for each in found.rows[:4]] == read
    assert 0 <= row["clipscore"] <= 250
    assert found.report["absent"] == []
    assert found.report["judges"][1].endswith("; 3 pictures found")  # b's under its own style


def test_several_explanations_are_draws_and_fewer_ones_take_turns(apolo: Path, tmp_path: Path) -> None:
    rows = [said(p, e, SAID[e]) for p, e in ITEMS] + [said(p, e, "zebras run") for p, e in ITEMS[1:]]
    found = score(apolo, Files(explanations=write_texts(tmp_path / "t.jsonl", rows))).report
    row = found["rows"][0]
    first, second = 100.0, 25.0  # ROUGE-L of each draw: in the second, the one item repeats its own text
    assert row["draws"] == 2
    assert row["rouge_l"] == pytest.approx((first + second) / 2)
    assert "1 items with fewer explanations than others" in scores_text(found)


def test_without_utterances_words_cannot_be_compared(apolo: Path, maps: Path, tmp_path: Path) -> None:
    records = json.loads((apolo / "apolo.json").read_text())
    for record in records:
        del record["utterances"]
    (apolo / "apolo.json").write_text(json.dumps(records))
    texts = write_texts(tmp_path / "t.jsonl", [said("a", "awe", "x")])
    report = score(apolo, Files(maps, texts)).report
    assert "BLEU, METEOR and ROUGE-L are absent: of 4 items 4 have no utterance" in report["absent"][-1]
    assert report["rows"][0]["seg_pr25"] == 100.0
    with pytest.raises(UserError, match="nothing could be scored: EA is absent"):
        score(apolo, Files(explanations=texts))


def test_a_csv_of_explanations(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        '\ufeffemotion,id,painting,text\nawe,1,a,"wide, and\nblue"\nfear,2,b,too,many\n\nawe,3,,x\n',
        encoding="utf-8",
    )
    found = open_texts(path)
    assert found.texts == {"a_awe": ["wide, and blue"]}
    assert found.lines == 3
    assert [line.split(":")[0] for line in found.bad] == ["line 4", "line 6"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", b"x", r"\.jsonl or \.csv"),
        ("t.jsonl", b"", "it is empty"),
        ("t.jsonl", b"{nonsense", "line 1: is no JSON"),
        ("t.jsonl", b"[" * 100_000, "line 1: is no JSON"),
        ("t.jsonl", b'{"painting": "a", "emotion": "awe", "text": 3}', "text must be a text"),
        ("t.jsonl", b"\xff\xfe", "cannot be read as explanations in UTF-8"),
        ("t.csv", b"painting,emotion\n", "lacks the column text"),
        ("t.csv", b'painting,emotion,text\n"a', "no explanation"),
    ],
)
def test_files_without_explanations(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_texts(tmp_path / name)
    with pytest.raises(UserError, match="does not exist"):
        open_texts(tmp_path / "absent.csv")


def test_the_example_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "score_your_method.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], {})  # noqa: S102 - our own page
    (name,) = [file.stem for file in Path("mine").iterdir()]
    paths = write_release(tmp_path / "world", {(*name.rsplit("_", 1), "test"): LABEL})
    found = score_external_maps(
        Files(Path("mine"), Path("mine.jsonl")), paths.apolo, "test", paths, PARAMS, artemis=paths.artemis
    )
    assert {"seg_pr25", "bleu1", "meteor"} <= found.report["rows"][0].keys()
    assert not [status for status in (row["status"] for row in found.rows) if status not in page]


# ---- a small install -------------------------------------------------------------------------------

BLOCKED = """
import importlib.abc, json, runpy, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in BLOCK:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
sys.argv[:1] = ["cli.py"]
runpy.run_path(CLI, run_name="__main__")
"""


def only_with_all() -> set[str]:
    """Modules that the extra ``score`` does not bring, and ``all`` does."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    small, whole = (
        {canonicalize_name(Requirement(line).name) for line in lines}
        for lines in ([*project["dependencies"], *extras["score"]], extras["all"])
    )
    return {
        module
        for module, names in packages_distributions().items()
        if {canonicalize_name(name) for name in names} & (whole - small)
    }


def run_blocked(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"BLOCK, CLI = {only_with_all()!r}, {str(ROOT / 'cli.py')!r}\n{BLOCKED}"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_extra_score_is_enough(apolo: Path, maps: Path, tmp_path: Path) -> None:
    """In a folder without params, with none of torch, transformers, open_clip, Pillow to import."""
    assert {"torch", "transformers", "open_clip", "PIL", "dvc", "dask"} <= only_with_all()
    texts = write_texts(tmp_path / "t.jsonl", [said(p, e, SAID[e]) for p, e in ITEMS])
    done = run_blocked(
        tmp_path,
        *("score", "--maps", str(maps), "--explanations", str(texts), "--apolo", str(apolo)),
        *("--csv", "out/items.csv", "--json"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["rows"][0]["seg_pr50"] == 100.0
    assert report["rows"][0]["bleu1"] == pytest.approx(100)
    assert len(list(csv.DictReader((tmp_path / "out" / "items.csv").open()))) == 6
    done = run_blocked(tmp_path, "score", "--entire-artwork", "--apolo", str(apolo))
    assert done.returncode == 0, done.stderr
    assert "Not comparable" in done.stdout


def test_what_needs_the_whole_toolkit_says_so(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("{}")
    done = run_blocked(tmp_path, "report")
    assert done.returncode == 2
    assert "emosem[all]" in done.stderr and "Traceback" not in done.stderr
