"""Every published layout is read without a word in params; each row is kept, or left out for a reason."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipeline.common.errors import UserError
from pipeline.common.params import Paths, parse_section
from pipeline.plan.workload import count
from pipeline.releases.apolo_ids import RELEASE
from pipeline.releases.artemis import OTHER_IDS
from pipeline.utterances.step import UtterancesParams, build_utterances
from tests.worlds import published

ONE = UtterancesParams(num_shards=1)


def build(
    folder: Path, table: pd.DataFrame, pictures: Path, params: UtterancesParams = ONE, **csv: Any
) -> tuple[Paths, dict[str, Any]]:
    paths = Paths(
        artemis=folder / "source.csv", wikiart=pictures, apolo=folder / "apolo", data=folder / "data"
    )
    table.to_csv(paths.artemis, index=False, **csv)
    metrics = build_utterances(paths, params)
    assert metrics["rows_in"] == len(table) == metrics["rows_kept"] + metrics["rows_rejected"]
    rejects = [row for row in read(paths, "rejects") if row["row"] >= 0]
    assert len(rejects) == metrics["rows_rejected"]
    return paths, metrics


def read(paths: Paths, name: str) -> list[dict[str, Any]]:
    return pq.read_table(paths.step("utterances") / f"{name}.parquet").to_pylist()


def said_by_id(paths: Paths) -> dict[int, str]:
    return {row["artemis_id"]: row["utterance"] for row in read(paths, "utterances")}


def splits(paths: Paths) -> dict[str, str]:
    return {row["painting"]: row["split"] for row in read(paths, "artworks")}


def test_artemis_v1(tmp_path: Path) -> None:
    table = published.release_v0()
    published.apolo(tmp_path)
    paths, metrics = build(tmp_path, table, published.wikiart(tmp_path))
    assert metrics["layout"] == "artemis" and metrics["rows_rejected"] == 0
    assert said_by_id(paths) == dict(enumerate(table.utterance))
    assert metrics["apolo_items"] == 12


@pytest.mark.parametrize("with_version", [True, False])
def test_artemis_v2_leaves_apolos_ids_where_they_were(tmp_path: Path, with_version: bool) -> None:
    published.apolo(tmp_path)
    table = published.combined_v2()
    table = table if with_version else table.drop(columns="version")
    paths, metrics = build(tmp_path, table, published.wikiart(tmp_path))
    assert metrics["layout"] == "artemis-v2" and metrics["apolo_items"] == 12
    old = {number: text for number, text in said_by_id(paths).items() if number < OTHER_IDS}
    assert old == dict(enumerate(published.release_v0().utterance))
    assert len(said_by_id(paths)) == len(table)


def test_a_shuffled_v2_is_refused_and_found_by_content(tmp_path: Path) -> None:
    release = published.apolo(tmp_path)
    pictures = published.wikiart(tmp_path)
    table = published.combined_v2().sample(frac=1, random_state=3)
    with pytest.raises(UserError, match=rf"other rows of .*put its {RELEASE} into .*apolo"):
        build(tmp_path, table, pictures)
    published.release_v0().to_csv(release / RELEASE, index=False)
    paths, metrics = build(tmp_path, table, pictures)
    assert metrics["apolo_items"] == 12
    old = {number: text for number, text in said_by_id(paths).items() if number < OTHER_IDS}
    assert old == dict(enumerate(published.release_v0().utterance))


def test_v2_read_as_the_first_release_is_refused(tmp_path: Path) -> None:
    """Its row numbers mean other utterances: items would be lost, or worse, be of other words."""
    published.apolo(tmp_path)
    params = UtterancesParams(num_shards=1, layout="artemis")
    with pytest.raises(UserError, match="have ids that are other rows of"):
        build(tmp_path, published.combined_v2(), published.wikiart(tmp_path), params)


def test_preprocessed_keeps_its_split_and_ignores_tokens(tmp_path: Path) -> None:
    table = published.preprocessed()
    paths, metrics = build(tmp_path, table, published.wikiart(tmp_path))
    assert metrics["layout"] == "artemis-preprocessed" and metrics["rows_rejected"] == 0
    assert splits(paths) == dict(zip(table.painting, table.split, strict=True))
    assert sorted(said_by_id(paths).values()) == sorted(table.utterance)  # not the spelled ones


def test_preprocessed_beside_apolo_needs_the_release(tmp_path: Path) -> None:
    release = published.apolo(tmp_path)
    pictures = published.wikiart(tmp_path)
    with pytest.raises(UserError, match=RELEASE):
        build(tmp_path, published.preprocessed(), pictures)
    published.release_v0().to_csv(release / RELEASE, index=False)
    paths, metrics = build(tmp_path, published.preprocessed(), pictures)
    assert metrics["apolo_items"] == 10  # two of the rows were dropped from the file
    numbers = published.release_v0().utterance.to_dict()
    assert said_by_id(paths) == {number: text for number, text in numbers.items() if number not in (4, 10)}
    assert set(splits(paths).values()) == {"test"}  # APOLO evaluates all six


def test_artelingo_is_english_unless_asked_otherwise(tmp_path: Path) -> None:
    pictures = published.wikiart(tmp_path)
    paths, metrics = build(tmp_path, published.artelingo(), pictures)
    assert metrics["layout"] == "artelingo" and metrics["reasons"] == {"other-language": 12}
    assert all(text.startswith("Such wide") for text in said_by_id(paths).values())
    listed = [name for _, name in published.WORKS]
    assert splits(paths) == dict(zip(listed, ["train", "val", "test", "train", "rest", "rest"], strict=True))
    every = UtterancesParams(num_shards=1, language=None)
    assert build(tmp_path, published.artelingo(), pictures, every)[1]["rows_rejected"] == 0
    chinese = UtterancesParams(num_shards=1, language="zh")
    paths, _ = build(tmp_path, published.artelingo(), pictures, chinese)
    assert {row["emotion"] for row in read(paths, "utterances")} == {"fear"}


def test_affection_finds_photographs_wherever_they_were_unpacked(tmp_path: Path) -> None:
    folder = published.photographs(tmp_path)
    paths, metrics = build(tmp_path, published.affection(), folder)
    assert metrics["layout"] == "affection" and metrics["rows_rejected"] == 0
    found = {row["path"] for row in read(paths, "artworks")}
    assert found == {path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg")}
    sets = Counter(row["art_style"].split("/")[0] for row in read(paths, "artworks"))
    assert sets == Counter(name for name, *_ in published.PHOTOGRAPHS)
    assert metrics["emotions"] == {"contentment": 3, "something else": 2}


def test_a_plain_csv_and_a_flat_folder(tmp_path: Path) -> None:
    table = published.plain(tmp_path)
    paths, metrics = build(tmp_path, table, tmp_path / "photos")
    assert metrics["layout"] == "images" and metrics["reasons"] == {"unknown-emotion": 1}
    assert metrics["emotions"] == {"awe": 1, "fear": 1, "something else": 1}
    assert [row["path"] for row in read(paths, "artworks")] == [
        row["painting"] for row in read(paths, "artworks")
    ]
    params = UtterancesParams(num_shards=1, emotion_map={"JOY": "amusement", "fear": None})
    _, metrics = build(tmp_path, table, tmp_path / "photos", params)
    assert metrics["emotions"] == {"awe": 1, "amusement": 1, "something else": 1}
    assert metrics["reasons"] == {"left-out-emotion": 1}


def test_many_annotations_of_few_pictures_are_not_laid_aside(tmp_path: Path) -> None:
    """ArtEmis's rule of 41 repetitions is about its own column."""
    published.plain(tmp_path)
    rows = [("IMG_0.jpg", "awe", f"word {number}") for number in range(60)]
    table = pd.DataFrame(rows, columns=["image", "emotion", "utterance"])
    params = UtterancesParams(num_shards=1, fractions=(1.0, 0.0, 0.0))
    paths, _ = build(tmp_path, table, tmp_path / "photos", params)
    assert splits(paths) == {"IMG_0.jpg": "train"}


