"""Streams between members that end, hang or lie at the worst moment."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import ssl
import struct
import tempfile
import threading
import time
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import uvloop

from qed.errors import CorruptLog, QedError
from qed.server import acceptor, frames, handshake, incoming
from qed.server.certification import Certified
from qed.server.cluster_authority import ClusterAuthority
from qed.server.config import Address
from qed.server.credentials import Credentials, of_authority
from qed.server.frames import TransportError
from qed.server.handshake import PROTOCOL, Hello, LeaderRequest, Reply, Stranger
from qed.server.transport import Contact, Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from qed.server.certification import EnrolmentRequest
    from qed.server.pins import Peer


OWN, OTHER = 1, 2
LIMIT_S = 20.0
MIB = 1024 * 1024


@functools.cache
def credentials(number: int, secret: bytes = bytes(range(32))) -> Credentials:
    """Return the credentials of a member, whose key lives as long as this process."""
    with tempfile.TemporaryDirectory() as folder:
        del number  # Each has a key of its own.
        return of_authority(ClusterAuthority.of_secret(secret), Path(folder))


class Listening:
    """A handler that records its calls, and has one page, which it returns once that is allowed."""

    def __init__(self) -> None:
        self.lost_streams = 0
        self.has_lost = asyncio.Event()
        self.received: asyncio.Queue[bytes] = asyncio.Queue()
        self.is_asked = asyncio.Event()
        self.may_read = asyncio.Event()
        self.carried_out = asyncio.Semaphore(0)
        self.refusal = Reply()
        self.why_no_page: QedError | None = None
        self.keys = {number: credentials(number).pin for number in (OWN, OTHER)}
        self.reasons_to_stop: asyncio.Queue[str] = asyncio.Queue()

    def greet(self, hello: Hello, peer: Peer) -> Reply:
        del hello, peer
        return self.refusal

    def is_peer(self, sender: int, pin: bytes) -> bool:
        return self.keys.get(sender, pin) == pin

    def pin_of(self, member: int) -> bytes | None:
        return self.keys.get(member)

    def is_member(self, pin: bytes) -> bool:
        return pin in self.keys.values()

    def receive(self, _: int, messages: Sequence[bytes]) -> None:
        for message in messages:
            self.received.put_nowait(message)

    def lost(self, _: int) -> None:
        self.lost_streams += 1
        self.has_lost.set()

    async def page(self, extent: bytes) -> bytes:
        self.is_asked.set()
        await self.may_read.wait()
        if self.why_no_page:
            raise self.why_no_page
        return b"after " + extent

    async def answer(self, request: LeaderRequest, hello: Hello, peer: Peer) -> Reply:
        del hello, peer
        if request.kind == "uses":
            self.carried_out.release()
            await self.may_read.wait()
        return Reply()

    async def enrol(self, request: EnrolmentRequest, host: str) -> Certified:
        del request, host
        return Certified(error="refused", message="not here")

    def removed(self, message: str) -> None:
        self.reasons_to_stop.put_nowait(message)


def runs_on_uvloop(test: Callable[[], Coroutine[None, None, None]]) -> Callable[[], None]:
    """Run a test on uvloop, as the server does: only uvloop raises when a stream that has ended is written to."""

    async def within_limit() -> None:
        async with asyncio.timeout(LIMIT_S):
            await test()

    def run() -> None:
        uvloop.run(within_limit())

    run.__name__ = test.__name__
    return run


@asynccontextmanager
async def running(peers: Listening, number: int = OWN, run: int = 1) -> AsyncIterator[tuple[Transport, Address]]:
    """Yield a transport that accepts streams, and its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = Address(*listener.getsockname())

    def hello(receiver: int, kind: str) -> Hello:
        return Hello(PROTOCOL, kind, "c", number, receiver, str(address), run)  # type: ignore[arg-type]  # from it

    transport = Transport(peers, hello, credentials(number))
    transport.start(listener)
    try:
        yield transport, address
    finally:
        await transport.close()


