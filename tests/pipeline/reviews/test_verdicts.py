"""The format of verdicts: what is written is read, however a crash or a stranger leaves a file."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.common import rle
from pipeline.common.errors import RunFailed, UserError
from pipeline.reviews import verdicts as module
from pipeline.reviews.verdicts import Verdict, append, now, read_reviews, reviewer_file

KEY, MASK = "0123456789abcdef", "a" * 64


def verdict(number: int = 0, **changes: Any) -> Verdict:
    at = f"2026-11-22T12:00:{number:02d}.000Z"
    values = {"id": f"i{number}", "key": KEY, "emotion": "awe", "verdict": "good", "by": "anna", "at": at}
    return Verdict(**{**values, "mask": MASK, **changes})


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    drawn = np.zeros((3, 5), bool)
    drawn[1, 2:] = True
    first = verdict(1, verdict="too-big", corrected=rle.encode(drawn[None])[0], order="random")
    second = verdict(2, key="f" * 16, by="Žofie K.")
    append(tmp_path, [first])
    append(tmp_path, [second])
    assert read_reviews(tmp_path).verdicts == [first, second]
    assert len(list(tmp_path.iterdir())) == 2
    assert read_reviews(tmp_path / "absent").verdicts == []


def test_the_latest_verdict_stands_and_undo_brings_back_the_one_before(tmp_path: Path) -> None:
    append(tmp_path, [verdict(1), verdict(2, verdict="too-big"), verdict(3, verdict="skip", key="b" * 16)])
    assert [one.verdict for one in read_reviews(tmp_path).verdicts] == ["too-big", "skip"]
    append(tmp_path, [verdict(4, verdict="undo", undoes="i2")])
    found = read_reviews(tmp_path)
    assert [one.verdict for one in found.verdicts] == ["good", "skip"]
    assert found.counts == {"lines": 4, "undos": 1, "undone": 1, "repeated": 0, "superseded": 0}
    append(tmp_path, [verdict(5, verdict="undo", undoes="i1", by="bob")])  # nobody undoes another's
    append(tmp_path, [verdict(1)])  # the same line again, as a merge of two branches may leave it
    found = read_reviews(tmp_path)
    assert [one.verdict for one in found.verdicts] == ["good", "skip"] and found.counts["repeated"] == 1


HOSTILE = {
    "not-json": [b"{", b"[]", b"[" * 100_000],
    "not-utf8": [b'{"id": "\xff"}'],
    "key": [{"key": "../../etc/passwd"}, {"key": 5}],
    "emotion": [{"emotion": "something else"}],
    "verdict": [{"verdict": "bad"}],
    "by": [{"by": ""}, {"by": "a\nb"}, {"by": "x" * 61}],
    "at": [{"at": "yesterday"}, {"at": "2026-11-22T12:00:00"}],
    "mask": [{"mask": "A" * 64}],
    "undoes": [{"verdict": "undo"}, {"undoes": "i1"}],
    "corrected": [
        {"corrected": "x", "verdict": "too-big"},
        {"corrected": '{"size": [9, 9], "counts": "0"}', "verdict": "too-big"},
        {"corrected": '{"size": [99999, 99999], "counts": "0"}', "verdict": "too-big"},
        {"corrected": '{"size": [1, 1], "counts": "1"}'},  # of a mask that is good
    ],
    "too-long": [{"order": "x" * (1 << 20)}],
}


def test_every_foreign_line_is_a_row_with_its_reason(tmp_path: Path) -> None:
    lines, reasons = [], []
    for reason, group in HOSTILE.items():
        for bad in group:
            values = {**json.loads(module._line(verdict())), **bad} if isinstance(bad, dict) else {}
            lines.append(bad if isinstance(bad, bytes) else json.dumps(values).encode())
            reasons.append(reason)
    (tmp_path / "x.jsonl").write_bytes(b"\n".join([*lines, b"", module._line(verdict()).encode()]))
    found = read_reviews(tmp_path)
    assert [bad.reason for bad in found.bad] == reasons
    assert [bad.line for bad in found.bad] == list(range(1, len(lines) + 1))
    assert found.counts["lines"] == len(found.verdicts) + len(found.bad) == 1 + len(lines)


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_torn_last_line_is_counted_and_never_swallows_the_next(tmp_path: Path, cut: int) -> None:
    append(tmp_path, [verdict(1), verdict(2, key="b" * 16)])
    file = tmp_path / "anna.jsonl"
    file.write_bytes(file.read_bytes()[:-cut])
    torn = [bad.reason for bad in read_reviews(tmp_path).bad]
    assert torn == ([] if cut == 1 else ["torn"])  # a whole line without its end is one
    append(tmp_path, [verdict(3, key="c" * 16)])
    keys = {one.key[0] for one in read_reviews(tmp_path).verdicts}
    assert keys == ({"0", "b", "c"} if cut == 1 else {"0", "c"})


def _many(folder: Path, start: int) -> None:
    for number in range(50):
        append(folder, [verdict(id=f"{start}-{number}", key=f"{start * 100 + number:016x}")])


def test_processes_append_to_one_file_at_once(tmp_path: Path) -> None:
    workers = [multiprocessing.Process(target=_many, args=(tmp_path, start)) for start in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = read_reviews(tmp_path)
    assert len(found.verdicts) == 100 and not found.bad


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path, [verdict(1)])
    before = (tmp_path / "anna.jsonl").read_bytes()
    real = module.os.write

    def full(handle: int, data: bytes) -> int:
        if len(data) < 40:
            raise OSError(28, "No space left on device")
        return real(handle, data[:30])

    monkeypatch.setattr(module.os, "write", full)
    with pytest.raises(RunFailed, match="No space left"):
        append(tmp_path, [verdict(2)])
    assert (tmp_path / "anna.jsonl").read_bytes() == before


def test_reviewers_have_files_of_their_own(tmp_path: Path) -> None:
    names = ["anna", "Anna", "../anna", "an na", "安娜", "..", "Jose", "José"]
    files = {reviewer_file(tmp_path, name) for name in names}
    assert len(files) == len(names) and {file.parent for file in files} == {tmp_path}
    assert all(file.suffix == ".jsonl" and not file.name.startswith(".") for file in files)
    with pytest.raises(UserError, match="no reviewer's name"):
        reviewer_file(tmp_path, " ")


def test_time_goes_on_even_where_the_clock_goes_back() -> None:
    assert now("2999-01-01T00:00:00.000Z") == "2999-01-01T00:00:00.001Z"
    assert now() < now("2999-01-01T00:00:00.000Z")
