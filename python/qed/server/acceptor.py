"""Streams that others dial: who they are is settled by TLS and a hello, within seconds and few of them at once.

Until then they are strangers, and share a fixed number of slots. After that, each key has its own slots, so that
nobody can keep members from connecting.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import ssl
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

from qed.errors import CorruptLog, InternalError, QedError
from qed.server.certification import ENROLMENT_REQUEST, Certified, EnrolmentRequest
from qed.server.frames import SMALL_FRAME_BYTES, TransportError, put, read_frame
from qed.server.handshake import (
    HELLO_TIMEOUT_S,
    LEADER_REQUEST,
    Hello,
    Kind,
    LeaderRequest,
    Mismatch,
    Reply,
    read_hello,
    read_request,
    send_reply,
    set_options,
)
from qed.server.incoming import IncomingMessages
from qed.server.logs import Line, OncePerMinute, where
from qed.server.pins import peer_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from qed.server.credentials import Credentials
    from qed.server.pins import Peer

__all__ = ["Acceptor", "StreamHandler"]

_log = logging.getLogger(__name__)

_MAX_STRANGERS: Final = 32
"""Streams whose other side has not shown who it is. Each may hold a hello in memory: 64 KiB."""
_SLOTS: Final[Mapping[Kind, int]] = {"messages": 1, "pages": 1, "question": 4}
"""Streams of each kind that one key may have. Each may hold a frame in memory: 64 MiB for messages."""
_BACKLOG: Final = 128
_REFUSED_S: Final = 1.0
"""How long the other side has to read why it was refused."""
_NO_DESCRIPTOR_S: Final = 0.1
"""How long to wait before accepting again when the process has too many files open."""


class StreamHandler(Protocol):
    """What is called for each stream and message of another member."""

    def greet(self, hello: Hello, peer: Peer) -> Reply:
        """Judge a hello that names the right protocol, from a peer with a certificate of the right authority."""

    def is_peer(self, sender: int, pin: bytes) -> bool:
        """Return whether the sender of a stream may keep it: it is not removed, and has this key."""

    def receive(self, sender: int, messages: Sequence[bytes]) -> None:
        """Handle messages of another member."""

    async def page(self, extent: bytes) -> bytes:
        """Return the page that continues `extent`."""

    async def answer(self, request: LeaderRequest, hello: Hello, peer: Peer) -> Reply:
        """Carry out a request, or pass it on to the leader."""

    async def enrol(self, request: EnrolmentRequest, host: str) -> Certified:
        """Exchange a token for a certificate, for a new server on `host`."""


@dataclass(frozen=True, eq=False)
class _Inbound:
    """A stream whose other side is known."""

    hello: Hello
    pin: bytes
    task: asyncio.Task[None]


class Acceptor:
    """Accepts the streams of other members, and serves them.

    Attributes:
        refused: How many streams were refused, by reason; `tls` is a handshake that failed.
    """

    def __init__(
        self, handler: StreamHandler, credentials: Callable[[], Credentials], *, on_contact: Callable[[Hello], None]
    ) -> None:
        self._handler = handler
        self._on_contact = on_contact
        self._credentials = credentials
        self._strangers: dict[asyncio.Task[None], str] = {}
        self._inbound: list[_Inbound] = []
        self._busy: set[asyncio.Task[None]] = set()
        """The streams whose request is being carried out: they may finish, and tell the other side the outcome."""
        self._once_per_minute = OncePerMinute()
        self._listening: asyncio.Task[None] | None = None
        self.refused: Counter[str] = Counter()

    def start(self, listener: socket.socket) -> None:
        """Start to accept streams on a bound socket, which `close` closes."""
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        self._listening = asyncio.create_task(self._listen(listener))

    async def close(self) -> None:
        """End every stream."""
        tasks = [*self._strangers, *(stream.task for stream in self._inbound)]
        if self._listening is not None:
            tasks.append(self._listening)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def review(self) -> None:
        """End the streams of members that were removed, or that have another key."""
        for stream in self._inbound:
            if stream.hello.kind != "question" and not self._handler.is_peer(stream.hello.sender, stream.pin):
                stream.task.cancel()

    async def _listen(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    connection, name = await loop.sock_accept(listener)
                except OSError as exc:
                    # The other side may be gone already, or this process may have no file descriptor left.
                    _log.debug(Line("stream not accepted", reason=exc))
                    await asyncio.sleep(_NO_DESCRIPTOR_S)
                    continue
                self._make_room_for_stranger()
                task = asyncio.create_task(self._serve(connection, str(name[0])))
                self._strangers[task] = str(name[0])
                task.add_done_callback(self._forget)

    def _make_room_for_stranger(self) -> None:
        """End the oldest stranger of the busiest host: a flood from one host does not keep out members on others."""
        if len(self._strangers) >= _MAX_STRANGERS:
            (busiest, _), *_ = Counter(self._strangers.values()).most_common(1)
            oldest = next(task for task, host in self._strangers.items() if host == busiest)
            del self._strangers[oldest]
            oldest.cancel()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._strangers.pop(task, None)
        self._busy.discard(task)
        self._inbound = [stream for stream in self._inbound if stream.task is not task]

    async def _serve(self, connection: socket.socket, host: str) -> None:
        try:
            reader, writer = await self._secure(connection)
        except (OSError, TimeoutError) as exc:
            connection.close()
            self._note_failed_handshake(host, exc)
            return
        except asyncio.CancelledError:
            connection.close()
            raise
        try:
            set_options(writer)
            await self._greet(reader, writer, host)
        except (TransportError, TimeoutError, OSError) as exc:
            _log.debug(Line("stream ended", peer=host, reason=exc))
        except Exception as exc:  # noqa: BLE001  # what a stranger causes must not fill the log
            if self._once_per_minute.is_due(host, "unexpected"):
                _log.error(Line("stream ended unexpectedly", peer=host, **where(exc)))
        finally:
            writer.transport.abort()

    def _note_failed_handshake(self, host: str, exc: Exception) -> None:
        self.refused["tls"] += 1
        is_due = isinstance(exc, ssl.SSLCertVerificationError) and self._once_per_minute.is_due(host, "certificate")
        reason = exc.verify_message if isinstance(exc, ssl.SSLCertVerificationError) else exc
        _log.log(logging.WARNING if is_due else logging.DEBUG, Line("no TLS with stranger", peer=host, reason=reason))

    async def _secure(self, connection: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol,
            connection,
            ssl=self._credentials().accepting,
            ssl_handshake_timeout=HELLO_TIMEOUT_S,
            ssl_shutdown_timeout=_REFUSED_S,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        try:
            hello = await read_hello(reader)
        except Mismatch as exc:
            await self._refuse(Reply("protocol", str(exc)), host, reader, writer)
            return
        peer, authority = peer_of(writer), self._credentials().authority
        if hello.kind == "enrol" and authority is not None:
            await send_reply(writer, Reply())
            await send_reply(writer, Certified(authority.pem.decode()))
            asked = await read_request(reader, ENROLMENT_REQUEST)
            await send_reply(writer, await self._handler.enrol(asked, host))
            return
        if peer is None or hello.kind == "enrol":
            await self._refuse(Reply("stranger", "a certificate is needed here"), host, reader, writer)
            return
        reply = self._handler.greet(hello, peer)
        if not reply.error and self._has_twin(hello):
            reply = Reply("twin", "another server with the identity of this member is connected")
        if not reply.error and not self._seat(hello, peer):
            reply = Reply("unavailable", "too many requests of this member are being carried out; try again")
        if reply.error:
            await self._refuse(reply, host, reader, writer)
            return
        if hello.kind == "messages":
            await self._serve_messages(hello, writer, reply)
            return
        await send_reply(writer, reply)
        if hello.kind == "question":
            request = await read_request(reader, LEADER_REQUEST)
            self._busy.add(_own_task())
            await send_reply(writer, await self._handler.answer(request, hello, peer))
            return
        self._on_contact(hello)
        await self._serve_pages(reader, writer)

    def _has_twin(self, hello: Hello) -> bool:
        """Return whether another process has a stream as this sender. The stream of a dead one ends within seconds."""
        return any(
            stream.hello.sender == hello.sender and stream.hello.run != hello.run and not stream.task.cancelling()
            for stream in self._inbound
        )

    def _seat(self, hello: Hello, peer: Peer) -> bool:
        """Count the stream of this task among those of its key. A new one takes the place of the oldest of its kind.

        Returns:
            Whether there is room: none of those whose requests are being carried out gives way.
        """
        task = _own_task()
        same = [stream for stream in self._inbound if (stream.pin, stream.hello.kind) == (peer.pin, hello.kind)]
        idle = [stream for stream in same if stream.task not in self._busy]
        excess = len(same) + 1 - _SLOTS[hello.kind]
        if excess > len(idle):
            return False
        for stream in idle[: max(excess, 0)]:
            stream.task.cancel()
        self._strangers.pop(task, None)
        self._inbound.append(_Inbound(hello, peer.pin, task))
        return True

    async def _refuse(
        self, reply: Reply, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.refused[reply.error] += 1
        level = logging.WARNING if self._once_per_minute.is_due(host, reply.error) else logging.DEBUG
        _log.log(level, Line("stream refused", peer=host, reason=reply.message))
        await send_reply(writer, reply)
        # Closing at once could lose the reply; the other side closes once it has read it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REFUSED_S):
                await reader.read(1)

    async def _serve_messages(self, hello: Hello, writer: asyncio.StreamWriter, reply: Reply) -> None:
        messages = IncomingMessages(functools.partial(self._handler.receive, hello.sender))
        # The other side sends messages only after the reply, so the reader has nothing that would be lost.
        writer.transport.set_protocol(messages)
        await send_reply(writer, reply)
        self._on_contact(hello)
        await messages.finish()

    async def _serve_pages(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            extent = await read_frame(reader, SMALL_FRAME_BYTES)
            try:
                page = b"\x00" + await self._handler.page(extent)
            except QedError as exc:
                page = b"\x01" + _why_no_page(exc).encode()
            put(writer, page)
            await writer.drain()


def _own_task() -> asyncio.Task[None]:
    return cast("asyncio.Task[None]", asyncio.current_task())  # `_serve` runs in a task of its own


def _why_no_page(exc: QedError) -> str:
    """Return the reason to send to the member that asked. Details of damage to this log go to its own operator."""
    if isinstance(exc, CorruptLog | InternalError):
        _log.error(Line("page not read", reason=exc))
        return "it cannot read its own log"
    return str(exc)