class OtherMember:
    """The other member, but each of its streams does what a test wants."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def accept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Accept one hello, and return the stream."""
        reader, writer = await self.accepted.get()
        await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
        writer.write(frame(Reply()))
        return reader, writer


@asynccontextmanager
async def member(number: int = OTHER, port: int = 0) -> AsyncIterator[tuple[OtherMember, Address]]:
    """Yield a listener in place of another member, and its address."""
    other = OtherMember()

    async def keep(*stream: asyncio.StreamReader | asyncio.StreamWriter) -> None:
        other.accepted.put_nowait(stream)  # type: ignore[arg-type]  # a reader and a writer

    server = await asyncio.start_server(keep, "127.0.0.1", port, ssl=credentials(number).accepting)
    try:
        yield other, Address(*server.sockets[0].getsockname())
    finally:
        server.close()


def frame(value: object) -> bytes:
    payload = msgspec.json.encode(value)
    return len(payload).to_bytes(4, "big") + payload


def reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def dial(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = credentials(OTHER).dialling
    return await asyncio.open_connection(address.host, address.port, ssl=context, server_hostname="")


async def say_hello(
    address: Address, claims: Address | str, **changes: object
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Reply]:
    """Send the hello of the other member, with `claims` as its address."""
    reader, writer = await dial(address)
    whole = {"protocol": PROTOCOL, "kind": "messages", "cluster": "c", "sender": OTHER, "receiver": OWN, "run": 7}
    writer.write(frame(whole | {"raft_addr": str(claims)} | changes))
    length = int.from_bytes(await reader.readexactly(4), "big")
    return reader, writer, msgspec.json.decode(await reader.readexactly(length), type=Reply)


def test_dial_may_be_given_up_at_any_instant(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def accept_all() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    credentials(OTHER).accepting.wrap_socket(connection, server_side=True).close()

    async def connected(address: Address) -> socket.socket:
        return socket.create_connection((address.host, address.port))

    async def give_up() -> None:
        for turns in range(12):
            dial = asyncio.create_task(handshake.connect_with(address, credentials(OWN).dialling))
            for _ in range(turns):
                await asyncio.sleep(0)
            dial.cancel()
            # The other side answers before this one's event loop turns again.
            time.sleep(0.03)  # noqa: ASYNC251  # as above
            with contextlib.suppress(asyncio.CancelledError):
                (await dial).writer.transport.abort()
            await asyncio.sleep(0.03)

    address = Address(*listener.getsockname())
    # Connecting takes a varying number of turns, of which none is of interest.
    monkeypatch.setattr(handshake, "_connected", connected)
    thread = threading.Thread(target=accept_all)
    thread.start()
    uvloop.run(give_up())
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()
    assert caplog.records == []


def test_descriptor_of_a_dial_that_failed_at_once_is_left_to_its_next_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[socket.socket] = []

    async def reset_at_once(address: Address) -> socket.socket:
        ours, theirs = socket.create_connection((address.host, address.port)), listener.accept()[0]
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        ends.append(ours)
        return ours

    async def dial_in_vain() -> None:
        with pytest.raises(TransportError, match="reset by peer"):
            await handshake.connect_with(Address(*listener.getsockname()), credentials(OWN).dialling)

    monkeypatch.setattr(handshake, "_connected", reset_at_once)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        uvloop.run(dial_in_vain())
    assert [end.fileno() for end in ends] == [-1]


@runs_on_uvloop
async def test_message_to_a_stream_that_has_just_ended_is_lost_and_the_next_one_is_dialled() -> None:
    peers = Listening()
    async with running(peers) as (transport, _), member() as (other, address):
        transport.set_members({OTHER: Contact("other", address)}, ())

        async def accept_and_reset() -> None:
            reader, writer = await other.accept()
            await reader.read(65536)
            reset(writer)

        for _ in range(3):
            expected = peers.lost_streams + 1
            resetting = asyncio.create_task(accept_and_reset())
            while peers.lost_streams < expected:
                transport.send([(OTHER, b"message")])
                await asyncio.sleep(0)
            await resetting


@runs_on_uvloop
async def test_member_that_is_back_where_the_cluster_believes_it_is_dialled_there() -> None:
    async with running(Listening()) as (transport, own), member() as (other, address):
        transport.set_members({OTHER: Contact("other", address)}, ())
        with closing(socket.create_server(("127.0.0.1", 0))) as elsewhere:
            _, moved, _ = await say_hello(own, Address(*elsewhere.getsockname()))
        moved.close()
        _, back, _ = await say_hello(own, address)
        transport.send([(OTHER, b"message")])
        _, connection = await other.accept()
        connection.close()
        back.close()


@asynccontextmanager
async def black_hole() -> AsyncIterator[Address]:
    """Yield an address where connecting never ends: its backlog is full, and nothing accepts."""
    loop = asyncio.get_running_loop()
    waiting: list[socket.socket] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        try:
            while True:
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                async with asyncio.timeout(0.3):
                    await loop.sock_connect(waiting[-1], address)
        except TimeoutError:
            yield Address(*address)
        finally:
            for connection in waiting:
                connection.close()


def test_dial_that_hangs_is_given_up_when_the_member_is_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    # Within the time limit of this test, only the code under test can end the dial.
    monkeypatch.setattr(handshake, "_CONNECT_TIMEOUT_S", 10 * LIMIT_S)

    @runs_on_uvloop
    async def dial_while_it_hangs() -> None:
        async with running(Listening()) as (transport, own), member() as (other, address), black_hole() as hole:
            transport.set_members({OTHER: Contact("other", hole)}, ())
            transport.send([(OTHER, b"message")])
            _, writer, _ = await say_hello(own, address)
            _, connection = await other.accept()
            connection.close()
            writer.close()

    dial_while_it_hangs()


def test_a_host_is_reached_although_its_first_address_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    @runs_on_uvloop
    async def connect() -> None:
        loop = asyncio.get_running_loop()
        async with black_hole() as hole:
            with socket.create_server(("127.0.0.2", hole.port)) as listener:
                found = [
                    (socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, hole.port)) for host in (hole.host, "127.0.0.2")
                ]

                # uvloop looks up numeric addresses, too.
                look_up = loop.getaddrinfo

                async def resolved(host: str, port: int, **options: int) -> list[Any]:
                    return found if host == "two.example" else await look_up(host, port, **options)

                monkeypatch.setattr(loop, "getaddrinfo", resolved)
                connection = await handshake._connected(Address("two.example", hole.port))
                assert connection.getpeername() == listener.getsockname()
                connection.close()

    connect()


def test_loss_and_return_of_a_member_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "qed")

    @runs_on_uvloop
    async def lose_and_find() -> None:
        peers = Listening()
        async with running(peers) as (transport, _):
            async with member() as (other, address):
                transport.set_members({OTHER: Contact("other", address)}, ())
                transport.send([(OTHER, b"message")])
                reader, writer = await other.accept()
                await reader.read(65536)
            writer.transport.abort()
            for _ in range(3):
                peers.has_lost.clear()
                await peers.has_lost.wait()
            async with member(port=address.port) as (again, _):
                reader, writer = await again.accept()
                transport.send([(OTHER, b"message")])
                await reader.read(65536)
                writer.transport.abort()

    lose_and_find()
    said = [(record.levelname, record.message.partition(" reason=")[0]) for record in caplog.records]
    assert said[:4] == [
        ("INFO", "connected receiver=other"),
        ("INFO", "disconnected receiver=other"),
        ("WARNING", "cannot send receiver=other"),
        ("INFO", "connected receiver=other"),
    ]