def test_columns_of_any_name(tmp_path: Path) -> None:
    table = published.plain(tmp_path).rename(
        columns={"image": "Photo", "emotion": "mood", "utterance": "why"}
    )
    params = UtterancesParams(num_shards=1, columns={"image": "photo", "emotion": "mood", "utterance": "why"})
    _, metrics = build(tmp_path, table, tmp_path / "photos", params)
    assert (metrics["layout"], metrics["rows_kept"]) == ("images", 3)
    with pytest.raises(UserError, match=r"lacks the column.*utterances\.columns"):
        build(tmp_path, table, tmp_path / "photos")


def test_an_apolo_of_ones_own_beside_pictures_of_ones_own(tmp_path: Path) -> None:
    table = published.plain(tmp_path)
    maps = tmp_path / "apolo" / "apolo_pixel_map"
    maps.mkdir(parents=True)
    np.save(maps / "IMG_1.jpg_fear.npy", np.ones((3, 3), np.uint8))
    record = {"painting": "IMG_1.jpg", "artemis_id": [1], "split": "test"}
    (tmp_path / "apolo" / "apolo.json").write_text(json.dumps([record]))
    _, metrics = build(tmp_path, table, tmp_path / "photos")
    assert metrics["apolo_items"] == 1


@pytest.mark.parametrize(
    ("change", "words", "params"),
    [
        ({"sep": ";"}, 'separated by semicolons.*utterances.delimiter to ";"', {"delimiter": ";"}),
        ({"sep": "\t"}, r'separated by tabs.*utterances.delimiter to "\\t"', {"delimiter": "\t"}),
        ({"sep": "|"}, r'separated by \|', {"delimiter": "|"}),
        ({"encoding": "utf-16"}, "utterances.encoding to utf-16", {"encoding": "utf-16"}),
        ({"encoding": "utf-16-be"}, "utterances.encoding to utf-16-be", {"encoding": "utf-16-be"}),
        ({"quotechar": "'", "quoting": 1}, "utterances.quote to '", {"quote": "'"}),
        ({"encoding": "utf-8-sig"}, None, {}),
        ({"quoting": 1}, None, {}),
        ({"lineterminator": "\r\n"}, None, {}),
    ],
)  # fmt: skip
def test_a_dialect_is_said_with_the_way_to_read_it(
    tmp_path: Path, change: dict[str, Any], words: str | None, params: dict[str, Any]
) -> None:
    table, pictures = published.release_v0(), published.wikiart(tmp_path)
    if words is not None:
        with pytest.raises(UserError, match=words):
            build(tmp_path, table, pictures, **change)
    paths, metrics = build(tmp_path, table, pictures, UtterancesParams(num_shards=1, **params), **change)
    assert metrics["rows_rejected"] == 0
    assert said_by_id(paths) == dict(enumerate(table.utterance))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\x03\x04rest of a workbook", "zip file.*Excel"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"PAR1\x15\x04", "Parquet"),
        (b'[{"image": "a.jpg", "emotion": "awe"}]', "JSON"),
        (b"sep=;\nimage;emotion;utterance\n", "Excel's line"),
        (b'"image,emotion,utterance"\n"a.jpg,awe,oh"\n', "inside one pair of quotes"),
        (b"image,emotion,utterance,emotion\n", "has the column emotion twice"),
    ],
)
def test_what_is_no_such_csv(tmp_path: Path, data: bytes, words: str) -> None:
    paths = Paths(artemis=tmp_path / "source.csv", wikiart=tmp_path, apolo=tmp_path, data=tmp_path / "data")
    paths.artemis.write_bytes(data)
    with pytest.raises(UserError, match=words):
        build_utterances(paths, ONE)


