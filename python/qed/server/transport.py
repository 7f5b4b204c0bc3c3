"""Streams to and from the other members, over TCP or mutual TLS (FORMATS.md, "Between members").

A member dials each other member once and sends its messages on that stream; it receives messages on the streams that
the others dialled. Pages and leader requests have streams of their own, so that a heartbeat never waits behind them.
Messages may be lost, as Raft expects, but on one stream they keep their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Final, Literal, Protocol

from qed.errors import CorruptLog, InternalError, QedError
from qed.server.config import Address, SettingsError
from qed.server.frames import FRAME_BYTES, SMALL_FRAME_BYTES, Frames, TransportError, frame, put, read_frame
from qed.server.handshake import (
    HELLO_TIMEOUT_S,
    REPLY_TIMEOUT_S,
    Hello,
    LeaderRequest,
    Mismatch,
    Removed,
    Reply,
    Stream,
    connect,
    open_stream,
    read_hello,
    read_request,
    send_reply,
    set_options,
    tls_contexts,
)
from qed.server.logs import Line, OncePerMinute
from qed.server.waiting import delays

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from qed.server.config import Tls

__all__ = ["StreamHandler", "Transport"]

_log = logging.getLogger(__name__)

_READ_BYTES: Final = 256 * 1024
_QUEUE_BYTES: Final = 64 * 1024 * 1024
"""Bytes that may wait for one member. More is dropped: the member cannot keep up with the log, and Raft resends."""
_RETRY_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""How long to wait before dialling again, by number of failures."""
_MAX_STREAMS: Final = 256
_REFUSED_S: Final = 1.0
"""How long the other side has to read why it was refused."""


class StreamHandler(Protocol):
    """What a transport calls for each stream and message."""

    def greet(self, hello: Hello) -> Reply:
        """Judge a hello that names the right protocol."""

    def receive(self, sender: int, messages: Sequence[bytes]) -> None:
        """Handle messages of another member."""

    def lost(self, receiver: int) -> None:
        """Note that messages to `receiver` may have been lost."""

    async def page(self, extent: bytes) -> bytes:
        """Return the page that continues `extent`."""

    async def answer(self, request: LeaderRequest) -> Reply:
        """Carry out a request, or pass it on to the leader."""

    def removed(self, message: str) -> None:
        """Note that the cluster has removed this member, or refuses to admit it."""


class _Link:
    """The stream of messages to one member, dialled again whenever it ends."""

    def __init__(self, transport: Transport, receiver: int) -> None:
        self._transport = transport
        self._receiver = receiver
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._writer: asyncio.StreamWriter | None = None
        self._arrived = asyncio.Event()
        self._contacted = asyncio.Event()
        self._connecting: asyncio.Task[Stream] | None = None
        self._is_failing = False
        self._task = asyncio.create_task(self._run())

    def send(self, message: bytes) -> None:
        if self._queued_bytes + len(message) > _QUEUE_BYTES:
            self._transport.handler.lost(self._receiver)
            return
        self._queue.append(message)
        self._queued_bytes += len(message)
        writer = self._writer
        if writer is None or writer.transport.is_closing():
            return  # The queue is sent on the next stream, or reported lost.
        if writer.transport.get_write_buffer_size() == 0:
            # The stream keeps up, so there is no need to wake its task.
            self._write(writer)
        else:
            self._arrived.set()

    def close(self) -> None:
        self._task.cancel()

    def note_contact(self) -> None:
        """Note that the member has connected: dial it at once, and abandon an attempt that began earlier."""
        self._contacted.set()
        if self._connecting is not None:
            self._connecting.cancel()

    def _write(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(map(frame, self._queue)))
        self._queue.clear()
        self._queued_bytes = 0

    async def _run(self) -> None:
        retries = delays(*_RETRY_S)
        while True:
            try:
                await self._transmit()
                retries = delays(*_RETRY_S)
            except Removed as exc:
                self._transport.handler.removed(str(exc))
            except TransportError as exc:
                level = logging.DEBUG if self._is_failing else logging.WARNING
                self._is_failing = True
                _log.log(level, Line("cannot send", receiver=self._transport.name_of(self._receiver), reason=exc))
            self._queue.clear()
            self._queued_bytes = 0
            self._transport.handler.lost(self._receiver)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(next(retries)):
                    await self._contacted.wait()

    async def _transmit(self) -> None:
        """Send until the stream ends, then return. Raises if the stream could not be opened."""
        reader, writer, _ = stream = await self._connect()
        await self._transport.open_stream(self._receiver, stream, "messages")
        self._is_failing = False
        _log.info(Line("connected", receiver=self._transport.name_of(self._receiver)))
        try:
            await self._send_all(reader, writer)
        finally:
            writer.transport.abort()
        _log.info(Line("disconnected", receiver=self._transport.name_of(self._receiver)))

    async def _connect(self) -> Stream:
        """Connect; start over if the member connects to this one meanwhile.

        The system repeats a packet to an unreachable host only after one second, then after three.
        """
        while True:
            self._contacted.clear()
            self._connecting = asyncio.create_task(self._transport.connect(self._receiver))
            try:
                return await self._connecting
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not self._contacted.is_set() or (task is not None and task.cancelling()):
                    raise
            finally:
                self._connecting = None

    async def _send_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The other side sends nothing more, so anything that can be read means the end.
        closed = asyncio.create_task(reader.read(1))
        closed.add_done_callback(lambda _: self._arrived.set())
        try:
            self._writer = writer
            while not closed.done() and not writer.transport.is_closing():
                self._write(writer)
                await writer.drain()
                await self._arrived.wait()
                self._arrived.clear()
        except OSError:
            pass  # `_run` dials again.
        finally:
            self._writer = None
            closed.cancel()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await closed


