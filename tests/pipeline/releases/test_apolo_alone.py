"""APOLO's items without the ArtEmis csv: what the release alone says, and what it leaves open."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.common.errors import UserError
from pipeline.releases.apolo_alone import load_items_alone
from tests.worlds.released import write_release


def write(folder: Path, records: list[Any], maps: list[str]) -> Path:
    (folder / "apolo_pixel_map").mkdir(parents=True)
    (folder / "apolo.json").write_text(json.dumps(records), encoding="utf-8")
    for name in maps:
        np.save(folder / "apolo_pixel_map" / f"{name}.npy", np.eye(4))
    return folder


def record(painting: str, split: str, ids: Any = (1,), **more: Any) -> dict[str, Any]:
    return {"painting": painting, "artemis_id": list(ids), "split": split, **more}


def test_a_record_takes_the_emotion_of_its_map(tmp_path: Path) -> None:
    apolo = write(
        tmp_path,
        [record("a.b", "val", [3, 4]), record("c", "test"), record("c", "test"), record("e#f", "test")],
        ["a#b_fear", "c_awe", "c_sadness", "e.f_anger", "stranger_awe"],
    )
    items, rejects = load_items_alone(apolo)
    assert [(item.painting, item.emotion, item.split, item.artemis_ids) for item in items] == [
        ("a.b", "fear", "val", (3, 4)),
        ("c", "awe", "test", ()),  # which csv rows are the awe's, the release does not say
        ("c", "sadness", "test", ()),
        ("e#f", "anger", "test", (1,)),
    ]
    assert rejects == []
    assert {item.utterances for item in items} == {()}


def test_what_the_reconstruction_script_adds_is_taken(tmp_path: Path) -> None:
    """Its apolo.json has emotion and utterances: nothing is left open, not even over two splits."""
    apolo = write(
        tmp_path,
        [
            record("a", "val", emotion="awe", utterances=["so  wide", ""], art_style="Drawn"),
            record("a", "test", [2], emotion="fear", utterances=["so dark"]),
            record("a", "test", [5]),  # the only one without, and the only map that is left
        ],
        ["a_awe", "a_fear", "a_anger"],
    )
    items, rejects = load_items_alone(apolo)
    found = [(item.emotion, item.split, item.utterances, item.artemis_ids, item.art_style) for item in items]
    assert found == [
        ("awe", "val", ("so wide",), (1,), "Drawn"),
        ("fear", "test", ("so dark",), (2,), ""),
        ("anger", "test", (), (5,), ""),
    ]
    assert rejects == []


def test_what_cannot_be_known_is_not_guessed(tmp_path: Path) -> None:
    apolo = write(
        tmp_path,
        [
            record("a", "val"),
            record("a", "test"),
            record("b", "test"),
            record("c", "test"),
            record("d", "val"),
        ],
        ["a_awe", "a_fear", "b_awe", "b_fear", "d_awe"],
    )
    items, rejects = load_items_alone(apolo)
    assert [(item.painting, item.emotion) for item in items] == [("d", "awe")]
    assert [reject.reason for reject in rejects] == [*["ambiguous-emotion"] * 3, "missing-map"]
    assert "'a': val, test have no emotion, and the maps are of awe, fear" in rejects[0].detail
    assert "reconstruct_apolo.py" in rejects[2].detail


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (7, "malformed-record"),
        ({"split": "test"}, "malformed-record"),
        (record("../a", "test"), "unsafe-name"),
        (record("a", "train"), "unknown-split"),
        (record("a", "test", emotion="something else"), "unknown-emotion"),
        (record("a", "test", emotion=["awe"]), "unknown-emotion"),
        (record("a", "test", emotion="fear"), "missing-map"),
        (record("b", "test", emotion="awe"), "duplicate"),
    ],
)
def test_records_that_cannot_be_used_are_named(tmp_path: Path, value: Any, reason: str) -> None:
    apolo = write(tmp_path, [record("b", "test", emotion="awe"), value], ["a_awe", "b_awe"])
    items, rejects = load_items_alone(apolo)
    assert [(item.painting, item.emotion) for item in items] == [("b", "awe")]
    assert [reject.reason for reject in rejects] == [reason]
    assert rejects[0].detail.startswith("record 1: ")


def test_strange_ids_and_words_do_not_matter(tmp_path: Path) -> None:
    apolo = write(
        tmp_path,
        [{"painting": "a", "split": "test", "emotion": "awe", "utterances": [3, None], "art_style": "../x"}],
        ["a_awe"],
    )
    ((item,), _) = load_items_alone(apolo)
    assert (item.artemis_ids, item.utterances, item.art_style) == ((), (), "")


def test_no_release(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_items_alone(tmp_path)


def test_the_same_items_as_by_the_csv(tmp_path: Path) -> None:
    from pipeline.releases.apolo_ids import load_items_of_csv

    quarter = np.eye(8)
    labels = {("a", "awe", "test"): quarter, ("a", "fear", "test"): quarter, ("b", "awe", "val"): quarter}
    paths = write_release(tmp_path, labels)
    by_csv, _ = load_items_of_csv(paths.apolo, paths.artemis)
    alone, _ = load_items_alone(paths.apolo)
    assert [(i.painting, i.emotion, i.split, i.map_path) for i in alone] == [
        (i.painting, i.emotion, i.split, i.map_path) for i in by_csv
    ]
    assert {item.art_style for item in by_csv} == {"Drawn"}