def test_another_encoding_costs_rows_or_none(tmp_path: Path) -> None:
    table, pictures = published.release_v0(), published.wikiart(tmp_path)
    _, metrics = build(tmp_path, table, pictures, encoding="cp1252")
    assert metrics["reasons"] == {"not-utf8": 6}  # the two works of eugène
    params = UtterancesParams(num_shards=1, encoding="cp1252")
    assert build(tmp_path, table, pictures, params, encoding="cp1252")[1]["rows_rejected"] == 0


def test_splits_in_other_words_and_of_no_meaning(tmp_path: Path) -> None:
    table = published.preprocessed()
    table["split"] = table.split.replace({"val": "Validation", "rest": "extra"})
    paths, metrics = build(tmp_path, table, published.wikiart(tmp_path))
    assert metrics["reasons"] == {"unknown-split": 3}
    assert set(splits(paths).values()) == {"train", "val", "test"}


@pytest.mark.parametrize(
    "bad",
    [
        {"layout": "artemis-v3"},
        {"columns": {"mood": "emotion"}},
        {"emotion_map": {"joy": "happiness"}},
        {"encoding": "utf-99"},
        {"encoding": "zip"},
        {"delimiter": ";;"},
    ],
)
def test_params_that_mean_nothing(bad: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"utterances.*{next(iter(bad))}|{next(iter(bad.values()))}"):
        parse_section(bad, "utterances", UtterancesParams, "params.yaml")


@pytest.mark.parametrize("name", ["release_v0", "combined_v2", "preprocessed", "artelingo", "affection"])
def test_plan_counts_what_the_step_keeps(tmp_path: Path, name: str) -> None:
    table = getattr(published, name)()
    pictures = published.photographs(tmp_path) if name == "affection" else published.wikiart(tmp_path)
    paths, metrics = build(tmp_path, table, pictures)
    found = count(paths, ONE)
    assert (found.rows, found.rows_rejected) == (metrics["rows_in"], metrics["rows_rejected"])
    assert (found.artworks, found.missing_pictures) == (metrics["artworks_kept"], 0)
    assert found.train_artworks == metrics["artwork_splits"].get("train", 0)