def test_strangers_neither_fill_nor_forge_the_log(caplog: pytest.LogCaptureFixture) -> None:
    @runs_on_uvloop
    async def greet_again_and_again() -> None:
        peers = Listening()
        peers.refusal = Reply("cluster", "it is a member of another cluster")
        async with running(peers) as (_, own):
            for number in range(20):
                _, writer, answer = await say_hello(own, f"nowhere\r\nlevel=error \x1b[2J{number}")
                assert answer.error == "cluster"
                writer.close()

    greet_again_and_again()
    (warning,) = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.isprintable()


@runs_on_uvloop
async def test_later_protocol_is_told_so_whatever_else_its_hello_says() -> None:
    async with running(Listening()) as (_, own):
        for changes in ({"kind": "gossip"}, {"sender": "a name"}):
            _, writer, answer = await say_hello(own, "nowhere", protocol=PROTOCOL + 1, **changes)
            assert answer.error == "protocol"
            writer.close()


@runs_on_uvloop
async def test_what_a_member_cannot_take_is_dropped_and_reported_lost() -> None:
    peers = Listening()
    async with running(peers) as (transport, _), black_hole() as hole:
        transport.set_members({OTHER: Contact("other", hole)}, ())
        for _ in range(64):
            transport.send([(OTHER, bytes(MIB))])
        assert peers.lost_streams == 0
        transport.send([(OTHER, b"one too many")])
        assert peers.lost_streams == 1


