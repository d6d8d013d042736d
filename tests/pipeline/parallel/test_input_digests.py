"""Digests of tables: the same for the same values however they are stored, another for any others."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.common import schema
from pipeline.common.errors import UserError
from pipeline.common.files import write_parquet
from pipeline.common.fingerprint import sha256_file
from pipeline.common.params import Paths
from pipeline.common.schema import shard_stem
from pipeline.parallel.input_digests import columns_digest, content_digest, input_digests

# Few values, so that two draws are often nearly the same, or the same.
NUMBERS = st.sampled_from([0.0, 1.0, 1.5, float("inf")])
BOXES = st.lists(st.lists(NUMBERS, min_size=4, max_size=4), max_size=3)
REGIONS = st.lists(st.tuples(st.sampled_from(["a", "b", "ab", "", "é"]), BOXES), max_size=4)
VALUES = pa.schema(
    [
        ("key", pa.string()),
        ("names", pa.list_(pa.list_(pa.string()))),
        ("size", pa.int32()),
        ("score", pa.float32()),
    ]
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "key": st.none() | st.text("ab", max_size=2),
            "names": st.none()
            | st.lists(st.none() | st.lists(st.none() | st.text("ab", max_size=2), max_size=2), max_size=2),
            "size": st.none() | st.integers(0, 1),
            "score": st.none() | NUMBERS,
        }
    ),
    max_size=3,
)


def regions_table(found: list[tuple[str, Any]]) -> pa.Table:
    return pa.table(
        {"key": [key for key, _ in found], "boxes": [boxes for _, boxes in found]},
        schema=pa.schema([schema.REGIONS.field("key"), schema.REGIONS.field("boxes")]),
    )


@st.composite
def stored(draw: Any, table: pa.Table) -> pa.Table:
    """The same rows in other chunks, or written and read in another way."""
    cuts = sorted(draw(st.lists(st.integers(0, table.num_rows), max_size=3)))
    parts = [
        table.slice(a, b - a) for a, b in zip([0, *cuts], [*cuts, table.num_rows], strict=True)
    ]  # slices keep the buffers of the whole
    table = pa.concat_tables(parts)
    if draw(st.booleans()):
        file = io.BytesIO()
        pq.write_table(
            table,
            file,
            compression=draw(st.sampled_from(["zstd", "none"])),
            use_dictionary=draw(st.booleans()),
            row_group_size=draw(st.integers(1, 3)),
        )
        table = pq.read_table(file)
    return table.select(draw(st.permutations(table.column_names)))


@settings(max_examples=300)
@given(st.data())
def test_regions_have_one_digest_just_when_keys_and_boxes_are_the_same(data: Any) -> None:
    first = data.draw(REGIONS)
    second = data.draw(st.just(first) | REGIONS)
    digests = [content_digest(data.draw(stored(regions_table(found)))) for found in (first, second)]
    assert (digests[0] == digests[1]) == (first == second)


@settings(max_examples=300)
@given(st.data())
def test_nulls_lists_and_strings_are_told_apart(data: Any) -> None:
    first = data.draw(ROWS)
    second = data.draw(st.just(first) | ROWS)
    digests = [
        content_digest(data.draw(stored(pa.Table.from_pylist(rows, VALUES)))) for rows in (first, second)
    ]
    assert (digests[0] == digests[1]) == (first == second)


def test_one_bit_of_one_number_is_another_digest() -> None:
    boxes = np.array([[1, 2, 3, 4]], np.float32)
    moved = np.nextafter(boxes, np.float32(9))
    one, other = (regions_table([("a", [b.tolist()])]) for b in (boxes[0], moved[0]))
    assert content_digest(one) != content_digest(other)
    assert content_digest(one) != content_digest(one.rename_columns(["key", "corners"]))


UTTERED = st.lists(
    st.tuples(st.sampled_from("abcdx"), st.sampled_from(["awe", "fear", "something else"]), st.text("no")),
    max_size=12,
)
"""Artworks a to d lie in two shards; x is not in the table."""
WORKS = pa.Table.from_pylist(
    [
        {"key": key, "path": f"{key}.jpg", "shard": shard}
        for key, shard in zip("abcd", (0, 7, 0, 7), strict=True)
    ],
    pa.schema([schema.ARTWORKS.field(name) for name in ("key", "path", "shard")]),
)


def utterances_file(rows: list[tuple[str, str, str]], row_group: int) -> pq.ParquetFile:
    columns = zip(*rows, strict=True) if rows else ([], [], [])
    table = pa.table(dict(zip(("key", "emotion", "utterance"), map(list, columns), strict=True)))
    table = table.append_column("artemis_id", pa.array(range(len(rows)), pa.int64()))
    table = table.cast(pa.schema([schema.UTTERANCES.field(name) for name in table.column_names]))
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=row_group)
    return pq.ParquetFile(file)


@settings(max_examples=200)
@given(st.data())
def test_a_shard_has_another_digest_just_when_a_step_would_read_other_rows(data: Any) -> None:
    first = data.draw(UTTERED)
    second = data.draw(st.just(first) | UTTERED)
    digests, read = [], []
    for rows in (first, second):
        order = data.draw(st.permutations(range(4)))
        file = utterances_file(rows, data.draw(st.integers(1, 5)))
        digests.append(input_digests(WORKS.take(order), file, ("key",)))
        shard_of = dict(zip("abcd", (0, 7, 0, 7), strict=True))
        numbered = [(i, *row) for i, row in enumerate(rows) if row[1] != "something else"]
        read.append({shard: [row for row in numbered if shard_of.get(row[1]) == shard] for shard in (0, 7)})
    for shard in (0, 7):
        assert (digests[0][shard] == digests[1][shard]) == (read[0][shard] == read[1][shard])


def test_a_picture_of_another_size_is_another_digest_where_pictures_are_read(tmp_path: Path) -> None:
    nothing = utterances_file([], 1)
    (tmp_path / "a.jpg").write_bytes(b"12")
    before = [input_digests(WORKS, nothing, ("key",), wikiart) for wikiart in (None, tmp_path)]
    (tmp_path / "a.jpg").write_bytes(b"123")
    after = [input_digests(WORKS, nothing, ("key",), wikiart) for wikiart in (None, tmp_path)]
    assert before[0] == after[0] and before[1][7] == after[1][7] and before[1][0] != after[1][0]
    assert input_digests(WORKS, nothing, ("key",), tmp_path, shards={7}) == {7: after[1][7]}


def test_a_picture_of_another_hash_is_another_digest_and_so_is_one_without(tmp_path: Path) -> None:
    digests = []
    for hashes in (["1", "1", "1", "1"], ["2", "1", "1", "1"], [None, "1", "1", "1"]):
        works = WORKS.append_column("sha256", pa.array(hashes, pa.string()))
        digests.append(input_digests(works, utterances_file([], 1), ("key", "sha256"), tmp_path))
    assert len({digest[0] for digest in digests}) == 3 and len({digest[7] for digest in digests}) == 1


def test_lineage_counts_where_it_is_asked_for_and_damaged_files_have_a_digest_too(tmp_path: Path) -> None:
    paths = Paths(data=tmp_path)
    file = paths.step("similarity") / f"{shard_stem(0)}.parquet"
    row = {"key": "a", "emotion": "awe", "artemis_ids": [1], "scores": [0.5]}

    def digests(lineage: str, **changed: Any) -> tuple[str, str]:
        kind = schema.SIMILARITY.with_metadata({"lineage": lineage})
        write_parquet(file, pa.Table.from_pylist([row | changed], kind))
        with_it, without = (
            columns_digest(paths, "similarity", 0, ("key", "emotion", "scores"), lineage=asked)
            for asked in (True, False)
        )
        return with_it, without

    first = digests("{}")
    assert digests("{}", artemis_ids=[2]) == first
    other = digests('{"clip": 1}')
    assert other[0] != first[0] and other[1] == first[1]
    assert all(a != b for a, b in zip(digests("{}", scores=[0.25]), first, strict=True))
    file.write_bytes(b"PAR1 no table")
    assert columns_digest(paths, "similarity", 0, ("key",)) == sha256_file(file)
    file.unlink()
    with pytest.raises(UserError, match="run the similarity step first"):
        columns_digest(paths, "similarity", 0, ("key",))
