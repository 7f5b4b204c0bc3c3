"""One deadline for all reads and writes of a thread on its connections.

The time-out of a blocking socket bounds a single wait: a server that sends a byte now and then, for instance in a
header, could block a thread for days. Under `deadline`, no read or write waits beyond one common moment.
"""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import httpcore

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator

    from httpcore import SOCKET_OPTION

    from qed._client.sockets import Sockets

__all__ = ["DeadlineBackend", "deadline"]

# Data is written in pieces, so that the deadline is checked between them even if the peer reads slowly.
_PIECE_BYTES: Final = 1 << 16
# For a socket, a time-out of 0 means "do not wait at all".
_SHORTEST_S: Final = 0.001

_DEADLINE_S: ContextVar[float] = ContextVar("_DEADLINE_S", default=float("inf"))


@contextmanager
def deadline(after_s: float) -> Iterator[None]:
    """Stop every read and write in the block from waiting beyond `after_s` from here.

    Args:
        after_s: Seconds, above 0.

    Yields:
        Nothing.
    """
    token = _DEADLINE_S.set(time.monotonic() + after_s)
    try:
        yield
    finally:
        _DEADLINE_S.reset(token)


def _wait_s(timeout_s: float | None, late: type[Exception]) -> float | None:
    """Return how long one wait may take, or raise `late` when the deadline has passed."""
    left_s = _DEADLINE_S.get() - time.monotonic()
    if left_s <= 0:
        raise late("the deadline has passed")
    if left_s == float("inf"):
        return timeout_s
    return left_s if timeout_s is None else min(left_s, timeout_s)


class _DeadlineStream(httpcore.NetworkStream):
    """A connection that keeps the deadline of the calling thread."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _wait_s(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _PIECE_BYTES):
            piece = buffer[start : start + _PIECE_BYTES]
            self._stream.write(piece, _wait_s(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        wait_s = _wait_s(timeout, httpcore.ConnectTimeout)
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, wait_s))

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


class DeadlineBackend(httpcore.SyncBackend):
    """Blocking TCP connections that keep the deadline of the calling thread.

    Args:
        sockets: Records each opened socket.
    """

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Return a connection; see `httpcore.NetworkBackend`.

        Each address of `host` gets an equal share of the remaining time, so that a dead one does not use it up. Only
        the system limits the name lookup.
        """
        waiting = _addresses(host, port)
        left_s = _wait_s(timeout, httpcore.ConnectTimeout)
        end_s = None if left_s is None else time.monotonic() + left_s
        while True:
            address = waiting.pop(0)
            if end_s is not None:
                left_s = max(end_s - time.monotonic(), _SHORTEST_S) / (len(waiting) + 1)
            try:
                stream = super().connect_tcp(address, port, left_s, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if not waiting:
                    raise
            else:
                self._sockets.note(stream.get_extra_info("socket"))
                return _DeadlineStream(stream)


def _addresses(host: str, port: int) -> list[str]:
    """Return the addresses of `host`, at least one."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as exc:
        raise httpcore.ConnectError(str(exc)) from exc
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
