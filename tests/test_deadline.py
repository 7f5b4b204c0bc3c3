"""The deadline of a thread's connections, on a clock that the connection itself advances."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import httpcore
import pytest

from qed._client.deadline import DeadlineBackend, deadline
from qed._client.sockets import Sockets

MEGABYTE = bytes(1 << 20)


class Slow(httpcore.NetworkStream):
    """A connection on which every read and write takes a second; it remembers the time-out of each."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.allowed_s: list[float | None] = []
        self.written_bytes = 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self.allowed_s.append(timeout)
        self.now_s += 1
        return bytes(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.read(0, timeout)
        self.written_bytes += len(buffer)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    slow = Slow()
    monkeypatch.setattr("qed._client.deadline.time", SimpleNamespace(monotonic=lambda: slow.now_s))
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", lambda *_: slow)
    return slow


@pytest.fixture
def stream(slow: Slow) -> httpcore.NetworkStream:
    assert slow.allowed_s == []
    return DeadlineBackend(Sockets()).connect_tcp("127.0.0.1", 1)


def test_each_wait_is_what_is_left_at_most(slow: Slow, stream: httpcore.NetworkStream) -> None:
    with deadline(5):
        for _ in range(5):
            stream.read(1, 3)
        with pytest.raises(httpcore.ReadTimeout):
            stream.read(1, 3)
    assert slow.allowed_s == [3, 3, 3, 2, 1]


def test_a_long_write_meets_the_deadline_on_its_way(slow: Slow, stream: httpcore.NetworkStream) -> None:
    with deadline(5), pytest.raises(httpcore.WriteTimeout):
        stream.write(MEGABYTE)
    assert 0 < slow.written_bytes < len(MEGABYTE)
    assert slow.allowed_s == [5, 4, 3, 2, 1]


def test_a_write_within_the_deadline_is_whole(slow: Slow, stream: httpcore.NetworkStream) -> None:
    with deadline(1000):
        stream.write(MEGABYTE + b"x")
    assert slow.written_bytes == len(MEGABYTE) + 1


@pytest.mark.parametrize("timeout_s", [None, 3.0])
def test_without_a_deadline_nothing_changes(
    slow: Slow, stream: httpcore.NetworkStream, timeout_s: float | None
) -> None:
    with deadline(1):
        pass
    stream.read(1, timeout_s)
    assert slow.allowed_s == [timeout_s]


def test_no_connection_is_made_past_the_deadline(slow: Slow) -> None:
    with deadline(5):
        DeadlineBackend(Sockets()).connect_tcp("127.0.0.1", 1)
        slow.now_s += 5
        with pytest.raises(httpcore.ConnectTimeout):
            DeadlineBackend(Sockets()).connect_tcp("127.0.0.1", 1)


def resolve_to(addresses: list[str], port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the name `host` resolve to these addresses."""
    resolve = socket.getaddrinfo
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    def answer(host: str, *args: int, **named: int) -> object:
        return found if host == "host" else resolve(host, *args, **named)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def test_a_name_with_several_addresses_gets_no_more_time_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, allowed_s = SimpleNamespace(now_s=100.0), list[float]()

    def hang(connection: socket.socket, _: object) -> None:
        allowed_s.append(connection.gettimeout() or float("inf"))
        clock.now_s += allowed_s[-1]
        raise TimeoutError

    resolve_to(["127.0.0.2", "127.0.0.3", "127.0.0.4"], 1, monkeypatch)
    monkeypatch.setattr(socket.socket, "connect", hang)
    monkeypatch.setattr("qed._client.deadline.time", SimpleNamespace(monotonic=lambda: clock.now_s))
    with deadline(5), pytest.raises(httpcore.ConnectTimeout):
        DeadlineBackend(Sockets()).connect_tcp("host", 1, 3)
    assert len(allowed_s) == 3
    assert sum(allowed_s) == pytest.approx(3)


def test_the_first_address_that_answers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.2", 0)) as listener:
        port = listener.getsockname()[1]
        resolve_to(["127.0.0.3", "127.0.0.2"], port, monkeypatch)
        DeadlineBackend(Sockets()).connect_tcp("host", port, 3).close()


def test_a_name_that_nobody_knows_is_no_connection() -> None:
    with deadline(5), pytest.raises(httpcore.ConnectError):
        DeadlineBackend(Sockets()).connect_tcp("nobody.invalid", 1)
