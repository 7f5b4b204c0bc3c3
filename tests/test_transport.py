"""Streams between members that end, hang or lie at the worst moment."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import struct
import subprocess
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

import msgspec
import pytest
import uvloop

from qed.errors import CorruptLog, QedError
from qed.server import handshake
from qed.server.config import Address, Tls
from qed.server.frames import TransportError
from qed.server.handshake import PROTOCOL, Hello, LeaderRequest, Reply
from qed.server.transport import Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence


OWN, OTHER = 1, 2
LIMIT_S = 20.0
MIB = 1024 * 1024


class Listening:
    """A handler that records its calls, and has one page, which it returns once that is allowed."""

    def __init__(self) -> None:
        self.lost_streams = 0
        self.has_lost = asyncio.Event()
        self.received: asyncio.Queue[bytes] = asyncio.Queue()
        self.is_asked = asyncio.Event()
        self.may_read = asyncio.Event()
        self.refusal = Reply()
        self.why_no_page: QedError | None = None

    def greet(self, _: Hello) -> Reply:
        return self.refusal

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

    async def answer(self, _: LeaderRequest) -> Reply:
        return Reply()

    def removed(self, _: str) -> None: ...


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
async def running(
    peers: Listening, number: int = OWN, tls: Tls | None = None
) -> AsyncIterator[tuple[Transport, Address]]:
    """Yield a transport that accepts streams, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address(*listener.getsockname())

        def hello(receiver: int, kind: str) -> Hello:
            return Hello(PROTOCOL, kind, "c", number, receiver, str(address))  # type: ignore[arg-type]  # from it

        transport = Transport(peers, hello, tls)
        await transport.start(listener)
        try:
            yield transport, address
        finally:
            await transport.close()


@asynccontextmanager
async def member() -> AsyncIterator[tuple[socket.socket, Address]]:
    """Yield a plain socket that listens in place of another member, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener, Address(*listener.getsockname())


def frame(value: object) -> bytes:
    payload = msgspec.json.encode(value)
    return len(payload).to_bytes(4, "big") + payload


async def accept(listener: socket.socket) -> tuple[socket.socket, bytes]:
    """Accept one hello; return the stream, and the hello."""
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(listener)
    hello = await loop.sock_recv(connection, 65536)
    await loop.sock_sendall(connection, frame(Reply()))
    return connection, hello


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


async def say_hello(address: Address, claims: Address | str, **changes: object) -> tuple[asyncio.StreamWriter, Reply]:
    """Send the hello of the other member, with `claims` as its address."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    whole = {"protocol": PROTOCOL, "kind": "messages", "cluster": "c", "sender": OTHER, "receiver": OWN}
    writer.write(frame(whole | {"raft_addr": str(claims)} | changes))
    length = int.from_bytes(await reader.readexactly(4), "big")
    return writer, msgspec.json.decode(await reader.readexactly(length), type=Reply)


@runs_on_uvloop
async def test_message_to_a_stream_that_has_just_ended_is_lost_and_the_next_one_is_dialled() -> None:
    peers = Listening()
    async with running(peers) as (transport, _), member() as (listener, address):
        transport.set_members({OTHER: ("other", address)}, ())

        async def accept_and_reset() -> None:
            connection, _ = await accept(listener)
            await asyncio.get_running_loop().sock_recv(connection, 65536)
            reset(connection)

        for _ in range(3):
            expected = peers.lost_streams + 1
            resetting = asyncio.create_task(accept_and_reset())
            while peers.lost_streams < expected:
                transport.send(OTHER, b"message")
                await asyncio.sleep(0)
            await resetting


@runs_on_uvloop
async def test_member_that_is_back_where_the_cluster_believes_it_is_dialled_there() -> None:
    async with running(Listening()) as (transport, own), member() as (listener, address):
        transport.set_members({OTHER: ("other", address)}, ())
        with closing(socket.create_server(("127.0.0.1", 0))) as elsewhere:
            moved, _ = await say_hello(own, Address(*elsewhere.getsockname()))
        moved.close()
        back, _ = await say_hello(own, address)
        transport.send(OTHER, b"message")
        connection, _ = await accept(listener)
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
        async with running(Listening()) as (transport, own), member() as (listener, address), black_hole() as hole:
            transport.set_members({OTHER: ("other", hole)}, ())
            transport.send(OTHER, b"message")
            writer, _ = await say_hello(own, address)
            connection, _ = await accept(listener)
            connection.close()
            writer.close()

    dial_while_it_hangs()


