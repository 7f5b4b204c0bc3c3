"""Frames to and from the other members, over TCP or mutual TLS (FORMATS.md, "Between members").

A member dials each other member once and sends its messages on that stream; what it receives comes on the streams that
the others dialled. Pages and questions have streams of their own, so that a heartbeat never waits behind them. Messages
may be lost, as Raft expects, but on one stream they keep their order.

Every stream begins with a hello that names protocol, cluster, sender and receiver, and goes no further unless the other
side agrees to all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import deque
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeVar

import msgspec

from qed.errors import QedError
from qed.server.config import Address, SettingsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from qed.server.config import Tls

__all__ = [
    "PROTOCOL",
    "Answer",
    "Hello",
    "Mismatch",
    "Peers",
    "Question",
    "Removed",
    "Transport",
    "TransportError",
    "ask",
    "greet",
    "tls_contexts",
]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

PROTOCOL: Final = 1
_LENGTH_BYTES: Final = 4
_SMALL_FRAME_BYTES: Final = 64 * 1024
"""Largest hello, question or answer."""
_FRAME_BYTES: Final = 64 * 1024 * 1024
"""Largest message or page. The largest entry, two bulks of 100,000 events, has 7 MB."""
_READ_BYTES: Final = 256 * 1024
_QUEUE_BYTES: Final = 64 * 1024 * 1024
"""What may wait for one member. More is dropped: it is slower than the log grows, and Raft sends again."""
_HELLO_TIMEOUT_S: Final = 5.0
_CONNECT_TIMEOUT_S: Final = 3.0
_ANSWER_TIMEOUT_S: Final = 15.0
_RETRY_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""How long to wait before dialling again, by the number of failures."""
_SILENCE_MS: Final = 3000
"""A stream whose bytes are not confirmed for so long is dead, and dialled again."""
_MAX_STREAMS: Final = 256


class TransportError(QedError):
    """A stream ended, was refused, or did not keep to the protocol."""


class Removed(TransportError):
    """The other side says that this member was removed from the cluster."""


class Mismatch(TransportError):
    """The other side belongs to another cluster, or speaks another protocol: asking again does not help."""


class Hello(msgspec.Struct, frozen=True):
    """The first frame of a stream.

    Attributes:
        protocol: Version of what follows.
        kind: `messages` to the end of the stream; `pages`, a request and an answer at a time; or one `question`.
        cluster: Name of the sender's cluster, or empty when it has none yet.
        sender: The sender's number.
        receiver: The number that the sender believes it has dialled, or 0 when it only has an address.
        raft_addr: Where the sender is reached.
    """

    protocol: int
    kind: Literal["messages", "pages", "question"]
    cluster: str
    sender: int
    receiver: int
    raft_addr: str


