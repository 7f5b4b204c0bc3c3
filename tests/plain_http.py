"""Plain sockets that speak HTTP, for input that a well-behaved client does not send."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import TYPE_CHECKING

from harness.wait import LIMIT_S

if TYPE_CHECKING:
    from harness.process import Server

__all__ = [
    "ANSWER_BYTES",
    "connect",
    "connect_narrowly",
    "head",
    "is_refused_or_cut",
    "large_bulk",
    "read_answer",
    "read_answer_within",
    "read_to_the_end",
]

BULK_EVENTS = 60_000
ANSWER_BYTES = 190 * BULK_EVENTS
"""Minimum size of the answer to `large_bulk`."""


def large_bulk(*lines: str) -> bytes:
    """Return a small request with a large answer: one event, repeated as often as a bulk allows."""
    body = json.dumps({"Events": [""] * BULK_EVENTS, "IfAbsent": True}).encode()
    return head("/events/bulk", f"Content-Length: {len(body)}", *lines) + body


def head(path: str, *lines: str) -> bytes:
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: x", *lines, "", "")).encode()


def connect_narrowly(server: Server) -> socket.socket:
    """Return a connection with a small receive buffer."""
    peer = socket.socket()
    peer.settimeout(LIMIT_S)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(server.http_address)
    return peer


def connect(server: Server, source: str = "") -> socket.socket:
    """Return a connection, from the address `source` of this machine if it is given."""
    return socket.create_connection(server.http_address, timeout=LIMIT_S, source_address=(source, 0))


def read_answer(peer: socket.socket, received: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of the next answer, which may start with the bytes in `received`."""
    while b"\r\n\r\n" not in received:
        received += receive_some(peer)
    top, _, body = received.partition(b"\r\n\r\n")
    status_line, *lines = top.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    while len(body) < int(headers["content-length"]):
        body += receive_some(peer)
    return int(status_line.split()[1]), headers, body


def read_answer_within(peer: socket.socket, limit_s: float) -> tuple[int, dict[str, str], bytes] | None:
    peer.settimeout(limit_s)
    try:
        return read_answer(peer)
    except TimeoutError:
        return None


def read_to_the_end(peer: socket.socket) -> bytes:
    """Return everything that arrives until the other side closes."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := peer.recv(65536):
            received += data
    return received


def receive_some(peer: socket.socket) -> bytes:
    data = peer.recv(65536)
    assert data, "the connection closed before the answer was whole"
    return data


def is_refused_or_cut(peer: socket.socket, status: int) -> bool:
    """Return whether the peer answered `status`, or closed while the client was sending, which may lose the answer."""
    try:
        return read_answer(peer)[0] == status
    except TimeoutError:
        return False
    except (OSError, AssertionError):
        return True
