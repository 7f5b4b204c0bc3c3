"""A server that sends the bytes a test prescribes, and remembers what it received."""

from __future__ import annotations

import base64
import hashlib
import json
import socketserver
import threading
from dataclasses import dataclass
from http.client import parse_headers
from typing import TYPE_CHECKING, Self, TypeAlias, cast

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

Play: TypeAlias = "bytes | Callable[[socket.socket], None]"

JOIN_LIMIT_S = 10.0


@dataclass(frozen=True)
class Received:
    """A request as it arrived; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        adversary = cast("_Server", self.server).adversary
        try:
            line = self.rfile.readline().decode().split()
            if not line:
                return
            headers = {name.lower(): value for name, value in parse_headers(self.rfile).items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            play = adversary.next_play(Received(line[0], line[1], headers, body))
            if isinstance(play, bytes):
                self.connection.sendall(play)
            else:
                play(self.connection)
        except OSError:
            return  # The client closed the connection, which is what most tests wait for.


class _Server(socketserver.ThreadingTCPServer):
    # A burst of connections beyond the usual 5 would have to try again after a second.
    request_queue_size = 64
    allow_reuse_address = True
    daemon_threads = True
    adversary: Adversary
    tls: ssl.SSLContext | None

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        if self.tls is None:
            return connection, address
        # The handler's thread does the handshake, because it handles a client that hangs up.
        return self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address


class Adversary:
    """Answers the n-th request with the n-th play, later ones with the last, and closes the connection each time.

    A request for the list of members that accompanies another call gets `members`, by default an empty list.
    """

    def __init__(self, *plays: Play, tls: ssl.SSLContext | None = None, members: Play | None = None) -> None:
        self.plays = list(plays)
        self.members = error(404, "not_found") if members is None else members
        self.received: list[Received] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.adversary, self._server.tls = self, tls
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        scheme = "http" if self._server.tls is None else "https"
        return f"{scheme}://127.0.0.1:{self._server.server_address[1]}"

    def next_play(self, received: Received) -> Play:
        with self._lock:
            if received.path == "/info/shards" and self.received and self.received[0].path != received.path:
                return self.members
            self.received.append(received)
            return self.plays[min(len(self.received), len(self.plays)) - 1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(JOIN_LIMIT_S)
        self._server.server_close()


def http(status: int, body: bytes | object = b"", **headers: str) -> bytes:
    """Return a whole answer. A body that is not bytes is sent as JSON, `retry_after` as `Retry-After`."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Content-Length": str(len(payload)), "Connection": "close"}
    named |= {name.replace("_", "-").title(): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} Anything\r\n{head}\r\n".encode() + payload


def error(status: int, code: str, message: str = "because", **headers: str) -> bytes:
    return http(status, {"error": code, "message": message}, **headers)


def b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def snapshot(event: bytes, version: int = 0, hyper: bytes = bytes(32)) -> dict[str, object]:
    """Return a well-formed snapshot of `event` whose roots belong to no log."""
    return {
        "EventDigest": b64(hashlib.sha256(event).digest()),
        "HistoryDigest": b64(bytes(32)),
        "HyperDigest": b64(hyper),
        "Version": version,
    }


def hang(connection: socket.socket) -> None:
    """Send nothing until the client leaves."""
    connection.settimeout(JOIN_LIMIT_S)
    connection.recv(1)


def endless(head: bytes, part: bytes, every_s: float = 0.0) -> Callable[[socket.socket], None]:
    """Return a play that sends `head`, then `part` again and again, until the client leaves."""
    pause = threading.Event()

    def play(connection: socket.socket) -> None:
        connection.settimeout(JOIN_LIMIT_S)
        connection.sendall(head)
        while not pause.wait(every_s):
            connection.sendall(part)

    return play
