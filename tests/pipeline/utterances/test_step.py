"""Step utterances: every csv row is kept or rejected with its reason, splits never leak."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.common import schema
from pipeline.common.errors import UserError
from pipeline.common.fingerprint import sha256_file
from pipeline.common.params import Paths, load_params
from pipeline.utterances.params import UtterancesParams
from pipeline.utterances.step import build_utterances
from tests.imports import ROOT

PAINTINGS = [f"anna_mill-{i}" for i in range(10)]


def world(tmp_path: Path, extra_rows: tuple[str, ...] = ()) -> Paths:
    """Ten good pictures with two utterances each; then `extra_rows`."""
    paths = Paths(
        artemis=tmp_path / "artemis.csv",
        wikiart=tmp_path / "wikiart",
        apolo=tmp_path / "apolo",
        data=tmp_path / "data",
    )
    folder = paths.wikiart / "Realism"
    folder.mkdir(parents=True)
    lines = ["art_style,painting,emotion,utterance,repetition"]
    for number, painting in enumerate(PAINTINGS):
        picture = np.random.default_rng(number).integers(0, 256, (40 + number, 30, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{painting}.jpg")
        lines += [
            f"Realism,{painting},awe,so grand {number},2",
            f"Realism,{painting},fear,so dark {number},2",
        ]
    paths.artemis.write_text("\n".join([*lines, *extra_rows]) + "\n", encoding="utf-8")
    return paths


def table(paths: Paths, name: str) -> list[dict[str, Any]]:
    return pq.read_table(paths.step("utterances") / f"{name}.parquet").to_pylist()


def apolo_release(paths: Paths, items: list[tuple[str, list[int], str, str]]) -> None:
    """apolo.json with maps from (painting, ids, split, emotion)."""
    maps = paths.apolo / "apolo_pixel_map"
    maps.mkdir(parents=True)
    records = [{"painting": p, "artemis_id": ids, "split": split} for p, ids, split, _ in items]
    (paths.apolo / "apolo.json").write_text(json.dumps(records))
    for painting, _, _, emotion in items:
        np.save(maps / f"{painting}_{emotion}.npy", np.ones((4, 4), np.uint8))


def index_files(paths: Paths, **ids: list[int]) -> None:
    folder = paths.apolo / "artemis_index"
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val", "test"):
        text = json.dumps([{"artemis_id": [i]} for i in ids.get(split, [])])
        (folder / f"{split}_index.json").write_text(text)


def test_tables_follow_the_schema(tmp_path: Path) -> None:
    paths = world(tmp_path)
    metrics = build_utterances(paths, UtterancesParams(num_shards=3))
    out = paths.step("utterances")
    assert pq.read_schema(out / "utterances.parquet").equals(schema.UTTERANCES)
    assert pq.read_schema(out / "artworks.parquet").equals(schema.ARTWORKS)
    assert pq.read_schema(out / "rejects.parquet").equals(schema.REJECTS)
    rows, works = table(paths, "utterances"), table(paths, "artworks")
    assert sorted(rows, key=lambda row: (row["key"], row["artemis_id"])) == rows
    assert sorted(row["artemis_id"] for row in rows) == list(range(20))
    split_of = {work["key"]: work["split"] for work in works}
    assert next(row for row in rows if row["artemis_id"] == 3) == {
        "key": (key := schema.artwork_key("Realism", PAINTINGS[1])),
        "artemis_id": 3,
        "emotion": "fear",
        "utterance": "so dark 1",
        "repetition": 2,
        "split": split_of[key],
    }
    assert [work["key"] for work in works] == sorted(schema.artwork_key("Realism", p) for p in PAINTINGS)
    for work in works:
        assert (paths.wikiart / work["path"]).is_file()
        assert work["shard"] == schema.shard_of(work["key"], 3)
        assert work["width"] == 30 and work["height"] == 40 + int(work["painting"].rsplit("-")[-1])
    assert metrics["rows_in"] == metrics["rows_kept"] == 20 and metrics["rows_rejected"] == 0
    assert metrics["emotions"] == {"awe": 10, "fear": 10}


def test_a_shard_is_a_row_group(tmp_path: Path) -> None:
    paths = world(tmp_path)
    build_utterances(paths, UtterancesParams(num_shards=4))
    shard_of = {work["key"]: work["shard"] for work in table(paths, "artworks")}
    assert len(set(shard_of.values())) > 2
    for name in ("artworks", "utterances"):
        file = pq.ParquetFile(paths.step("utterances") / f"{name}.parquet")
        groups = [file.read_row_group(i)["key"].to_pylist() for i in range(file.num_row_groups)]
        assert [{shard_of[key] for key in keys} for keys in groups] == [
            {shard} for shard in sorted(set(shard_of.values()))
        ]


def test_every_kind_of_bad_input_is_counted_and_the_run_goes_on(tmp_path: Path) -> None:
    rows = (
        "Realism,truncated,awe,one,3",
        "Realism,truncated,fear,two,3",
        "Realism,zero,awe,one,3",
        "Realism,text,awe,one,3",
        "Realism,nowhere,awe,one,3",
        "Realism,huge,awe,one,3",
        "Realism,line,awe,one,3",
        "Realism,dot,awe,one,3",
        "Realism,../wikiart/Realism/anna_mill-0,awe,one,3",
        "Realism,anna_mill-0,joy,one,3",
        "Realism,anna_mill-0,awe,,3",
        "Realism,anna_mill-0,awe,so grand 0,2",
        "Realism,anna_mill-0,awe",
    )
    paths = world(tmp_path, rows)
    folder = paths.wikiart / "Realism"
    data = (folder / "anna_mill-9.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (folder / "zero.jpg").touch()
    (folder / "text.jpg").write_text("I am not a painting")
    for name, size in (("huge", (200, 200)), ("line", (1000, 20)), ("dot", (8, 8))):
        Image.new("RGB", size).save(folder / f"{name}.jpg")
    metrics = build_utterances(paths, UtterancesParams(max_pixels=30_000))
    rejects = table(paths, "rejects")
    assert [(r["row"], r["reason"]) for r in rejects if r["row"] >= 0] == [
        (20, "picture-truncated"),
        (21, "picture-truncated"),
        (22, "picture-empty"),
        (23, "picture-not-an-image"),
        (24, "picture-missing"),
        (25, "picture-too-large"),
        (26, "picture-too-narrow"),
        (27, "picture-too-small"),
        (28, "unsafe-name"),
        (29, "unknown-emotion"),
        (30, "empty-utterance"),
        (31, "duplicate"),
        (32, "wrong-field-count"),
    ]
    assert {r["source"] for r in rejects if r["row"] >= 0} == {"artemis.csv"}
    files = [r["source"] for r in rejects if r["row"] == -1]
    assert files == [
        f"Realism/{name}" for name in ("truncated", "zero", "text", "nowhere", "huge", "line", "dot")
    ]
    assert metrics["rows_in"] == 33 == metrics["rows_kept"] + metrics["rows_rejected"]
    assert metrics["rows_kept"] == 20 == len(table(paths, "utterances"))
    assert metrics["artworks_in"] == 17 == metrics["artworks_kept"] + metrics["artworks_rejected"]
    assert {row["key"] for row in table(paths, "utterances")} == {
        row["key"] for row in table(paths, "artworks")
    }
    assert metrics["reasons"] == Counter(r["reason"] for r in rejects)


def test_header_verification_lets_truncated_files_through(tmp_path: Path) -> None:
    paths = world(tmp_path)
    path = paths.wikiart / "Realism" / "anna_mill-0.jpg"
    path.write_bytes(path.read_bytes()[:-600])
    assert build_utterances(paths, UtterancesParams(verify="header"))["artworks_kept"] == 10
    assert build_utterances(paths, UtterancesParams(verify="decode"))["artworks_kept"] == 9


def test_byte_identical(tmp_path: Path) -> None:
    paths = world(tmp_path, ("Realism,nowhere,awe,one,3",))
    folder = paths.step("utterances")

    def hashes() -> dict[str, str]:
        return {path.name: sha256_file(path) for path in sorted(folder.iterdir())}

    build_utterances(paths, UtterancesParams())
    first = hashes()
    build_utterances(paths, UtterancesParams())
    assert hashes() == first and len(first) == 6


def test_a_missing_picture_moves_no_other_artwork(tmp_path: Path) -> None:
    paths = world(tmp_path)
    build_utterances(paths, UtterancesParams(fractions=(0.5, 0.2, 0.3)))
    before = {work["painting"]: work["split"] for work in table(paths, "artworks")}
    assert Counter(before.values()) == {"train": 5, "val": 2, "test": 3}
    (paths.wikiart / "Realism" / "anna_mill-4.jpg").unlink()
    build_utterances(paths, UtterancesParams(fractions=(0.5, 0.2, 0.3)))
    after = {work["painting"]: work["split"] for work in table(paths, "artworks")}
    assert after == {painting: split for painting, split in before.items() if painting != "anna_mill-4"}


def test_index_files_decide_the_split(tmp_path: Path) -> None:
    paths = world(tmp_path)
    # artwork i has the ids 2i and 2i+1; artwork 3 stands under two splits, artwork 9 under none
    index_files(paths, train=[0, 1, 2, 4, 6, *range(8, 16)], val=[16, 17], test=[7])
    metrics = build_utterances(paths, UtterancesParams())
    splits = {work["painting"]: work["split"] for work in table(paths, "artworks")}
    expected = ["train"] * 3 + ["test"] + ["train"] * 4 + ["val", "rest"]
    assert [splits[painting] for painting in PAINTINGS] == expected
    by_key = {work["key"]: work["split"] for work in table(paths, "artworks")}
    assert all(row["split"] == by_key[row["key"]] for row in table(paths, "utterances"))
    assert metrics["artwork_splits"] == Counter(expected)


def test_apolo_artworks_leave_train(tmp_path: Path) -> None:
    rows = ("Cubism,anna_mill-2,awe,the same picture under another style,1",)
    paths = world(tmp_path, rows)
    (paths.wikiart / "Cubism").mkdir()
    Image.new("RGB", (30, 30)).save(paths.wikiart / "Cubism" / "anna_mill-2.jpg")
    apolo_release(
        paths,
        [
            ("anna_mill-1", [2], "val", "awe"),
            ("anna_mill-1", [3], "test", "fear"),
            ("anna_mill-2", [4], "val", "awe"),
            ("anna_mill-5", [999], "test", "awe"),
            ("anna_mill-6", [12], "test", "awe"),
        ],
    )
    index_files(paths, train=list(range(0, 12)), val=[12, 13, 14, 15], test=[16, 17, 18, 19])
    metrics = build_utterances(paths, UtterancesParams())
    splits = {(work["art_style"], work["painting"]): work["split"] for work in table(paths, "artworks")}
    assert splits["Realism", "anna_mill-1"] == "test"  # the strictest of its items
    assert splits["Realism", "anna_mill-2"] == "val"
    assert splits["Cubism", "anna_mill-2"] == "val"  # a copy would leak
    assert splits["Realism", "anna_mill-5"] == "train"  # its item is rejected, so nothing is evaluated on it
    assert splits["Realism", "anna_mill-6"] == "test"  # validation must not look at test items either
    assert metrics["apolo_items"] == 4 and metrics["apolo_items_rejected"] == 1
    assert metrics["apolo_artworks_moved_out_of_train"] == 3
    assert [(r["source"], r["reason"]) for r in table(paths, "rejects")] == [("apolo.json", "no-utterance")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("unlink csv", "cannot be opened"),
        ("empty csv", "is empty"),
        ("header only", "no rows"),
        ("no emotion", "emotion"),
        ("no pictures", "picture-missing"),
    ],
)
def test_nothing_left_is_one_clear_message(tmp_path: Path, change: str, words: str) -> None:
    paths = world(tmp_path)
    text = paths.artemis.read_text()
    if change == "unlink csv":
        paths.artemis.unlink()
    elif change == "empty csv":
        paths.artemis.write_text("")
    elif change == "header only":
        paths.artemis.write_text(text.splitlines()[0] + "\n")
    elif change == "no emotion":
        paths.artemis.write_text(text.replace("emotion", "mood", 1))
    else:
        for path in paths.wikiart.rglob("*.jpg"):
            path.unlink()
    with pytest.raises(UserError, match=words) as caught:
        build_utterances(paths, UtterancesParams())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.1, -0.1, 0.0)])
def test_fractions_must_be_a_partition(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        UtterancesParams(fractions=fractions)


def test_real_art(tmp_path: Path, real_art: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the params file for them: seven paintings in the releases' layouts."""
    monkeypatch.chdir(ROOT)
    file = ROOT / "tests" / "real_art.yaml"
    paths = dataclasses.replace(load_params(file, "paths", Paths), data=tmp_path)
    assert real_art.resolve() in paths.artemis.resolve().parents
    metrics = build_utterances(paths, load_params(file, "utterances", UtterancesParams))
    assert (metrics["rows_in"], metrics["rows_kept"], metrics["artworks_kept"]) == (34, 34, 7)
    assert metrics["apolo_items"] == 18
    assert "train" not in metrics["artwork_splits"]  # APOLO evaluates all seven
