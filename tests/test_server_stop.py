"""A member of three stops: another one leads, accepted requests are answered, and it takes little time."""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx

from harness.cluster import Cluster, new_cluster
from harness.wait import LIMIT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.process import Server


@contextmanager
def running(folder: Path, *extra: str) -> Iterator[Cluster]:
    """Yield three members with these options."""
    cluster = new_cluster(folder, 3, *extra)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.forget()


def half_a_request(member: Server) -> socket.socket:
    """Return a connection on which a client has sent half a request."""
    host, port = member.http_address
    peer = socket.create_connection((host, port), timeout=LIMIT_S)
    peer.sendall(b"POST /events HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n")
    assert peer.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    return peer


def test_leader_hands_over_before_it_stops_to_listen(tmp_path: Path) -> None:
    # The leader waits for the unfinished request longer than this test may take.
    with running(tmp_path, "--shutdown-grace-s", str(4 * int(LIMIT_S))) as cluster:
        leader = cluster.leader()
        others = [member for member in cluster.members if member is not leader]
        with half_a_request(leader):
            leader.process.terminate()
            # No member starts an election while the leader is alive, so this one was asked to lead.
            wait_until(lambda: others[0].shards().leader_id not in {"", leader.name}, "another leader")
            assert others[0].add(b"while the old leader drains").status_code == 201
            assert leader.process.poll() is None
        assert leader.wait() == 0


def test_read_that_waits_for_a_leader_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with running(tmp_path) as cluster:
        survivor = cluster.follower()
        for member in cluster.members:
            if member is not survivor:
                member.forget()
        wait_until(lambda: survivor.shards().leader_id == "", "the leader to be missed")
        with socket.create_connection(survivor.http_address, timeout=LIMIT_S) as peer:
            peer.sendall(b"GET /info HTTP/1.1\r\nHost: x\r\nConsistency: linearizable\r\n\r\n")
            # A request on another connection, answered later, shows that the first is under way.
            assert httpx.get(f"{survivor.url}/info").status_code == 200
            survivor.process.terminate()
            answer = peer.recv(1000)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"this member is stopping" in answer
        assert survivor.wait() == 0


def test_whole_stop_keeps_to_its_grace(tmp_path: Path) -> None:
    # With this slow pace, a leader without followers stays leader for seconds, and waits seconds for a successor.
    slow = ("--heartbeat-ms", "1000", "--election-ms", "5000")
    with running(tmp_path, "--shutdown-grace-s", "4", *slow) as cluster:
        leader = cluster.leader()
        for member in cluster.members:
            if member is not leader:
                member.forget()
        with half_a_request(leader), socket.create_connection(leader.http_address) as adding:
            body = b'{"Event": ""}'
            adding.sendall(b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            started = time.monotonic()
            assert leader.stop() == 0
        assert time.monotonic() - started < 5
