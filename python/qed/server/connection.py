"""One HTTP connection: the limits on the size and arrival time of a request, and on the number of connections."""

from __future__ import annotations

import logging
import resource
from typing import TYPE_CHECKING, Final, Literal, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from qed._wire import ENCODER, ErrorBody
from qed.server.access import CERTIFICATE
from qed.server.families import gauge
from qed.server.logs import Line, OncePerMinute
from qed.server.outgoing import GatheringTransport, UnreadAnswers
from qed.server.slots import SLOT, Slot, Slots
from qed.server.tls import caller_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Mapping

    from qed.server.access import Caller
    from qed.server.config import Limits
    from qed.server.families import Family

__all__ = ["ConnectionLimit", "LimitedConnection", "http_config"]

_log = logging.getLogger(__name__)

_HEAD: Final = b"content-type: application/json\r\nconnection: close\r\n"
_RETRY_AFTER: Final = b"retry-after: 1\r\n"
_RESERVED: Final = {"mgmt": 128, "metrics": 32}
"""Connections reserved for operators, so that clients cannot lock them out, and for those who read metrics. To keep an
operator out, strangers at the operator's own address have to open this many within one TLS handshake."""
_FAREWELL_S: Final = 0.5
"""How long the client of an idle connection may take to agree to its end, over TLS."""
_MOST_AHEAD: Final = 100
"""Requests that may be pipelined. Each uses 3 KB until it is handled, and one piece can hold thousands."""
_CHUNK_FRAMING_BYTES: Final = 20
"""The framing around the body of a chunk: a length of up to 16 digits and two line ends."""


class ConnectionLimit:
    """How many connections may be open: slots for clients, and a few of their own for operators and for metrics."""

    def __init__(self, limits: Limits, *, ports: Mapping[int, str] | None = None) -> None:
        """Make a limit.

        Args:
            limits: How many there may be.
            ports: Addresses that are not for clients, by port: `mgmt` and `metrics`.
        """
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = limits.connections_within(descriptors)
        self._to_raise = "--max-connections" if room == limits.max_connections else "ulimit -n"
        self._last_descriptor = descriptors - 1
        self._clients = Slots(room)
        self._others = {port: (name, Slots(_RESERVED[name])) for port, name in (ports or {}).items()}
        self._is_closed = False
        self._once_per_minute = OncePerMinute()

    def slots(self, port: int) -> Slots:
        """Return the slots for connections to `port`."""
        _, slots = self._others.get(port, ("", self._clients))
        return slots

    def families(self) -> Iterator[Family]:
        """Yield how many connections there are."""
        all_slots = [("http", self._clients), *self._others.values()]
        yield gauge(
            "connections",
            "Open connections to each address, by whether a request on them was admitted.",
            *((slots.strangers.count, name, "strangers") for name, slots in all_slots),
            *((slots.admitted.count, name, "admitted") for name, slots in all_slots),
            labels=("address", "owners"),
        )
        yield gauge(
            "connections_limit",
            "How many there may be.",
            *((slots.room, name) for name, slots in all_slots),
            labels=("address",),
        )

    def refusal(self, slots: Slots) -> str:
        """Return why a connection is refused for which there is no room, and log it."""
        if slots is self._clients and self._once_per_minute.is_due("clients", "connections"):
            _log.warning(Line("connections refused", limit=slots.room, to_raise=self._to_raise))
        return f"all {slots.room} connections are in use"

    def note_descriptor(self, descriptor: int) -> None:
        """Log an error if a connection got the last file descriptor: the system silently resets any further one."""
        if descriptor >= self._last_descriptor and self._once_per_minute.is_due("clients", "descriptors"):
            _log.error(Line("file descriptors run out", limit=self._last_descriptor + 1, to_raise="ulimit -n"))

    @property
    def is_closed(self) -> bool:
        """Whether new connections are refused."""
        return self._is_closed

    def close(self) -> None:
        """Refuse new connections: shutdown would wait for them although nothing was accepted."""
        self._is_closed = True