def test_damaged_log_is_reported_where_it_is_damaged(caplog: pytest.LogCaptureFixture) -> None:
    @runs_on_uvloop
    async def fetch_from_a_damaged_log() -> None:
        here, there = Listening(), Listening()
        there.why_no_page = CorruptLog("the stored log is damaged: row 7")
        there.may_read.set()
        async with running(here) as (transport, _), running(there, OTHER) as (_, address):
            transport.set_members({OTHER: Contact("other", address)}, ())
            with pytest.raises(TransportError, match=r"the other member has no page: it cannot read its own log$"):
                await transport.fetch(OTHER, lambda: b"extent", unreachable)

    fetch_from_a_damaged_log()
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == ["page not read reason='the stored log is damaged: row 7'"]


async def unreachable(_: bytes) -> bool:
    raise AssertionError


@runs_on_uvloop
async def test_messages_do_not_wait_behind_a_page() -> None:
    here, there = Listening(), Listening()
    async with running(here) as (transport, own), running(there, OTHER) as (other, address):
        transport.set_members({OTHER: Contact("other", address)}, ())
        other.set_members({OWN: Contact("own", own)}, ())
        pages = []

        async def install(page: bytes) -> bool:
            pages.append(page)
            return True

        fetching = asyncio.create_task(transport.fetch(OTHER, lambda: b"extent", install))
        await there.is_asked.wait()
        transport.send([(OTHER, b"heartbeat")])
        other.send([(OWN, b"answer")])
        assert await there.received.get() == b"heartbeat"
        assert await here.received.get() == b"answer"
        assert not pages
        there.may_read.set()
        await fetching
        assert pages == [b"after extent"]


# Who is on the other end


@runs_on_uvloop
async def test_member_with_another_key_gets_no_message() -> None:
    third = 3
    peers = Listening()
    async with running(peers) as (transport, _), member(third) as (impostor, address):
        transport.set_members({OTHER: Contact("other", address)}, ())
        transport.send([(OTHER, b"secret")])
        await peers.has_lost.wait()
        # The stream may end before the other side has it.
        if not impostor.accepted.empty():
            reader, _ = await impostor.accepted.get()
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""


@runs_on_uvloop
async def test_whoever_is_at_the_address_of_another_cluster_is_a_stranger() -> None:
    async with running(Listening()) as (_, own):
        stranger = credentials(OTHER, b"another secret, of another cluster")
        with pytest.raises(Stranger, match="same --cluster-secret-file"):
            await handshake.connect(own, stranger, None)
        with pytest.raises(TransportError) as refused:
            await handshake.connect(own, stranger, credentials(OWN).pin)
        assert not isinstance(refused.value, Stranger)


