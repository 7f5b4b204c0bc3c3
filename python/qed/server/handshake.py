"""The handshake of a stream between members: TLS, then a hello from the dialling side and a reply from the other.

TLS shows each side the other's public key. The hello names protocol, cluster, sender and receiver, and the stream ends
unless the other side accepts all of them, the sender for its key.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec

from qed.server.frames import SMALL_FRAME_BYTES, TransportError, decode, put, read_frame
from qed.server.pins import peer_of

if TYPE_CHECKING:
    from qed.server.config import Address
    from qed.server.credentials import Credentials

__all__ = [
    "HELLO_TIMEOUT_S",
    "LEADER_REQUEST",
    "PROTOCOL",
    "REPLY_TIMEOUT_S",
    "Hello",
    "Kind",
    "LeaderRequest",
    "Mismatch",
    "Removed",
    "Reply",
    "Stranger",
    "Stream",
    "Twin",
    "ask",
    "connect",
    "connect_with",
    "open_stream",
    "read_hello",
    "read_request",
    "send_reply",
    "set_options",
]

PROTOCOL: Final = 2
HELLO_TIMEOUT_S: Final = 5.0
"""How long TLS, and then the hello, may take: until then, the other side is a stranger."""
_CONNECT_TIMEOUT_S: Final = 1.0
"""How long the system waits before it sends the first packet again: starting over is as good."""
REPLY_TIMEOUT_S: Final = 15.0
_SILENCE_MS: Final = 3000
"""A stream whose bytes are not confirmed for this long is dead, and is dialled again."""


_T = TypeVar("_T")
Kind: TypeAlias = Literal["messages", "pages", "question", "enrol"]
Wish: TypeAlias = Literal[
    "admit", "remove", "replace", "transfer", "redeem", "record", "retire", "introduce", "uses", "checkpoint"
]
_Seconds = Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)]


_Ends: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Stream(NamedTuple):
    """A stream that this member has opened, with the address it leads to."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    address: Address


class Removed(TransportError):
    """The other side replied that this member was removed from the cluster."""


class Mismatch(TransportError):
    """The other side belongs to another cluster, or speaks another protocol: a retry does not help."""


class Stranger(TransportError):
    """Whoever is at an address has no certificate of this cluster's authority, and so may be anyone."""


class Twin(TransportError):
    """The other side is connected to another server that has this member's key and number."""


class Hello(msgspec.Struct, frozen=True):
    """The first frame of a stream.

    Attributes:
        protocol: Version of the protocol of the stream.
        kind: `messages` until the stream ends; `pages`, each requested and answered in turn; one `question`, which is a
            `LeaderRequest`; or `enrol`, without a certificate, to exchange a token for one.
        cluster: Name of the sender's cluster, or empty if it has none yet.
        sender: The sender's number.
        receiver: The number of the member that the sender expects, or 0 if it only has an address.
        raft_addr: Where members reach the sender.
        run: Drawn at random by each process: two that are alive at once are two servers with one identity.
    """

    protocol: int
    kind: Kind
    cluster: str
    sender: int
    receiver: int
    raft_addr: str
    run: int = 0


class _AnyHello(msgspec.Struct):
    """What the hellos of all protocols have in common."""

    protocol: int


