"""The APOLO release: items that match their csv, bad records with their reason, splits of the index files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.common import schema
from pipeline.common.errors import UserError
from pipeline.releases import apolo, apolo_arrays, apolo_ids, artemis
from pipeline.releases.source import Source

ROWS = [  # (painting, emotion, utterance); the row number is the ArtEmis id
    ("anna_mill", "awe", "so grand"),
    ("anna_mill", "awe", "so tall"),
    ("anna_mill", "fear", "so dark"),
    ("anna_mill", "something else", "hm"),
    ("bert_no.-5", "awe", "a star"),
]


def tables(rows: list[tuple[str, str, str]] = ROWS) -> tuple[pa.Table, pa.Table]:
    """The utterances and artworks tables of some rows, as far as apolo reads them."""
    utterances = pa.table(
        {
            "key": [schema.artwork_key("Realism", row[0]) for row in rows],
            "artemis_id": list(range(len(rows))),
            "emotion": [row[1] for row in rows],
            "utterance": [row[2] for row in rows],
        }
    )
    names = sorted({row[0] for row in rows})
    artworks = pa.table({"key": [schema.artwork_key("Realism", n) for n in names], "painting": names})
    return utterances, artworks


def release(folder: Path, records: Any, maps: tuple[str, ...] = ()) -> Path:
    (folder / apolo_arrays.MAPS).mkdir(parents=True, exist_ok=True)
    (folder / "apolo.json").write_text(json.dumps(records), encoding="utf-8")
    for name in maps:
        np.save(folder / apolo_arrays.MAPS / f"{name}.npy", np.eye(4, dtype=np.uint8))
    return folder


def record(
    painting: Any = "anna_mill", ids: Any = (0, 1), split: Any = "test", **more: Any
) -> dict[str, Any]:
    ids = list(ids) if isinstance(ids, tuple) else ids
    return {"painting": painting, "artemis_id": ids, "split": split, **more}


def test_items_have_emotion_key_and_references(tmp_path: Path) -> None:
    folder = release(
        tmp_path,
        [record(), record(ids=(2,), split="val"), record("bert_no.-5", (4,))],
        ("anna_mill_awe", "anna_mill_fear", "bert_no.-5_awe"),
    )
    items, rejects = apolo.load_items(folder, *tables())
    assert rejects == []
    assert [(i.painting, i.emotion, i.split, i.artemis_ids, i.utterances) for i in items] == [
        ("anna_mill", "awe", "test", (0, 1), ("so grand", "so tall")),
        ("anna_mill", "fear", "val", (2,), ("so dark",)),
        ("bert_no.-5", "awe", "test", (4,), ("a star",)),
    ]
    assert items[2].key == schema.artwork_key("Realism", "bert_no.-5")
    assert items[2].map_path.name == "bert_no.-5_awe.npy"
    np.testing.assert_array_equal(apolo_arrays.load_truth(items[0].map_path), np.eye(4, dtype=bool))


def test_rejected_rows_leave_the_item_its_other_utterances(tmp_path: Path) -> None:
    folder = release(tmp_path, [record(ids=(0, 1, 77))], ("anna_mill_awe",))
    items, rejects = apolo.load_items(folder, *tables())
    assert items[0].artemis_ids == (0, 1) and not rejects


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("anna_mill", "malformed-record"),
        ({"painting": "anna_mill", "split": "test"}, "malformed-record"),
        (record(painting=3), "malformed-record"),
        (record(ids=()), "malformed-record"),
        (record(ids=["a"]), "malformed-record"),
        (record(ids=[0.5]), "malformed-record"),
        (record(ids=[float("nan")]), "malformed-record"),
        (record(painting="../anna_mill"), "unsafe-name"),
        (record(split="train"), "unknown-split"),
        (record(split=None), "unknown-split"),
        (record(ids=(99,)), "no-utterance"),
        (record(ids=(4,)), "other-painting"),
        (record(ids=(0, 4)), "other-painting"),
        (record(ids=(0, 2)), "mixed-emotions"),
        (record(emotion="fear"), "mixed-emotions"),
        (record(emotion=["awe"]), "mixed-emotions"),
        (record(ids=(3,)), "unknown-emotion"),
        (record(ids=(2,)), "missing-map"),
        (record(), "duplicate"),
    ],
)
def test_a_bad_record_is_rejected_and_its_neighbour_kept(tmp_path: Path, bad: Any, reason: str) -> None:
    folder = release(tmp_path, [record(), bad, record("bert_no.-5", 4)], ("anna_mill_awe", "bert_no.-5_awe"))
    items, rejects = apolo.load_items(folder, *tables())
    assert [i.painting for i in items] == ["anna_mill", "bert_no.-5"]
    assert [(r.source, r.row, r.reason) for r in rejects] == [("apolo.json", -1, reason)]
    assert "record 1" in rejects[0].detail


@pytest.mark.parametrize("text", ["", "{", "3", '"apolo"', "\ufeff[", "[" * 100_000])
def test_apolo_json_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "apolo.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"apolo\.json"):
        apolo.load_items(tmp_path, *tables())
    with pytest.raises(UserError, match=r"paths\.apolo"):
        apolo.load_items(tmp_path / "nowhere", *tables())


@pytest.mark.parametrize("orient", ["columns", "records", "index", "split"])
def test_index_files_in_every_form_that_pandas_writes(tmp_path: Path, orient: Any) -> None:
    folder = tmp_path / apolo.INDEX
    folder.mkdir()
    for split, ids in (("train", [[0, 1], [2, 7]]), ("val", [[3]]), ("test", [[4, 5], [7]])):
        table = pd.DataFrame({"artemis_id": ids, "painting": ["x"] * len(ids)})
        table.to_json(folder / f"{split}_index.json", orient=orient)
    assert apolo.load_index(tmp_path) == {
        0: "train", 1: "train", 2: "train", 3: "val", 4: "test", 5: "test", 7: "test",
    }  # fmt: skip


def test_index_absent_partial_and_broken(tmp_path: Path) -> None:
    assert apolo.load_index(tmp_path) is None
    folder = tmp_path / apolo.INDEX
    folder.mkdir()
    (folder / "val_index.json").write_text('[{"artemis_id": [1]}]')
    with pytest.raises(UserError, match=r"train_index\.json, test_index\.json"):
        apolo.load_index(tmp_path)
    for split in ("train", "test"):
        (folder / f"{split}_index.json").write_text('[{"painting": "x"}]')
    with pytest.raises(UserError, match=r"train_index\.json"):
        apolo.load_index(tmp_path)


def test_real_release(real_art: Path) -> None:
    rows = list(artemis.read_csv(real_art / "artemis" / "artemis_dataset_release_v0.csv", 2000))
    kept = [(r.painting, r.emotion, r.utterance) for r in rows if isinstance(r, artemis.Annotation)]
    items, rejects = apolo.load_items(real_art / "apolo", *tables(kept))
    assert len(items) == 18 and not rejects
    for found in items:
        truth = apolo_arrays.load_truth(found.map_path)
        assert truth.ndim == 2 and 0 < truth.mean() < 1
        assert all(kept[i][1] == found.emotion for i in found.artemis_ids)


def test_items_by_the_csv_alone_are_those_by_the_tables(real_art: Path) -> None:
    csv = real_art / "artemis" / "artemis_dataset_release_v0.csv"
    rows = [row for row in artemis.read_csv(csv, 2000) if isinstance(row, artemis.Annotation)]
    wanted, _ = apolo.load_items(
        real_art / "apolo", *tables([(r.painting, r.emotion, r.utterance) for r in rows])
    )
    found, rejects = apolo_ids.load_items_of_csv(real_art / "apolo", csv)
    assert not rejects
    assert len({item.key for item in found}) == 7
    styles = {row.painting: row.art_style for row in rows}
    assert all(item.art_style == styles[item.painting] for item in found)
    # The tables above know no art style, so these two fields differ by nothing but that.
    bare = [[replace(item, key="", art_style="") for item in items] for items in (found, wanted)]
    assert bare[0] == bare[1]


def test_ids_under_several_spellings_of_a_painting_are_one_item(tmp_path: Path) -> None:
    folder = release(tmp_path, [record("caf\u00e9", (0, 1))], ("caf\u00e9_awe",))
    lines = [
        "art_style,painting,emotion,utterance,repetition",
        "S,caf\u00e9,awe,one,2",
        "S,cafe\u0301,awe,two,2",
    ]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    items, rejects = apolo_ids.load_items_of_csv(folder, tmp_path / "a.csv")
    assert not rejects and items[0].utterances == ("one", "two")


def test_items_by_a_csv_in_another_dialect(tmp_path: Path) -> None:
    """For those who only score: the csv is read as params say."""
    folder = release(tmp_path, [record("mill", (0, 1))], ("mill_awe",))
    text = "style;art_style;painting;emotion;utterance;repetition\nx;S;mill;awe;one;2\nx;S;mill;awe;two;2\n"
    (tmp_path / "a.csv").write_text(text, encoding="utf-16")
    source = Source(delimiter=";", encoding="utf-16")
    items, rejects = apolo_ids.load_items_of_csv(folder, tmp_path / "a.csv", source)
    assert [item.utterances for item in items] == [("one", "two")] and rejects == []
    with pytest.raises(UserError, match="utf-16"):
        apolo_ids.load_items_of_csv(folder, tmp_path / "a.csv")
