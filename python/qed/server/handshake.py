"""The handshake of a stream between members: a hello from the dialling side, and a reply from the other.

Every stream begins with a hello that names protocol, cluster, sender and receiver, and ends unless the other side
accepts all of them.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import msgspec

from qed.server.config import SettingsError
from qed.server.frames import SMALL_FRAME_BYTES, TransportError, decode, put, read_frame

if TYPE_CHECKING:
    from qed.server.config import Address, Tls

__all__ = [
    "HELLO_TIMEOUT_S",
    "PROTOCOL",
    "REPLY_TIMEOUT_S",
    "Hello",
    "LeaderRequest",
    "Mismatch",
    "Removed",
    "Reply",
    "Stream",
    "ask",
    "connect",
    "open_stream",
    "probe",
    "read_hello",
    "read_request",
    "send_reply",
    "set_options",
    "tls_contexts",
]

PROTOCOL: Final = 1
HELLO_TIMEOUT_S: Final = 5.0
_CONNECT_TIMEOUT_S: Final = 1.0
"""How long the system waits before it sends the first packet again: starting over is as good."""
REPLY_TIMEOUT_S: Final = 15.0
_SILENCE_MS: Final = 3000
"""A stream whose bytes are not confirmed for this long is dead, and is dialled again."""


class Stream(NamedTuple):
    """A stream that this member has opened, with the address it leads to."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    address: Address


class Removed(TransportError):
    """The other side replied that this member was removed from the cluster."""


class Mismatch(TransportError):
    """The other side belongs to another cluster, or speaks another protocol: a retry does not help."""


class Hello(msgspec.Struct, frozen=True):
    """The first frame of a stream.

    Attributes:
        protocol: Version of the protocol of the stream.
        kind: `messages` until the stream ends; `pages`, each requested and answered in turn; or one `question`, which
            is a `LeaderRequest`.
        cluster: Name of the sender's cluster, or empty if it has none yet.
        sender: The sender's number.
        receiver: The number of the member that the sender expects, or 0 if it only has an address.
        raft_addr: Where members reach the sender.
    """

    protocol: int
    kind: Literal["messages", "pages", "question"]
    cluster: str
    sender: int
    receiver: int
    raft_addr: str


class _AnyHello(msgspec.Struct):
    """What the hellos of all protocols have in common."""

    protocol: int


