"""The review server by raw requests: who is refused, and what hostile values do."""

import http.client
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from pipeline.backbones.params import SamParams
from pipeline.common import rle
from pipeline.common.errors import UserError
from pipeline.review.command import new_service
from pipeline.review.server import ReviewServer
from pipeline.review.service import counts_of_mask, mask_of_counts
from pipeline.reviews.verdicts import read_reviews
from pipeline.shard_stats.labels import ShardStatsParams
from tests.pipeline.review.world import write_reviewed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReviewServer]:
    paths = write_reviewed(tmp_path_factory.mktemp("served"))
    service = new_service(paths, ShardStatsParams(), SamParams(), "anna")
    with ReviewServer(service) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(
    server: ReviewServer, path: str, body: Any = None, whole: bool = False, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """(status, answer, headers); `headers` with _ for -, an empty value leaves one out."""
    place = urlsplit(server.address)
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    sent = {"Host": place.netloc, "Origin": f"http://{place.netloc}", "Content-Type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.putrequest(
        "GET" if body is None else "POST", path if whole else place.path + path, skip_host=True
    )
    if data is not None:
        sent.setdefault("Content-Length", str(len(data)))
    for name, value in sent.items():
        if value:
            connection.putheader(name, value)
    connection.endheaders(data)
    answer = connection.getresponse()
    content, kind = answer.read(), answer.headers.get_content_type()
    connection.close()
    return answer.status, json.loads(content) if kind == "application/json" else content, dict(answer.headers)


def first(server: ReviewServer) -> dict[str, Any]:
    key, emotion = ask(server, "queue?by=x")[1]["masks"][0]
    item: dict[str, Any] = ask(server, f"item?key={key}&emotion={emotion}&by=x")[1]
    return item


def verdict(server: ReviewServer, **changes: Any) -> dict[str, Any]:
    item = first(server)
    values = {name: item[name] for name in ("key", "emotion", "mask")}
    return {**values, "id": "a1", "verdict": "good", "by": "eve", "order": "worst", **changes}


def noted(server: ReviewServer) -> list[Any]:
    return read_reviews(server.service.store.folder).verdicts


def test_it_listens_on_this_machine_alone(server: ReviewServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert len(server.token) >= 32


REFUSED: list[tuple[dict[str, str], str]] = [
    ({"Host": "evil.example"}, "Host"),
    ({"Host": "evil.example:80"}, "Host"),
    ({"Host": ""}, "Host"),
    ({"Sec_Fetch_Site": "cross-site"}, "Sec-Fetch-Site"),
    ({"Sec_Fetch_Site": "same-site"}, "Sec-Fetch-Site"),
]


@pytest.mark.parametrize(("headers", "why"), REFUSED)
def test_foreign_hosts_and_pages_are_refused(server: ReviewServer, headers: dict[str, str], why: str) -> None:
    before = noted(server)
    for path, body in (("", None), ("statistics", None), ("verdict", verdict(server))):
        status, answer, _ = ask(server, path, body, **headers)
        assert status == 403 and "error" in answer, (path, why)
    assert noted(server) == before


@pytest.mark.parametrize(
    "origin", ["", "null", "http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1"]
)
def test_only_the_page_itself_may_write(server: ReviewServer, origin: str) -> None:
    before = noted(server)
    for path in ("verdict", "undo", "box"):
        assert ask(server, path, verdict(server), Origin=origin)[0] == 403
    assert noted(server) == before


@pytest.mark.parametrize("path", ["/", "/statistics", "/x/statistics", "/../", "//", "/%2e%2e/statistics"])
def test_without_the_token_nothing_is_told(server: ReviewServer, path: str) -> None:
    status, answer, _ = ask(server, path, whole=True)
    assert status == 403 and "token" in answer["error"]
    assert ask(server, path, verdict(server), whole=True)[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "picture/../../etc/passwd.jpg",
        "picture/0123456789abcdef.jpg",
        "mask/0123456789abcdef/awe.png",
        "x",
        ".env",
    ],
)
def test_what_is_not_there_is_absent(server: ReviewServer, path: str) -> None:
    assert ask(server, path)[0] == 404
    item = first(server)
    assert ask(server, f"truth/{item['key']}/{item['emotion']}.png")[0] == 404
    assert ask(server, f"prediction/{item['key']}/{item['emotion']}/7.png")[0] == 404


def test_answers_are_kept_from_other_pages(server: ReviewServer) -> None:
    status, page, headers = ask(server, "")
    assert status == 200 and b"Review" in page
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert not {name for name in headers if name.lower().startswith("access-control")}


WRONG: list[tuple[dict[str, Any], int]] = [
    ({"verdict": "bad"}, 400),
    ({"verdict": "undo"}, 400),
    ({"by": ""}, 400),
    ({"by": "a\nb"}, 400),
    ({"by": 5}, 400),
    ({"id": None}, 400),
    ({"id": "../x"}, 400),
    ({"key": "../../x"}, 404),
    ({"emotion": "joy"}, 404),
    ({"mask": "0" * 64}, 409),
    ({"corrected": [1, 2], "verdict": "too-big"}, 400),
    ({"corrected": [-1, 192 * 256 + 1], "verdict": "too-big"}, 400),
    ({"corrected": "x", "verdict": "too-big"}, 400),
    ({"corrected": [True] * 3, "verdict": "too-big"}, 400),
    ({"corrected": [192 * 256]}, 400),  # of a good mask
]


@pytest.mark.parametrize(("changes", "expected"), WRONG)
def test_wrong_values_are_named_and_not_noted(server: ReviewServer, changes: Any, expected: int) -> None:
    before = noted(server)
    status, answer, _ = ask(server, "verdict", verdict(server, **changes))
    assert status == expected and answer["error"]
    assert noted(server) == before


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b"{", {}, 400),
        (b"[1]", {}, 400),
        (b"[" * 200_000, {}, 400),
        (b"{}", {"Content_Type": "text/plain"}, 415),
        (b"{}", {"Content_Length": "99999999999"}, 413),
        (b"{}", {"Content_Length": "-1"}, 411),
        (b" " * (1 << 20) + b"{}", {}, 413),
    ],
)
def test_wrong_bodies_are_refused(server: ReviewServer, body: bytes, headers: Any, expected: int) -> None:
    try:
        assert ask(server, "undo", body, **headers)[0] == expected
    except (BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
        assert expected == 413
    assert ask(server, "statistics")[0] == 200


def test_a_request_that_is_sent_twice_is_noted_once(server: ReviewServer) -> None:
    body = verdict(server, id="twice", by="ida")
    before = len(noted(server))
    assert ask(server, "verdict", body)[1] == ask(server, "verdict", body)[1]
    assert len(noted(server)) == before + 1
    undone = {"by": "ida", "id": "u1"}
    assert ask(server, "undo", undone)[1]["key"] == body["key"]
    assert ask(server, "undo", undone)[1]["key"] is None
    assert len(noted(server)) == before


def test_many_people_at_once_lose_nothing(server: ReviewServer) -> None:
    masks = ask(server, "queue?by=x&show=all")[1]["masks"]

    def judge(by: str) -> None:
        for number, (key, emotion) in enumerate(masks):
            item = ask(server, f"item?key={key}&emotion={emotion}&by={by}")[1]
            values = {name: item[name] for name in ("key", "emotion", "mask")}
            assert (
                ask(server, "verdict", {**values, "id": f"{by}{number}", "by": by, "verdict": "good"})[0]
                == 200
            )

    people = [threading.Thread(target=judge, args=(f"p{number}",)) for number in range(4)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    by = [one.by for one in noted(server)]
    assert [by.count(f"p{number}") for number in range(4)] == [len(masks)] * 4
    found = ask(server, "statistics")[1]
    assert found["precision"]["all"]["good"] == len(masks)


def test_run_lengths_are_rows_and_corrections_columns(server: ReviewServer) -> None:
    mask = np.random.default_rng(3).random((192, 256)) > 0.5
    np.testing.assert_array_equal(mask_of_counts(counts_of_mask(mask), 192, 256), mask)
    np.testing.assert_array_equal(mask_of_counts([0, 6], 2, 3), np.ones((2, 3), bool))
    body = verdict(server, id="drawn", by="ina", verdict="too-big", corrected=counts_of_mask(mask))
    assert ask(server, "verdict", body)[0] == 200
    (one,) = (line for line in noted(server) if line.by == "ina")
    assert one.corrected == rle.encode(mask[None])[0]


def test_a_taken_port_and_a_wrong_name_are_users_mistakes(server: ReviewServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be used: Address already in use"):
        ReviewServer(server.service, server.server_port)
    with pytest.raises(UserError, match="no reviewer's name"):
        new_service(server.service.material.paths, ShardStatsParams(), SamParams(), "a\nb")


def test_verdicts_of_another_process_are_seen_at_once(server: ReviewServer) -> None:
    folder = server.service.store.folder
    line = json.dumps({**verdict(server), "by": "bob", "at": "2026-11-22T12:00:00.000Z"})
    with (folder / "bob.jsonl").open("w") as file:
        file.write(line[:20])
        file.flush()
        assert "bob" not in ask(server, "statistics")[1]["reviewers"]
        file.write(line[20:] + "\n")
        file.flush()
        assert ask(server, "statistics")[1]["reviewers"]["bob"] == 1


def test_the_queue_goes_on_behind_a_mask_and_comes_back_to_those_passed_over(server: ReviewServer) -> None:
    everything = [tuple(pair) for pair in ask(server, "queue?show=all")[1]["masks"]]
    third = ".".join(everything[2])
    found = ask(server, f"queue?by=zoe&after={third}")[1]
    assert [tuple(pair) for pair in found["masks"]] == everything[3:]
    last = ".".join(everything[-1])
    assert [tuple(pair) for pair in ask(server, f"queue?by=zoe&after={last}")[1]["masks"]] == everything
    assert ask(server, f"queue?by=zoe&show=all&after={last}")[1]["masks"] == []
    assert ask(server, "queue?by=zoe&show=mine")[1]["masks"] == []
    assert ask(server, "queue?order=best")[0] == 400 and ask(server, "queue?show=x")[0] == 400
    both = {tuple(pair) for pair in ask(server, "queue?order=random")[1]["masks"]}
    assert both == set(everything)


def test_shards_that_were_made_again_are_noticed(server: ReviewServer) -> None:
    index = server.service.material.index.folder / "index.parquet"
    before, body = index.stat(), verdict(server, id="late", by="una")
    os.utime(index, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    status, answer, _ = ask(server, "verdict", body)
    os.utime(index, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert status == 409 and "made again" in answer["error"]
    assert not [line for line in noted(server) if line.by == "una"]
    assert ask(server, "verdict", body)[0] == 200
