"""What a server, a network or a disk can do to a download, and what must come of it.

`FAULTS` is the table that docs/plan_and_doctor.md prints: the same names, the same ends.
"""

import errno
import gzip
import hashlib
import io
import json
import os
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.backbones.weight_hashes import verify_weights
from pipeline.common.errors import RunFailed, UserError
from pipeline.fetch import fetch as library
from pipeline.fetch import transfer
from pipeline.fetch.catalog import RemoteFile, Weights
from pipeline.fetch.fetch import fetch
from pipeline.fetch.order import Wanted
from pipeline.fetch.transfer import Patience
from tests.imports import ROOT
from tests.pipeline.fetch.server import (
    Handler,
    Hostile,
    answer,
    cut_at,
    serve,
    stall_at,
    whole,
    without_length,
    without_ranges,
)

HURRY = Patience(connect=2.0, silence=0.3, tries=3, wait=0.0)
SIZE = 300_000
HEADER = json.dumps({"a": {"dtype": "U8", "shape": [SIZE], "data_offsets": [0, SIZE]}}).encode()
FILE = len(HEADER).to_bytes(8, "little") + HEADER + bytes(i * i % 251 for i in range(SIZE))
"""A safetensors file, made by hand."""
SHA256 = hashlib.sha256(FILE).hexdigest()
OTHER = FILE[:-1] + b"!"
HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"
HALF = len(FILE) // 2
PLACE = "/owner/model/resolve/main/model.safetensors"
Turn = Callable[[Handler, bytes], None]


def elsewhere(address: str) -> Turn:
    return answer(302, Location=address)


def shifted(handler: Handler, data: bytes) -> None:
    """Says 206, and begins somewhere else than it was asked to."""
    handler.head(206, 10, Content_Range=f"bytes 7-16/{len(data)}")
    handler.wfile.write(data[7:17])


def zipped(handler: Handler, data: bytes) -> None:
    body = gzip.compress(data)
    handler.head(200, len(body), Content_Encoding="gzip")
    handler.wfile.write(body)


def cut_without_ranges(handler: Handler, data: bytes) -> None:
    handler.head(200, len(data))
    handler.wfile.write(data[:HALF])
    handler.hang_up()


def gibberish(handler: Handler, _: bytes) -> None:
    handler.wfile.write(b"\x00\x01 hello\r\n\r\n")
    handler.hang_up()


def promises(length: int) -> Turn:
    def turn(handler: Handler, data: bytes) -> None:
        handler.head(200, length)
        handler.wfile.write(data)
        handler.hang_up()

    return turn