@runs_on_uvloop
async def test_stranger_without_a_certificate_is_refused_in_words_that_name_nothing() -> None:
    async with running(Listening()) as (_, own):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(own.host, own.port, ssl=context)
        writer.write(frame({"protocol": PROTOCOL, "kind": "question", "cluster": "", "sender": 9, "receiver": 0}))
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            length = int.from_bytes(await reader.readexactly(4), "big")
            answer = msgspec.json.decode(await reader.readexactly(length))
            assert answer == {"error": "stranger", "message": "a certificate is needed here"}
        writer.transport.abort()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, None])
def test_what_is_not_tls_1_3_ends(version: ssl.TLSVersion | None) -> None:
    @runs_on_uvloop
    async def speak() -> None:
        async with running(Listening()) as (_, own):
            if version is None:
                reader, writer = await asyncio.open_connection(own.host, own.port)
                writer.write(frame({"protocol": PROTOCOL}))
                with contextlib.suppress(ConnectionResetError):
                    # At most an alert of TLS, which names nothing.
                    assert len(await reader.read()) <= 7
                writer.transport.abort()
                return
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.maximum_version = version
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await asyncio.open_connection(own.host, own.port, ssl=context)

    speak()


@runs_on_uvloop
async def test_stream_ends_when_its_member_is_removed_or_has_another_key() -> None:
    for change in ("removed", "another key"):
        peers = Listening()
        async with running(peers) as (transport, own), member() as (_, address):
            reader, writer, _ = await say_hello(own, address)
            if change == "another key":
                peers.keys[OTHER] = bytes(32)
            else:
                peers.keys[OTHER] = b""  # as for a number that was removed
            transport.set_members({}, [OTHER] if change == "removed" else [])
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.transport.abort()


# How long and how many


def test_frame_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (frames, incoming):
        monkeypatch.setattr(module, "FRAME_S", 0.05)

    @runs_on_uvloop
    async def trickle() -> None:
        async with running(Listening()) as (_, own), member() as (_, address):
            for kind in ("messages", "pages"):
                reader, writer, _ = await say_hello(own, address, kind=kind)
                writer.write(struct.pack(">I", 1000) + b"x")
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
                writer.transport.abort()

    trickle()


def test_whole_frames_may_come_as_slowly_as_they_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "FRAME_S", 0.2)

    @runs_on_uvloop
    async def pause_between_frames() -> None:
        peers = Listening()
        async with running(peers) as (_, own), member() as (_, address):
            _, writer, _ = await say_hello(own, address)
            for _ in range(3):
                writer.write(struct.pack(">I", 1) + b"x")
                assert await peers.received.get() == b"x"
                await asyncio.sleep(0.3)
            writer.transport.abort()

    pause_between_frames()


def test_silent_strangers_do_not_keep_out_a_member(monkeypatch: pytest.MonkeyPatch) -> None:
    # Within the time limit of this test, only a newer stream ends a silent one.
    monkeypatch.setattr(acceptor, "HELLO_TIMEOUT_S", 10 * LIMIT_S)

    @runs_on_uvloop
    async def fill_the_slots() -> None:
        async with running(Listening()) as (_, own), member() as (_, address):
            silent = [await asyncio.open_connection(own.host, own.port) for _ in range(100)]
            _, writer, answer = await say_hello(own, address)
            assert answer == Reply()
            # The oldest made room for the newest.
            assert await silent[0][0].read() == b""
            for _, other in silent:
                other.transport.abort()
            writer.transport.abort()

    fill_the_slots()


def test_silence_in_place_of_tls_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "HELLO_TIMEOUT_S", 0.05)

    @runs_on_uvloop
    async def say_nothing() -> None:
        async with running(Listening(), OWN) as (_, own):
            reader, writer = await asyncio.open_connection(own.host, own.port)
            assert await reader.read() == b""
            writer.close()

    say_nothing()


