"""A server on this machine that fails on purpose, in the way that each request's turn says."""

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Hostile:
    """What it serves, how, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Path -> bytes."""
    turns: list[Callable[["Handler", bytes], None]] = field(default_factory=list)
    """How the first requests are answered; those after them rightly."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """(path, Range header) of each request."""
    tag: str = '"v1"'
    extra: dict[str, str] = field(default_factory=dict)
    """More headers of every right answer."""
    url: str = ""
    release: threading.Event = field(default_factory=threading.Event)
    """Set at the end: whoever stalls goes home."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hostile: Hostile

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        hostile = self.hostile
        hostile.asked.append((self.path, self.headers.get("Range")))
        data = hostile.files.get(self.path)
        if hostile.turns:
            hostile.turns.pop(0)(self, data or b"")
        elif data is None:
            answer(404)(self, b"")
        else:
            whole(self, data)

    def head(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(2)


def whole(handler: Handler, data: bytes, end: int | None = None) -> None:
    """The right answer, ranges included; with `end`, its connection is cut before that byte of the file."""
    asked, tag = handler.headers.get("Range"), handler.hostile.tag
    about = {"ETag": tag, **handler.hostile.extra}
    start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
    if handler.headers.get("If-Range", tag) != tag:
        start, asked = 0, None
    if start >= len(data) > 0:
        handler.head(416, 0, Content_Range=f"bytes */{len(data)}")
        return
    if asked:
        about["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
    handler.head(206 if asked else 200, len(data) - start, **about)
    handler.wfile.write(data[start:end])
    if end is not None:
        handler.hang_up()


def cut_at(end: int) -> Callable[[Handler, bytes], None]:
    return lambda handler, data: whole(handler, data, end)


def answer(status: int, body: bytes = b"", **headers: str) -> Callable[[Handler, bytes], None]:
    def turn(handler: Handler, _: bytes) -> None:
        handler.head(status, len(body), **headers)
        handler.wfile.write(body)

    return turn


def without_ranges(handler: Handler, data: bytes) -> None:
    handler.head(200, len(data))
    handler.wfile.write(data)


def without_length(handler: Handler, data: bytes) -> None:
    handler.head(200, None, Connection="close")
    handler.wfile.write(data)
    handler.hang_up()


def stall_at(end: int) -> Callable[[Handler, bytes], None]:
    def turn(handler: Handler, data: bytes) -> None:
        handler.head(200, len(data), ETag=handler.hostile.tag)
        handler.wfile.write(data[:end])
        handler.wfile.flush()
        handler.hostile.release.wait(60)
        handler.close_connection = True

    return turn


def slowly(handler: Handler, data: bytes) -> None:
    """Half at once, then a little now and then, until the reader is gone."""
    half = len(data) // 2
    handler.head(200, len(data), ETag=handler.hostile.tag)
    try:
        handler.wfile.write(data[:half])
        for at in range(half, len(data), 1 << 10):
            if handler.hostile.release.wait(0.05):
                return
            handler.wfile.write(data[at : at + (1 << 10)])
    except OSError:
        handler.close_connection = True


@contextmanager
def serve(hostile: Hostile) -> Iterator[Hostile]:
    class Own(Handler):
        pass

    Own.hostile = hostile

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Readers that hang up are what this is about."""

    server = Quiet(("127.0.0.1", 0), Own)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    hostile.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hostile
    finally:
        hostile.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
