"""A member whose log differs from the leader's: it must not answer, and the others must go on."""

from __future__ import annotations

import re
import socket
from contextlib import closing
from typing import TYPE_CHECKING, cast

import httpx

from commands import one_line, qed, read_lines
from harness.cluster import new_cluster
from harness.wait import wait_until
from intruders import Intruder, assert_closed, frame, number_of
from test_member_messages import message

if TYPE_CHECKING:
    from pathlib import Path

    from harness.process import Server


def health(server: Server) -> int:
    return httpx.head(f"{server.url}/healthcheck").status_code


def test_a_member_whose_log_differs_answers_503_and_the_others_go_on(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path, 3)
    cluster.start()
    try:
        assert cluster.leader().add(b"one").status_code == 201
        cluster.wait_whole()
        ghost, target, other = cluster.members
        ghost.stop()
        target.view()
        # What was served lately is not served after the alarm, either.
        assert httpx.get(f"{target.url}/log/tile/0/000.p/1").status_code == 200
        intruder = Intruder.as_member(ghost)
        # As the leader of a later term, which any voter can become, it says that the only event is another one.
        term = target.view().term + 10
        claim = message((1, 8), (2, number_of(target)), (3, intruder.number), (4, term))
        extent = b"\0\x03" + (1).to_bytes(8) + bytes(64)
        with closing(intruder.accepted(target)) as peer:
            peer.sendall(frame(claim) + frame(extent))
            peer.shutdown(socket.SHUT_WR)
            assert_closed(peer)
        wait_until(lambda: health(target) == 503, "the alarm")
        answer = httpx.get(f"{target.url}/healthcheck")
        assert "diverged: at 1 events" in answer.json()["message"]
        assert target.stderr.count("alarm") == 1
        assert httpx.get(f"{target.url}/snapshots/0").status_code == 503
        tile = httpx.get(f"{target.url}/log/tile/0/000.p/1")
        assert (tile.status_code, tile.headers["cache-control"]) == (503, "no-store")
        assert httpx.post(f"{target.url}/proofs/incremental", json={"Start": 0, "End": 0}).status_code == 503
        done = qed("--endpoints", target.url, "membership", "--event", "one")
        assert (done.returncode, "diverged" in one_line(done.stderr)) == (3, True)
        # The leader has lost the connection to it: only the member itself can tell why.
        status = qed("--endpoints", other.url, "cluster", "status")
        assert f"Alarm: {target.name} does not serve: " in status.stdout
        assert "diverged: at 1 events" in status.stdout
        (row,) = [line.split() for line in status.stdout.splitlines() if line.split()[:1] == [target.name]]
        assert row[2] == "alarm"
        (record,) = read_lines(qed("--endpoints", other.url, "cluster", "status", "--json").stdout)
        alarms = {member["node_id"]: member["alarm"] for member in cast("list[dict[str, str]]", record["members"])}
        assert re.search("is [0-9a-f]{64}, this one's is [0-9a-f]{64}$", alarms[target.name])
        assert alarms[other.name] is None
        assert health(other) == 204
        assert httpx.get(f"{other.url}/snapshots/0").status_code == 200
        assert httpx.get(f"{other.url}/log/tile/0/000.p/1").status_code == 200
    finally:
        cluster.forget()
