"""A server with two faces: it passes on what an honest server answers, except where its operator wants otherwise."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from qed.drill.scene import exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["masked"]


@contextmanager
def masked(url: str, answer: Callable[[str, bytes | None], tuple[int, bytes] | None]) -> Iterator[str]:
    """Serve what another server answers, on a port of this machine, while the block runs.

    Args:
        url: The other server.
        answer: Returns what to answer in its place, by path and body (None for a GET); or None to pass it on.

    Yields:
        The URL.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(size) if self.command == "POST" else None
            status, content = answer(self.path, body) or exchange(url, self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer  # noqa: N815  # the names that http.server requires

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
