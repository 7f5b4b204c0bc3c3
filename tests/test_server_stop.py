"""The end of a member of three: who leads next, who is still answered, and how long it takes."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from members import Cluster, Process
from servers import LIMIT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path, 3)
    cluster.start()
    yield cluster
    cluster.forget()


def half_a_request(member: Process) -> socket.socket:
    """Return a connection on which a client has sent half a request."""
    host, port = member.server.address
    peer = socket.create_connection((host, port), timeout=LIMIT_S)
    peer.sendall(b"POST /events HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n")
    assert peer.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    return peer


def test_leader_hands_over_before_it_stops_to_listen(cluster: Cluster) -> None:
    leader = cluster.leader()
    others = [member for member in cluster.members if member is not leader]
    with half_a_request(leader):
        leader.server.process.terminate()
        wait_until(lambda: others[0].shards()[1] not in {"", leader.name}, "another leader")
        answer = others[0].add(b"while the old leader drains")
        assert answer.status_code == 201
        # It waits for the half that never comes: leadership has changed before it ends.
        assert leader.server.process.poll() is None
    assert leader.server.wait() == 0


def test_leadership_is_handed_over_and_not_missed(tmp_path: Path) -> None:
    # Elections would begin after a minute, so the next leader can only come from a transfer.
    cluster = Cluster(tmp_path, 3, "--election-ms", "30000", "--heartbeat-ms", "100")
    try:
        cluster.start()
        leader = cluster.leader()
        started = time.monotonic()
        assert leader.server.stop() == 0
        others = [member for member in cluster.members if member is not leader]
        wait_until(lambda: others[0].shards()[1] not in {"", leader.name}, "another leader")
        assert others[0].add(b"at once").status_code == 201
        assert time.monotonic() - started < 15
    finally:
        cluster.forget()


def test_read_that_waits_for_a_leader_does_not_hold_up_the_end(cluster: Cluster) -> None:
    survivor = cluster.follower()
    for member in cluster.members:
        if member is not survivor:
            member.forget()
    wait_until(lambda: survivor.shards()[1] == "", "the leader to be missed")
    host, port = survivor.server.address
    with socket.create_connection((host, port), timeout=LIMIT_S) as peer:
        peer.sendall(b"GET /info HTTP/1.1\r\nHost: x\r\nConsistency: linearizable\r\n\r\n")
        # A second request, answered in its turn, shows that the first is under way.
        assert httpx.get(f"{survivor.url}/info").status_code == 200
        started = time.monotonic()
        survivor.server.process.terminate()
        answer = peer.recv(1000)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"stopping" in answer
    assert survivor.server.wait() == 0
    assert time.monotonic() - started < 10


def test_whole_stop_keeps_to_its_grace(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 3, "--shutdown-grace-s", "4")
    try:
        cluster.start()
        leader = cluster.leader()
        # The others do not answer, so nobody takes over, and what was accepted is never acknowledged.
        for member in cluster.members:
            if member is not leader:
                member.forget()
        with half_a_request(leader):
            started = time.monotonic()
            assert leader.server.stop() == 0
        assert time.monotonic() - started < 5
    finally:
        cluster.forget()
