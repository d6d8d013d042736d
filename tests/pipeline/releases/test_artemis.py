"""The ArtEmis csv: what pandas reads is read alike, what is broken has a reason, and all rows are counted."""

import csv
import io
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.common.emotions import ALL_EMOTIONS
from pipeline.common.errors import UserError
from pipeline.releases import artemis
from pipeline.releases.artemis import COLUMNS, Annotation, Reject

HEADER = ",".join(COLUMNS) + "\n"
GOOD = "Realism,anna_the-mill,awe,the old mill stands there like a castle,5\n"


def read(tmp_path: Path, data: str | bytes, max_chars: int = 200) -> list[Annotation | Reject]:
    path = tmp_path / "artemis.csv"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return list(artemis.read_csv(path, max_chars))


def reasons(rows: list[Annotation | Reject]) -> list[str]:
    """Reason of each row, "" for a kept one."""
    return [row.reason if isinstance(row, Reject) else "" for row in rows]


def test_one_row(tmp_path: Path) -> None:
    assert read(tmp_path, HEADER + GOOD) == [
        Annotation(0, "Realism", "anna_the-mill", "awe", "the old mill stands there like a castle", 5)
    ]


def test_columns_in_any_order_with_bom_case_tabs_and_extras(tmp_path: Path) -> None:
    text = "\ufeffutterance,Painting,art_style\t,extra,REPETITION,emotion\na mill,x,Realism,?,7,Awe \n"
    assert read(tmp_path, text) == [Annotation(0, "Realism", "x", "awe", "a mill", 7)]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_line_endings(tmp_path: Path, ending: str) -> None:
    rows = read(tmp_path, (HEADER + GOOD + GOOD.replace("castle", "tower")).replace("\n", ending))
    assert reasons(rows) == ["", ""]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Realism,x,joy,hm,5", "unknown-emotion"),
        ("Realism,x,,hm,5", "unknown-emotion"),
        ("Realism,x,awe,,5", "empty-utterance"),
        ("Realism,x,awe,  \t ,5", "empty-utterance"),
        ("Realism,,awe,hm,5", "empty-painting"),
        (",x,awe,hm,5", "empty-art-style"),
        ("Realism,../../etc/passwd,awe,hm,5", "unsafe-name"),
        ("..,x,awe,hm,5", "unsafe-name"),
        ("Realism,..,awe,hm,5", "unsafe-name"),
        ("Realism,a/b,awe,hm,5", "unsafe-name"),
        ("Realism,a\\b,awe,hm,5", "unsafe-name"),
        (f"Realism,x,awe,{'long ' * 50},5", "utterance-too-long"),
        ("Realism,x,awe,bell \x07 rings,5", "control-character"),
        ("Realism,x,awe,zero \x00 byte,5", "control-character"),
        ("Realism,x,awe,hm,many", "bad-repetition"),
        ("Realism,x,awe,hm,", "bad-repetition"),
        ("Realism,x,awe,hm,-1", "bad-repetition"),
        ("Realism,x,awe,hm,7.5", "bad-repetition"),
        ("Realism,x,awe,hm,.0", "bad-repetition"),
        ("Realism,x,awe,hm,nan", "bad-repetition"),
        ("Realism,x,awe,\u200b,5", "empty-utterance"),
        ("Realism,x,awe,\u2060 \u00ad\u200e,5", "empty-utterance"),
        ("Realism,x,awe,\ufe0f\u3164\u2800,5", "empty-utterance"),
        ("Realism,x,awe,hm,99999999999999", "bad-repetition"),
        ("Realism,x,awe,hm", "wrong-field-count"),
        ("Realism,x,awe,hm,5,6", "wrong-field-count"),
        ("just words", "wrong-field-count"),
    ],
)
def test_a_bad_row_is_rejected_and_its_neighbours_are_kept(tmp_path: Path, line: str, reason: str) -> None:
    rows = read(tmp_path, HEADER + GOOD + line + "\n" + GOOD.replace("castle", "tower"))
    assert reasons(rows) == ["", reason, ""]
    assert [row.artemis_id if isinstance(row, Annotation) else row.row for row in rows] == [0, 1, 2]


def test_counts_that_went_through_pandas(tmp_path: Path) -> None:
    """One row without a count makes floats of all the others."""
    table = pd.read_csv(io.StringIO(HEADER + GOOD + GOOD.replace("castle,5", "tower,")))
    table.to_csv(tmp_path / "pandas.csv", index=False)
    rows = list(artemis.read_csv(tmp_path / "pandas.csv", 2000))
    assert isinstance(rows[0], Annotation) and rows[0].repetition == 5
    assert isinstance(rows[1], Reject) and rows[1].reason == "bad-repetition"


@pytest.mark.parametrize("text", ["!", "\u05d0", "\u4e00", "\U0001f3a8", "\u200bx", "\u0301"])
def test_what_can_be_seen_is_an_utterance(tmp_path: Path, text: str) -> None:
    (row,) = read(tmp_path, HEADER + f"Realism,x,awe,{text},5\n")
    assert isinstance(row, Annotation) and row.utterance == text


def test_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    rows = read(tmp_path, (HEADER + GOOD).encode() + b"Realism,x,awe,caf\xe9,5\n" + b"R\xff,x,awe,hm,5\n")
    assert reasons(rows) == ["", "not-utf8", "not-utf8"]
    assert isinstance(rows[1], Reject) and "0xe9" in rows[1].detail


def test_exact_duplicates_are_rejected_and_near_ones_kept(tmp_path: Path) -> None:
    rows = read(tmp_path, HEADER + GOOD + GOOD + GOOD.replace("awe", "fear") + GOOD.replace(",5", ",6"))
    assert reasons(rows) == ["", "duplicate", "", ""]


