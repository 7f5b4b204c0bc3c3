"""Object stores on this machine: moto's, which others wrote, and one that a test can make slow, full or false."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final

import httpx
from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from published import Answer

__all__ = ["BUCKET", "CREDENTIALS", "Shelf", "objects_in", "serving_moto"]

BUCKET: Final = "bucket"
_HOST: Final = {"Host": "s3.amazonaws.com"}
"""By which the store tells its services apart."""
_OPEN: Final = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/*"}
    ],
}
CREDENTIALS: Final = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@contextmanager
def serving_moto() -> Iterator[str]:
    """Give the URL of a store with an empty bucket that anyone can read."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        httpx.put(f"{url}/{BUCKET}", headers=_HOST).raise_for_status()
        httpx.put(f"{url}/{BUCKET}?policy", headers=_HOST, content=json.dumps(_OPEN)).raise_for_status()
        yield url
    finally:
        server.stop()


def objects_in(url: str, prefix: str) -> dict[str, httpx.Response]:
    """Return what the bucket of a store has below a prefix, as anyone gets it who may read it."""
    listed = httpx.get(f"{url}/{BUCKET}", params={"prefix": f"{prefix}/", "list-type": "2"}, headers=_HOST).text
    keys = [part.partition("</Key>")[0] for part in listed.split("<Key>")[1:]]
    return {key.removeprefix(f"{prefix}/"): httpx.get(f"{url}/{BUCKET}/{key}", headers=_HOST) for key in keys}


def _tag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


@dataclass
class Shelf:
    """A store in this process that heeds conditions, as long as `change` lets it.

    Attributes:
        files: What it has, by path below the bucket.
        puts: The paths that were written, or tried to be, one after the other.
        before: Called with method and path before a request is served; what it returns is the answer, unless None.
        after: Called with method, path and answer; what it returns is the answer.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    puts: list[str] = field(default_factory=list)
    before: Callable[[str, str], Answer | None] = lambda _method, _path: None
    after: Callable[[str, str, Answer], Answer] = lambda _method, _path, answer: answer
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Serve one request."""
        found = self.before(method, path)
        with self._lock:
            if method == "PUT":
                self.puts.append(path)
            if found is None:
                found = self._put(path, headers, body) if method == "PUT" else self._get(path)
        return self.after(method, path, found)

    def _put(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        stored = self.files.get(path)
        expected = headers.get("if-match")
        if (headers.get("if-none-match") == "*" and stored is not None) or (
            expected is not None and (stored is None or _tag(stored) != expected)
        ):
            return 412, {}, b"<Error><Code>PreconditionFailed</Code></Error>"
        self.files[path] = body
        return 200, {"ETag": _tag(body)}, b""

    def _get(self, path: str) -> Answer:
        stored = self.files.get(path)
        if stored is None:
            return 404, {}, b"<Error><Code>NoSuchKey</Code></Error>"
        return 200, {"ETag": _tag(stored), "Last-Modified": "Sun, 29 Nov 2026 12:00:00 GMT"}, stored

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve on a port of this machine; give the URL."""
        shelf = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer()

            def do_PUT(self) -> None:
                self._answer()

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                given = {name.lower(): value for name, value in self.headers.items()}
                path = self.path.removeprefix(f"/{BUCKET}/")
                status, headers, content = shelf.answer(self.command, path, given, body)
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(content))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_args: object) -> None:
                """Print nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
