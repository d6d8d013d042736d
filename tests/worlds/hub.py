"""A server on this machine that answers as the Hugging Face hub does, to whoever asks for what we ask for."""

import base64
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """Its repositories, and who may write."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """OWNER/NAME -> name of a file -> bytes."""
    account: dict[str, Any] = field(default_factory=dict)
    """What is said of whoever shows the token."""
    token: str = "hf_right"  # noqa: S105 - of nobody
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def sha(self, name: str) -> str:
        listed = sorted((file, hashlib.sha1(data).hexdigest()) for file, data in self.files[name].items())  # noqa: S324
        return hashlib.sha1(json.dumps(listed).encode()).hexdigest()  # noqa: S324 - as git does


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def _say(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    def _send(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _parts(self) -> list[str]:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        return path.strip("/").split("/")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        match self._parts():
            case ["api", "whoami-v2"]:
                known = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
                self._say(self.hub.account if known else {"error": "who?"}, 200 if known else 401)
            case ["api", "models", owner, name, *_] if f"{owner}/{name}" not in self.hub.files:
                self._say({"error": "Repository not found"}, 404)
            case ["api", "models", owner, name, "tree", _, *_]:
                files = self.hub.files[f"{owner}/{name}"].items()
                self._say([{"type": "file", "path": f, "size": len(d), "oid": "0" * 40} for f, d in files])
            case ["api", "models", owner, name, *_]:
                repository = f"{owner}/{name}"
                files = [{"rfilename": file} for file in self.hub.files[repository]]
                self._say({"id": repository, "sha": self.hub.sha(repository), "siblings": files})
            case [owner, name, "resolve", _, *file]:
                repository = f"{owner}/{name}"
                data = self.hub.files.get(repository, {}).get("/".join(file))
                if data is None:
                    self._send(b"", 404, {"X-Error-Code": "EntryNotFound"})
                    return
                tag = f'"{hashlib.sha256(data).hexdigest()}"'
                self._send(data, 200, {"ETag": tag, "X-Repo-Commit": self.hub.sha(repository)})
            case _:
                self._say({"error": "not here"}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match self._parts():
            case ["api", "repos", "create"]:
                asked = json.loads(body)
                repository = f"{asked.get('organization') or 'me'}/{asked['name']}"
                self.hub.files.setdefault(repository, {})
                self._say({"url": f"{self.hub.url}/{repository}", "name": repository})
            case ["api", "validate-yaml"]:
                self._say({"errors": [], "warnings": []})
            case ["api", "models", _, _, "preupload", _]:
                files = json.loads(body)["files"]
                self._say(
                    {
                        "files": [
                            {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
                        ]
                    }
                )
            case ["api", "models", owner, name, "commit", _]:
                files = self.hub.files[f"{owner}/{name}"]
                for line in map(json.loads, body.splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        files[value["path"]] = base64.b64decode(value["content"])
                    elif line["key"] == "deletedFile":
                        files.pop(value["path"])
                sha = self.hub.sha(f"{owner}/{name}")
                self._say({"commitOid": sha, "commitUrl": f"{self.hub.url}/{owner}/{name}/commit/{sha}"})
            case _:
                self._say({"error": "not here"}, 404)


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A hub of its own, gone at the end."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    hub.account = {"name": "me", "orgs": [{"name": "museum"}], "auth": {"accessToken": {"role": "write"}}}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
