"""Streams of both clients: what they return is in the log, and when they end early, their numbers are exact."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest

import qed
from both_clients import open_sockets
from harness.cluster import new_cluster
from harness.wait import LIMIT_S, wait_until
from qed._client import async_streaming, streaming
from secure_server import Secure
from streams import digest_of, versions_of
from test_rates import new_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from conftest import StartServer
    from harness.cluster import Cluster
    from harness.process import Server

NEVER: Final = qed.proofs.Digest(bytes(32))


class Stream(Protocol):
    """Adds events by the stream of one of the clients, and calls back with what arrives together."""

    def __call__(
        self,
        urls: str | list[str],
        events: Iterable[bytes | qed.Digest],
        heed: Callable[[list[qed.Snapshot]], object] = ...,
        *,
        if_absent: bool = ...,
        **settings: Any,  # noqa: ANN401  # as Client's own
    ) -> list[qed.Snapshot]: ...


@pytest.fixture(params=["Client", "AsyncClient"])
def stream(request: pytest.FixtureRequest) -> Stream:
    def by_client(
        urls: str | list[str],
        events: Iterable[bytes | qed.Digest],
        heed: Callable[[list[qed.Snapshot]], object] = len,
        *,
        if_absent: bool = False,
        **settings: Any,  # noqa: ANN401  # as Client's own
    ) -> list[qed.Snapshot]:
        found: list[qed.Snapshot] = []
        with qed.Client(urls, **settings) as client:
            for snapshots in client.add_stream(events, if_absent=if_absent):
                found += snapshots
                heed(snapshots)
        return found

    def by_async_client(
        urls: str | list[str],
        events: Iterable[bytes | qed.Digest],
        heed: Callable[[list[qed.Snapshot]], object] = len,
        *,
        if_absent: bool = False,
        **settings: Any,  # noqa: ANN401  # as Client's own
    ) -> list[qed.Snapshot]:
        async def run() -> list[qed.Snapshot]:
            found: list[qed.Snapshot] = []
            async with qed.AsyncClient(urls, **settings) as client:
                async for snapshots in client.add_stream(_in_turns(events), if_absent=if_absent):
                    found += snapshots
                    heed(snapshots)
            return found

        return asyncio.run(run())

    return by_client if request.param == "Client" else by_async_client


async def _in_turns(events: Iterable[bytes | qed.Digest]) -> AsyncIterator[bytes | qed.Digest]:
    """Yield events that may block, without blocking others."""
    waiting = iter(events)
    while (event := await asyncio.to_thread(next, waiting, NEVER)) != NEVER:
        yield event


@pytest.fixture(scope="module")
def server(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    return start_server(tmp_path_factory.mktemp("streams"))


def assert_of(snapshots: list[qed.Snapshot], events: list[bytes]) -> None:
    assert [snapshot.event_digest for snapshot in snapshots] == [qed.Digest.of(event) for event in events]
    versions = [snapshot.version for snapshot in snapshots]
    assert versions == sorted(set(versions))


def test_events_are_acknowledged_in_order(server: Server, stream: Stream) -> None:
    events = [b"in order %d" % number for number in range(1500)]
    snapshots = stream(server.url, events)
    assert_of(snapshots, events)
    assert versions_of(server, events[700]) == snapshots[700].version


def test_more_events_than_are_sent_ahead(server: Server) -> None:
    events = [b"many %d" % number for number in range(50_000)]
    with qed.Client(server.url) as client:
        assert_of(list(itertools.chain(*client.add_stream(events))), events)


async def test_more_events_than_are_sent_ahead_from_an_iterable(server: Server) -> None:
    events = [b"many more %d" % number for number in range(50_000)]
    found: list[qed.Snapshot] = []
    async with qed.AsyncClient(server.url) as client:
        async for snapshots in client.add_stream(events):
            found += snapshots
    assert_of(found, events)


def test_no_event_is_nothing(server: Server, stream: Stream) -> None:
    assert stream(server.url, []) == []


@pytest.mark.parametrize("send", ["event", "digest"])
def test_events_and_digests_are_sent(server: Server, stream: Stream, send: str) -> None:
    events: list[bytes | qed.Digest] = [b"", qed.Digest.of(b"a digest"), b"x" * 5_000_000, b"as %b" % send.encode()]
    snapshots = stream(server.url, events, send=send)
    assert [snapshot.event_digest for snapshot in snapshots] == [qed.proofs.digest_of(event) for event in events]


def test_an_event_is_acknowledged_while_the_next_is_awaited(server: Server, stream: Stream) -> None:
    seen = threading.Semaphore(0)

    def events() -> Iterator[bytes]:
        for number in range(5):
            yield b"one by one %d" % number
            # If its receipt came only with the next event, this would wait too long.
            assert seen.acquire(timeout=LIMIT_S)

    assert len(stream(server.url, events(), lambda _: seen.release())) == 5


def test_an_idle_stream_begins_again(server: Server, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "IDLE_S", 0.05)
    monkeypatch.setattr(async_streaming, "IDLE_S", 0.05)

    def events() -> Iterator[bytes]:
        for number in range(3):
            time.sleep(0.2)
            yield b"after a pause %d" % number

    assert_of(stream(server.url, events()), [b"after a pause %d" % number for number in range(3)])


def test_what_the_events_raise_is_raised_behind_the_last_receipt(server: Server, stream: Stream) -> None:
    def events() -> Iterator[bytes]:
        yield b"before the error"
        raise LookupError("the caller's own")

    heeded: list[qed.Snapshot] = []
    with pytest.raises(LookupError, match="own"):
        stream(server.url, events(), heeded.extend)
    assert_of(heeded, [b"before the error"])


def test_a_stream_that_is_left_closes_its_connection(server: Server) -> None:
    before = open_sockets()
    with qed.Client(server.url) as client:
        for snapshots in client.add_stream(b"left %d" % number for number in itertools.count()):
            assert snapshots
            break
    wait_until(lambda: open_sockets() <= before, "the connection to be closed")
    wait_until(lambda: all(thread.name != "qed-feeder" for thread in threading.enumerate()), "the thread to end")


def test_receipts_can_be_kept_while_a_stream_goes_on(server: Server, tmp_path: Path) -> None:
    events = [b"kept %d" % number for number in range(300)]
    with qed.Client(server.url) as client, qed.Receipts.open(tmp_path / "receipts.jsonl") as receipts:
        for snapshots in client.add_stream(events):
            client.keep(receipts, snapshots)
        assert isinstance(client.verify(qed.Membership(events[150]), receipts), qed.Present)


def test_receipts_are_asked_for(server: Server) -> None:
    with qed.Client(server.url) as client:
        (first,) = client.acknowledge_stream([b"unsigned"])
        (again,) = client.acknowledge_stream([b"unsigned"], if_absent=True)
    assert first.receipt is None
    assert "not signed" in (first.reason or "")
    assert (again.snapshots, again.receipt, again.reason) == (first.snapshots, None, None)


def test_a_stream_over_tls_with_a_key(tmp_path: Path, stream: Stream) -> None:
    secure = Secure(tmp_path)
    try:
        events, key = [b"over tls %d" % number for number in range(2000)], secure.key_for("append")
        assert_of(stream(secure.server.url, events, ca=secure.ca_file, api_key=key), events)
        with pytest.raises(qed.AccessRefused):
            stream(secure.server.url, events, ca=secure.ca_file)
    finally:
        secure.server.forget()


def test_a_stream_waits_for_the_rate_of_its_key(start_server: StartServer, tmp_path: Path, stream: Stream) -> None:
    closed = start_server(tmp_path)
    key = new_key(closed, "--role", "append", "--events-per-s", "200", key=new_key(closed, "--role", "operate"))
    begun_s = time.monotonic()
    assert len(stream(closed.url, [b"%d" % number for number in range(500)], api_key=key)) == 500
    assert time.monotonic() - begun_s > 1.2


def test_a_server_that_does_not_answer_leaves_an_exact_number_open(
    start_server: StartServer, tmp_path: Path, stream: Stream
) -> None:
    paused = start_server(tmp_path)

    def events() -> Iterator[bytes]:
        yield b"before"
        assert seen.acquire(timeout=LIMIT_S)
        paused.pause()
        yield b"while paused"

    seen = threading.Semaphore(0)
    try:
        with pytest.raises(qed.StreamBroken, match="no snapshot within") as broken:
            stream(paused.url, events(), lambda _: seen.release(), timeout_s=0.5)
    finally:
        paused.resume()
    assert (broken.value.acknowledged, broken.value.unknown, broken.value.rest) == (1, 1, 0)
    assert isinstance(broken.value.__cause__, qed.Unavailable)


def test_a_caller_may_take_its_time(start_server: StartServer, tmp_path: Path, stream: Stream) -> None:
    hasty = start_server(tmp_path, "--unread-timeout-s", "0.3")
    events = [b"%d" % number for number in range(3000)]
    pauses = iter([1.0])
    assert_of(stream(hasty.url, events, lambda _: time.sleep(next(pauses, 0.0))), events)


# A cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = new_cluster(tmp_path, 3)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.forget()


class Pacer:
    """Events at about 2,000 a second; calls `strike` once some are acknowledged."""

    def __init__(self, count: int, strike: Callable[[], object]) -> None:
        self.events = [b"paced %d" % number for number in range(count)]
        self.snapshots: list[qed.Snapshot] = []
        self._strike: Callable[[], object] | None = strike

    def __iter__(self) -> Iterator[bytes]:
        for number, event in enumerate(self.events):
            if number % 20 == 0:
                time.sleep(0.01)
            yield event

    def heed(self, snapshots: list[qed.Snapshot]) -> None:
        self.snapshots += snapshots
        if len(self.snapshots) > len(self.events) // 3 and self._strike is not None:
            strike, self._strike = self._strike, None
            strike()


def present(cluster: Cluster, events: list[bytes]) -> list[int | None]:
    """Return the newest version of each event, or None if it is not in the log."""
    with qed.Client(cluster.leader().url) as client:
        answers = [client.membership(event, consistency="linearizable") for event in events]
    return [answer.actual_version if isinstance(answer, qed.MembershipProof) else None for answer in answers]


def test_a_killed_leader_leaves_exact_numbers(cluster: Cluster, stream: Stream) -> None:
    leader = cluster.leader()
    pacer = Pacer(3000, leader.kill)
    try:
        stream(cluster.urls, pacer, pacer.heed)
        acknowledged, unknown, rest = len(pacer.events), 0, 0
    except qed.StreamBroken as exc:
        acknowledged, unknown, rest = exc.acknowledged, exc.unknown, exc.rest
    assert acknowledged + unknown + rest <= len(pacer.events)
    assert acknowledged == len(pacer.snapshots) >= 1000
    versions = present(cluster, pacer.events)
    assert versions[:acknowledged] == [snapshot.version for snapshot in pacer.snapshots]
    assert versions[acknowledged + unknown :] == [None] * (3000 - acknowledged - unknown)


def test_a_killed_leader_does_not_end_a_stream_with_if_absent(cluster: Cluster, stream: Stream) -> None:
    leader = cluster.leader()
    pacer = Pacer(3000, leader.kill)
    assert_of(stream(cluster.urls, pacer, pacer.heed, if_absent=True), pacer.events)
    assert present(cluster, pacer.events) == [snapshot.version for snapshot in pacer.snapshots]
    assert cluster.leader().count() == 3000


def test_a_stopped_leader_does_not_end_a_stream(cluster: Cluster, stream: Stream) -> None:
    leader = cluster.leader()
    pacer = Pacer(3000, leader.process.terminate)
    assert_of(stream(cluster.urls, pacer, pacer.heed), pacer.events)
    assert leader.wait() == 0
    assert cluster.leader().count() == 3000


def test_a_follower_leads_to_the_leader(cluster: Cluster, stream: Stream) -> None:
    events = [b"by a follower %d" % number for number in range(100)]
    assert_of(stream(cluster.follower().url, events, trust_members=True), events)


# Servers that do not do as they should


@contextmanager
def scripted(*answers: bytes, events: Sequence[int] = (2,)) -> Iterator[str]:
    """Run a server that gives each answer on the next connection, once that many events have arrived on it."""

    def serve() -> None:
        waiting, counts = list(answers), list(events)
        while waiting:
            peer, _ = listener.accept()
            with peer:
                received = b""
                while b"\r\n\r\n" not in received:
                    received += peer.recv(65536)
                if received.startswith(b"GET "):
                    peer.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
                    continue
                head, end, rest = waiting.pop(0).partition(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 200"):
                    peer.sendall(head + end + rest)
                    continue
                peer.sendall(head + end)
                # Nothing is sent before the server has said that it accepts a stream.
                received, count = b"", counts.pop(0)
                while received.count(b"EventDigest") < count:
                    received += peer.recv(65536)
                peer.sendall(rest)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def answer_of(*lines: object, is_whole: bool = True) -> bytes:
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n" % (len(body), body) + (b"0\r\n\r\n" if is_whole else b"")


def snapshot(event: bytes, version: int) -> dict[str, object]:
    root = digest_of(b"some root")
    return {"EventDigest": digest_of(event), "HistoryDigest": root, "HyperDigest": root, "Version": version}


def test_an_older_server_has_no_streams(stream: Stream) -> None:
    body = b'{"error":"not_found","message":"there is no such path"}'
    refusal = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    events = iter([b"a"])
    with scripted(refusal) as url, pytest.raises(qed.MalformedRequest) as refused:
        stream(url, events)
    assert refused.value.status == 404
    assert next(events) == b"a"


@pytest.mark.parametrize(
    "lines",
    [
        [snapshot(b"b", 0)],
        [snapshot(b"a", 1), snapshot(b"b", 1), {"Done": 2}],
        [snapshot(b"a", 1), snapshot(b"b", 0), {"Done": 2}],
    ],
)
def test_a_snapshot_that_is_not_of_the_event_is_refused(stream: Stream, lines: list[object]) -> None:
    with scripted(answer_of(*lines)) as url, pytest.raises(qed.VerificationError):
        stream(url, [b"a", b"b"])


@pytest.mark.parametrize(
    "lines",
    [
        [{"Done": 2}],
        [snapshot(b"a", 0), {"Done": 1}],
        [snapshot(b"a", 0), snapshot(b"b", 1), {"Done": 3}],
        [snapshot(b"a", 0), snapshot(b"b", 1), snapshot(b"c", 2), {"Done": 3}],
        [snapshot(b"a", 0), snapshot(b"b", 1), {"Done": 2}, {"Done": 2}],
        [snapshot(b"a", 0), {"error": "unavailable", "message": "", "Acknowledged": 2, "Unknown": 0}],
        [{"EventDigest": 7}],
        [[]],
        ["text"],
        [{}],
        [{"Done": -1}],
    ],
)
def test_a_line_outside_the_protocol_is_refused(stream: Stream, lines: list[object]) -> None:
    with scripted(answer_of(*lines)) as url, pytest.raises(qed.ProtocolError):
        stream(url, [b"a", b"b"])


@pytest.mark.parametrize("lines", [[], [snapshot(b"a", 0)], [snapshot(b"a", 0), snapshot(b"b", 1)]])
@pytest.mark.parametrize("is_whole", [True, False])
def test_an_answer_without_its_last_line_is_not_complete(
    stream: Stream, lines: list[object], *, is_whole: bool
) -> None:
    with scripted(answer_of(*lines, is_whole=is_whole), events=[3]) as url, pytest.raises(qed.StreamBroken) as broken:
        stream(url, [b"a", b"b", b"c"], timeout_s=5)
    assert (broken.value.acknowledged, broken.value.unknown, broken.value.rest) == (len(lines), 3 - len(lines), 0)


def test_what_was_certainly_not_added_is_sent_again(stream: Stream) -> None:
    error = {"error": "no_leader", "message": "", "Acknowledged": 1, "Unknown": 0}
    answers = answer_of(snapshot(b"a", 0), error), answer_of(snapshot(b"b", 1), {"Done": 1})
    with scripted(*answers, events=[2, 1]) as url:
        assert_of(stream(url, [b"a", b"b"]), [b"a", b"b"])


def test_what_may_have_been_added_is_not_sent_again(stream: Stream) -> None:
    error = {"error": "outcome_unknown", "message": "who knows", "Acknowledged": 1, "Unknown": 1}
    with (
        scripted(answer_of(snapshot(b"a", 0), error), events=[3]) as url,
        pytest.raises(qed.StreamBroken, match="who") as broken,
    ):
        stream(url, [b"a", b"b", b"c"])
    assert (broken.value.acknowledged, broken.value.unknown, broken.value.rest) == (1, 1, 1)
    assert isinstance(broken.value.__cause__, qed.OutcomeUnknown)


def test_an_answer_that_is_not_http_is_a_failure(stream: Stream) -> None:
    with scripted(b"nonsense\r\n\r\n") as url, pytest.raises(qed.Unavailable):
        stream(url, [b"a"], attempts=1)


def test_a_log_that_does_not_grow_is_noticed(stream: Stream, server: Server, tmp_path: Path) -> None:
    del stream
    with qed.Client(server.url) as client, qed.Receipts.open(tmp_path / "receipts.jsonl") as receipts:
        newest = client.add(b"the newest")
        client.keep(receipts, newest)
        old = {"EventDigest": digest_of(b"old"), "Version": newest.version}
        with scripted(answer_of(snapshot(b"old", 0) | old, {"Done": 1}), events=[1]) as url, qed.Client(url) as lied_to:
            lied_to._growth = client._growth
            with pytest.raises(qed.VerificationError, match="had before"):
                list(lied_to.add_stream([b"old"]))