class LeaderRequest(msgspec.Struct, frozen=True, omit_defaults=True, rename={"kind": "wish"}):
    """Something that only a leader can do, or a question of another member.

    Attributes:
        kind: `admit` the sender, `remove` the named member, let another `replace` it, `transfer` leadership to it or to
            any member, `redeem` the token of a new server, `record` an act, `retire` a key of the log; or what any
            member answers: `introduce` the members, say which API keys it last accepted, `uses`, or take over a
            published `checkpoint`.
        name: Name of a member, or the id of a key of the log.
        id: The number of the member to admit.
        raft_addr: Where members reach it; likewise the other addresses.
        key: SHA-256 of the public key of the member to admit: the key of the stream, or a new one from its owner.
        token: Public part of the token to redeem.
        proof: Its signature on the claim of the new server.
        asked: SHA-256 of the public key of the member that the new server has asked, which the claim names.
        who: Who asks, as the member that was asked says; empty for a member that acts by itself.
        origin: The address that the request came from, likewise.
        act: The act to record.
        note: The checkpoint, as a note.
        signer: The id of the API key of the caller, if it has one.
        signature: Its signature on all of this (`qed.server.passed_on`).
    """

    kind: Literal[
        "admit", "remove", "replace", "transfer", "redeem", "record", "retire", "introduce", "uses", "checkpoint"
    ]
    name: str = ""
    id: int = 0
    raft_addr: str = ""
    http_addr: str = ""
    mgmt_addr: str = ""
    metrics_addr: str = ""
    key: bytes = b""
    token: str = ""
    proof: bytes = b""
    asked: bytes = b""
    who: str = ""
    origin: str = ""
    act: bytes = b""
    note: bytes = b""
    signer: str = ""
    signature: bytes = b""


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The reply to a hello or a request.

    Attributes:
        error: Empty, or a code: `protocol`, `cluster`, `receiver`, `removed`, `stranger`, `twin`, `refused`,
            `caller`, `elsewhere`, `unavailable`.
        message: The reason in words.
        cluster: Name of the cluster, for its members.
        keys: The public keys of the members, as SHA-256 by number, for members.
        applied: The last entry that the member had applied when these were the members.
        leader: With `elsewhere`, which means that nothing was done: where members reach the leader.
        uses: When API keys were last accepted, in seconds since 1970, by their ids.
    """

    error: str = ""
    message: str = ""
    cluster: str = ""
    keys: dict[int, bytes] = msgspec.field(default_factory=dict)
    applied: int = 0
    leader: str = ""
    uses: dict[str, _Seconds] = msgspec.field(default_factory=dict)


_REFUSALS: Final = {"removed": Removed, "cluster": Mismatch, "protocol": Mismatch, "twin": Twin}
_WRONG_DATE: Final = frozenset({9, 10})
"""OpenSSL: the certificate is not valid yet, or has expired. A clock may be wrong, so a retry may help."""
_ANY_HELLO: Final = msgspec.json.Decoder(_AnyHello)
_HELLO: Final = msgspec.json.Decoder(Hello)
LEADER_REQUEST: Final = msgspec.json.Decoder(LeaderRequest)
_REPLY: Final = msgspec.json.Decoder(Reply)
_ENCODER: Final = msgspec.json.Encoder()


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


async def read_request(reader: asyncio.StreamReader, decoder: msgspec.json.Decoder[_T]) -> _T:
    """Return the request that follows the hello.

    Args:
        reader: The stream.
        decoder: Of the kind of request that the hello announced.

    Returns:
        The request.

    Raises:
        TransportError: The frame is not a valid request.
        TimeoutError: No request arrived in time.
    """
    async with asyncio.timeout(HELLO_TIMEOUT_S):
        return decode(decoder, await read_frame(reader, SMALL_FRAME_BYTES))


async def send_reply(writer: asyncio.StreamWriter, reply: msgspec.Struct) -> None:
    """Reply to a hello or a request.

    Raises:
        TransportError: The stream ended.
    """
    put(writer, _ENCODER.encode(reply))
    await writer.drain()


async def connect(address: Address, credentials: Credentials, expected: bytes | None) -> Stream:
    """Open a TLS stream.

    Args:
        address: Where to connect.
        credentials: What this member shows, and whom it believes.
        expected: The pin of the member that should be there; None if it is not known.

    Returns:
        The stream. The other side has a certificate of the cluster's authority, and the expected key.

    Raises:
        TransportError: The address cannot be reached, or somebody else is there.
        Stranger: No key is expected there, and whoever is there has no certificate of this cluster's authority.
    """
    context = credentials.meeting if expected is None else credentials.dialling
    try:
        stream = await connect_with(address, context)
    except ssl.SSLCertVerificationError as exc:
        reason = (
            f"{address} did not show a certificate of this cluster ({exc.verify_message}): all members need the same "
            "--cluster-secret-file, or certificates of the same --raft-tls-ca"
        )
        is_stranger = expected is None and exc.verify_code not in _WRONG_DATE
        raise (Stranger if is_stranger else TransportError)(reason) from exc
    peer = peer_of(stream.writer)
    if expected is not None and (peer is None or peer.pin != expected):
        stream.writer.transport.abort()
        raise TransportError(f"{address} is not the member that should be there: it has another key")
    return stream


async def connect_with(address: Address, context: ssl.SSLContext) -> Stream:
    """Open a TLS stream with a context.

    Raises:
        ssl.SSLCertVerificationError: The context does not accept the certificate of the other side.
        TransportError: The address cannot be reached, or does not answer with TLS 1.3.
    """
    connection = await _connected(address)
    # uvloop reports an error of its own if it is told to stop between connecting and its first read. Therefore the dial
    # is never cancelled; whoever gives up ends the connection below it.
    dial = asyncio.ensure_future(
        asyncio.open_connection(
            sock=connection,
            ssl=context,
            server_hostname=address.host if context.check_hostname else "",
            ssl_handshake_timeout=HELLO_TIMEOUT_S,
        )
    )
    dial.add_done_callback(functools.partial(_disown, connection))
    try:
        reader, writer = await asyncio.shield(dial)
    except ssl.SSLCertVerificationError:
        raise
    except OSError as exc:
        raise TransportError(f"{address} did not answer with TLS 1.3: {_reason(exc)}") from exc
    except BaseException:
        _give_up(dial, connection)
        raise
    set_options(writer)
    return Stream(reader, writer, address)


def _give_up(dial: asyncio.Future[_Ends], connection: socket.socket) -> None:
    """End a dial, at whatever step it is."""

    def abort(ended: asyncio.Future[_Ends]) -> None:
        if not ended.cancelled() and ended.exception() is None:
            _, writer = ended.result()
            writer.transport.abort()

    if not dial.done():
        # The other side may have ended it first.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
    dial.add_done_callback(abort)


def _disown(connection: socket.socket, ended: asyncio.Future[_Ends]) -> None:
    """Let go of the descriptor of a dial that failed: uvloop has closed it, and another file may have it now.

    uvloop closes the socket itself only if the dial failed late enough.
    """
    if ended.cancelled() or ended.exception() is not None:
        connection.detach()


async def _connected(address: Address) -> socket.socket:
    """Return a socket that is connected to `address`.

    Raises:
        TransportError: The address cannot be reached.
    """
    loop, failure = asyncio.get_running_loop(), "no such host"
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise TransportError(f"cannot reach {address}: {exc or 'no answer in time'}") from exc
    for family, kind, protocol, _, name in found:
        connection = socket.socket(family, kind, protocol)
        connection.setblocking(False)
        try:
            # Of several addresses, one that drops packets must not use up the time of the others.
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await loop.sock_connect(connection, name)
        except OSError as exc:
            failure = str(exc) or "no answer in time"
            connection.close()
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise TransportError(f"cannot reach {address}: {failure}")


def _reason(exc: Exception) -> str:
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or str(exc)).lower().replace("_", " ")
    # uvloop's own words for its time limit name neither side.
    is_late = isinstance(exc, ConnectionAbortedError) and exc.errno is None
    return "no answer in time" if is_late else str(exc) or type(exc).__name__


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


async def ask(stream: Stream, hello: Hello, request: LeaderRequest) -> Reply:
    """Send `request` on a new stream, and close it.

    Returns:
        The reply.

    Raises:
        TransportError: As `open_stream`.
    """
    reader, writer, address = stream
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