def test_white_space_in_an_utterance_collapses(tmp_path: Path) -> None:
    rows = read(tmp_path, HEADER + 'Realism,x,awe," the ""old""\n\tmill, so  grand ",5\n')
    assert isinstance(rows[0], Annotation)
    assert rows[0].utterance == 'the "old" mill, so grand'


def test_an_open_quote_costs_one_row(tmp_path: Path) -> None:
    many = "".join(GOOD.replace("castle", f"tower {i}") for i in range(200))
    rows = read(tmp_path, HEADER + GOOD + 'Realism,x,awe,"never closed,5\n' + many)
    assert reasons(rows) == ["", "unclosed-quote", *[""] * 200]


def test_a_huge_field_costs_one_row(tmp_path: Path) -> None:
    rows = read(tmp_path, HEADER + f"Realism,x,awe,{'x' * 200_000},5\n" + GOOD)
    assert reasons(rows) == ["field-too-long", ""]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("art_style,painting,utterance\n", "emotion, repetition"),
        (GOOD, "lacks the column"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, data: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read(tmp_path, data)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.csv", tmp_path):
        with pytest.raises(UserError, match=r"paths\.artemis"):
            list(artemis.read_csv(path, 100))


def seen(text: str) -> bool:
    """Whether there is a letter, digit, sign or punctuation: rows of nothing else are left out."""
    return any(unicodedata.category(letter)[0] in "LNPS" for letter in text)


WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1, max_size=8)


@given(
    st.lists(
        st.tuples(
            st.lists(WORDS, min_size=1, max_size=5).map(" ".join).filter(seen),
            st.sampled_from(ALL_EMOTIONS),
            st.integers(0, 99),
            st.booleans(),
        ),
        max_size=12,
        unique_by=lambda row: row[0],
    ),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
@settings(max_examples=100)
def test_reads_what_pandas_reads(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int, bool]], quoting: int
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=quoting, lineterminator="\n")
    writer.writerow(COLUMNS)
    for utterance, emotion, repetition, blank_line in rows:
        writer.writerow(["Realism", "x", emotion, utterance, repetition])
        if blank_line:
            text.write("\n  \n")
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    table = pd.read_csv(path, keep_default_na=False, dtype=str, encoding="utf-8")
    ours = [row for row in artemis.read_csv(path, 1000) if isinstance(row, Annotation)]
    assert [row.artemis_id for row in ours] == list(table.index)
    assert [row.utterance for row in ours] == list(table["utterance"])
    assert [row.emotion for row in ours] == list(table["emotion"])


@given(st.binary(max_size=400))
@settings(max_examples=200)
def test_any_bytes_after_the_header_are_counted(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes((HEADER + GOOD).encode() + data)
    rows = list(artemis.read_csv(path, 50))
    assert [row.artemis_id if isinstance(row, Annotation) else row.row for row in rows] == list(
        range(len(rows))
    )
    assert isinstance(rows[0], Annotation)
    for row in rows:
        assert (
            all(text.isprintable() for text in (row.reason, row.detail)) if isinstance(row, Reject) else True
        )


def sklearn_split(count: int, test_size: float | int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's documented train_test_split of range(count): shuffled, ceil of a float test size."""
    num_test = int(np.ceil(test_size * count)) if isinstance(test_size, float) else test_size
    order = np.random.RandomState(seed).permutation(count)
    return order[num_test:], order[:num_test]


def test_split_is_artemis_own() -> None:
    works = [("Realism", f"p{i}") for i in range(200)] + [("Cubism", f"q{i}") for i in range(201)]
    splits = artemis.split_artworks(dict.fromkeys(works, 5), (0.85, 0.05, 0.1), 2021, 41)
    unique = np.array(sorted(style + painting for style, painting in works))
    train, rest = sklearn_split(len(unique), 0.05 + 0.1, 2021)
    val, test = sklearn_split(len(rest), round(0.1 * len(unique)), 2021)
    expected = {unique[i]: "train" for i in train}
    expected |= {unique[rest[i]]: "val" for i in val} | {unique[rest[i]]: "test" for i in test}
    assert {style + painting: split for (style, painting), split in splits.items()} == expected
    assert sorted(splits.values()).count("test") == 40


def test_split_of_much_annotated_artworks_and_of_few() -> None:
    works = {("a", "often"): 41, ("a", "usual"): 40, ("b", "x"): 5}
    assert artemis.split_artworks(works, (1.0, 0.0, 0.0), 1, 41) == {
        ("a", "often"): "rest",
        ("a", "usual"): "train",
        ("b", "x"): "train",
    }
    assert "rest" not in artemis.split_artworks(works, (1.0, 0.0, 0.0), 1, 0).values()
    assert artemis.split_artworks({}, (0.85, 0.05, 0.1), 1, 41) == {}


@given(st.integers(0, 60), st.integers(0, 5))
@settings(max_examples=60)
def test_every_artwork_has_one_split_whatever_the_order(count: int, seed: int) -> None:
    works = {("s", f"p{i}"): 5 for i in range(count)}
    splits = artemis.split_artworks(works, (0.85, 0.05, 0.1), seed, 41)
    assert splits.keys() == works.keys()
    shuffled = dict(reversed(works.items()))
    assert artemis.split_artworks(shuffled, (0.85, 0.05, 0.1), seed, 41) == splits


def test_real_csv(real_art: Path) -> None:
    path = real_art / "artemis" / "artemis_dataset_release_v0.csv"
    table = pd.read_csv(path)
    rows = list(artemis.read_csv(path, 2000))
    assert [
        (r.artemis_id, r.painting, r.utterance, r.repetition) for r in rows if isinstance(r, Annotation)
    ] == list(table[["painting", "utterance", "repetition"]].itertuples(name=None))
