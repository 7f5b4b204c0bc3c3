"""Three servers: redirects between them, and the outcome of requests when the leader changes."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import httpx
import pytest

import qed as qed_library
from commands import qed
from harness.cluster import Cluster, new_cluster
from harness.process import Server
from harness.wait import LIMIT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qed._wire import ClusterMember


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = new_cluster(tmp_path, 3)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.forget()


@pytest.mark.parametrize("through", ["leader", "follower"])
def test_leader_is_removed_at_the_first_try(cluster: Cluster, through: str) -> None:
    leader = cluster.leader()
    asked = leader if through == "leader" else cluster.follower()
    done = qed("cluster", "remove", leader.name, QED_ENDPOINTS=asked.url)
    assert (done.returncode, done.stderr) == (0, "")
    cluster.members.remove(leader)
    assert leader.wait() == 1
    assert "removed from the cluster" in leader.stderr
    leader.forget()
    cluster.wait_whole()
    assert cluster.members[0].add(b"without it").status_code == 201


def test_leader_is_removed_through_the_member_that_leads_next(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path, 2)
    try:
        cluster.start()
        leader, successor = cluster.leader(), cluster.follower()
        done = qed("cluster", "remove", leader.name, QED_ENDPOINTS=successor.url)
        assert (done.returncode, done.stderr) == (0, "")
        assert leader.wait() == 1
        assert {member.node_id for member in successor.view().members} == {successor.name}
    finally:
        cluster.forget()


def test_add_whose_leader_is_lost_meanwhile_has_an_unknown_outcome(cluster: Cluster) -> None:
    leader = cluster.leader()
    others = [member for member in cluster.members if member is not leader]
    for member in others:
        member.pause()
    # No other member confirms it, so the leader soon steps down.
    answer = httpx.post(
        f"{leader.url}/events", json={"Event": base64.b64encode(b"in flight").decode()}, timeout=LIMIT_S
    )
    assert (answer.status_code, answer.json()["error"]) == (503, "outcome_unknown")
    assert "retry-after" not in answer.headers


def test_follower_waits_for_a_version_that_was_just_acknowledged(cluster: Cluster) -> None:
    leader, follower = cluster.leader(), cluster.follower()
    with httpx.Client(timeout=LIMIT_S) as http:
        for number in range(200):
            event = base64.b64encode(b"%d" % number).decode()
            added = http.post(f"{leader.url}/events", json={"Event": event})
            found = http.get(f"{follower.url}/snapshots/{added.json()['Version']}")
            assert (found.status_code, found.json()) == (200, added.json())


def test_joiner_that_knows_only_a_follower_is_admitted(cluster: Cluster, tmp_path: Path) -> None:
    follower = cluster.follower()
    joiner = Server("server3", tmp_path / "server3", join=(follower.address("raft"),), secret=follower.secret)
    cluster.members.append(joiner)
    joiner.start()
    cluster.wait_whole()
    # A follower cannot admit a member itself: it names the leader.
    assert f'event="admitted" by={follower.address("raft")}' in joiner.stderr


def test_members_are_listed_by_name(cluster: Cluster) -> None:
    for member in cluster.members:
        shards = httpx.get(f"{member.url}/info/shards").json()["shards"]
        assert list(shards) == ["server0", "server1", "server2"]
        assert [entry.node_id for entry in member.view().members] == list(shards)


def test_joiner_fetches_from_the_next_leader_when_its_own_falls_silent(cluster: Cluster, tmp_path: Path) -> None:
    with qed_library.Client([member.url for member in cluster.members]) as client:
        for bulk in range(10):
            client.add_bulk([b"%d %d" % (bulk, number) for number in range(50_000)])
    leader = cluster.leader()
    join = tuple(member.address("raft") for member in cluster.members)
    joiner = Server("server3", tmp_path / "server3", join=join, secret=leader.secret)
    joiner.start()
    try:
        wait_until(lambda: "catching up" in joiner.stderr, "the joiner to begin")
        leader.pause()
        wait_until(lambda: joiner.count() == 500_000, "the joiner to hold everything")
        # It did not wait for a page that never came either.
        assert "no page within" not in joiner.stderr
    finally:
        joiner.forget()


def test_member_that_was_away_follows_a_leader_that_joined_meanwhile(cluster: Cluster, tmp_path: Path) -> None:
    one, other, away = cluster.leader(), *cluster.followers()
    assert away.stop() == 0
    away.forget()
    cluster.members.remove(away)
    joiner = Server("server3", tmp_path / "server3", join=(one.address("raft"),), secret=one.secret)
    joiner.start()
    wait_until(lambda: joiner.name in {view.node_id for view in voters(one)}, "the joiner to vote")
    management = f"http://{one.address('mgmt')}/cluster"
    assert httpx.post(f"{management}/remove", json={"name": other.name}).status_code == 200
    assert other.wait() == 1
    other.forget()
    cluster.members[:] = [one, joiner]
    assert httpx.post(f"{management}/transfer", json={"name": joiner.name}).status_code == 200
    assert cluster.leader() is joiner
    # Its membership names the other two only, and neither of them leads.
    cluster.members.append(away)
    away.join = ()
    away.start()
    cluster.wait_whole()
    assert away.add(b"with all of them").status_code == 201


def voters(member: Server) -> list[ClusterMember]:
    """Return the members that vote, as one of them knows them."""
    return [found for found in member.view().members if found.role != "learner"]
