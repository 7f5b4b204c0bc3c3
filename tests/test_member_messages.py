"""Messages of somebody who has a member's key and number: what no correct member sends changes nothing."""

from __future__ import annotations

import socket
import struct
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

from harness.cluster import Cluster, new_cluster
from harness.wait import wait_until
from intruders import KIB, Intruder, assert_closed, frame, number_of
from seeds import SEED, chance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.process import Server

pytestmark = pytest.mark.usefixtures("goes_on")


class Haunted(Cluster):
    """Three members, and a fourth that is stopped, so that a test can appear in its place."""

    ghost: Server

    def names(self) -> set[str]:
        return super().names() | ({self.ghost.name} if hasattr(self, "ghost") else set())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Haunted]:
    """Yield the members, shared by the tests of this module: no test may harm them."""
    cluster = Haunted(new_cluster(tmp_path_factory.mktemp("cluster"), 4).members)
    cluster.start()
    cluster.ghost = cluster.members.pop()
    assert cluster.ghost.stop() == 0
    yield cluster
    cluster.forget()
    cluster.ghost.forget()


@pytest.fixture
def ghost(cluster: Haunted) -> Intruder:
    return Intruder.as_member(cluster.ghost)


def message(*fields: tuple[int, int]) -> bytes:
    """Return an `eraftpb.Message` whose fields have these numbers and values."""
    return b"".join(bytes([number << 3]) + varint(value) for number, value in fields)


def varint(value: int) -> bytes:
    head = bytearray()
    while value > 0x7F:
        head.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(head) + bytes([value])


def invalid_messages(target: Server, by: int) -> list[bytes]:
    """Return messages that no correct member sends: if accepted, each would crash a process or break a Raft promise."""
    to, term = number_of(target), target.view().term
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


def test_invalid_messages_change_nothing(cluster: Haunted, ghost: Intruder) -> None:
    leader = cluster.leader()
    for member in cluster.members:
        with closing(ghost.accepted(member)) as peer:
            peer.sendall(b"".join(map(frame, invalid_messages(member, ghost.number))))
            peer.shutdown(socket.SHUT_WR)
            assert_closed(peer)
    assert cluster.leader() is leader


def test_forged_terms_leave_a_cluster_the_next_one(cluster: Haunted, ghost: Intruder) -> None:
    # One of these was enough: every member adopted its term, and then refused the next term.
    for member in cluster.members:
        with closing(ghost.accepted(member)) as peer:
            for term in ((1 << 64) - 1, (1 << 63) - 1, 1 << 40):
                peer.sendall(frame(message((1, 8), (2, number_of(member)), (3, ghost.number), (4, term))))
            peer.shutdown(socket.SHUT_WR)
            assert_closed(peer)
    wait_until(lambda: all(member.view().term > 1 << 20 for member in cluster.members), "the terms to move")
    cluster.wait_whole()
    assert all(member.view().term < 1 << 30 for member in cluster.members)


def test_noise_for_messages_changes_nothing(cluster: Haunted, ghost: Intruder) -> None:
    noise = chance(SEED)
    for member in cluster.members:
        with closing(ghost.accepted(member)) as peer:
            for _ in range(200):
                peer.sendall(frame(noise.randbytes(noise.randrange(200))))
            peer.shutdown(socket.SHUT_WR)
            assert_closed(peer)


def test_message_that_is_cut_short_is_dropped(cluster: Haunted, ghost: Intruder) -> None:
    with closing(ghost.accepted(cluster.members[0])) as peer:
        peer.sendall(struct.pack(">I", 1000) + b"half of it")
        peer.shutdown(socket.SHUT_WR)
        assert_closed(peer)


def test_message_above_the_limit_ends_the_stream(cluster: Haunted, ghost: Intruder) -> None:
    with closing(ghost.accepted(cluster.members[0])) as peer:
        with suppress(ConnectionResetError, BrokenPipeError):
            peer.sendall(struct.pack(">I", 64 * KIB * KIB + 1) + bytes(64 * KIB))
        assert_closed(peer)


@pytest.mark.parametrize("kind", ["pages", "question"])
def test_noise_for_a_question_is_answered_or_ends_the_stream(cluster: Haunted, ghost: Intruder, kind: str) -> None:
    for payload in (b"", b"{}", b'{"wish": "be leader"}', chance(SEED).randbytes(500)):
        with closing(ghost.accepted(cluster.members[0], kind=kind)) as peer:
            peer.sendall(frame(payload))
            peer.shutdown(socket.SHUT_WR)
            assert_closed(peer)


def test_hello_for_another_member_is_refused(cluster: Haunted, ghost: Intruder) -> None:
    for member in cluster.members:
        peer, answer = ghost.greet(member, receiver=12345)
        with peer:
            assert answer == {"error": "receiver", "message": "another member was expected here"}
            assert_closed(peer)