class LimitedConnection(HttpToolsProtocol):
    """uvicorn's connection, with the limits it lacks: size of the head, time to arrive and be read, connections.

    They are here and not around the handlers because a request that arrives in one piece, as nearly all do, then costs
    nothing extra: the timer exists only while something is missing.
    """

    limits: Limits
    connection_limit: ConnectionLimit
    unread: UnreadAnswers
    earlier_slot: Slot | None = None
    """The slot of its TLS handshake, until that ends."""
    _gathering: GatheringTransport
    _slot: Slot
    _arrival_timer: asyncio.TimerHandle | None = None
    _is_next_due = False
    """Whether the next request waits until the previous answer has been read."""
    _begun = 0
    """Requests that began in the piece being parsed."""
    _body_bytes = 0
    """Bytes of that piece that belong to a body or to the framing of a chunk."""
    _certified: Caller | None = None
    """Whom the client's certificate names."""
    _rest_bytes = 0
    """Bytes of the current request that are not body: its head, and anything the parser skips after it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Start the clock for the first request, or refuse the connection when there are too many."""
        # GatheringTransport has every part of a transport that uvicorn uses.
        self._gathering = GatheringTransport(transport, self.loop, self.limits.unread_timeout_s)
        super().connection_made(cast("asyncio.Transport", self._gathering))
        self._certified = caller_of(transport.get_extra_info("peercert"))
        if self.earlier_slot is None:
            self._arrive(transport)
        else:
            self._continue_from(self.earlier_slot)

    def _arrive(self, transport: asyncio.Transport) -> None:
        self.connection_limit.note_descriptor(transport.get_extra_info("socket").fileno())
        slots = self.connection_limit.slots(self._port())
        self._slot = Slot(slots, self.client[0] if self.client is not None else "unknown", self._give_way)
        if self.connection_limit.is_closed:
            transport.abort()
        elif not self._slot.open():
            self._refuse(503, "unavailable", self.connection_limit.refusal(slots), _RETRY_AFTER)
        else:
            self._start_timer()

    def _continue_from(self, slot: Slot) -> None:
        self._slot, self.earlier_slot = slot, None
        slot.refuse = self._give_way
        if self.connection_limit.is_closed or not slot.is_open:
            self._gathering.abort()
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop_timer()
        self.unread.end(self._gathering)
        self._slot.close()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the clock for an answer that is not read."""
        super().pause_writing()
        self.unread.begin(self._gathering, self._slot.owner)

    def resume_writing(self) -> None:
        """Stop the clock again, and continue with the next request."""
        super().resume_writing()
        self.unread.end(self._gathering)
        if self._is_next_due:
            self._is_next_due = False
            self._continue()

    def on_response_complete(self) -> None:
        """Continue with the next request once the answer is read: each connection holds at most one answer."""
        if self.flow.write_paused and not self.transport.is_closing():
            self._is_next_due = True
            self.flow.pause_reading()
            self._slot.wait()
        else:
            self._continue()

    def _continue(self) -> None:
        super().on_response_complete()
        # Otherwise the next request, which has arrived whole, is being handled.
        if not self.pipeline and (self.cycle.response_complete or self.cycle.more_body):
            self._slot.wait()

    def end_certified(self) -> None:
        """If the client showed a certificate, end the connection once its requests are answered."""
        if self._certified is not None:
            self.shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection, even if its client has not read the last answer."""
        super().timeout_keep_alive_handler()
        if self._gathering.unread_bytes() > 0:
            self._gathering.abort()
        else:
            self._hang_up()

    def shutdown(self) -> None:
        """Close an idle connection, and any other one after its answer. A stream is to end."""
        super().shutdown()
        if self._slot.stream is not None:
            self._slot.stream.end("unavailable", "this server ends the connection")
        if self.transport.is_closing() and self._gathering.unread_bytes() == 0:
            self._hang_up()

    def _hang_up(self) -> None:
        """End a connection that is closing. Over TLS, its client would have to agree, and an idle one may not read."""
        self.loop.call_later(_FAREWELL_S, self._gathering.abort)

    def _port(self) -> int:
        return self.server[1] or 0 if self.server is not None else 0

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then check the limits on whatever is still missing."""
        self._begun = self._body_bytes = 0
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._count_rest(len(data) - self._body_bytes)
        if self._rest_bytes > self.limits.max_head_bytes or self._has_brought_long_head():
            limit = self.limits.max_head_bytes
            self._refuse(431, "too_large", f"the request has more than {limit} bytes without its body")
        elif self._slot.stream is None and (self._is_head_open() or (self.cycle is not None and self.cycle.more_body)):
            self._start_timer()
        elif self._arrival_timer is not None:
            self._stop_timer()

    def on_message_begin(self) -> None:
        """Note that a request begins.

        Raises:
            OverflowError: Too many pipelined requests wait. This stops the parser, which closes the connection.
        """
        if len(self.pipeline) >= _MOST_AHEAD:
            raise OverflowError(f"expected at most {_MOST_AHEAD} requests ahead of their answers")
        self._begun += 1
        super().on_message_begin()
        self.scope[SLOT] = self._slot  # type: ignore[typeddict-unknown-key]  # ours, beside those of ASGI
        if self._certified is not None:
            self.scope[CERTIFICATE] = self._certified  # type: ignore[typeddict-unknown-key]  # ours, beside those of ASGI

    def on_headers_complete(self) -> None:
        """Keep what follows the body out of the head: a trailer must not count as a credential."""
        self.scope["headers"] = self.headers.copy()
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Count the framing of a chunk as body; otherwise many small chunks would count as a long head."""
        self._body_bytes += _CHUNK_FRAMING_BYTES

    def on_body(self, body: bytes) -> None:
        """Count the bytes of a piece that are body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the server is to act."""
        super().on_message_complete()
        if not self.cycle.response_complete:
            self._slot.work()

    def _count_rest(self, rest_bytes: int) -> None:
        """Count the bytes of a piece that are not body, also in trailers, chunk extensions and between requests.

        The parser does not say where in a piece a request ends. If several begin in one piece, its size bounds all but
        the last, which is counted from the next piece on.
        """
        if self._begun == 0:
            self._rest_bytes = max(self._rest_bytes + rest_bytes, 0)
        else:
            self._rest_bytes = rest_bytes if self._begun == 1 else 0

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not HTTP, in this server's error form instead of uvicorn's text."""
        self._refuse(400, "malformed", msg.rstrip(".").lower())

    def _is_head_open(self) -> bool:
        # uvicorn starts a scope with the first byte of a head and adds the method after its last byte.
        return self.scope is not None and "method" not in self.scope

    def _has_brought_long_head(self) -> bool:
        # If several requests begin in one piece, the last is not counted, but its head can be measured.
        if self._begun <= 1:
            return False
        length = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        return length > self.limits.max_head_bytes

    def _start_timer(self) -> None:
        if self._arrival_timer is None:
            self._slot.note_beginning()
            self._arrival_timer = self.loop.call_later(self.limits.request_arrival_timeout_s, self._on_late)

    def _stop_timer(self) -> None:
        if self._arrival_timer is not None:
            self._arrival_timer.cancel()
            self._arrival_timer = None

    def _on_late(self) -> None:
        self._arrival_timer = None
        if self._slot.stream is not None:
            # It has a limit for each line.
            return
        if self.pipeline or self._is_next_due:
            # Reading is paused until the previous request is answered, so the client is not to blame.
            self._start_timer()
            return
        self._refuse(408, "timeout", f"the request took longer than {self.limits.request_arrival_timeout_s:g} s")

    def _refuse(self, status: int, code: str, message: str, header: bytes = b"") -> None:
        """Answer with an error if an answer is still due, close, and wake a handler that waits for more input."""
        self._stop_timer()
        if self._is_answer_due():
            body = ENCODER.encode(ErrorBody(code, message))
            length = b"content-length: %d\r\n\r\n" % len(body)
            self.transport.write(b"".join((STATUS_LINE[status], _HEAD, header, length, body)))
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _give_way(self, status: int, code: str, message: str) -> None:
        if self._gathering.unread_bytes() > 0:
            self._gathering.abort()
        elif self._slot.stream is not None:
            self._slot.stream.end(code, message)
        else:
            self._refuse(status, code, message, _RETRY_AFTER)

    def _is_answer_due(self) -> bool:
        if self.transport.is_closing() or self.pipeline:
            return False
        if self.cycle is None or self._is_head_open():
            # The error is about a request that has no cycle yet: it must not corrupt the previous answer.
            return self.cycle is None or self.cycle.response_complete
        return not self.cycle.response_started


def http_config(
    application: Callable[..., object],
    limits: Limits,
    connection_limit: ConnectionLimit,
    *,
    lifespan: Literal["on", "off"],
) -> uvicorn.Config:
    """Return how uvicorn serves an application on limited connections.

    Args:
        application: What answers requests.
        limits: The limits of requests and answers.
        connection_limit: The limit on the number of connections.
        lifespan: Whether the application is told when the server starts and stops.
    """
    return uvicorn.Config(
        application,
        interface="asgi3",
        loop="uvloop",
        http=_limited_connection(limits, connection_limit, UnreadAnswers(limits)),
        ws="none",
        lifespan=lifespan,
        log_config=None,
        access_log=False,
        workers=1,
        proxy_headers=False,
        server_header=False,
        backlog=limits.max_connections,
        timeout_keep_alive=limits.keep_alive_timeout_s,
    )


def _limited_connection(
    limits: Limits, connection_limit: ConnectionLimit, unread: UnreadAnswers
) -> type[asyncio.Protocol]:
    """Return the connection class for these limits, which its connections share.

    uvicorn creates connections from a class alone, so the limits are attributes of that class.
    """
    return type(
        "LimitedConnection",
        (LimitedConnection,),
        {"limits": limits, "connection_limit": connection_limit, "unread": unread},
    )
