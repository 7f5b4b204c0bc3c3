"""Garbage on the port for members, and servers that are not the expected ones."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import struct
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING, cast

import httpx
import pytest

from harness.cluster import Cluster, new_cluster
from harness.ports import free_ports, ports_of_server
from harness.process import Server, StartFailed
from harness.wait import LIMIT_S, wait_until
from qed.server.handshake import PROTOCOL
from seeds import SEED, chance

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

KIB = 1024
LAST_LINE = re.compile(r"^qed-server: [^\n]+\n\Z", re.MULTILINE)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Yield three members, shared by the tests of this module: no test may harm them."""
    cluster = new_cluster(tmp_path_factory.mktemp("cluster"), 3)
    cluster.start()
    yield cluster
    cluster.forget()


@pytest.fixture(autouse=True)
def goes_on(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[None]:
    """Check after each test that the same members are alive, each handles an add, and none has logged an error."""
    yield
    assert_goes_on(cluster, request.node.name)


def assert_goes_on(cluster: Cluster, name: str) -> None:
    cluster.wait_whole()
    for member in cluster.members:
        answer = member.add(f"{name} {member.name}".encode())
        assert answer.status_code == 201, answer.text
    version = answer.json()["Version"]
    roots = {httpx.get(f"{member.url}/snapshots/{version}", timeout=LIMIT_S).text for member in cluster.members}
    assert len(roots) == 1, roots
    for member in cluster.members:
        assert member.process.poll() is None
        for word in ("Traceback", "unexpected", "exception", "panicked"):
            assert word not in member.stderr


def number_of(member: Server) -> int:
    """Return a member's number, which identifies it to the others, from its folder."""
    number = json.loads((member.folder / "MEMBER").read_bytes())["id"]
    assert isinstance(number, int)
    return number


def cluster_of(member: Server) -> str:
    """Return the name of the cluster that a running member belongs to."""
    return member.view().cluster_id


def hello(target: Server, **changes: object) -> bytes:
    """Return the hello of another member for its stream to `target`, with changes."""
    whole = {"protocol": PROTOCOL, "kind": "messages", "sender": 77, "raft_addr": "127.0.0.1:1"}
    whole |= {"cluster": cluster_of(target), "receiver": number_of(target)}
    return frame(json.dumps(whole | changes).encode())


def frame(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


def connect(target: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", target.ports["raft"]), timeout=LIMIT_S)


def read_frame(peer: socket.socket) -> dict[str, str]:
    with peer.makefile("rb") as stream:
        (length,) = struct.unpack(">I", stream.read(4))
        return cast("dict[str, str]", json.loads(stream.read(length)))


def assert_closed(peer: socket.socket) -> None:
    """Read until the other side ends the stream, which it must."""
    with suppress(ConnectionResetError):
        while peer.recv(64 * KIB):
            pass


def accepted(target: Server) -> socket.socket:
    """Return a stream on which `target` waits for messages."""
    peer = connect(target)
    peer.sendall(hello(target))
    assert "error" not in read_frame(peer)
    return peer


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
def test_garbage_for_a_hello_ends_the_stream(cluster: Cluster, sent: bytes) -> None:
    for member in cluster.members:
        with closing(connect(member)) as peer:
            with suppress(ConnectionResetError, BrokenPipeError):
                peer.sendall(sent)
                peer.shutdown(socket.SHUT_WR)
            assert_closed(peer)


def test_silence_ends_the_stream(cluster: Cluster) -> None:
    with closing(connect(cluster.members[0])) as peer:
        peer.sendall(hello(cluster.members[0])[:50])
        assert_closed(peer)


def test_more_streams_than_allowed_are_closed_and_the_cluster_goes_on(cluster: Cluster) -> None:
    leader = cluster.leader()
    peers = [connect(leader) for _ in range(300)]
    try:
        for peer in peers:
            with suppress(ConnectionResetError, BrokenPipeError):
                peer.sendall(b"\x00")
        assert cluster.follower().add(b"while strangers hold streams").status_code == 201
        # The last ones exceed the limit of streams, so they are closed at once; the others when their hello is due.
        assert_closed(peers[-1])
    finally:
        for peer in peers:
            peer.close()


REFUSED = {
    "cluster": {"cluster": "0" * 32},
    "protocol": {"protocol": PROTOCOL + 1},
    "receiver": {"receiver": 12345},
}


@pytest.mark.parametrize(("code", "changes"), REFUSED.items(), ids=REFUSED.keys())
def test_hello_for_somebody_else_is_refused_with_a_reason(
    cluster: Cluster, code: str, changes: dict[str, object]
) -> None:
    for member in cluster.members:
        with closing(connect(member)) as peer:
            peer.sendall(hello(member, **changes))
            answer = read_frame(peer)
            assert answer["error"] == code
            assert answer["message"]
            peer.shutdown(socket.SHUT_WR)
            assert_closed(peer)


def test_older_protocol_is_refused_with_a_reason(cluster: Cluster) -> None:
    with closing(connect(cluster.members[0])) as peer:
        peer.sendall(hello(cluster.members[0], protocol=PROTOCOL - 1, kind="question", receiver=0))
        answer = read_frame(peer)
        assert answer["error"] == "protocol"
        assert f"expected protocol {PROTOCOL}, found {PROTOCOL - 1}" in answer["message"]


# Invalid messages


def message(*fields: tuple[int, int]) -> bytes:
    """Return an `eraftpb.Message` whose fields have these numbers and values."""
    return b"".join(bytes([number << 3]) + varint(value) for number, value in fields)


def varint(value: int) -> bytes:
    head = bytearray()
    while value > 0x7F:
        head.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(head) + bytes([value])


def invalid_messages(target: Server, sender: Server) -> list[bytes]:
    """Return messages that no correct member sends: if accepted, each would crash a process or break a Raft promise."""
    to, by, term = number_of(target), number_of(sender), target.view().term
    head = [(2, to), (3, by), (4, term)]
    return [
        message((1, 8), *head, (8, 1 << 40)),  # a heartbeat: more is committed than the receiver has
        message((1, 4), *head, (5, term), (6, 1 << 40)),  # it acknowledges entries that do not exist
        message((1, 7), *head),  # a snapshot without a configuration
        message((1, 0), *head),  # a time-out, which a member may only send to itself
        message((1, 2), *head),  # a proposal from outside
        message((1, 15), *head),  # a read without a context
        message((1, 8), (2, to), (3, to), (4, term)),  # from itself
        message((1, 8), (2, to + 1), (3, by), (4, term)),  # for another member
        message((1, 99), *head),  # of an unknown kind
        message((1, 8), (2, to), (3, by)),  # without a term, like a local message
        message((1, 5), (2, to), (3, by)),  # likewise, a request for a vote
        message((1, 3), *head, (6, 1 << 40)),  # entries after one without a term
        message((1, 13), *head),  # a transfer of leadership by a stranger
        message(
            (1, 4), *head, (6, 1), (8, (1 << 64) - 1), (10, 1), (11, (1 << 64) - 1)
        ),  # its reject hint is beyond the index
        b"",
    ]


def test_invalid_messages_change_nothing(cluster: Cluster) -> None:
    leader = cluster.leader()
    for member in cluster.members:
        other = next(other for other in (leader, *cluster.members) if other is not member)
        with closing(accepted(member)) as peer:
            peer.sendall(b"".join(map(frame, invalid_messages(member, other))))
            peer.shutdown(socket.SHUT_WR)
            assert_closed(peer)
    assert cluster.leader() is leader


def test_forged_terms_leave_a_cluster_the_next_one(cluster: Cluster) -> None:
    # One of these was enough: every member adopted its term, and then refused the next term.
    for member in cluster.members:
        with closing(accepted(member)) as peer:
            for term in ((1 << 64) - 1, (1 << 63) - 1, 1 << 40):
                peer.sendall(frame(message((1, 8), (2, number_of(member)), (3, 77), (4, term))))
            peer.shutdown(socket.SHUT_WR)
            assert_closed(peer)
    wait_until(lambda: all(member.view().term > 1 << 20 for member in cluster.members), "the terms to move")
    cluster.wait_whole()
    assert all(member.view().term < 1 << 30 for member in cluster.members)


def test_noise_for_messages_changes_nothing(cluster: Cluster) -> None:
    noise = chance(SEED)
    for member in cluster.members:
        with closing(accepted(member)) as peer:
            for _ in range(200):
                peer.sendall(frame(noise.randbytes(noise.randrange(200))))
            peer.shutdown(socket.SHUT_WR)
            assert_closed(peer)


def test_message_that_is_cut_short_is_dropped(cluster: Cluster) -> None:
    with closing(accepted(cluster.members[0])) as peer:
        peer.sendall(struct.pack(">I", 1000) + b"half of it")
        peer.shutdown(socket.SHUT_WR)
        assert_closed(peer)


def test_message_above_the_limit_ends_the_stream(cluster: Cluster) -> None:
    with closing(accepted(cluster.members[0])) as peer:
        with suppress(ConnectionResetError, BrokenPipeError):
            peer.sendall(struct.pack(">I", 64 * KIB * KIB + 1) + bytes(64 * KIB))
        assert_closed(peer)


@pytest.mark.parametrize("kind", ["pages", "question"])
def test_noise_for_a_question_is_answered_or_ends_the_stream(cluster: Cluster, kind: str) -> None:
    for payload in (b"", b"{}", b'{"wish": "be leader"}', chance(SEED).randbytes(500)):
        with closing(connect(cluster.members[0])) as peer:
            peer.sendall(hello(cluster.members[0], kind=kind))
            assert "error" not in read_frame(peer)
            peer.sendall(frame(payload))
            peer.shutdown(socket.SHUT_WR)
            assert_closed(peer)


@pytest.mark.parametrize("changes", [{"raft_addr": "nowhere"}, {"raft_addr": ""}, {"http_addr": "x" * 1000}, {"id": 0}])
def test_admission_with_malformed_addresses_is_refused(cluster: Cluster, changes: dict[str, object]) -> None:
    question: dict[str, object] = {"wish": "admit", "id": 4711, "name": "stranger"}
    for name in ("raft", "http", "mgmt", "metrics"):
        question[f"{name}_addr"] = "127.0.0.1:1"
    with closing(connect(cluster.leader())) as peer:
        peer.sendall(hello(cluster.leader(), kind="question", receiver=0))
        read_frame(peer)
        peer.sendall(frame(json.dumps(question | changes).encode()))
        assert read_frame(peer)["error"] == "refused"


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
                with closing(connect(target)) as peer, suppress(ConnectionResetError, BrokenPipeError):
                    peer.sendall(stream)
                    peer.shutdown(socket.SHUT_WR)
                    assert_closed(peer)
            assert {member.count() for member in cluster.members} == {before}
            assert_goes_on(cluster, "after")
        finally:
            cluster.forget()


# Servers that are not the expected ones


def assert_says(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that a server exited with code 1, and that its last line gives the reason."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = LAST_LINE.search(done.stderr)
    assert last is not None, done.stderr
    for word in words:
        assert word in last[0], done.stderr


def joiner(cluster: Cluster, folder: Path, name: str = "server9") -> Server:
    return Server(name, folder, join=tuple(member.address("raft") for member in cluster.members))


def test_join_with_a_taken_name_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    done = joiner(cluster, tmp_path / "log", "server1").run_to_exit()
    assert_says(done, "cannot join", "server1", "in use")


@pytest.mark.parametrize("name", ["raft", "http"])
def test_join_with_a_taken_address_is_refused(cluster: Cluster, tmp_path: Path, name: str) -> None:
    process, taken = joiner(cluster, tmp_path / "log"), cluster.members[2]
    process.extra = (f"--{name}-advertise-addr", taken.address(name))
    assert_says(process.run_to_exit(), "cannot join", taken.address(name), taken.name)


def test_port_in_use_is_one_line(cluster: Cluster, tmp_path: Path) -> None:
    process = joiner(cluster, tmp_path / "log")
    process.ports["raft"] = cluster.members[0].ports["raft"]
    assert_says(process.run_to_exit(), "cannot listen on", process.address("raft"))


def test_two_servers_on_one_folder_are_one(cluster: Cluster) -> None:
    member = cluster.members[1]
    twin = Server(member.name, member.folder, join=member.join)
    assert_says(twin.run_to_exit(), "another process", str(member.folder))


def test_folder_of_another_member_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    shutil.copytree(cluster.members[1].folder, tmp_path / "log")
    done = joiner(cluster, tmp_path / "log", "server2").run_to_exit()
    assert_says(done, "server1", "server2", str(tmp_path / "log"))


def test_member_that_others_could_not_reach_does_not_come_back(cluster: Cluster) -> None:
    stopped = cluster.follower()
    assert stopped.stop() == 0
    stopped.forget()
    # Its folder names the cluster, so it needs no address to join.
    join, stopped.join, stopped.extra = stopped.join, (), ("--raft-addr", f"0.0.0.0:{stopped.ports['raft']}")
    try:
        assert_says(stopped.run_to_exit(), "--raft-advertise-addr", "0.0.0.0")  # noqa: S104  # not bound by this test
    finally:
        stopped.join, stopped.extra = join, ()
        stopped.start()


def other_cluster(folder: Path, name: str) -> tuple[Server, str]:
    """Return a stopped member of a cluster of its own, with one event, and the name of the cluster."""
    process = Server(name, folder)
    process.start()
    wait_until(lambda: process.shards().leader_id == name, "a leader of the other cluster")
    assert process.add(b"of another cluster").status_code == 201
    cluster = cluster_of(process)
    assert process.stop() == 0
    process.forget()
    return process, cluster


@pytest.mark.parametrize("name", ["server9", "server1"])
def test_folder_of_another_cluster_is_refused(cluster: Cluster, tmp_path: Path, name: str) -> None:
    process, found = other_cluster(tmp_path / "log", name)
    process.join = joiner(cluster, tmp_path).join
    assert_says(process.run_to_exit(), found, cluster_of(cluster.members[0]))


def test_folder_of_another_cluster_at_the_address_of_a_member_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    stopped = cluster.follower()
    assert stopped.stop() == 0
    stopped.forget()
    stranger, found = other_cluster(tmp_path / "log", stopped.name)
    stranger.ports, stranger.join = stopped.ports, (cluster.leader().address("raft"),)
    try:
        assert_says(stranger.run_to_exit(), found, cluster_of(cluster.leader()))
    finally:
        stopped.start()


class Impostor:
    """Answers every connection with one frame."""

    def __init__(self, answer: dict[str, str]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._answer = frame(json.dumps(answer).encode())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                with closing(peer), suppress(OSError):
                    peer.recv(64 * KIB)
                    peer.sendall(self._answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(LIMIT_S)


def test_join_to_members_of_another_protocol_says_so(tmp_path: Path) -> None:
    message = f"expected protocol {PROTOCOL + 1}, found {PROTOCOL}"
    with closing(Impostor({"error": "protocol", "message": message})) as impostor:
        process = Server("server9", tmp_path / "log", join=(impostor.address,))
        assert_says(process.run_to_exit(), impostor.address, message)


def test_join_waits_for_members_that_do_not_answer(tmp_path: Path) -> None:
    process = Server("server9", tmp_path / "log", join=(f"127.0.0.1:{free_ports(1)[0]}",))
    process.start()
    try:
        wait_until(lambda: "not admitted yet" in process.stderr, "the first attempt")
        answer = process.add(b"nobody takes it")
        assert (answer.status_code, answer.json()["error"]) == (503, "no_leader")
        assert answer.headers["retry-after"] == "1"
        assert process.stop() == 0
    finally:
        process.forget()


@pytest.mark.parametrize("has_moved", [False, True])
def test_member_that_was_removed_while_down_is_told_so(tmp_path: Path, has_moved: bool) -> None:
    cluster = new_cluster(tmp_path, 4)
    cluster.start()
    try:
        gone = cluster.members.pop()
        assert gone.stop() == 0
        gone.forget()
        management = f"http://{cluster.leader().address('mgmt')}"
        assert httpx.post(f"{management}/cluster/remove", json={"name": gone.name}).status_code == 200
        if has_moved:
            gone.ports = ports_of_server()
        assert_says(gone.run_to_exit(), "removed from the cluster", "empty its data folder")
        assert_goes_on(cluster, "without it")
        # With an emptied folder, it is a new member.
        shutil.rmtree(gone.folder)
        cluster.members.append(gone)
        gone.start()
        assert_goes_on(cluster, "with it again")
    finally:
        cluster.forget()


def test_members_that_do_not_share_an_authority_do_not_talk(cluster: Cluster, tmp_path: Path) -> None:
    process = joiner(cluster, tmp_path / "log")
    process.extra = ("--raft-tls-cert", str(tmp_path / "missing.pem"))
    with pytest.raises(StartFailed, match="--raft-tls-cert"):
        process.start()
    process.forget()
