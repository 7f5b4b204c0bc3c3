"""Clients that hold connections, requests or answers without using them take the service from nobody else."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
from typing import TYPE_CHECKING, Final

import httpx
import pytest

from commands import qed
from harness.wait import LIMIT_S
from plain_http import (
    ANSWER_BYTES,
    connect,
    connect_narrowly,
    head,
    large_bulk,
    read_answer,
    read_answer_within,
    read_to_the_end,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import StartServer
    from harness.process import Server

pytestmark = pytest.mark.usefixtures("many_files")

DEFAULT_ROOM: Final = 2048
MANAGEMENT_ROOM: Final = 128
ADD: Final = json.dumps({"Event": base64.b64encode(b"an event").decode()}).encode()
ELSEWHERE: Final = "127.0.0.2"


def new_key(server: Server, *roles: str, key: str = "") -> str:
    """Make a key through the command line, and return its text."""
    asked = [part for role in roles for part in ("--role", role)]
    done = qed("--json", "keys", "create", *asked, QED_ENDPOINTS=server.url, QED_API_KEY=key)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["Key"])


def add_with(key: str, body: bytes = ADD) -> bytes:
    return head("/events", f"Api-Key: {key}", f"Content-Length: {len(body)}") + body


def unfinished_add(key: str) -> bytes:
    """Return the head of a request to add. The server asks for the body once it has checked the key."""
    return head("/events", f"Api-Key: {key}", f"Content-Length: {len(ADD)}", "Expect: 100-continue")


def is_added(server: Server, key: str = "", source: str = "") -> bool:
    """Add one event on a new connection, as often as other clients let it: once, if they cannot keep it out."""
    with connect(server, source) as peer:
        peer.sendall(add_with(key))
        return read_answer(peer)[0] == 201


def hold(stack: contextlib.ExitStack, count: int, open_one: Callable[[], socket.socket]) -> list[socket.socket]:
    """Return many connections, open until the test ends."""
    return [stack.enter_context(open_one()) for _ in range(count)]


# Connections


@pytest.mark.parametrize("has_key", [True, False], ids=["closed", "open"])
def test_idle_connections_keep_nobody_out(
    start_server: StartServer, tmp_path: Path, sockets: contextlib.ExitStack, *, has_key: bool
) -> None:
    server = start_server(tmp_path)
    key = new_key(server, "append") if has_key else ""
    hold(sockets, DEFAULT_ROOM + 100, lambda: connect(server))
    with httpx.Client(base_url=server.url, headers={"Api-Key": key}, timeout=LIMIT_S) as client:
        for _ in range(20):
            assert is_added(server, key)
            assert client.post("/events", content=ADD).status_code == 201


def test_trickling_heads_keep_nobody_out(
    start_server: StartServer, tmp_path: Path, sockets: contextlib.ExitStack
) -> None:
    server = start_server(tmp_path)
    key = new_key(server, "append")
    peers = hold(sockets, DEFAULT_ROOM, lambda: connect(server))
    for piece in (b"P", b"OST /events HTTP/1.1\r\n", b"Host: x\r\nX"):
        for peer in peers:
            with contextlib.suppress(ConnectionError):
                peer.sendall(piece)
        assert is_added(server, key)


def test_requests_without_a_key_keep_no_key_out(
    start_server: StartServer, tmp_path: Path, sockets: contextlib.ExitStack
) -> None:
    server = start_server(tmp_path, "--max-connections", "40")
    key = new_key(server, "append")
    for _ in range(60):
        (peer,) = hold(sockets, 1, lambda: connect(server))
        peer.sendall(add_with("qed_nobody"))
        assert read_answer(peer)[0] == 401
    assert is_added(server, key)


def test_many_addresses_keep_no_key_out(
    start_server: StartServer, tmp_path: Path, sockets: contextlib.ExitStack
) -> None:
    server = start_server(tmp_path, "--max-connections", "40")
    key = new_key(server, "append")
    kept = hold(sockets, 30, lambda: connect(server))
    for peer in kept:
        peer.sendall(add_with(key))
        assert read_answer(peer)[0] == 201
    for number in range(2, 82):
        hold(sockets, 1, lambda number=number: connect(server, f"127.0.0.{number}"))  # type: ignore[misc]  # a default
    for peer in kept:
        peer.sendall(add_with(key))
        assert read_answer(peer)[0] == 201


def test_new_clients_have_time_to_show_their_key(
    start_server: StartServer, tmp_path: Path, sockets: contextlib.ExitStack
) -> None:
    server = start_server(tmp_path, "--max-connections", "16")
    greedy = new_key(server, "append", "operate")
    modest = new_key(server, "append", key=greedy)
    for peer in hold(sockets, 16, lambda: connect(server)):
        stall_with(peer, greedy, "idle")
    first, second = hold(sockets, 2, lambda: connect(server))
    for peer in (second, first):
        peer.sendall(add_with(modest))
        assert read_answer(peer)[0] == 201


@pytest.mark.parametrize("stall", ["idle", "body", "pipelined body", "answer"])
def test_a_key_keeps_no_other_key_out(
    start_server: StartServer, tmp_path: Path, sockets: contextlib.ExitStack, stall: str
) -> None:
    server = start_server(tmp_path, "--max-connections", "8")
    greedy = new_key(server, "append", "operate")
    modest = new_key(server, "append", key=greedy)
    for peer in hold(sockets, 8, lambda: connect_narrowly(server)):
        stall_with(peer, greedy, stall)
    assert is_added(server, modest)


@pytest.mark.parametrize("stall", ["idle", "body"])
def test_an_address_keeps_no_other_address_out_of_an_open_server(
    start_server: StartServer, tmp_path: Path, sockets: contextlib.ExitStack, stall: str
) -> None:
    server = start_server(tmp_path, "--max-connections", "20")
    for peer in hold(sockets, 20, lambda: connect(server, ELSEWHERE)):
        stall_with(peer, "none", stall)
    assert is_added(server)


def stall_with(peer: socket.socket, key: str, stall: str) -> None:
    """Have a connection admitted with a key, then let the server wait."""
    unfinished = unfinished_add(key)
    if stall == "answer":
        peer.sendall(large_bulk(f"Api-Key: {key}"))
        assert peer.recv(1) == b"H"
    elif stall == "body":
        peer.sendall(unfinished)
        assert peer.recv(1024).startswith(b"HTTP/1.1 100 ")
        peer.sendall(b"{")
    else:
        peer.sendall(add_with(key) + (unfinished + b"{" if stall == "pipelined body" else b""))
        assert read_answer(peer)[0] == 201


def test_what_gives_way_is_told_that_nothing_was_added(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path, "--max-connections", "2")
    with connect(server, ELSEWHERE) as first, connect(server, ELSEWHERE) as other:
        for peer in (first, other):
            peer.sendall(unfinished_add(""))
            assert peer.recv(1024).startswith(b"HTTP/1.1 100 ")
            peer.sendall(ADD[:-1])
        with connect(server) as third:
            third.sendall(add_with(""))
            assert json.loads(read_answer(third)[2])["Version"] == 0
        status, headers, body = read_answer(first)
        assert (status, json.loads(body)["error"]) == (503, "unavailable")
        assert headers["retry-after"] == "1"
        assert first.recv(1) == b""
    assert 'event="connection closed to make room"' in server.stderr


# Operators


@pytest.mark.parametrize("asks", [False, True], ids=["idle", "after a request"])
def test_idle_connections_do_not_lock_operators_out(
    start_server: StartServer, tmp_path: Path, sockets: contextlib.ExitStack, *, asks: bool
) -> None:
    server = start_server(tmp_path)
    host, _, port = server.info().mgmt_addr.rpartition(":")
    key = new_key(server, "operate")
    for _ in range(MANAGEMENT_ROOM + 8):
        (peer,) = hold(sockets, 1, lambda: socket.create_connection((host, int(port)), timeout=LIMIT_S))
        if asks:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_answer(peer)[0] == 200
    for _ in range(3):
        done = qed("keys", "list", QED_ENDPOINTS=server.url, QED_API_KEY=key)
        assert done.returncode == 0, done.stderr


# Unfinished requests and unread answers


def test_unfinished_bodies_of_one_key_leave_room_for_those_of_others(
    start_server: StartServer, tmp_path: Path, sockets: contextlib.ExitStack
) -> None:
    server = start_server(tmp_path, "--max-body-bytes", "1000000", "--max-buffered-bytes", "1000000")
    greedy = new_key(server, "append", "operate")
    modest = new_key(server, "append", key=greedy)
    held = hold(sockets, 3, lambda: connect(server))
    for peer in held:
        peer.sendall(head("/events", f"Api-Key: {greedy}", "Content-Length: 900000") + b" " * 300_000)
    with connect(server) as peer:
        body = ADD + b" " * 500_000
        peer.sendall(add_with(modest, body)[: -len(ADD)])
        refused = [answer for other in held if (answer := read_answer_within(other, 2.0))]
        assert [status for status, _, _ in refused] == [429] * len(refused)
        assert 0 < len(refused) < len(held)
        peer.sendall(b" " * len(ADD))
        assert read_answer(peer)[0] == 201


def test_unread_answers_of_one_key_close_none_of_another(
    start_server: StartServer, tmp_path: Path, sockets: contextlib.ExitStack
) -> None:
    server = start_server(tmp_path, "--max-unread-bytes", "25000000", "--unread-timeout-s", "3600")
    greedy = new_key(server, "append", "operate")
    modest = new_key(server, "append", key=greedy)
    slow = sockets.enter_context(connect_narrowly(server))
    slow.sendall(large_bulk(f"Api-Key: {modest}"))
    assert slow.recv(1) == b"H"
    held = hold(sockets, 4, lambda: connect_narrowly(server))
    for peer in held:
        peer.sendall(large_bulk(f"Api-Key: {greedy}"))
        assert peer.recv(1) == b"H"
    assert len(read_answer(slow, b"H")[2]) > ANSWER_BYTES
    assert len(read_to_the_end(held[0])) < ANSWER_BYTES