@runs_on_uvloop
async def test_newer_stream_of_a_member_takes_the_place_of_the_older() -> None:
    peers = Listening()
    async with running(peers) as (_, own), member() as (_, address):
        old, writer, _ = await say_hello(own, address)
        _, other, answer = await say_hello(own, address)
        assert answer == Reply()
        with contextlib.suppress(ConnectionResetError):
            assert await old.read() == b""
        other.write(struct.pack(">I", 1) + b"x")
        assert await peers.received.get() == b"x"
        for stream in (writer, other):
            stream.transport.abort()


@runs_on_uvloop
async def test_request_that_is_being_carried_out_does_not_give_way() -> None:
    peers = Listening()
    async with running(peers) as (_, own), member() as (_, address):
        waiting = []
        for _ in range(3):
            reader, writer, _ = await say_hello(own, address, kind="question")
            writer.write(frame({"wish": "uses"}))
            await peers.carried_out.acquire()
            waiting.append((reader, writer))
        # The fourth has asked nothing yet: it gives way to the fifth.
        idle, silent, _ = await say_hello(own, address, kind="question")
        reader, writer, answer = await say_hello(own, address, kind="question")
        assert answer == Reply()
        with contextlib.suppress(ConnectionResetError):
            assert await idle.read() == b""
        writer.write(frame({"wish": "uses"}))
        await peers.carried_out.acquire()
        waiting.append((reader, writer))
        _, sixth, answer = await say_hello(own, address, kind="question")
        assert (answer.error, "try again" in answer.message) == ("unavailable", True)
        peers.may_read.set()
        for reader, writer in waiting:
            assert await reader.readexactly(6) == frame({})
            writer.transport.abort()
        for stream in (silent, sixth):
            stream.transport.abort()


def test_what_nobody_expects_of_a_stranger_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    class Surprised(Listening):
        def greet(self, hello: Hello, peer: Peer) -> Reply:
            raise RuntimeError(f"secret {hello} {peer}")

    @runs_on_uvloop
    async def greet_again() -> None:
        async with running(Surprised()) as (_, own), member() as (_, address):
            for _ in range(3):
                with pytest.raises(asyncio.IncompleteReadError):
                    await say_hello(own, address)

    greet_again()
    assert caplog.text.count("stream ended unexpectedly peer=127.0.0.1 type=RuntimeError") == 1
    assert "secret" not in caplog.text


@runs_on_uvloop
async def test_second_server_with_one_identity_is_refused_while_the_first_lives() -> None:
    async with running(Listening()) as (_, own), member() as (_, address):
        reader, writer, _ = await say_hello(own, address, run=1)
        for kind in ("messages", "pages", "question"):
            _, other, answer = await say_hello(own, address, run=2, kind=kind)
            assert answer.error == "twin"
            other.transport.abort()
        writer.transport.abort()
        assert await reader.read() == b""
        while answer.error:
            _, other, answer = await say_hello(own, address, run=2)
            other.transport.abort()


def test_server_with_the_identity_of_another_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qed.server.link._TWIN_S", 0.2)

    @runs_on_uvloop
    async def meet_the_other() -> None:
        first, second, third = Listening(), Listening(), Listening()
        async with (
            running(third, OTHER) as (_, address),
            running(first, OWN, run=1) as (one, _),
            running(second, OWN, run=2) as (two, _),
        ):
            one.set_members({OTHER: Contact("other", address)}, ())
            one.send([(OTHER, b"first")])
            assert await third.received.get() == b"first"
            two.set_members({OTHER: Contact("other", address)}, ())
            two.send([(OTHER, b"second")])
            assert "another server with the identity of this member" in await second.reasons_to_stop.get()
            assert first.reasons_to_stop.empty()
            assert third.received.empty()

    meet_the_other()