class Transport:
    """All streams of one member."""

    def __init__(self, handler: StreamHandler, hello: Callable[[int, str], Hello], tls: Tls | None) -> None:
        self.handler = handler
        self._hello = hello
        self._server_context: ssl.SSLContext | None = None
        self.client_context: ssl.SSLContext | None = None
        if tls is not None:
            self._server_context, self.client_context = tls_contexts(tls)
        self._links: dict[int, _Link] = {}
        self._addresses: dict[int, tuple[str, Address]] = {}
        self._learned: dict[int, Address] = {}
        self._inbound: dict[asyncio.StreamWriter, int] = {}
        self._once_per_minute = OncePerMinute()
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        """Start to accept streams on a bound socket."""
        # A peer that does not finish the TLS handshake or shutdown is not counted as a stream, hence the time-outs.
        is_tls = self._server_context is not None
        self._server = await asyncio.start_server(
            self._accept,
            sock=listener,
            ssl=self._server_context,
            backlog=_MAX_STREAMS,
            ssl_handshake_timeout=HELLO_TIMEOUT_S if is_tls else None,
            ssl_shutdown_timeout=_REFUSED_S if is_tls else None,
        )

    async def close(self) -> None:
        """End every stream."""
        if self._server is not None:
            self._server.close()
        for link in self._links.values():
            link.close()
        for writer in list(self._inbound):
            writer.transport.abort()
        self._links.clear()

    def set_members(self, addresses: Mapping[int, tuple[str, Address]], removed: Collection[int]) -> None:
        """Set names and addresses of the other members, and end the streams to and from those that were removed.

        Streams with unknown members stay: while catching up, this member applies memberships older than its peers.
        """
        for receiver in removed:
            if link := self._links.pop(receiver, None):
                link.close()
            self._learned.pop(receiver, None)
        for writer in [writer for writer, sender in self._inbound.items() if sender in removed]:
            writer.transport.abort()
        for receiver, entry in addresses.items():
            if self._addresses.get(receiver) != entry:
                self._learned.pop(receiver, None)
        self._addresses = dict(addresses)

    def name_of(self, member: int) -> str:
        """Return the name of a member, or its number if its name is not known yet."""
        name, _ = self._addresses.get(member, (f"{member:016x}", None))
        return name

    def send(self, receiver: int, message: bytes) -> None:
        """Send a message, which may be lost."""
        link = self._links.get(receiver)
        if link is None:
            if receiver not in self._addresses and receiver not in self._learned:
                return
            link = self._links[receiver] = _Link(self, receiver)
        link.send(message)

    async def connect(self, receiver: int) -> Stream:
        """Open a stream to a member.

        Raises:
            TransportError: Its address is not known, or cannot be reached.
        """
        # The address that the member itself gave comes before the agreed one: it may have moved, and the cluster may
        # need its vote to agree on the new address.
        address = self._learned.get(receiver)
        if address is None:
            _, address = self._addresses.get(receiver, ("", None))
        if address is None:
            raise TransportError("its address is not known")
        return await connect(address, self.client_context)

    async def open_stream(self, receiver: int, stream: Stream, kind: Literal["messages", "pages"]) -> None:
        """Open a stream to a member. If the other side refuses, the stream is closed.

        Raises:
            TransportError: The other side refuses, or does not answer.
        """
        await open_stream(stream, self._hello(receiver, kind))

    async def fetch(
        self, sender: int, extents: Callable[[], bytes], install: Callable[[bytes], Awaitable[bool]]
    ) -> None:
        """Fetch pages from `sender`, each from the end of the previous one, until `install` returns True.

        Raises:
            TransportError: The stream ended before that, or the other side has no page.
        """
        reader, writer, _ = stream = await self.connect(sender)
        try:
            await self.open_stream(sender, stream, "pages")
            is_complete = False
            while not is_complete:
                put(writer, extents())
                async with asyncio.timeout(REPLY_TIMEOUT_S):
                    page = await read_frame(reader, FRAME_BYTES)
                if not page.startswith(b"\x00"):
                    reason = page[1:200].decode(errors="replace") or "no reason given"
                    raise TransportError(f"the other member has no page: {reason}")
                is_complete = await install(page[1:])
        except TimeoutError as exc:
            raise TransportError(f"no page within {REPLY_TIMEOUT_S:g} s") from exc
        finally:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._inbound) >= _MAX_STREAMS:
            writer.transport.abort()
            return
        self._inbound[writer] = 0
        peer = writer.get_extra_info("peername")
        try:
            set_options(writer)
            await self._serve(reader, writer)
        except (TransportError, TimeoutError, OSError) as exc:
            _log.debug(Line("stream ended", peer=peer, reason=exc))
        finally:
            del self._inbound[writer]
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            hello = await read_hello(reader)
        except Mismatch as exc:
            await self._refuse(Reply("protocol", str(exc)), reader, writer)
            return
        reply = self.handler.greet(hello)
        if reply.error:
            await self._refuse(reply, reader, writer)
            return
        await send_reply(writer, reply)
        if hello.kind == "question":
            await self._serve_request(reader, writer)
            return
        self._inbound[writer] = hello.sender
        self._learn(hello)
        if link := self._links.get(hello.sender):
            link.note_contact()
        if hello.kind == "pages":
            await self._serve_pages(reader, writer)
        else:
            await self._serve_messages(hello.sender, reader)

    async def _refuse(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = str((writer.get_extra_info("peername") or ["unknown"])[0])
        level = logging.WARNING if self._once_per_minute.is_due(host, reply.error) else logging.DEBUG
        _log.log(level, Line("stream refused", peer=host, reason=reply.message))
        await send_reply(writer, reply)
        # Closing at once could lose the reply; the other side closes once it has read it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REFUSED_S):
                await reader.read(1)

    def _learn(self, hello: Hello) -> None:
        with contextlib.suppress(SettingsError):
            address = Address.parse(hello.raft_addr)
            _, known = self._addresses.get(hello.sender, ("", None))
            if address == known:
                self._learned.pop(hello.sender, None)
            else:
                self._learned[hello.sender] = address

    async def _serve_messages(self, sender: int, reader: asyncio.StreamReader) -> None:
        frames = Frames()
        while chunk := await reader.read(_READ_BYTES):
            if messages := frames.feed(chunk):
                self.handler.receive(sender, messages)

    async def _serve_pages(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            extent = await read_frame(reader, SMALL_FRAME_BYTES)
            try:
                page = b"\x00" + await self.handler.page(extent)
            except QedError as exc:
                page = b"\x01" + _why_no_page(exc).encode()
            put(writer, page)
            await writer.drain()

    async def _serve_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await send_reply(writer, await self.handler.answer(await read_request(reader)))


def _why_no_page(exc: QedError) -> str:
    """Return the reason to send to the member that asked. Details of damage to this log go to its own operator."""
    if isinstance(exc, CorruptLog | InternalError):
        _log.error(Line("page not read", reason=exc))
        return "it cannot read its own log"
    return str(exc)
