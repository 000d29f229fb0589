"""A server that speaks as much of the Hub's HTTP interface as loading models and data sets takes.

It serves folders: `models/OWNER/NAME` and `datasets/OWNER/NAME` under a root, each at one commit. The library's own
client reads from it where `HF_ENDPOINT` is its address.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """Serve the repositories under a folder and return the address."""

    class Handler(_Handler):
        folder = root

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    folder: Path
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer([])

    do_HEAD = do_GET

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        self._answer(said.get("paths", []))

    def _answer(self, paths: list[str]) -> None:
        asked = urlsplit(unquote(self.path))
        if (of_file := FILE.fullmatch(asked.path)) is not None:
            kind, name, _, path = of_file.groups()
            repository = self.folder / ("datasets" if kind else "models") / name
            if (repository / path).is_file():
                return self._send_file((repository / path).read_bytes())
            return self._missing("EntryNotFound" if repository.is_dir() else "RepoNotFound")
        if (of_api := API.fullmatch(asked.path)) is None:
            return self._missing("EntryNotFound")
        kind, name, what, _, path = of_api.groups()
        repository = self.folder / kind / name
        if not repository.is_dir():
            return self._missing("RepoNotFound")
        files = sorted(file for file in repository.rglob("*") if file.is_file())
        if what == "tree":
            below = repository / (path or "")
            if not below.is_dir():
                return self._missing("EntryNotFound")
            found = sorted(below.rglob("*") if "recursive=true" in asked.query.lower() else below.iterdir())
            return self._send_json([_entry(repository, file) for file in found])
        if what == "paths-info":
            return self._send_json(
                [_entry(repository, repository / path) for path in paths if (repository / path).exists()]
            )
        about = {"id": name, "sha": COMMIT, "private": False, "gated": False, "tags": [], "downloads": 0}
        return self._send_json(
            about | {"siblings": [{"rfilename": str(file.relative_to(repository))} for file in files]}
        )

    def _send_json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send_file(self, content: bytes) -> None:
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part is None:
            return self._send(200, content, headers)
        first, last = int(part[1]), int(part[2] or len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        return self._send(206, content[first : last + 1], headers)

    def _missing(self, code: str) -> None:
        self._send(404, b"{}", {"X-Error-Code": code})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _entry(repository: Path, file: Path) -> dict[str, Any]:
    kind, size = ("directory", 0) if file.is_dir() else ("file", file.stat().st_size)
    path = file.relative_to(repository).as_posix()
    return {"type": kind, "path": path, "size": size, "oid": hashlib.sha1(path.encode()).hexdigest()}
