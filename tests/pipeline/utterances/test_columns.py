"""The csv in columns: every row once, whatever the size of a batch, and artworks numbered as they come."""

import pyarrow as pa
import pytest

from pipeline.common import schema
from pipeline.releases.artemis import Annotation, Reject
from pipeline.utterances import columns
from pipeline.utterances.columns import COLUMNS, gather

STREAM: list[Annotation | Reject] = [
    Annotation(0, "Realism", "mill", "awe", "so grand", 1),
    Reject("a.csv", 1, "empty-utterance", ""),
    Annotation(2, "Realism", "port", "fear", "so dark", 3),
    Annotation(3, "Realism", "mill", "anger", "so loud", 2),
    Annotation(4, "Cubism", "mill", "awe", "so square", 1),
    Annotation(5, "Realism", "mill", "awe", "so tall", 0),
]


@pytest.mark.parametrize("chunk", [1, 2, 4, 5, 99])
def test_rows_in_batches_and_artworks_by_style_and_name(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "CHUNK", chunk)
    rows = gather(iter(STREAM))
    assert max(batch.num_rows for batch in rows.batches) <= chunk
    table = pa.Table.from_batches(rows.batches, COLUMNS)
    assert table["artemis_id"].to_pylist() == [0, 2, 3, 4, 5]
    assert table["work"].to_pylist() == [0, 1, 0, 2, 0]
    assert table["utterance"].to_pylist() == ["so grand", "so dark", "so loud", "so square", "so tall"]
    assert (rows.count, rows.rejects) == (6, [STREAM[1]])
    works = list(rows.works.values())
    assert [(w.number, w.art_style, w.painting, w.names) for w in works] == [
        (0, "Realism", "mill", {("Realism", "mill"): 2}),
        (1, "Realism", "port", {("Realism", "port"): 3}),
        (2, "Cubism", "mill", {("Cubism", "mill"): 1}),
    ]
    assert [work.key for work in works] == [schema.artwork_key(w.art_style, w.painting) for w in works]


def test_no_rows_at_all() -> None:
    rows = gather(iter(()))
    assert pa.Table.from_batches(rows.batches, COLUMNS).num_rows == rows.count == len(rows.works) == 0