class Question(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that only a leader can do.

    Attributes:
        wish: `admit` the sender, `remove` the named member, or `transfer` leadership to it, or to anyone.
        name: Name of a member.
        id: The number of who wants to be admitted.
        raft_addr: Where members reach it; likewise the other addresses.
        is_passed_on: Whether a member has passed it on already. It goes no further then.
    """

    wish: Literal["admit", "remove", "transfer"]
    name: str = ""
    id: int = 0
    raft_addr: str = ""
    http_addr: str = ""
    mgmt_addr: str = ""
    metrics_addr: str = ""
    is_passed_on: bool = False


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of a hello or a question.

    Attributes:
        error: Empty, or a code: `protocol`, `cluster`, `receiver`, `removed`, `refused`, `unavailable`.
        message: A sentence for people.
        cluster: Name of the cluster.
    """

    error: str = ""
    message: str = ""
    cluster: str = ""


_REFUSALS: Final = {"removed": Removed, "cluster": Mismatch, "protocol": Mismatch}
_HELLO: Final = msgspec.json.Decoder(Hello)
_QUESTION: Final = msgspec.json.Decoder(Question)
_ANSWER: Final = msgspec.json.Decoder(Answer)
_ENCODER: Final = msgspec.json.Encoder()


class Peers(Protocol):
    """Who a transport works for."""

    def greet(self, hello: Hello) -> Answer:
        """Judge a hello that names the right protocol."""

    def receive(self, sender: int, messages: Sequence[bytes]) -> None:
        """Take messages."""

    def lost(self, receiver: int) -> None:
        """Note that messages to `receiver` may have been lost."""

    async def page(self, extent: bytes) -> bytes:
        """Return the page that continues `extent`."""

    async def answer(self, question: Question) -> Answer:
        """Do what is asked, or have it done."""

    def removed(self, message: str) -> None:
        """Note that the cluster has removed this member, or will not have it."""


def _frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(_LENGTH_BYTES, "big") + payload


def _put(writer: asyncio.StreamWriter, payload: bytes) -> None:
    """Write a frame.

    Raises:
        TransportError: The stream ended.
    """
    # asyncio drops what is written to a stream that has ended, but uvloop raises RuntimeError.
    if writer.transport.is_closing():
        raise TransportError("the stream ended")
    writer.write(_frame(payload))


async def _read_frame(reader: asyncio.StreamReader, limit: int) -> bytes:
    """Return the payload of the next frame.

    Raises:
        TransportError: The stream ended, or the frame is larger than `limit`.
    """
    try:
        length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
        if length > limit:
            raise TransportError(f"expected a frame of at most {limit} bytes, found one of {length}")
        return await reader.readexactly(length)
    except (OSError, asyncio.IncompleteReadError) as exc:
        raise TransportError("the stream ended") from exc


def _decode(decoder: msgspec.json.Decoder[_T], frame: bytes) -> _T:
    try:
        return decoder.decode(frame)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise TransportError(f"a frame is malformed: {exc}") from exc


class _Frames:
    """Cuts what is read from a stream into payloads."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the payloads that `chunk` completes.

        Raises:
            TransportError: A frame is too large.
        """
        self._buffer += chunk
        payloads, start = [], 0
        while len(self._buffer) - start >= _LENGTH_BYTES:
            begin = start + _LENGTH_BYTES
            length = int.from_bytes(self._buffer[start:begin], "big")
            if length > _FRAME_BYTES:
                raise TransportError(f"expected a frame of at most {_FRAME_BYTES} bytes, found one of {length}")
            if len(self._buffer) - begin < length:
                break
            payloads.append(bytes(self._buffer[begin : begin + length]))
            start = begin + length
        del self._buffer[:start]
        return payloads


def tls_contexts(tls: Tls) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the contexts for listening and for dialling. Each side must show a certificate that the CA has signed.

    Raises:
        SettingsError: A file cannot be read, or is not what it should be.
    """
    try:
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls.ca))
        client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(tls.ca))
        for context in (server, client):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as exc:
        raise SettingsError(f"cannot use the certificates for the members: {exc}") from exc
    return server, client


async def _dial(
    address: Address, context: ssl.SSLContext | None, hello: Hello
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Answer]:
    """Open a stream and greet.

    Raises:
        TransportError: Nobody answers there.
        Removed: The other side refuses a member that was removed.
        Mismatch: The other side belongs to another cluster, or speaks another protocol.
    """
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    except (OSError, TimeoutError) as exc:
        raise TransportError(f"cannot reach {address}: {exc or 'no answer in time'}") from exc
    try:
        _set_options(writer)
        _put(writer, _ENCODER.encode(hello))
        async with asyncio.timeout(_HELLO_TIMEOUT_S):
            answer = _decode(_ANSWER, await _read_frame(reader, _SMALL_FRAME_BYTES))
    except (TransportError, TimeoutError) as exc:
        writer.transport.abort()
        raise TransportError(f"{address} did not answer as a member: {exc or 'no answer in time'}") from exc
    if answer.error:
        writer.transport.abort()
        refusal = _REFUSALS.get(answer.error, TransportError)
        raise refusal(f"{address} refused: {answer.message}")
    return reader, writer, answer


async def greet(address: Address, context: ssl.SSLContext | None, hello: Hello) -> None:
    """See whether a member at `address` takes this one for one of its cluster.

    Raises:
        TransportError: Nobody answers there, or it does not.
    """
    _, writer, _ = await _dial(address, context, hello)
    writer.transport.abort()


async def ask(address: Address, context: ssl.SSLContext | None, hello: Hello, question: Question) -> Answer:
    """Put `question` to the member at `address`, which passes it on to the leader.

    Returns:
        What came of it.

    Raises:
        TransportError: As `greet`.
    """
    reader, writer, _ = await _dial(address, context, hello)
    try:
        _put(writer, _ENCODER.encode(question))
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            answer = _decode(_ANSWER, await _read_frame(reader, _SMALL_FRAME_BYTES))
    except TimeoutError as exc:
        raise TransportError(f"{address} did not answer in time") from exc
    finally:
        writer.transport.abort()
    return answer


def _set_options(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is None:
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 2), ("TCP_KEEPINTVL", 1), ("TCP_USER_TIMEOUT", _SILENCE_MS)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class _Link:
    """The stream of messages to one member: dialled, and dialled again."""

    def __init__(self, transport: Transport, receiver: int) -> None:
        self._transport = transport
        self._receiver = receiver
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._writer: asyncio.StreamWriter | None = None
        self._is_fed = asyncio.Event()
        self._is_there = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def send(self, message: bytes) -> None:
        if self._queued_bytes + len(message) > _QUEUE_BYTES:
            self._transport.peers.lost(self._receiver)
            return
        self._queue.append(message)
        self._queued_bytes += len(message)
        writer = self._writer
        if writer is None or writer.transport.is_closing():
            return  # What is queued goes with the next stream, or is reported lost.
        if writer.transport.get_write_buffer_size() == 0:
            # The stream keeps up, so its task need not wake for it.
            self._write(writer)
        else:
            self._is_fed.set()

    def close(self) -> None:
        self._task.cancel()

    def note_there(self) -> None:
        """Note that the member was heard of: it need not be waited for."""
        self._is_there.set()

    def _write(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(map(_frame, self._queue)))
        self._queue.clear()
        self._queued_bytes = 0

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._transmit()
                failures = 0
            except Removed as exc:
                self._transport.peers.removed(str(exc))
            except TransportError as exc:
                level = logging.WARNING if failures == 0 else logging.DEBUG
                _log.log(level, "cannot send receiver=%s reason=%r", self._transport.name_of(self._receiver), str(exc))
            self._queue.clear()
            self._queued_bytes = 0
            self._transport.peers.lost(self._receiver)
            self._is_there.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RETRY_S[min(failures, len(_RETRY_S) - 1)]):
                    await self._is_there.wait()
            failures += 1

    async def _transmit(self) -> None:
        """Send until the stream ends. Returns then, unless it never began."""
        reader, writer, _ = await self._transport.dial(self._receiver, "messages")
        _log.info("connected receiver=%s", self._transport.name_of(self._receiver))
        # The other side says nothing more, so whatever can be read is the end.
        closed = asyncio.create_task(reader.read(1))
        closed.add_done_callback(lambda _: self._is_fed.set())
        try:
            self._writer = writer
            while not closed.done() and not writer.transport.is_closing():
                self._write(writer)
                await writer.drain()
                await self._is_fed.wait()
                self._is_fed.clear()
        except OSError:
            pass  # What ended is dialled again.
        finally:
            self._writer = None
            closed.cancel()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await closed
            writer.transport.abort()


class Transport:
    """All streams of one member."""

    def __init__(self, peers: Peers, hello: Callable[[int, str], Hello], tls: Tls | None) -> None:
        self.peers = peers
        self._hello = hello
        self._server_context: ssl.SSLContext | None = None
        self.client_context: ssl.SSLContext | None = None
        if tls is not None:
            self._server_context, self.client_context = tls_contexts(tls)
        self._links: dict[int, _Link] = {}
        self._addresses: dict[int, tuple[str, Address]] = {}
        self._learned: dict[int, Address] = {}
        self._inbound: dict[asyncio.StreamWriter, int] = {}
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        """Begin to accept streams on a bound socket."""
        self._server = await asyncio.start_server(
            self._accept, sock=listener, ssl=self._server_context, backlog=_MAX_STREAMS
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
        """Note names and addresses of the other members, and end the streams to and from those that were removed.

        Streams with others stay: a member that catches up reads of memberships older than whom it talks to.
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
        """Return the name of a member, or its number when it is not known yet."""
        name, _ = self._addresses.get(member, (f"{member:016x}", None))
        return name

    def send(self, receiver: int, message: bytes) -> None:
        """Send a message, or lose it."""
        link = self._links.get(receiver)
        if link is None:
            if receiver not in self._addresses and receiver not in self._learned:
                return
            link = self._links[receiver] = _Link(self, receiver)
        link.send(message)

    async def dial(
        self, receiver: int, kind: Literal["messages", "pages"]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Answer]:
        """Open a stream to a member.

        Raises:
            TransportError: It is not known, or does not answer.
        """
        # Where it says it is comes before where it was: it may have moved, and peers may not agree on that without it.
        address = self._learned.get(receiver)
        if address is None:
            _, address = self._addresses.get(receiver, ("", None))
        if address is None:
            raise TransportError("its address is not known")
        return await _dial(address, self.client_context, self._hello(receiver, kind))

    async def fetch(
        self, sender: int, extents: Callable[[], bytes], install: Callable[[bytes], Awaitable[bool]]
    ) -> None:
        """Fetch pages from `sender`, each from where the last one has led, until `install` says that it is enough.

        Raises:
            TransportError: The stream ended before that, or the other side has no page.
        """
        reader, writer, _ = await self.dial(sender, "pages")
        try:
            is_enough = False
            while not is_enough:
                _put(writer, extents())
                async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                    frame = await _read_frame(reader, _FRAME_BYTES)
                if not frame.startswith(b"\x00"):
                    raise TransportError(frame[1:200].decode(errors="replace") or "no page")
                is_enough = await install(frame[1:])
        except TimeoutError as exc:
            raise TransportError("no page in time") from exc
        finally:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._inbound) >= _MAX_STREAMS:
            writer.transport.abort()
            return
        self._inbound[writer] = 0
        peer = writer.get_extra_info("peername")
        try:
            _set_options(writer)
            async with asyncio.timeout(_HELLO_TIMEOUT_S):
                hello = _decode(_HELLO, await _read_frame(reader, _SMALL_FRAME_BYTES))
            await self._serve(hello, reader, writer)
        except (TransportError, TimeoutError, OSError) as exc:
            _log.debug("stream ended peer=%s reason=%r", peer, str(exc))
        finally:
            del self._inbound[writer]
            writer.transport.abort()

    async def _serve(self, hello: Hello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = self._judge(hello)
        _put(writer, _ENCODER.encode(answer))
        await writer.drain()
        if answer.error:
            _log.warning("stream refused sender=%s reason=%r", hello.raft_addr[:300], answer.message)
            # The other side reads why before it closes.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await reader.read(1)
            return
        if hello.kind == "question":
            await self._serve_question(reader, writer)
            return
        self._inbound[writer] = hello.sender
        self._learn(hello)
        if link := self._links.get(hello.sender):
            link.note_there()
        if hello.kind == "pages":
            await self._serve_pages(reader, writer)
        else:
            await self._serve_messages(hello.sender, reader)

    def _judge(self, hello: Hello) -> Answer:
        if hello.protocol != PROTOCOL:
            return Answer("protocol", f"this member speaks protocol {PROTOCOL}, not {hello.protocol}")
        return self.peers.greet(hello)

    def _learn(self, hello: Hello) -> None:
        with contextlib.suppress(SettingsError):
            address = Address.parse(hello.raft_addr)
            _, known = self._addresses.get(hello.sender, ("", None))
            if address != known:
                self._learned[hello.sender] = address

    async def _serve_messages(self, sender: int, reader: asyncio.StreamReader) -> None:
        frames = _Frames()
        while chunk := await reader.read(_READ_BYTES):
            if messages := frames.feed(chunk):
                self.peers.receive(sender, messages)

    async def _serve_pages(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            extent = await _read_frame(reader, _SMALL_FRAME_BYTES)
            try:
                page = b"\x00" + await self.peers.page(extent)
            except QedError as exc:
                page = b"\x01" + str(exc).encode()
            _put(writer, page)
            await writer.drain()

    async def _serve_question(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_HELLO_TIMEOUT_S):
            question = _decode(_QUESTION, await _read_frame(reader, _SMALL_FRAME_BYTES))
        _put(writer, _ENCODER.encode(await self.peers.answer(question)))
        await writer.drain()
