"""The page over HTTP, for this machine alone.

It listens on 127.0.0.1. A random token in the address keeps other users and pages out; the Host header must
name this machine, so that no foreign name that points here (DNS rebinding) reaches it, and whatever writes
must come from the page itself (Origin). The page may load nothing from elsewhere and be framed by nobody.

The standard library's server is enough: a few people, no state in connections, and no dependency.
"""

import hmac
import json
import re
import secrets
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pipeline.common.errors import RunFailed, UserError
from pipeline.review.page import ONLINE_POLICY, render
from pipeline.review.service import Absent, Conflict, Service

HOST = "127.0.0.1"
LARGEST_BODY = 1 << 20
SECONDS = 30
"""A connection that says nothing for so long is closed."""
_KEY, _EMOTION = "(?P<key>[0-9a-f]{16})", "(?P<emotion>[a-z]+)"
PICTURE = re.compile(f"picture/{_KEY}.jpg")
MASK = re.compile(f"(?P<kind>mask|truth|prediction)/{_KEY}/{_EMOTION}(/(?P<number>[0-9]{{1,3}}))?.png")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": ONLINE_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Refused(Exception):  # noqa: N818 - an answer, not an error
    """A request that is not answered, with its HTTP status."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class ReviewServer(ThreadingHTTPServer):
    """Serves one `Service` until `shutdown`.

    Args:
        service: what answers.
        port: 0 for any free one. Raises `UserError` where it is taken.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, service: Service, port: int = 0) -> None:
        self.service = service
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            raise UserError(
                f"port {port} cannot be used: {error.strerror}; name another with --port"
            ) from None
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of browsers that went away."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: ReviewServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "emosem", ""
    timeout = SECONDS

    def do_GET(self) -> None:
        """Answer a page, a picture, or a question."""
        self._respond(self._read)

    def do_POST(self) -> None:
        """Note something."""
        self._respond(self._write)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the terminal free: the token stands in every address."""

    def _respond(self, answer: Any) -> None:
        status, kind, body = 500, "application/json", b""
        try:
            kind, body = answer(self._path())
            status = 200
        except Refused as refused:
            status, body = refused.status, _problem(refused)
        except (Absent, KeyError) as error:
            status, body = 404, _problem(f"not there: {error}")
        except Conflict as error:
            status, body = 409, _problem(error)
        except UserError as error:
            status, body = 400, _problem(error)
        except RunFailed as error:
            status, body = 507, _problem(error)
        if status >= 400:
            self.close_connection = True  # what is left of the body is not taken for a request
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _path(self) -> str:
        """What follows the token. Raises `Refused`."""
        if self.headers.get("Host", "") not in self.server.hosts:
            raise Refused(403, "this server is for this machine alone")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise Refused(403, "another page has no business here")
        token, slash, path = urlsplit(self.path).path.lstrip("/").partition("/")
        if not slash or not hmac.compare_digest(unquote(token).encode(), self.server.token.encode()):
            raise Refused(403, "the address lacks its token; open the one that the command printed")
        return path

    def _read(self, path: str) -> tuple[str, bytes]:
        service = self.server.service
        query = dict(parse_qsl(urlsplit(self.path).query))
        if path == "":
            return "text/html; charset=utf-8", render({"start": service.start()}).encode()
        if found := PICTURE.fullmatch(path):
            return "image/jpeg", service.picture(found["key"])
        if found := MASK.fullmatch(path):
            number = int(found["number"] or 0)
            return "image/png", service.mask(found["kind"], found["key"], found["emotion"], number)
        if path == "queue":
            return _json(service.queue(query))
        if path == "item":
            return _json(service.item(query.get("key", ""), query.get("emotion", ""), query.get("by", "")))
        if path == "statistics":
            return _json(service.statistics())
        raise Absent(path[:80])

    def _write(self, path: str) -> tuple[str, bytes]:
        origin = self.headers.get("Origin", "")
        if origin not in {f"http://{host}" for host in self.server.hosts}:
            raise Refused(403, "another page has no business here")
        asked = {
            "verdict": self.server.service.judge,
            "undo": self.server.service.undo,
            "box": self.server.service.box,
        }
        if path not in asked:
            raise Absent(path[:80])
        return _json(asked[path](self._body()))

    def _body(self) -> Mapping[str, Any]:
        """The JSON object that was sent. Raises `Refused`."""
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, "JSON is wanted")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            raise Refused(411, "how long is it?")
        if len(length) > 9 or int(length) > LARGEST_BODY:
            raise Refused(413, f"more than {LARGEST_BODY} bytes")
        try:
            values = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise Refused(400, "that is no JSON") from None
        if not isinstance(values, dict):
            raise Refused(400, "a JSON object is wanted")
        return values


def _json(values: Any) -> tuple[str, bytes]:
    return "application/json", json.dumps(values, ensure_ascii=False, allow_nan=False).encode()


def _problem(error: object) -> bytes:
    return json.dumps({"error": str(error)}, ensure_ascii=False).encode()
