"""A server on the loopback address that speaks as much of the hub's protocol as a download needs."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """What the server holds and what it was asked.

    Parameters
    ----------
    files
        (repository, file) → bytes.
    gated
        Repositories for which a token of `granted` must be sent.
    granted
        Tokens with access.
    known
        Tokens the server knows; others are refused as wrong.
    asked
        (method, path, token) of each request.
    """

    files: dict[tuple[str, str], bytes]
    gated: set[str] = field(default_factory=set)
    granted: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    slow: threading.Event | None = None
    endpoint: str = ""

    def answer(self, path: str, token: str) -> tuple[int, str, bytes]:
        """Return status, error code and body."""
        repository, _, rest = path.removeprefix("/").partition("/resolve/")
        file = rest.partition("/")[2]
        if token and token not in self.known | self.granted:
            return 401, "", b"Invalid credentials"
        if repository not in {name for name, _ in self.files}:
            return (404 if token else 401), "RepoNotFound", b""
        if repository in self.gated and token not in self.granted:
            return (403 if token else 401), "GatedRepo", b""
        if (repository, file) not in self.files:
            return 404, "EntryNotFound", b""
        return 200, "", self.files[repository, file]


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    """Run `hub` at ``hub.endpoint`` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            token = self.headers.get("authorization", "").removeprefix("Bearer ")
            hub.asked.append((self.command, self.path, token))
            status, code, content = hub.answer(self.path, token)
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            if status == 200:
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self._send(content)

        def _send(self, content: bytes) -> None:
            half = len(content) // 2
            self.wfile.write(content[:half])
            if hub.slow is not None:
                hub.slow.wait(10)
            self.wfile.write(content[half:])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        if hub.slow is not None:
            hub.slow.set()
        server.shutdown()
        server.server_close()
