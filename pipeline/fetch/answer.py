"""What a server's answer means for a download: go on, try again, or stop."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests

from pipeline.common.errors import RunFailed
from pipeline.fetch.order import shown_url
from pipeline.fetch.part import forget, size_of

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Status codes that may be gone in a moment."""
LONGEST_WAIT = 60.0
"""Seconds, whatever a server asks for."""


@dataclass(frozen=True)
class Source:
    """What to ask for."""

    url: str
    size: int | None = None
    """Bytes the file must have; None: whatever comes."""
    pinned: bool = False
    """Whether the caller knows the hash: a part may then be continued from anywhere, for it is found out."""


class Passing(Exception):  # noqa: N818 - no error yet: it may be over in a moment
    """Worth another try, after `wait` seconds if the server names them."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


def accept(response: requests.Response, source: Source, part: Path) -> tuple[int, int | None]:
    """(first byte that comes, bytes of the whole file if known). Raises `Passing`, `RunFailed`."""
    url, host = shown_url(response.url), urlsplit(response.url).hostname
    status, done = response.status_code, size_of(part)
    if urlsplit(source.url).scheme == "https" and urlsplit(response.url).scheme != "https":
        raise RunFailed(f"{shown_url(source.url)} leads to {url}, without encryption: not followed")
    if status in PASSING:
        raise Passing(f"{host} answers {status} {response.reason}", _retry_after(response))
    asked = "Range" in response.request.headers
    if status == 416 and asked:
        forget(part)
        raise Passing(f"{host} has nothing after byte {done:,}: starting over", 0.0)
    if status not in (200, 206):
        raise RunFailed(f"{url} answers {status} {response.reason}. {_refusal(status)}")
    start, total = 0, None
    if status == 206:
        start, total = _content_range(response)
        if not asked or start != done or "Content-Encoding" in response.headers:
            forget(part)
            raise Passing(f"{host} sends other bytes than those after {done:,}: starting over", 0.0)
    elif "Content-Encoding" not in response.headers:
        total = _number(response.headers.get("Content-Length", ""))
    if source.size is not None and total not in (None, source.size):
        raise RunFailed(
            f"{url} has {total:,} bytes, and the published file {source.size:,}: this is another file (a "
            "page, or a damaged mirror). Nothing was taken"
        )
    if response.headers.get("Content-Type", "").lower().startswith(("text/html", "application/xhtml")):
        raise RunFailed(
            f"{url} is a web page (a login, a notice or an error), not the file. Nothing was taken"
        )
    return start, total if total is not None else source.size


def _content_range(response: requests.Response) -> tuple[int, int | None]:
    """(first byte, whole size) of ``Content-Range: bytes 5-9/10``; (-1, None) when it says nothing of use."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    start = _number(first) if unit == "bytes" else None
    return (-1, None) if start is None else (start, _number(total))


def _retry_after(response: requests.Response) -> float | None:
    seconds = _number(response.headers.get("Retry-After", ""))
    return None if seconds is None else min(float(seconds), LONGEST_WAIT)


def _number(text: str) -> int | None:
    """What a header says, if that is a number: superscripts are digits to Python."""
    return int(text) if text.isascii() and text.isdigit() else None


def _refusal(status: int) -> str:
    if status in (404, 410):
        return "It is no longer there, or the mirror does not have it"
    if status in (401, 403, 407, 451):
        return "It wants a login or does not serve this address: get the file by hand"
    return "Nothing was taken"


def announced(response: requests.Response) -> str | None:
    """The hub names a large file's SHA-256 in the answer that redirects to its storage."""
    for answer in (*response.history, response):
        text = answer.headers.get("X-Linked-ETag", "").strip('"')
        if len(text) == 64 and set(text) <= set("0123456789abcdef"):
            return str(text)
    return None