def test_loss_and_return_of_a_member_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "qed")

    @runs_on_uvloop
    async def lose_and_find() -> None:
        peers = Listening()
        async with running(peers) as (transport, _), member() as (listener, address):
            transport.set_members({OTHER: ("other", address)}, ())
            transport.send(OTHER, b"message")
            connection, _ = await accept(listener)
            await asyncio.get_running_loop().sock_recv(connection, 65536)
            listener.close()
            connection.close()
            for _ in range(3):
                peers.has_lost.clear()
                await peers.has_lost.wait()
            with closing(socket.create_server((address.host, address.port))) as again:
                again.setblocking(False)
                connection, _ = await accept(again)
                transport.send(OTHER, b"message")
                await asyncio.get_running_loop().sock_recv(connection, 65536)
                connection.close()

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
                writer, answer = await say_hello(own, f"nowhere\r\nlevel=error \x1b[2J{number}")
                assert answer.error == "cluster"
                writer.close()

    greet_again_and_again()
    (warning,) = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.isprintable()


@runs_on_uvloop
async def test_later_protocol_is_told_so_whatever_else_its_hello_says() -> None:
    async with running(Listening()) as (_, own):
        for changes in ({"kind": "gossip"}, {"sender": "a name"}):
            writer, answer = await say_hello(own, "nowhere", protocol=PROTOCOL + 1, **changes)
            assert answer.error == "protocol"
            writer.close()


@runs_on_uvloop
async def test_what_a_member_cannot_take_is_dropped_and_reported_lost() -> None:
    peers = Listening()
    async with running(peers) as (transport, _), black_hole() as hole:
        transport.set_members({OTHER: ("other", hole)}, ())
        for _ in range(64):
            transport.send(OTHER, bytes(MIB))
        assert peers.lost_streams == 0
        transport.send(OTHER, b"one too many")
        assert peers.lost_streams == 1


def test_damaged_log_is_reported_where_it_is_damaged(caplog: pytest.LogCaptureFixture) -> None:
    @runs_on_uvloop
    async def fetch_from_a_damaged_log() -> None:
        here, there = Listening(), Listening()
        there.why_no_page = CorruptLog("the stored log is damaged: row 7")
        there.may_read.set()
        async with running(here) as (transport, _), running(there, OTHER) as (_, address):
            transport.set_members({OTHER: ("other", address)}, ())
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
        transport.set_members({OTHER: ("other", address)}, ())
        other.set_members({OWN: ("own", own)}, ())
        pages = []

        async def install(page: bytes) -> bool:
            pages.append(page)
            return True

        fetching = asyncio.create_task(transport.fetch(OTHER, lambda: b"extent", install))
        await there.is_asked.wait()
        transport.send(OTHER, b"heartbeat")
        other.send(OWN, b"answer")
        assert await there.received.get() == b"heartbeat"
        assert await here.received.get() == b"answer"
        assert not pages
        there.may_read.set()
        await fetching
        assert pages == [b"after extent"]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """Return a self-signed certificate for this machine."""
    folder = tmp_path_factory.mktemp("tls")
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("only openssl can make a certificate here")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    name = ("-subj", "/CN=member", "-addext", "subjectAltName=IP:127.0.0.1")
    command = [openssl, "req", "-x509", *kind, *name, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return Tls(certificate=certificate, key=key, ca=certificate)


def test_members_with_certificates_talk(tls: Tls) -> None:
    @runs_on_uvloop
    async def talk() -> None:
        there = Listening()
        async with running(Listening(), OWN, tls) as (transport, _), running(there, OTHER, tls) as (_, address):
            transport.set_members({OTHER: ("other", address)}, ())
            transport.send(OTHER, b"message")
            assert await there.received.get() == b"message"

    talk()


def test_silence_in_place_of_tls_ends_the_stream(tls: Tls) -> None:
    @runs_on_uvloop
    async def say_nothing() -> None:
        async with running(Listening(), OWN, tls) as (_, own):
            reader, writer = await asyncio.open_connection(own.host, own.port)
            assert await reader.read() == b""
            writer.close()

    say_nothing()
