"""TLS handshakes that do not end: they are counted as connections, give way, and have a time limit."""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import pytest

from commands import qed
from harness.process import COMMAND
from harness.wait import LIMIT_S, wait_until
from secure_server import Secure, authority, of_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("many_files")

DESCRIPTORS: Final = 1024
"""What the shell gives a process by default on most systems."""
ROOM: Final = 512
"""The client connections of a server with so many file descriptors."""
MANAGEMENT_ROOM: Final = 128
SILENT: Final = 1300

RUN_LIMITED: Final = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS}))
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Secure]:
    found = Secure(tmp_path, command=(sys.executable, "-c", RUN_LIMITED, COMMAND))
    yield found
    found.server.forget()


def address_of(secure: Secure, service: str) -> tuple[str, int]:
    host, _, port = secure.server.address(service).rpartition(":")
    return host, int(port)


def first_message() -> bytes:
    """Return the ClientHello of a client."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def hold(stack: contextlib.ExitStack, address: tuple[str, int], count: int, first: bytes = b"") -> None:
    """Open many connections that send no more than `first`."""
    for _ in range(count):
        peer = stack.enter_context(socket.create_connection(address, LIMIT_S))
        with contextlib.suppress(ConnectionError):
            peer.sendall(first)


def open_files(secure: Secure) -> int:
    return len(list(Path(f"/proc/{secure.server.process.pid}/fd").iterdir()))


@pytest.mark.parametrize("sends", ["nothing", "half a message", "half a handshake"])
def test_unfinished_handshakes_keep_nobody_out(limited: Secure, sockets: contextlib.ExitStack, sends: str) -> None:
    key = limited.key_for("append")
    message = first_message()
    first = {"nothing": b"", "half a message": message[: len(message) // 2], "half a handshake": message}[sends]
    files = open_files(limited)
    for _ in range(4):
        hold(sockets, address_of(limited, "http"), SILENT // 4, first)
        added = qed("add", "--event", "e", *limited.at, "--api-key", key)
        assert added.returncode == 0, added.stderr
        assert open_files(limited) <= files + ROOM + 8
    assert "file descriptors run out" not in limited.server.stderr
    assert limited.server.is_running


def test_many_handshakes_at_once_leave_the_store_its_files(limited: Secure, sockets: contextlib.ExitStack) -> None:
    key = limited.key_for("append")
    limited.server.pause()
    hold(sockets, address_of(limited, "http"), SILENT)
    limited.server.resume()
    added = qed("add", "--event", "e", *limited.at, "--api-key", key)
    assert added.returncode == 0, added.stderr
    assert "file descriptors run out" not in limited.server.stderr


def test_unfinished_handshakes_do_not_lock_operators_out(limited: Secure, sockets: contextlib.ExitStack) -> None:
    key = limited.key_for("operate")
    files = open_files(limited)
    hold(sockets, address_of(limited, "mgmt"), 10 * MANAGEMENT_ROOM)
    for _ in range(3):
        listed = qed("keys", "list", *limited.at, "--api-key", key)
        assert listed.returncode == 0, listed.stderr
    assert open_files(limited) <= files + MANAGEMENT_ROOM + 8


def test_a_handshake_has_a_time_limit(limited: Secure) -> None:
    with socket.create_connection(address_of(limited, "http"), LIMIT_S) as silent:
        assert silent.recv(1) == b""
    wait_until(lambda: limited.status(None, f"{limited.server.url}/healthcheck") == 204, "another client's answer")


def test_a_stop_does_not_wait_for_handshakes(tmp_path: Path, sockets: contextlib.ExitStack) -> None:
    secure = Secure(tmp_path, "--shutdown-grace-s", "4")
    try:
        hold(sockets, address_of(secure, "http"), 3)
        hold(sockets, address_of(secure, "mgmt"), 3, first_message())
        assert secure.status(None, f"{secure.server.url}/healthcheck") == 204
        assert secure.server.stop() == 0
        assert "level=error" not in secure.server.stderr
    finally:
        secure.server.forget()


def test_a_handshake_does_not_outlive_the_authority_of_its_client(tmp_path: Path) -> None:
    secure = Secure(tmp_path)
    try:
        context = ssl.create_default_context(cafile=secure.ca_file)
        context.load_cert_chain(*of_client(tmp_path, "old", secure.clients, "observe"))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        with socket.create_connection(address_of(secure, "mgmt"), LIMIT_S) as stream:
            # The server has chosen its settings once it answers; the client has not yet shown its certificate.
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
            stream.sendall(outgoing.read())
            incoming.write(stream.recv(1))
            secure.replace_clients()
            with pytest.raises((ConnectionError, EOFError)):
                finish(client, incoming, outgoing, stream)
        new = of_client(tmp_path, "new", secure.clients, "observe")
        assert secure.status(new, f"{secure.management}/cluster") == 200
        with pytest.raises(httpx.TransportError):
            secure.status(of_client(tmp_path, "late", authority(), "observe"), f"{secure.management}/cluster")
    finally:
        secure.server.forget()


def finish(client: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, stream: socket.socket) -> None:
    """End a handshake and send a request, until an answer arrives.

    Raises:
        EOFError: The server closed the connection.
    """

    def until_done(step: Callable[[], object]) -> None:
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                step()
                return
            data = stream.recv(65536)
            if not data:
                raise EOFError
            incoming.write(data)

    until_done(client.do_handshake)
    client.write(b"GET /cluster HTTP/1.1\r\nHost: x\r\n\r\n")
    stream.sendall(outgoing.read())
    until_done(lambda: client.read(1))


def test_a_server_without_descriptors_accepts_again_once_it_has_some(tmp_path: Path) -> None:
    secure = Secure(tmp_path)
    try:
        limit = open_files(secure) + 4
        resource.prlimit(secure.server.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        with contextlib.ExitStack() as sockets:
            hold(sockets, address_of(secure, "http"), 30)
            said = "event=\"connection not accepted\" reason='Too many open files'"
            wait_until(lambda: said in secure.server.stderr, "the line in the server's log")
        assert secure.status(None, f"{secure.server.url}/healthcheck") == 204
        assert secure.server.stderr.count("connection not accepted") == 1
        assert secure.server.stop() == 0
    finally:
        secure.server.forget()