class LeaderRequest(msgspec.Struct, frozen=True, omit_defaults=True, rename={"kind": "wish"}):
    """Something that only a leader can do.

    Attributes:
        kind: `admit` the sender, `remove` the named member, or `transfer` leadership to it, or to any member.
        name: Name of a member.
        id: The number of the member to admit.
        raft_addr: Where members reach it; likewise the other addresses.
        is_passed_on: Whether a member has already passed the request on. It is not passed on again.
    """

    kind: Literal["admit", "remove", "transfer"]
    name: str = ""
    id: int = 0
    raft_addr: str = ""
    http_addr: str = ""
    mgmt_addr: str = ""
    metrics_addr: str = ""
    is_passed_on: bool = False


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The reply to a hello or a request.

    Attributes:
        error: Empty, or a code: `protocol`, `cluster`, `receiver`, `removed`, `refused`, `unavailable`.
        message: The reason in words.
        cluster: Name of the cluster.
    """

    error: str = ""
    message: str = ""
    cluster: str = ""


_REFUSALS: Final = {"removed": Removed, "cluster": Mismatch, "protocol": Mismatch}
_ANY_HELLO: Final = msgspec.json.Decoder(_AnyHello)
_HELLO: Final = msgspec.json.Decoder(Hello)
_REQUEST: Final = msgspec.json.Decoder(LeaderRequest)
_REPLY: Final = msgspec.json.Decoder(Reply)
_ENCODER: Final = msgspec.json.Encoder()


def tls_contexts(tls: Tls) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the contexts for listening and for dialling. Each side must show a certificate that the CA has signed.

    Raises:
        SettingsError: A file cannot be read, or does not hold what it should.
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


async def read_hello(reader: asyncio.StreamReader) -> Hello:
    """Return the hello with which a stream begins.

    Raises:
        Mismatch: The other side speaks another protocol. The rest of its hello is not examined.
        TransportError: The frame is not a valid hello.
        TimeoutError: No hello arrived in time.
    """
    async with asyncio.timeout(HELLO_TIMEOUT_S):
        payload = await read_frame(reader, SMALL_FRAME_BYTES)
    protocol = decode(_ANY_HELLO, payload).protocol
    if protocol != PROTOCOL:
        raise Mismatch(f"expected protocol {PROTOCOL}, found {protocol}")
    return decode(_HELLO, payload)


async def read_request(reader: asyncio.StreamReader) -> LeaderRequest:
    """Return the request that follows the hello.

    Raises:
        TransportError: The frame is not a valid request.
        TimeoutError: No request arrived in time.
    """
    async with asyncio.timeout(HELLO_TIMEOUT_S):
        return decode(_REQUEST, await read_frame(reader, SMALL_FRAME_BYTES))


async def send_reply(writer: asyncio.StreamWriter, reply: Reply) -> None:
    """Reply to a hello or a request.

    Raises:
        TransportError: The stream ended.
    """
    put(writer, _ENCODER.encode(reply))
    await writer.drain()


async def connect(address: Address, context: ssl.SSLContext | None) -> Stream:
    """Open a stream.

    Raises:
        TransportError: The address cannot be reached.
    """
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    except (OSError, TimeoutError) as exc:
        raise TransportError(f"cannot reach {address}: {exc or 'no answer in time'}") from exc
    set_options(writer)
    return Stream(reader, writer, address)


async def open_stream(stream: Stream, hello: Hello) -> None:
    """Send the hello of a new stream. The stream is closed unless the other side accepts it.

    Raises:
        TransportError: The other side did not answer as a member, or refused.
        Removed: The other side refuses a member that was removed.
        Mismatch: The other side belongs to another cluster, or speaks another protocol.
    """
    reader, writer, address = stream
    try:
        put(writer, _ENCODER.encode(hello))
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            reply = decode(_REPLY, await read_frame(reader, SMALL_FRAME_BYTES))
    except (TransportError, TimeoutError) as exc:
        writer.transport.abort()
        raise TransportError(f"{address} did not answer as a member: {exc or 'no answer in time'}") from exc
    except asyncio.CancelledError:
        writer.transport.abort()
        raise
    if reply.error:
        writer.transport.abort()
        raise _REFUSALS.get(reply.error, TransportError)(f"{address} refused: {reply.message}")


async def probe(address: Address, context: ssl.SSLContext | None, hello: Hello) -> None:
    """Check that a member at `address` accepts this one as a member of its cluster.

    Raises:
        TransportError: No member answers there, or it refuses.
    """
    stream = await connect(address, context)
    await open_stream(stream, hello)
    stream.writer.transport.abort()


async def ask(address: Address, context: ssl.SSLContext | None, hello: Hello, request: LeaderRequest) -> Reply:
    """Send `request` to the member at `address`, which passes it on to the leader.

    Returns:
        The reply.

    Raises:
        TransportError: As `probe`.
    """
    reader, writer, _ = stream = await connect(address, context)
    await open_stream(stream, hello)
    try:
        put(writer, _ENCODER.encode(request))
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            reply = decode(_REPLY, await read_frame(reader, SMALL_FRAME_BYTES))
    except TimeoutError as exc:
        raise TransportError(f"{address} did not answer in time") from exc
    finally:
        writer.transport.abort()
    return reply


def set_options(writer: asyncio.StreamWriter) -> None:
    """Make a stream send without delay, and notice when the other side is dead."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is None:
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 2), ("TCP_KEEPINTVL", 1), ("TCP_USER_TIMEOUT", _SILENCE_MS)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
