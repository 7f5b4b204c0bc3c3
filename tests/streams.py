"""Streams of events over plain sockets, for what a well-behaved client does not do."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import ssl
from typing import TYPE_CHECKING, Any, Self

import h11
import httpx

import qed
from harness.wait import LIMIT_S
from plain_http import connect

if TYPE_CHECKING:
    import socket

    from harness.process import Server

__all__ = ["Talk", "chunk", "digest_of", "events_in", "line_of", "request_head", "versions_of"]


def line_of(event: bytes, **fields: object) -> bytes:
    """Return the line that adds an event by its digest."""
    return json.dumps({"EventDigest": digest_of(event), **fields}).encode() + b"\n"


def digest_of(event: bytes) -> str:
    return base64.b64encode(hashlib.sha256(event).digest()).decode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def request_head(*lines: str, query: str = "") -> bytes:
    top = (f"POST /events/stream{query} HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", *lines, "", "")
    return "\r\n".join(top).encode()


class Talk:
    """One stream on a connection of its own: what was sent is up to the test, what comes is read line by line."""

    def __init__(
        self, server: Server, *lines: str, query: str = "", peer: socket.socket | None = None, ca: str = ""
    ) -> None:
        self.peer = peer or connect(server)
        if ca:
            context = ssl.create_default_context(cafile=ca)
            self.peer = context.wrap_socket(self.peer, server_hostname=server.http_address[0])
        self._parser = h11.Connection(h11.CLIENT)
        self._parser.send(h11.Request(method="POST", target="/events/stream", headers=[("Host", "x")]))
        self._buffer = b""
        self.is_complete = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.peer.sendall(request_head(*lines, query=query))

    def send(self, data: bytes) -> None:
        self.peer.sendall(chunk(data))

    def end(self) -> None:
        self.peer.sendall(b"0\r\n\r\n")

    def line(self) -> dict[str, Any] | None:
        """Return the next line of the answer, or None if the answer has ended, whether or not it is complete."""
        while b"\n" not in self._buffer:
            event = self._next()
            if isinstance(event, h11.Data):
                self._buffer += event.data
            elif isinstance(event, h11.EndOfMessage):
                self.is_complete = True
                return None
            elif event is None:
                return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def rest(self) -> list[dict[str, Any]]:
        """Return all further lines."""
        found = []
        while (line := self.line()) is not None:
            found.append(line)
        return found

    def rest_until_error(self) -> list[dict[str, Any]]:
        """Return all further lines of a stream that ends with an error, and end the request then, as clients do."""
        found = []
        while (line := self.line()) is not None:
            found.append(line)
            if "error" in line:
                with contextlib.suppress(OSError):
                    self.end()
        return found

    def _next(self) -> object:
        while True:
            try:
                event = self._parser.next_event()
            except h11.RemoteProtocolError:
                return None
            if isinstance(event, h11.Response):
                self.status = event.status_code
                self.headers = {name.decode(): value.decode() for name, value in event.headers}
            elif event is h11.NEED_DATA:
                try:
                    self._parser.receive_data(self.peer.recv(65536))
                except ConnectionError:
                    return None
            else:
                return event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.peer.close()


def versions_of(server: Server, event: bytes) -> int | None:
    """Return the newest version of an event, or None if it is not in the log."""
    with qed.Client(server.url, api_key=server.key, ca=server.ca) as client:
        answer = client.membership(event, consistency="linearizable")
    return answer.actual_version if isinstance(answer, qed.MembershipProof) else None


def events_in(server: Server) -> int:
    """Return how many events the log of a server has."""
    found = httpx.get(f"{server.url}/info", headers={"Consistency": "linearizable"}, timeout=LIMIT_S).json()
    return int(found["events"])
