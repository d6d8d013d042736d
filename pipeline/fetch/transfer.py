"""One file over HTTP(S) into a ``.part`` beside its place: resumed, retried, and believed in nothing.

What a server says is only taken as a reason to stop early. Whether the bytes are the right ones is for the
caller to check, by their hash.
"""

import errno
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import requests
from tqdm import tqdm

from pipeline.common.errors import RunFailed
from pipeline.common.files import DISK_FULL
from pipeline.fetch.answer import Passing, Source, accept, announced
from pipeline.fetch.order import shown_url
from pipeline.fetch.part import forget, read_note, size_of, write_note

CHUNK = 1 << 16
"""Bytes written at a time, and lost at most where a connection breaks."""
PAGE = (b"<!doctype html", b"<html", b"<head", b"<?xml")


@dataclass(frozen=True)
class Patience:
    """How long to hope."""

    connect: float = 10.0
    """Seconds for a connection."""
    silence: float = 30.0
    """Seconds without a byte."""
    tries: int = 5
    """Failures in a row that bring nothing new."""
    wait: float = 1.0
    """Seconds before the second try; twice as many before each further one."""


def download(source: Source, part: Path, patience: Patience) -> str | None:
    """Bring `part` to the whole file, from where it stands.

    Returns:
        The hex SHA-256 that the hub announces for its large files, or None.

    Raises:
        RunFailed: the server refuses, sends something else, or falls silent; the disk is full. The part stays
            for the next time, unless it cannot be the beginning of this file.
    """
    try:
        return _insist(source, part, patience)
    except RunFailed:
        if not size_of(part):
            forget(part)
        raise


def _insist(source: Source, part: Path, patience: Patience) -> str | None:
    failures, best = 0, size_of(part)
    with requests.Session() as session:
        session.max_redirects = 5
        while True:
            try:
                return _attempt(session, source, part, patience)
            except Passing as error:
                failures = 1 if size_of(part) > best else failures + 1
                best = max(best, size_of(part))
                if failures >= patience.tries:
                    raise RunFailed(
                        f"{shown_url(source.url)}: {error}, {failures} times in a row. {_kept(part)}"
                    ) from None
                wait = patience.wait * 2 ** (failures - 1) if error.wait is None else error.wait
                _say(f"{error}; trying again in {wait:.0f} s")
                time.sleep(wait)


def _attempt(session: requests.Session, source: Source, part: Path, patience: Patience) -> str | None:
    headers = {"Accept-Encoding": "identity", "User-Agent": "emosem"} | _range(source, part)
    try:
        with session.get(
            source.url, headers=headers, stream=True, timeout=(patience.connect, patience.silence)
        ) as response:
            start, total = accept(response, source, part)
            if not start:  # before the note: bytes of one version never stand beside the note of another
                forget(part)
            _note(response, source, part)
            with _open(part) as file:
                file.seek(start)
                file.truncate()
                _copy(response, file, source, start, total, part.stem)
            if total is not None and size_of(part) != total:
                raise Passing(f"the connection ended after {size_of(part):,} of {total:,} bytes")
            return announced(response)
    except requests.RequestException as error:
        raise _explained(error, source, part) from None
    except ValueError as error:
        raise RunFailed(f"{shown_url(source.url)} leads to what is no address: {error}") from None
    except OSError as error:
        full = "the disk or your quota is full" if error.errno in DISK_FULL else "it cannot be written"
        if error.errno == errno.EFBIG:
            full = "the file system takes no file of that size"
        raise RunFailed(f"{part}: {full} ({error.strerror}). {_kept(part)}") from error


def _range(source: Source, part: Path) -> dict[str, str]:
    """Headers that ask for what is missing; without a part that may be continued, none."""
    done = size_of(part)
    if not done or (source.size is not None and done > source.size):
        return {}
    headers = {"Range": f"bytes={done}-"}
    if source.pinned:
        return headers
    noted = read_note(part)
    if noted.get("url") != shown_url(source.url) or not noted.get("validator"):
        return {}
    return headers | {"If-Range": noted["validator"]}


def _copy(
    response: requests.Response, file: IO[bytes], source: Source, start: int, total: int | None, title: str
) -> None:
    """Write what comes, with rate and time left on stderr. Raises `RunFailed` for more than there can be."""
    done = start
    columns, lines = shutil.get_terminal_size()  # never 0, with which tqdm draws nothing
    bar = tqdm(
        total=total, initial=start, unit="B", unit_scale=True, file=sys.stderr, desc=f"fetch {title}",
        mininterval=0.5 if sys.stderr.isatty() else 10.0, ncols=columns, nrows=lines,
    )  # fmt: skip
    with bar:
        for chunk in response.iter_content(CHUNK):
            if not done and chunk.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(PAGE):
                raise RunFailed(f"{shown_url(response.url)} sends a web page instead of the file")
            done += len(chunk)
            if source.size is not None and done > source.size:
                file.seek(0)
                file.truncate()
                raise RunFailed(
                    f"{shown_url(response.url)} sends more than the {source.size:,} bytes of the file"
                )
            file.write(chunk)
            bar.update(len(chunk))
    file.flush()
    os.fsync(file.fileno())


def _open(part: Path) -> IO[bytes]:
    """For writing anywhere in it; made where needed."""
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    return os.fdopen(handle, "r+b")


def _explained(error: requests.RequestException, source: Source, part: Path) -> Exception:
    """What went wrong on the way: worth another try, or not."""
    url = shown_url(source.url)
    if isinstance(error, requests.exceptions.SSLError):
        return RunFailed(
            f"{url}: the certificate is not accepted ({error}). Behind a proxy that opens TLS, name its "
            "certificate in REQUESTS_CA_BUNDLE"
        )
    if isinstance(error, requests.TooManyRedirects):
        return RunFailed(f"{url}: redirected in a circle. Nothing was taken")
    if isinstance(error, requests.exceptions.InvalidSchema | requests.exceptions.InvalidURL):
        return RunFailed(f"{url} leads to an address that is not fetched: {error}")
    why = f"the connection broke after {size_of(part):,} bytes"
    if isinstance(error, requests.exceptions.ProxyError):
        why = "the proxy named in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY does not answer"
    elif isinstance(error, requests.Timeout) or "timed out" in str(error):
        why = "nothing came in time"
    elif isinstance(error, requests.ConnectionError) and not size_of(part):
        why = f"{urlsplit(source.url).hostname} cannot be reached, or is no web server"
    return Passing(why)


def _note(response: requests.Response, source: Source, part: Path) -> None:
    """Keep the name that the server gives this version of the file. A weak one names no bytes."""
    if not source.pinned:
        tag = response.headers.get("ETag", "")
        validator = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
        write_note(part, shown_url(source.url), validator)


def _kept(part: Path) -> str:
    if not size_of(part):
        return "Nothing was taken"
    return f"{size_of(part):,} bytes are kept in {part}: the same command goes on there"


def _say(text: str) -> None:
    print(f"fetch: {text}", file=sys.stderr, flush=True)
