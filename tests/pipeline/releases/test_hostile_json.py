"""APOLO's JSON as nobody should write it: one short message, or a record with a reason; never a traceback."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.metrics.text import find_java
from pipeline.common.errors import UserError
from pipeline.doctor import check_data
from pipeline.doctor.examine import run_check
from pipeline.doctor.finding import Context
from pipeline.releases import apolo
from tests.pipeline.releases.test_apolo import record, release, tables

NO_TABLES = {
    "null table": '{"columns": null, "data": null}',
    "names that are none": '{"columns": [["a"], 1], "data": []}',
    "a table of text": '{"columns": ["painting"], "data": "abc"}',
    "null": "null",
    "text": '"painting"',
    "columns of null": '{"painting": null, "artemis_id": null}',
    "column that is a list": '{"painting": ["a"], "artemis_id": {"0": 1}, "x": 3',
    "deep": "[" * 100_000,
    "deep and closed": "[" * 100_000 + "]" * 100_000,
    "key twice": '[{"painting": "a", "painting": "b", "artemis_id": [0], "split": "val"}]',
    "empty": "",
    "other bytes": "\udcff",
}
GOOD = json.dumps(record())
ROWS: dict[str, Any] = {
    "null": "null",
    "a number": "3",
    "nested": "[" * 900 + "]" * 900,
    "nested value": '{"painting": "a", "artemis_id": [0], "split": ' + '{"a": ' * 450 + "1" + "}" * 451,
    "id of 5,000 digits": f'{{"painting": "anna_mill", "artemis_id": [{"9" * 5000}], "split": "test"}}',
    "id of 400 digits": f'{{"painting": "anna_mill", "artemis_id": {"9" * 400}, "split": "test"}}',
    "id that is not a number": '{"painting": "anna_mill", "artemis_id": [NaN], "split": "test"}',
    "infinite id": '{"painting": "anna_mill", "artemis_id": 1e999, "split": "test"}',
    "id that is true": '{"painting": "anna_mill", "artemis_id": true, "split": "test"}',
    "a hundred thousand ids": json.dumps(record(ids=tuple(range(100, 100_000)))),
    "NUL in the name": json.dumps(record("anna\0mill")),
    "half a character": '{"painting": "anna\\ud800mill", "artemis_id": [0], "split": "test"}',
    "half a character as split": '{"painting": "anna_mill", "artemis_id": [0], "split": "\\ud800"}',
    "long name": json.dumps(record("x" * 100_000)),
    "long split": json.dumps(record(split="x" * 100_000)),
    "emotion that is a list": json.dumps(record(emotion=["x" * 100_000])),
    "painting that is a list": json.dumps(record(painting=["anna_mill"])),
    "path": json.dumps(record("../../etc/passwd")),
}


def findings(folder: Path) -> list[Any]:
    Path("params.yaml").write_text(
        json.dumps({"paths": {"apolo": str(folder)}, "regions": {"source": "vinvl"}})
    )
    context = Context(Path("params.yaml"), find_java)
    return list(run_check("apolo", check_data.CHECKS["apolo"], context))


@pytest.mark.parametrize("kind", NO_TABLES)
def test_what_is_no_table_is_one_message(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    release(tmp_path, [])
    index = tmp_path / apolo.INDEX
    index.mkdir()
    data = NO_TABLES[kind].encode(errors="surrogateescape")
    for file in (tmp_path / "apolo.json", *(index / f"{split}_index.json" for split in apolo.SPLITS)):
        file.write_bytes(data)
    for read in (lambda: apolo.load_items(tmp_path, *tables()), lambda: apolo.load_index(tmp_path)):
        with pytest.raises(UserError, match="json") as error:
            read()
        assert len(str(error.value)) < 300 + len(str(tmp_path))
    for finding in findings(tmp_path):
        assert finding.status == "fail" and "broke" not in finding.found


@pytest.mark.parametrize("kind", ROWS)
def test_a_bad_record_is_a_reject_and_the_others_are_kept(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    release(tmp_path, [], ("anna_mill_awe",))
    (tmp_path / "apolo.json").write_text(f"[{ROWS[kind]}, {GOOD}]")
    items, rejects = apolo.load_items(tmp_path, *tables())
    assert [item.painting for item in items] == ["anna_mill"]
    (reject,) = rejects
    assert len(reject.detail) < 400
    reject.detail.encode()
    for finding in findings(tmp_path):
        assert "broke" not in finding.found
        assert len(finding.found) < 500


def test_columns_and_rows_that_do_not_fit(tmp_path: Path) -> None:
    """Orient "split" with a row that is none: only that row is given up."""
    release(
        tmp_path, {"columns": ["painting", "artemis_id", "split"], "data": [7, ["anna_mill", [0], "test"]]}
    )
    release_maps = release(tmp_path / "maps", [], ("anna_mill_awe",)) / "apolo_pixel_map"
    (tmp_path / "apolo_pixel_map").rmdir()
    release_maps.rename(tmp_path / "apolo_pixel_map")
    items, rejects = apolo.load_items(tmp_path, *tables())
    assert (len(items), [reject.reason for reject in rejects]) == (1, ["malformed-record"])
