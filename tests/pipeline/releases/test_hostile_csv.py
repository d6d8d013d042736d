"""Broken and hostile csv files through the real step: each row is kept, or rejected with a reason."""

import csv
import io
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.common import schema
from pipeline.common.emotions import ALL_EMOTIONS
from pipeline.common.errors import UserError
from pipeline.common.params import Paths
from pipeline.utterances.step import UtterancesParams, build_utterances
from tests.worlds.hostile import CHILD, JPEG, MIB, build_within, read, world

HEADER = b"art_style,painting,emotion,utterance,repetition\n"
GOOD = b"Style,good,awe,so grand,1\n"


def csv_world(root: Path, data: bytes) -> Paths:
    paths = world(root, [])
    (paths.wikiart / "Style" / "good.jpg").write_bytes(JPEG)
    paths.artemis.write_bytes(data)
    return paths


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"Style,good,awe,caf\xe9,1\n", "not-utf8"),  # Latin-1
        (b"Style,good,awe,\x93so grand\x94,1\n", "not-utf8"),  # cp1252 quotes
        (b"Style,good,awe,a\x00b,1\n", "control-character"),
        (b"Style,good,awe,a\x1b[31mb,1\n", "control-character"),
        (b"Style,good,awe," + b"x" * 10_000_000 + b",1\n", "field-too-long"),
        (b'Style,good,awe,"' + b"x" * 10_000_000 + b'",1\n', "field-too-long"),
        (b"Style,good,awe," + b"so " * 3000 + b",1\n", "utterance-too-long"),
        (b"Style,good,awe\n", "wrong-field-count"),
        (b'Style,good,awe,"so grand,1\n', "unclosed-quote"),
        (b"Style,good,awe,,1\n", "empty-utterance"),
        (b"\xef\xbb\xbf,good,awe,x,1\n", "picture-*"),  # a BOM in mid-file is a letter of a style nobody has
        (b"Style,good,awe,x,1e9\n", "bad-repetition"),
    ],
)
def test_a_hostile_row_costs_itself(tmp_path: Path, line: bytes, reason: str) -> None:
    paths = csv_world(tmp_path, HEADER + GOOD + line + b"Style,good,fear,so dark,1\n")
    metrics = build_utterances(paths, UtterancesParams())
    assert (metrics["rows_in"], metrics["rows_kept"], metrics["rows_rejected"]) == (3, 2, 1)
    found = [row["reason"] for row in read(paths, "rejects") if row["row"] == 1]
    assert len(found) == 1 and (found[0] == reason or found[0].startswith(reason.rstrip("*")))
    assert [row["artemis_id"] for row in read(paths, "utterances")] == [0, 2]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_and_line_ends(tmp_path: Path, ending: bytes, mark: bytes) -> None:
    data = mark + (HEADER + GOOD + b'Style,good,fear,"dark, and ""old""",1\n').replace(b"\n", ending)
    paths = csv_world(tmp_path, data)
    assert build_utterances(paths, UtterancesParams())["rows_kept"] == 2
    assert read(paths, "utterances")[1]["utterance"] == 'dark, and "old"'


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "cp037"])
def test_another_encoding_is_one_clear_message(tmp_path: Path, encoding: str) -> None:
    paths = csv_world(tmp_path, (HEADER + GOOD).decode().encode(encoding))
    words = "lacks the column" if encoding == "cp037" else "save it as UTF-8"
    with pytest.raises(UserError, match=words) as caught:
        build_utterances(paths, UtterancesParams())
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory as Linux does")
def test_a_line_of_half_a_gigabyte_costs_no_memory(tmp_path: Path) -> None:
    paths = csv_world(tmp_path, HEADER + GOOD)
    with paths.artemis.open("ab") as file:
        file.write(b"Style,good,awe,")
        file.truncate(file.tell() + 512 * MIB)  # a hole in the file: NUL after NUL
        file.seek(0, os.SEEK_END)
        file.write(b"\nStyle,good,fear,so dark,1\n")
    build_within(tmp_path, 400 * MIB)
    assert [row["artemis_id"] for row in read(paths, "utterances")] == [0, 2]


FIELD = st.one_of(
    st.sampled_from(["Style", "good", "bad", "missing", "..", "a/b", "", " ", "awe", "joy", "3", "-1"]),
    st.text(max_size=6),
)
ROW: Callable[[], st.SearchStrategy[list[str]]] = lambda: st.one_of(  # noqa: E731
    st.tuples(
        st.just("Style"),
        st.sampled_from(["good", "bad", "missing"]),
        st.sampled_from([*ALL_EMOTIONS, "joy"]),
        st.text(max_size=8),
        st.sampled_from(["1", "50", "x"]),
    ).map(list),
    st.lists(FIELD, max_size=7),
)


@given(rows=st.lists(ROW(), max_size=25), junk=st.binary(max_size=40), at=st.integers(0, 400))
@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
def test_every_row_of_any_csv_is_kept_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], junk: bytes, at: int
) -> None:
    root = tmp_path_factory.mktemp("any")
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    body = text.getvalue().encode("utf-8", errors="surrogatepass")
    paths = csv_world(root, HEADER + GOOD + body[:at] + junk + body[at:])
    (paths.wikiart / "Style" / "bad.jpg").write_bytes(JPEG[:300])
    metrics = build_utterances(paths, UtterancesParams(num_shards=3))
    said, works, rejects = (read(paths, name) for name in ("utterances", "artworks", "rejects"))
    assert metrics["rows_in"] == metrics["rows_kept"] + metrics["rows_rejected"]
    assert metrics["rows_kept"] == len(said)
    assert metrics["artworks_in"] == metrics["artworks_kept"] + metrics["artworks_rejected"]
    assert metrics["artworks_kept"] == len(works)
    ids = [row["artemis_id"] for row in said] + [row["row"] for row in rejects if row["row"] >= 0]
    assert sorted(ids) == list(range(metrics["rows_in"]))  # every row once, in exactly one of the tables
    assert {row["key"] for row in said} == {row["key"] for row in works}
    assert all(row["emotion"] in ALL_EMOTIONS and row["utterance"] for row in said)
    assert {row["key"] for row in works} == {
        schema.artwork_key(row["art_style"], row["painting"]) for row in works
    }
    assert all(row["reason"] for row in rejects)


def test_the_limits_of_this_test_are_real() -> None:
    """The process that must not take more than its limit would be stopped if it did."""
    program = CHILD.rpartition("build_utterances(")[0] + "print(len(bytes(700 * 2**20)))"
    done = subprocess.run(
        [sys.executable, "-c", program, "/", str(600 * MIB)], capture_output=True, text=True, check=False
    )
    assert "MemoryError" in done.stderr
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY or done.returncode
