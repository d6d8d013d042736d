"""WESD's test_result.json: read piece by piece, and never trusted."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from model.score import wesd_results
from pipeline.common.emotions import EMOTIONS
from pipeline.common.errors import UserError


def record(name: str, seed: int = 0) -> dict[str, object]:
    logits = np.random.default_rng(seed).normal(size=(49, 8))
    return {
        "id": name,
        "label": 3,
        "answer": [0.1] * 8,
        "prediction_matrix": logits.tolist(),
        "attention_feature": [0.0] * 49,
    }


@pytest.mark.parametrize("chunk", [1, 7, 1000, 1 << 20])
@pytest.mark.parametrize("layout", ["list", "indented", "lines", "empty-list", "nothing"])
def test_records_are_those_of_the_json_module_whatever_the_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, layout: str
) -> None:
    monkeypatch.setattr(wesd_results, "CHUNK", chunk)
    records: list[dict[str, object]] = [
        {"id": "a, ]é#1_awe", "prediction_matrix": [[1.5, -2]]},
        {"id": "[b_fear"},
    ]
    text = {
        "list": json.dumps(records),
        "indented": "\n " + json.dumps(records, indent=2) + "\n",
        "lines": "\n".join(json.dumps(r) for r in records) + "\n",
        "empty-list": " [ ] ",
        "nothing": "\n",
    }[layout]
    path = tmp_path / "test_result.json"
    path.write_text(text, encoding="utf-8")
    wanted = [] if layout in ("empty-list", "nothing") else records
    assert list(wesd_results.read_results(path)) == [(r["id"], r.get("prediction_matrix")) for r in wanted]


def test_a_long_file_is_held_record_by_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file of 200 records, a record and two chunks at most are asked for before the first is given."""
    monkeypatch.setattr(wesd_results, "CHUNK", 4096)
    path = tmp_path / "test_result.json"
    path.write_text(json.dumps([record(f"p{n}_awe", n) for n in range(200)]))
    asked = []
    plain = wesd_results._values

    def counted(file: object) -> object:
        class Counting:
            def read(self, size: int) -> str:
                asked.append(size)
                return file.read(size)  # type: ignore[attr-defined]

        return plain(Counting())  # type: ignore[arg-type]

    monkeypatch.setattr(wesd_results, "_values", counted)
    stream = wesd_results.read_results(path)
    assert next(stream)[0] == "p0_awe"
    assert sum(asked) < 12_000 + 2 * 4096 < path.stat().st_size / 50
    assert sum(1 for _ in stream) == 199


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"id": "a_awe"}, {"id": 3}]', "record 1: it is no object with an id"),
        ('[{"id": "a_awe"}, 7]', "record 1: it is no object with an id"),
        ('{"results": []}', "record 0: it is no object with an id"),
        ('[{"id": "a_awe"}', "record 1: it is no JSON, or the file ends within it"),
        (
            '[{"id": "a_awe", "prediction_matrix": [[1, 2',
            "record 0: it is no JSON, or the file ends within it",
        ),
        ("<html>", "record 0: it is no JSON"),
        ('[{"id": "a_awe"} {"id": ]', "record 1: it is no JSON"),
        ("[" * 100_000, "record 0"),
    ],
)
def test_other_files_are_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "test_result.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"cannot be read as WESD's test_result.json") as raised:
        list(wesd_results.read_results(path))
    assert message in str(raised.value)


def test_a_record_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wesd_results, "CHUNK", 100)
    monkeypatch.setattr(wesd_results, "RECORD_CHARS", 1000)
    path = tmp_path / "test_result.json"
    path.write_text('[{"id": "' + "a" * 5000)
    with pytest.raises(UserError, match="longer than 1000 characters"):
        list(wesd_results.read_results(path))
    with pytest.raises(UserError, match=r"record 0: .*No such file"):
        list(wesd_results.read_results(tmp_path / "absent.json"))
    path.write_bytes(b'[{"id": "\xff"}]')
    with pytest.raises(UserError, match="record 0"):
        list(wesd_results.read_results(path))


def test_the_map_is_the_emotions_column_row_by_row_after_the_sigmoid() -> None:
    logits = (
        wesd_results.as_logits([[10 * cell + place for place in range(8)] for cell in range(49)]) / 100 - 2
    )
    for place, emotion in enumerate(EMOTIONS):
        map_ = wesd_results.emotion_map(logits, emotion)
        wanted = [
            [1 / (1 + math.exp(2 - (10 * (7 * y + x) + place) / 100)) for x in range(7)] for y in range(7)
        ]
        assert map_.shape == (7, 7)
        assert np.allclose(map_, wanted, rtol=0, atol=1e-15)
    extreme = wesd_results.emotion_map(np.array([[-1e4, 1e4, math.nan, 0, 0, 0, 0, 0]] * 49), "amusement")
    assert extreme.tolist() == [[0.0] * 7] * 7
    assert np.isnan(wesd_results.emotion_map(np.full((49, 8), np.nan), "awe")).all()


@pytest.mark.parametrize(
    "matrix",
    [
        None,
        "x",
        [[0.0] * 8] * 48,
        [[0.0] * 9] * 49,
        [[0.0] * 8] * 48 + [[0.0]],
        [["a"] * 8] * 49,
        {"0": [0] * 8},
        1,
    ],
)
def test_what_is_no_matrix_is_refused(matrix: object) -> None:
    with pytest.raises(ValueError, match="prediction_matrix"):
        wesd_results.as_logits(matrix)
