"""One file is one artwork however it is spelt, and equal files never stand in two splits."""

import hashlib
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.common.params import Paths
from pipeline.common.schema import artwork_key
from pipeline.utterances.step import UtterancesParams, build_utterances
from tests.pipeline.utterances.test_step import apolo_release, index_files, table

HALVES = UtterancesParams(num_shards=2, fractions=(0.5, 0.2, 0.3))


def world(root: Path, files: list[str], rows: list[str]) -> Paths:
    """Pictures of one colour each under these names, and rows ``painting,emotion,utterance``."""
    paths = Paths(artemis=root / "a.csv", wikiart=root / "w", apolo=root / "x", data=root / "d")
    (paths.wikiart / "S").mkdir(parents=True)
    for number, name in enumerate(files):
        Image.fromarray(np.full((32, 32, 3), number, np.uint8)).save(paths.wikiart / "S" / name)
    lines = ["art_style,painting,emotion,utterance,repetition", *(f"S,{row},2" for row in rows)]
    paths.artemis.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return paths


def spellings(number: int) -> list[str]:
    nfc = f"\u00e9-{number}"
    return [nfc, unicodedata.normalize("NFD", nfc), nfc.upper(), f"e-{number}", f"\u00e3\u00a9-{number}"]


@pytest.mark.parametrize("first", range(5))
def test_all_spellings_of_a_file_are_one_artwork(tmp_path: Path, first: int) -> None:
    names = [spellings(i)[first:] + spellings(i)[:first] for i in range(30)]
    rows = [f"{name},awe,so {i} {k}" for i, all_of in enumerate(names) for k, name in enumerate(all_of)]
    paths = world(tmp_path, [f"{spellings(i)[0]}.jpg" for i in range(30)], rows)
    counts = build_utterances(paths, HALVES)
    works, said = table(paths, "artworks"), table(paths, "utterances")
    assert len(works) == 30 == len({work["path"] for work in works})
    assert {work["key"] for work in works} == {artwork_key("S", spellings(i)[0]) for i in range(30)}
    splits = {work["key"]: work["split"] for work in works}
    assert len(said) == 150 and all(row["split"] == splits[row["key"]] for row in said)
    assert [row["artemis_id"] for row in said if row["key"] == works[0]["key"]] == sorted(
        row["artemis_id"] for row in said if row["key"] == works[0]["key"]
    )
    assert counts["artworks_in"] == 150 == counts["artworks_kept"] + counts["artworks_merged"]
    doubles = table(paths, "doubles")
    assert {row["reason"] for row in doubles} == {"spelling"}
    assert {row["source"] for row in doubles} == {f"S/{n}" for i in range(30) for n in spellings(i)[1:]}


def test_what_two_spellings_repeat_is_a_duplicate_and_rows_reconcile(tmp_path: Path) -> None:
    rows = ["Mill,awe,so grand", "mill,awe,so grand", "mill,fear,so grand", "port,awe,x", "Port,awe,x"]
    paths = world(tmp_path, ["mill.jpg"], rows)
    counts = build_utterances(paths, HALVES)
    assert [row["artemis_id"] for row in table(paths, "utterances")] == [0, 2]
    rejects = [(row["row"], row["reason"]) for row in table(paths, "rejects")]
    expected = [(1, "duplicate"), (3, "picture-missing"), (4, "picture-missing")]
    assert rejects == [*expected, (-1, "picture-missing"), (-1, "picture-missing")]
    assert counts["rows_in"] == 5 == counts["rows_kept"] + counts["rows_rejected"]
    found = counts["artworks_kept"], counts["artworks_rejected"], counts["artworks_merged"]
    assert sum(found) == counts["artworks_in"] and found == (1, 2, 1)


def test_a_spelling_moves_nobody_else(tmp_path: Path) -> None:
    names = [f"p{i}" for i in range(12)]
    paths = world(tmp_path, [f"{name}.jpg" for name in names], [f"{name},awe,x" for name in [*names, "P3"]])
    build_utterances(paths, HALVES)
    splits = {work["painting"]: work["split"] for work in table(paths, "artworks")}
    (paths.wikiart / "S" / "p3.jpg").unlink()  # now both names of it are rejected
    build_utterances(paths, HALVES)
    assert {work["painting"]: work["split"] for work in table(paths, "artworks")} == {
        name: split for name, split in splits.items() if name != "p3"
    }


def test_the_strictest_split_of_the_spellings_counts(tmp_path: Path) -> None:
    paths = world(tmp_path, ["a.jpg", "b.jpg"], ["a,awe,1", "A,awe,2", "b,awe,3", "B,awe,4"])
    index_files(paths, train=[0, 2], test=[1])
    build_utterances(paths, UtterancesParams())
    assert {work["painting"]: work["split"] for work in table(paths, "artworks")} == {
        "a": "test",
        "b": "train",
    }


def test_equal_files_are_told_and_share_a_split(tmp_path: Path) -> None:
    names = [f"p{i:02}" for i in range(40)]
    paths = world(tmp_path, [f"{name}.jpg" for name in names], [f"{name},awe,x" for name in names])
    folder = paths.wikiart / "S"
    for number in range(0, 40, 2):
        (folder / f"{names[number + 1]}.jpg").write_bytes((folder / f"{names[number]}.jpg").read_bytes())
    counts = build_utterances(paths, HALVES)
    works = {work["painting"]: work for work in table(paths, "artworks")}
    assert len(works) == 40
    for work in works.values():
        assert work["sha256"] == hashlib.sha256((paths.wikiart / work["path"]).read_bytes()).hexdigest()
    for number in range(0, 40, 2):
        assert works[names[number]]["split"] == works[names[number + 1]]["split"]
    doubles = table(paths, "doubles")
    assert [(row["source"], row["reason"]) for row in doubles] == [
        (f"S/{name}", "same-bytes") for name in names[1::2]
    ]
    assert counts["artworks_of_equal_files"] == 20 and counts["equal_files_moved_to_one_split"] > 0
    assert all(
        row["split"] == {w["key"]: w["split"] for w in works.values()}[row["key"]]
        for row in table(paths, "utterances")
    )


def test_a_copy_of_what_apolo_evaluates_leaves_train(tmp_path: Path) -> None:
    paths = world(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], ["a,awe,1", "b,awe,2", "c,awe,3"])
    (paths.wikiart / "S" / "b.jpg").write_bytes((paths.wikiart / "S" / "a.jpg").read_bytes())
    apolo_release(paths, [("a", [0], "test", "awe")])
    index_files(paths, train=[0, 1, 2])
    build_utterances(paths, UtterancesParams())
    splits = {work["painting"]: work["split"] for work in table(paths, "artworks")}
    assert splits == {"a": "test", "b": "test", "c": "train"}


def test_headers_alone_give_no_hash(tmp_path: Path) -> None:
    paths = world(tmp_path, ["a.jpg"], ["a,awe,1"])
    build_utterances(paths, UtterancesParams(verify="header"))
    assert [work["sha256"] for work in table(paths, "artworks")] == [None]