FAULTS: dict[str, tuple[list[Turn], str]] = {
    "connection cut half-way": ([cut_at(HALF)], "fetched"),
    "cut again and again, each time further on": (
        [cut_at(len(FILE) * part // 6) for part in range(1, 6)],
        "fetched",
    ),
    "cut at the same byte every time, no ranges": ([cut_without_ranges] * 9, "refused, part kept"),
    "500, 503, then the file": ([answer(500), answer(503)], "fetched"),
    "429 with Retry-After, then the file": ([answer(429, Retry_After="0")], "fetched"),
    "500 every time": ([answer(500)] * 9, "refused"),
    "404": ([answer(404)], "refused"),
    "403": ([answer(403)], "refused"),
    "a web page with 200": ([answer(200, HTML, Content_Type="text/html")], "refused"),
    "a web page that says it is a file": ([answer(200, HTML)], "refused"),
    "silence half-way, then the file": ([stall_at(HALF)], "fetched"),
    "silence every time": ([stall_at(0)] * 9, "refused"),
    "Content-Length too small": ([promises(HALF)], "refused"),
    "Content-Length too large": ([promises(len(FILE) + 9)], "refused"),
    "no Content-Length": ([without_length], "fetched"),
    "another file of the same size": ([lambda handler, _: whole(handler, OTHER)], "refused"),
    "compressed though nobody asked": ([zipped], "fetched"),
    "redirect to the right place": ([elsewhere(PLACE)], "fetched"),
    "redirects in a circle": ([elsewhere(PLACE)] * 99, "refused"),
    "redirect to file:///etc/passwd": ([elsewhere("file:///etc/passwd")], "refused"),
    "redirect to no address": ([elsewhere("http://[::1")], "refused"),
    "206 with a range that is no number": ([answer(206, FILE, Content_Range="bytes ²-³/²")], "fetched"),
    "503 with a Retry-After that is no number": ([answer(503, Retry_After="²")] * 9, "refused"),
    "204, nothing": ([answer(204)], "refused"),
    "no HTTP": ([gibberish] * 9, "refused"),
    "redirect to ftp://": ([elsewhere("ftp://127.0.0.1/model")], "refused"),
}


@pytest.fixture
def server() -> Iterator[Hostile]:
    with serve(Hostile({PLACE: FILE})) as hostile:
        yield hostile


def wanted(
    server: Hostile,
    folder: Path,
    *,
    published: bool = True,
    name: str = "model.safetensors",
    place: str = PLACE,
) -> Wanted:
    remote = RemoteFile(place, len(FILE) if published else None, SHA256 if published else None)
    weights = Weights("a model", "MIT", "https://example.org", {name: remote})
    return Wanted("model", weights, remote, server.url + place, folder / name)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_as_the_table_says(fault: str, server: Hostile, tmp_path: Path) -> None:
    turns, end = FAULTS[fault]
    server.turns = list(turns)
    one = wanted(server, tmp_path)
    if end == "fetched":
        (found,) = fetch([one], HURRY)
        assert (found.state, found.sha256) == ("fetched", SHA256)
        assert one.path.read_bytes() == FILE
        assert leftovers(tmp_path) == ["model.safetensors"]
        return
    with pytest.raises(RunFailed) as raised:
        fetch([one], HURRY)
    assert server.url in str(raised.value)
    kept = [f"{one.path.name}.part"] if "kept" in end else []
    assert leftovers(tmp_path) == kept


def test_the_documented_table_is_this_one() -> None:
    page = (ROOT / "docs" / "plan_and_doctor.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([^|]+?) \| (fetched|refused[^|]*?) \|", page, re.MULTILINE))
    assert {name: rows.get(name) for name in FAULTS} == {name: end for name, (_, end) in FAULTS.items()}


def test_what_has_come_is_not_asked_for_again(server: Hostile, tmp_path: Path) -> None:
    server.turns = [cut_at(HALF)]
    fetch([wanted(server, tmp_path)], HURRY)
    first, second = server.asked
    assert first == (PLACE, None)
    assert second[1] is not None
    start = int(second[1].removeprefix("bytes=").removesuffix("-"))
    assert HALF - transfer.CHUNK <= start <= HALF


def test_a_server_without_ranges_starts_over(server: Hostile, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.part").write_bytes(FILE[:HALF])
    server.turns = [without_ranges]
    fetch([wanted(server, tmp_path)], HURRY)
    assert (tmp_path / "model.safetensors").read_bytes() == FILE
    assert server.asked == [(PLACE, f"bytes={HALF}-")]


def test_an_answer_from_another_byte_starts_over(server: Hostile, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.part").write_bytes(FILE[:HALF])
    server.turns = [shifted]
    fetch([wanted(server, tmp_path)], HURRY)
    assert (tmp_path / "model.safetensors").read_bytes() == FILE


@pytest.mark.parametrize(
    "part", [OTHER[100:][:HALF], FILE + b"more", OTHER], ids=["wrong", "too long", "full"]
)
def test_a_part_of_something_else_is_found_out(part: bytes, server: Hostile, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.part").write_bytes(part)
    fetch([wanted(server, tmp_path)], HURRY)
    assert (tmp_path / "model.safetensors").read_bytes() == FILE
    assert leftovers(tmp_path) == ["model.safetensors"]


def test_a_whole_part_only_gets_its_name(server: Hostile, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.part").write_bytes(FILE)
    fetch([wanted(server, tmp_path)], HURRY)
    assert (tmp_path / "model.safetensors").read_bytes() == FILE
    assert server.asked == []


def test_refused_requests_are_not_repeated(server: Hostile, tmp_path: Path) -> None:
    server.turns = [answer(404)]
    with pytest.raises(RunFailed, match="404"):
        fetch([wanted(server, tmp_path)], HURRY)
    assert len(server.asked) == 1


# files whose publisher states no hash


def test_the_first_download_is_recorded_and_checked_from_then_on(server: Hostile, tmp_path: Path) -> None:
    one = wanted(server, tmp_path, published=False)
    fetch([one], HURRY)
    record = tmp_path / "model.safetensors.sha256"
    assert record.read_text() == f"{SHA256}  model.safetensors\n"
    assert verify_weights(one.path) == SHA256
    assert fetch([one], HURRY)[0].state == "there"

    one.path.write_bytes(OTHER)
    with pytest.raises(UserError, match="damaged or was replaced"):
        verify_weights(one.path)
    with pytest.raises(UserError, match="another file"):
        fetch([one], HURRY)

    one.path.unlink()
    server.files[PLACE] = OTHER
    with pytest.raises(RunFailed, match="from the first download"):
        fetch([one], HURRY)
    assert leftovers(tmp_path) == [record.name]


def test_a_file_that_changes_meanwhile_starts_over(server: Hostile, tmp_path: Path) -> None:
    one = wanted(server, tmp_path, published=False)

    def replaced(handler: Handler, _: bytes) -> None:
        server.tag, server.files[PLACE] = '"v2"', OTHER
        whole(handler, OTHER)

    server.turns = [cut_at(HALF), replaced]
    fetch([one], HURRY)
    assert one.path.read_bytes() == OTHER


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_a_version_without_a_name_is_never_continued(tag: str, server: Hostile, tmp_path: Path) -> None:
    server.tag, server.turns = tag, [cut_at(HALF)]
    fetch([wanted(server, tmp_path, published=False)], HURRY)
    assert server.asked == [(PLACE, None)] * 2


def test_the_hash_that_the_hub_announces_counts(server: Hostile, tmp_path: Path) -> None:
    server.extra = {"X-Linked-ETag": f'"{SHA256}"'}
    fetch([wanted(server, tmp_path, published=False)], HURRY)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.sha256").unlink()
    server.files[PLACE] = OTHER
    with pytest.raises(RunFailed, match="the hub announces"):
        fetch([wanted(server, tmp_path, published=False)], HURRY)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "body", "why"),
    [
        ("model.safetensors", HTML, "web page"),
        ("model.safetensors", b"", "no bytes"),
        ("model.safetensors", FILE[:HALF], "of 300,"),
        ("model.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "LFS pointer"),
        ("model.pth", b"PK\x03\x04 and no end", "a part of a download"),
        ("config.json", b'{"model_type": "gpt', "no JSON"),
        ("merges.txt", b"", "no bytes"),
    ],
)
def test_what_is_plainly_no_such_file_is_not_recorded(
    name: str, body: bytes, why: str, server: Hostile, tmp_path: Path
) -> None:
    server.files["/f"] = body
    with pytest.raises(RunFailed, match=why):
        fetch([wanted(server, tmp_path, published=False, name=name, place="/f")], HURRY)
    assert leftovers(tmp_path) == []


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.marker,))


def test_nothing_is_unpickled(server: Hostile, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    server.files["/bomb"] = pickle.dumps(Bomb(marker))
    fetch([wanted(server, tmp_path, published=False, name="model.pth", place="/bomb")], HURRY)
    assert not marker.exists()


# the place on disk


def test_a_file_that_is_there_is_never_replaced(server: Hostile, tmp_path: Path) -> None:
    one = wanted(server, tmp_path)
    one.path.write_bytes(OTHER)
    with pytest.raises(UserError, match="Nothing is overwritten"):
        fetch([one], HURRY)
    assert one.path.read_bytes() == OTHER
    one.path.write_bytes(FILE)
    assert fetch([one], HURRY)[0].state == "there"
    assert server.asked == []


class FullDisk(io.FileIO):
    """Takes one chunk and no more."""

    taken = 0

    def write(self, data: Any) -> int:
        self.taken += len(data)
        if self.taken > transfer.CHUNK:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def test_a_full_disk_keeps_the_part(server: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = tmp_path / "model.safetensors.part"
    part.write_bytes(FILE[:HALF])
    monkeypatch.setattr(transfer, "_open", lambda path: FullDisk(path, "r+b"))
    kept = HALF + transfer.CHUNK
    with pytest.raises(RunFailed, match=f"disk or your quota is full.*{kept:,} bytes are kept"):
        fetch([wanted(server, tmp_path)], HURRY)
    monkeypatch.undo()
    fetch([wanted(server, tmp_path)], HURRY)
    assert (tmp_path / "model.safetensors").read_bytes() == FILE
    assert server.asked == [(PLACE, f"bytes={HALF}-"), (PLACE, f"bytes={kept}-")]


def test_a_disk_without_room_is_told_before_the_first_byte(
    server: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(library.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(RunFailed, match=r"1 kB free, and 300 kB are to come"):
        fetch([wanted(server, tmp_path)], HURRY)
    assert server.asked == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights for a while")
def test_a_read_only_folder_is_named(server: Hostile, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        with pytest.raises(UserError, match="write permission"):
            fetch([wanted(server, tmp_path)], HURRY)
    finally:
        os.seteuid(0)
    assert server.asked == []


def test_a_disk_that_breaks_is_no_traceback(
    server: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(transfer, "_open", broken)
    with pytest.raises(RunFailed, match="Input/output error"):
        fetch([wanted(server, tmp_path)], HURRY)


def test_nobody_at_home(tmp_path: Path) -> None:
    with serve(Hostile()) as gone:
        pass
    with pytest.raises(RunFailed, match=r"127\.0\.0\.1 cannot be reached.*, 3 times in a row"):
        fetch([wanted(gone, tmp_path)], HURRY)


def test_a_proxy_that_does_not_answer_is_named(
    server: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(Hostile()) as gone:
        pass
    monkeypatch.setenv("HTTP_PROXY", gone.url)
    monkeypatch.setenv("http_proxy", gone.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RunFailed, match="the proxy named in"):
        fetch([wanted(server, tmp_path)], HURRY)


def test_a_proxy_is_used(server: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    address = "http://weights.invalid" + PLACE
    server.files[address] = FILE
    remote = RemoteFile(PLACE, len(FILE), SHA256)
    weights = Weights("a model", "MIT", "https://example.org", {"m": remote})
    fetch([Wanted("model", weights, remote, address, tmp_path / "model.safetensors")], HURRY)
    assert server.asked == [(address, None)]
