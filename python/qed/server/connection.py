"""One HTTP connection: how much may arrive before a request is whole, and how soon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from qed.wire import ENCODER, ErrorBody

if TYPE_CHECKING:
    import asyncio

    from qed.server.config import Limits

__all__ = ["LimitedConnection", "limited_connection"]

_HEAD: Final = b"content-type: application/json\r\nconnection: close\r\n"


class _GatheringTransport:
    """A transport that writes once for all the pieces of an answer.

    uvicorn writes head and body one after the other, and each write is a system call that wakes the client: a seventh
    of all the time an add takes here. So pieces wait until the event loop comes round.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            self._transport.write(b"".join(pieces))


class LimitedConnection(HttpToolsProtocol):
    """uvicorn's connection, with the three limits it lacks: size of a head, time to arrive, number of connections.

    They sit here and not around the handlers because a request that arrives in one piece, as nearly all do, then pays
    for none of them: the timer exists only while something is missing.
    """

    limits: Limits
    _arrival_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Start the clock for the first request, or refuse the connection when there are too many."""
        # uvicorn uses no other part of a transport than those it finds here.
        super().connection_made(cast("asyncio.Transport", _GatheringTransport(transport, self.loop)))
        if len(self.connections) > self.limits.max_connections:
            self._refuse(503, "unavailable", f"all {self.limits.max_connections} connections are taken")
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then look at what is still missing."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        is_open = self._is_head_open()
        self._head_bytes = self._head_bytes + len(data) if is_open else 0
        if self._head_bytes > self.limits.max_head_bytes or self._has_brought_long_head(data):
            self._refuse(431, "too_large", f"the headers are larger than {self.limits.max_head_bytes} bytes")
        elif is_open or (self.cycle is not None and self.cycle.more_body):
            self._start_timer()
        elif self._arrival_timer is not None:
            self._stop_timer()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP. uvicorn's text gives way to this server's error form."""
        self._refuse(400, "malformed", msg.rstrip(".").lower())

    def _is_head_open(self) -> bool:
        # uvicorn starts a scope with the first byte of a head and adds the method after the last.
        return self.scope is not None and "method" not in self.scope

    def _has_brought_long_head(self, data: bytes) -> bool:
        # A head that arrives in one piece is complete before it can be counted; small pieces cannot hold a long one.
        if len(data) <= self.limits.max_head_bytes or self.headers is None:
            return False
        length = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        return length > self.limits.max_head_bytes

    def _start_timer(self) -> None:
        if self._arrival_timer is None:
            self._arrival_timer = self.loop.call_later(self.limits.request_arrival_timeout_s, self._on_late)

    def _stop_timer(self) -> None:
        if self._arrival_timer is not None:
            self._arrival_timer.cancel()
            self._arrival_timer = None

    def _on_late(self) -> None:
        self._arrival_timer = None
        if self.pipeline:
            # Reading is paused until the request before is answered, so this client is not the one who is late.
            self._start_timer()
            return
        self._refuse(408, "timeout", f"the request took longer than {self.limits.request_arrival_timeout_s:g} s")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error where an answer is still due, close, and tell a handler that waits for more."""
        self._stop_timer()
        if self._is_answer_due():
            body = ENCODER.encode(ErrorBody(code, message))
            length = b"content-length: %d\r\n\r\n" % len(body)
            self.transport.write(b"".join((STATUS_LINE[status], _HEAD, length, body)))
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _is_answer_due(self) -> bool:
        if self.transport.is_closing() or self.pipeline:
            return False
        if self.cycle is None or self._is_head_open():
            # The error is about a request that has no cycle yet: it must not cut into the answer before it.
            return self.cycle is None or self.cycle.response_complete
        return not self.cycle.response_started


def limited_connection(limits: Limits) -> type[asyncio.Protocol]:
    """Return the connection class for `limits`.

    uvicorn makes connections from a class alone, so the limits travel as an attribute of it.
    """
    return type("LimitedConnection", (LimitedConnection,), {"limits": limits})
