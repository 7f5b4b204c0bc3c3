"""One HTTP connection: how much may arrive before a request is whole, and how soon; and who may connect at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from qed._wire import ENCODER, ErrorBody

if TYPE_CHECKING:
    import asyncio

    from qed.server.config import Limits

__all__ = ["Door", "LimitedConnection", "limited_connection"]

_HEAD: Final = b"content-type: application/json\r\nconnection: close\r\n"
_RETRY_AFTER: Final = b"retry-after: 1\r\n"
_MANAGEMENT_CONNECTIONS: Final = 32
"""Connections kept for operators, whom clients must not be able to lock out."""
_CHUNK_FRAMING_BYTES: Final = 20
"""What a chunk needs around its body: a length of up to 16 digits and two line ends."""


class Door:
    """Lets connections in while there is room: so many of clients, and some of operators."""

    def __init__(self, limits: Limits, management_port: int) -> None:
        self._management_port = management_port
        self._room = {False: limits.max_connections, True: _MANAGEMENT_CONNECTIONS}
        self._inside = {False: 0, True: 0}
        self._is_closed = False

    def enter(self, port: int) -> str | None:
        """Count a connection to `port` in; return why it may not stay, if so."""
        is_management = port == self._management_port
        self._inside[is_management] += 1
        room = self._room[is_management]
        return f"all {room} connections are taken" if self._inside[is_management] > room else None

    def leave(self, port: int) -> None:
        """Count a connection out."""
        self._inside[port == self._management_port] -= 1

    @property
    def is_closed(self) -> bool:
        """Whether nobody may come in any more."""
        return self._is_closed

    def close(self) -> None:
        """Let nobody in any more: who came now would be waited for, though nothing was promised to them."""
        self._is_closed = True


class _GatheringTransport:
    """A transport that writes once for all the pieces of an answer.

    uvicorn writes head and body one after the other, and each write is a system call that wakes the client: a seventh
    of all the time an add takes here. So pieces wait until the event loop comes round.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, patience_s: float) -> None:
        self._transport = transport
        self._loop = loop
        self._patience_s = patience_s
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
        if self.has_unread():
            # uvloop closes once everything is sent: never, if the client does not read.
            self._loop.call_later(self._patience_s, self._transport.abort)

    def abort(self) -> None:
        self._transport.abort()

    def has_unread(self) -> bool:
        return self._transport.get_write_buffer_size() > 0

    def _flush(self) -> None:
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            self._transport.write(b"".join(pieces))


class LimitedConnection(HttpToolsProtocol):
    """uvicorn's connection, with the limits it lacks: bytes beside bodies, time to arrive and be read, connections.

    They sit here and not around the handlers because a request that arrives in one piece, as nearly all do, then pays
    for none of them: the timer exists only while something is missing.
    """

    limits: Limits
    door: Door
    _gathering: _GatheringTransport
    _arrival_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None
    _begun = 0
    """Requests that began in the piece being parsed."""
    _body_bytes = 0
    """Bytes of that piece that are body, or the framing of a chunk."""
    _rest_bytes = 0
    """Bytes of the current request that are not body: its head, and whatever the parser reads over after that."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Start the clock for the first request, or refuse the connection when there are too many."""
        # uvicorn uses no other part of a transport than those it finds here.
        self._gathering = _GatheringTransport(transport, self.loop, self.limits.keep_alive_timeout_s)
        super().connection_made(cast("asyncio.Transport", self._gathering))
        refusal = self.door.enter(self._port())
        if self.door.is_closed:
            transport.abort()
        elif refusal is not None:
            self._refuse(503, "unavailable", refusal, _RETRY_AFTER)
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop_timer()
        self._stop_unread_timer()
        self.door.leave(self._port())
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the clock for an answer that is not read."""
        super().pause_writing()
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(self.limits.keep_alive_timeout_s, self._gathering.abort)

    def resume_writing(self) -> None:
        """Stop the clock again."""
        super().resume_writing()
        self._stop_unread_timer()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection, even if its client has not read the last answer."""
        super().timeout_keep_alive_handler()
        if self._gathering.has_unread():
            self._gathering.abort()

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _port(self) -> int:
        return self.server[1] or 0 if self.server is not None else 0

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then look at what is still missing."""
        self._begun = self._body_bytes = 0
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._count_rest(len(data) - self._body_bytes)
        if self._rest_bytes > self.limits.max_head_bytes or self._has_brought_long_head():
            limit = self.limits.max_head_bytes
            self._refuse(431, "too_large", f"the request has more than {limit} bytes beside its body")
        elif self._is_head_open() or (self.cycle is not None and self.cycle.more_body):
            self._start_timer()
        elif self._arrival_timer is not None:
            self._stop_timer()

    def on_message_begin(self) -> None:
        """Note that a request begins."""
        self._begun += 1
        super().on_message_begin()

    def on_chunk_header(self) -> None:
        """Allow a chunk its framing, or a body in many small chunks would count as a long head."""
        self._body_bytes += _CHUNK_FRAMING_BYTES

    def on_body(self, body: bytes) -> None:
        """Note how much of a piece is body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def _count_rest(self, rest_bytes: int) -> None:
        """Count what of a piece is not body, wherever the parser is: in a trailer, a chunk extension, between requests.

        The parser does not say where in a piece a request ends. If several begin in one, the piece bounds them all but
        the last, which is counted from the next piece on.
        """
        if self._begun == 0:
            self._rest_bytes = max(self._rest_bytes + rest_bytes, 0)
        else:
            self._rest_bytes = rest_bytes if self._begun == 1 else 0

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP. uvicorn's text gives way to this server's error form."""
        self._refuse(400, "malformed", msg.rstrip(".").lower())

    def _is_head_open(self) -> bool:
        # uvicorn starts a scope with the first byte of a head and adds the method after the last.
        return self.scope is not None and "method" not in self.scope

    def _has_brought_long_head(self) -> bool:
        # Of several requests in one piece, the last is not counted, but its head can be measured.
        if self._begun <= 1:
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

    def _refuse(self, status: int, code: str, message: str, header: bytes = b"") -> None:
        """Answer with an error where an answer is still due, close, and tell a handler that waits for more."""
        self._stop_timer()
        if self._is_answer_due():
            body = ENCODER.encode(ErrorBody(code, message))
            length = b"content-length: %d\r\n\r\n" % len(body)
            self.transport.write(b"".join((STATUS_LINE[status], _HEAD, header, length, body)))
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


def limited_connection(limits: Limits, door: Door) -> type[asyncio.Protocol]:
    """Return the connection class for `limits`, whose connections come in by `door`.

    uvicorn makes connections from a class alone, so both travel as attributes of it.
    """
    return type("LimitedConnection", (LimitedConnection,), {"limits": limits, "door": door})
