"""Garbage on the port for members, and those who have a certificate but are no members."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import httpx
import pytest

from harness.cluster import Cluster, assert_goes_on, new_cluster
from harness.wait import LIMIT_S
from intruders import KIB, Intruder, assert_closed, cluster_of, frame, number_of, plain
from qed.server.handshake import PROTOCOL
from seeds import SEED, chance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("goes_on")


@pytest.fixture
def insider(cluster: Cluster, tmp_path: Path) -> Intruder:
    """Return somebody who knows the secret, but is no member."""
    secret = cluster.members[0].secret
    assert secret is not None
    return Intruder.with_secret(secret, tmp_path / "insider")


# Malformed frames


def _client_hello() -> bytes:
    """Return the first bytes of TLS."""
    sent, context = ssl.MemoryBIO(), ssl.create_default_context()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="x").do_handshake()
    return sent.read()


GARBAGE = {
    "nothing": b"",
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": _client_hello(),
    "an empty frame": frame(b""),
    "noise": chance(SEED).randbytes(100 * KIB),
    "noise in a frame": frame(chance(SEED).randbytes(1000)),
    "a frame of deep brackets": frame(b"[" * 60_000),
    "a list": frame(b"[]"),
    "a hello without fields": frame(b"{}"),
    "a hello cut within its length": b"\x00\x00",
    "the largest length": b"\xff\xff\xff\xff",
    "a hello above its limit": frame(b" " * (64 * KIB + 1)),
}


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_in_place_of_tls_ends_the_stream(cluster: Cluster, sent: bytes) -> None:
    for member in cluster.members:
        with closing(plain(member)) as peer:
            with suppress(ConnectionResetError, BrokenPipeError):
                peer.sendall(sent)
                peer.shutdown(socket.SHUT_WR)
            assert_closed(peer)


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_for_a_hello_ends_the_stream(cluster: Cluster, insider: Intruder, sent: bytes) -> None:
    with closing(insider.connect(cluster.members[0])) as peer:
        with suppress(ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
            peer.sendall(sent)
            peer.shutdown(socket.SHUT_WR)
        assert_closed(peer)


def test_silence_ends_the_stream(cluster: Cluster, insider: Intruder) -> None:
    with closing(insider.connect(cluster.members[0])) as peer:
        peer.sendall(insider.hello(cluster.members[0])[:50])
        assert_closed(peer)


def test_strangers_in_every_slot_do_not_stop_the_cluster(cluster: Cluster) -> None:
    leader = cluster.leader()
    peers = [plain(leader) for _ in range(300)]
    try:
        for peer in peers:
            with suppress(ConnectionResetError, BrokenPipeError):
                peer.sendall(b"\x16")
        # A member that starts again needs new streams to the others.
        member = cluster.follower()
        assert member.stop() == 0
        member.start()
        cluster.wait_whole()
        # The oldest made room.
        assert_closed(peers[0])
    finally:
        for peer in peers:
            peer.close()


STRANGER = {"error": "stranger", "message": "this key is not that of a member"}


@pytest.mark.parametrize("kind", ["messages", "pages"])
def test_who_is_no_member_may_neither_send_messages_nor_read_pages(
    cluster: Cluster, insider: Intruder, kind: str
) -> None:
    target, other = cluster.members[:2]
    for sender in (insider.number, number_of(other), number_of(target)):
        peer, answer = insider.greet(target, kind=kind, sender=sender)
        with peer:
            assert answer == STRANGER
            assert_closed(peer)


def test_who_is_no_member_may_not_change_the_cluster(cluster: Cluster, insider: Intruder) -> None:
    leader = cluster.leader()
    wishes: list[dict[str, object]] = [
        {"wish": "transfer"},
        {"wish": "introduce"},
        {"wish": "uses"},
        {"wish": "record", "act": "e30="},
    ]
    wishes += [{"wish": "remove", "name": member.name} for member in cluster.members]
    for wish in [*wishes, *({**wish, "is_passed_on": True} for wish in wishes)]:
        for member in cluster.members:
            assert insider.ask(member, wish) == STRANGER
            assert insider.ask(member, wish, sender=number_of(cluster.others(member)[0])) == STRANGER
    assert cluster.leader() is leader


def test_admission_that_is_too_long_to_record_is_refused(cluster: Cluster, insider: Intruder) -> None:
    answer = insider.ask(cluster.leader(), insider.admission("newcomer", http_addr="a" * 40_000 + ":1"))
    assert answer["error"] == "refused"
    assert "expected an act of at most 32768 bytes" in answer["message"]


def test_nobody_is_admitted_by_somebody_else(cluster: Cluster, insider: Intruder) -> None:
    for changes in ({"id": 4711}, {"id": number_of(cluster.members[0])}, {"id": 4711, "is_passed_on": True}):
        answer = insider.ask(cluster.leader(), insider.admission("stranger", **changes))
        assert answer == {"error": "refused", "message": "a member can only ask for its own admission"}
    # A key in the request is not believed, so nobody can be admitted with the key of another.
    taken = insider.ask(cluster.leader(), insider.admission("stranger", id=number_of(cluster.members[0])), sender=1)
    assert taken["error"] == "refused"


def test_stranger_learns_neither_the_cluster_nor_a_number(cluster: Cluster, insider: Intruder) -> None:
    for member in cluster.members:
        secrets = {cluster_of(member), *(f"{number_of(other):016x}" for other in cluster.members)}
        answers = [
            insider.greet(member, kind=kind, cluster=claimed, sender=sender, receiver=receiver)
            for kind in ("question", "messages", "pages")
            for claimed in ("", "0" * 32)
            for sender in (77, number_of(cluster.others(member)[0]))
            for receiver in (0, 12345)
        ]
        for peer, answer in answers:
            peer.close()
            assert not any(secret in str(answer) for secret in secrets), answer


def test_address_of_an_impostor_is_not_believed(cluster: Cluster, insider: Intruder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(2.0)
        claimed = f"127.0.0.1:{listener.getsockname()[1]}"
        for member in cluster.members:
            for other in cluster.others(member):
                peer, answer = insider.greet(member, sender=number_of(other), raft_addr=claimed)
                peer.close()
                assert answer == STRANGER
        with pytest.raises(TimeoutError):
            listener.accept()


def test_hello_of_another_cluster_is_refused(cluster: Cluster, insider: Intruder) -> None:
    for member in cluster.members:
        peer, answer = insider.greet(member, cluster="0" * 32)
        with peer:
            assert answer["error"] == "cluster"
            assert_closed(peer)


@pytest.mark.parametrize("change", [-1, 1])
def test_another_protocol_is_refused_with_a_reason(cluster: Cluster, insider: Intruder, change: int) -> None:
    peer, answer = insider.greet(cluster.members[0], protocol=PROTOCOL + change, kind="question", receiver=0)
    with peer:
        assert answer["error"] == "protocol"
        assert f"expected protocol {PROTOCOL}, found {PROTOCOL + change}" in answer["message"]


@pytest.mark.parametrize("changes", [{"raft_addr": "nowhere"}, {"raft_addr": ""}, {"http_addr": "x" * 1000}])
def test_admission_with_malformed_addresses_is_refused(
    cluster: Cluster, insider: Intruder, changes: dict[str, object]
) -> None:
    assert insider.ask(cluster.leader(), insider.admission("stranger", **changes))["error"] == "refused"


def test_admission_without_a_number_is_refused(cluster: Cluster, insider: Intruder) -> None:
    insider.number = 0
    assert insider.ask(cluster.leader(), insider.admission("stranger"))["error"] == "refused"


class Recorder:
    """Forwards all bytes to a member, and records the bytes of each stream."""

    def __init__(self, target: int) -> None:
        self.streams: list[bytearray] = []
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, run: Callable[..., None], *args: object) -> None:
        self._threads.append(threading.Thread(target=run, args=args, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                try:
                    target = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    peer.close()
                    continue
                self.streams.append(bytearray())
                for end, other, kept in ((peer, target, self.streams[-1]), (target, peer, bytearray())):
                    self._start(self._pass_on, end, other, kept)

    @staticmethod
    def _pass_on(end: socket.socket, other: socket.socket, kept: bytearray) -> None:
        with end:
            with suppress(OSError):
                while part := end.recv(64 * KIB):
                    kept += part
                    other.sendall(part)
            with suppress(OSError):
                other.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        # It wakes the thread, which then ends.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(LIMIT_S)


def test_replayed_streams_change_nothing(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path, 3)
    target = cluster.members[1]
    with closing(Recorder(target.ports["raft"])) as recorder:
        target.extra = ("--raft-advertise-addr", f"127.0.0.1:{recorder.port}")
        cluster.start()
        try:
            assert_goes_on(cluster, "before")
            # Another leader, so that the recorded streams are of two terms.
            assert cluster.leader() is not target
            httpx.post(f"http://{cluster.leader().address('mgmt')}/cluster/transfer", json={"name": target.name})
            assert cluster.leader() is target
            assert_goes_on(cluster, "with another leader")
            recorded = [bytes(stream) for stream in recorder.streams]
            assert max(map(len, recorded)) > KIB
            before = target.count()
            for stream in recorded * 2:
                with closing(plain(target)) as peer, suppress(ConnectionResetError, BrokenPipeError):
                    peer.sendall(stream)
                    peer.shutdown(socket.SHUT_WR)
                    assert_closed(peer)
            assert {member.count() for member in cluster.members} == {before}
            assert_goes_on(cluster, "after")
        finally:
            cluster.forget()
