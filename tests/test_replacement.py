"""Taking the place of a member that an operator has given up: only that member's, and only while it is down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
import pytest

from harness.cluster import Cluster, assert_goes_on, new_cluster
from intruders import Intruder, number_of
from qed.server.acts import GivenUp, Removed, Replaced
from qed.server.lost_members import LostMembers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.process import Server

# The table


def given_up(name: str, number: int, ago_s: float = 0.0) -> GivenUp:
    moment = datetime.now(UTC) - timedelta(seconds=ago_s)
    return GivenUp(who="x", origin="", when=moment, name=name, member=f"{number:016x}")


def test_only_the_very_member_that_was_given_up_may_be_replaced() -> None:
    lost = LostMembers()
    assert not lost.may_be_replaced("a", 1)
    lost.fold(given_up("a", 1))
    assert lost.may_be_replaced("a", 1)
    assert not lost.may_be_replaced("a", 2)
    assert not lost.may_be_replaced("b", 1)


def test_a_member_may_be_replaced_for_ten_minutes() -> None:
    lost = LostMembers()
    lost.fold(given_up("a", 1, ago_s=590))
    assert lost.may_be_replaced("a", 1)
    lost.fold(given_up("a", 1, ago_s=601))
    assert not lost.may_be_replaced("a", 1)


def test_a_member_that_was_replaced_or_removed_is_not_lost_any_more() -> None:
    moment, one, two = datetime.now(UTC), f"{1:016x}", f"{2:016x}"
    removed = Removed(who="x", origin="", when=moment, name="a", member=one)
    replaced = Replaced(
        who="x",
        origin="",
        when=moment,
        name="a",
        replaced=one,
        member=two,
        raft_addr="r",
        http_addr="h",
        mgmt_addr="m",
    )
    for act in (removed, replaced):
        lost = LostMembers()
        lost.fold(given_up("a", 1))
        lost.fold(act)
        assert not lost.may_be_replaced("a", 1)


# Servers


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = new_cluster(tmp_path, 3)
    cluster.start()
    yield cluster
    cluster.forget()


def newcomer(cluster: Cluster, folder: Path) -> Intruder:
    secret = cluster.members[0].secret
    assert secret is not None
    return Intruder.with_secret(secret, folder)


def give_up(cluster: Cluster) -> Server:
    """Stop a member that does not lead, and give it up; return it."""
    lost = cluster.follower()
    assert lost.stop() == 0
    cluster.give_up(lost)
    return lost


def test_a_member_that_has_returned_is_not_replaced(cluster: Cluster, tmp_path: Path) -> None:
    lost = give_up(cluster)
    number = number_of(lost)
    lost.start()
    cluster.wait_whole()
    other = newcomer(cluster, tmp_path / "other")
    for leader in (cluster.leader(), *cluster.others(lost)):
        # Also right after a change of the leader, which has heard of nobody yet.
        url = f"http://{cluster.leader().address('mgmt')}/cluster/transfer"
        assert httpx.post(url, json={"name": leader.name}).status_code == 200
        refused = other.ask(leader, other.admission(lost.name))
        assert refused["error"] == "refused", refused
        assert "in use" in refused["message"]
        cluster.wait_whole()
    assert number_of(lost) == number
    assert_goes_on(cluster, "the same members")


def test_the_next_leader_knows_who_was_given_up(cluster: Cluster) -> None:
    lost = give_up(cluster)
    leader = cluster.leader()
    url = f"http://{leader.address('mgmt')}/cluster/transfer"
    assert httpx.post(url, json={"name": cluster.follower().name}).status_code == 200
    assert cluster.leader() is not leader
    lost.wipe()
    lost.start()
    cluster.wait_whole()
    assert_goes_on(cluster, "with a new disk")


def test_a_member_is_replaced_once(cluster: Cluster, tmp_path: Path) -> None:
    lost = give_up(cluster)
    lost.wipe()
    lost.start()
    cluster.wait_whole()
    assert lost.stop() == 0
    other = newcomer(cluster, tmp_path / "other")
    refused = other.ask(cluster.leader(), other.admission(lost.name))
    assert refused["error"] == "refused", refused
    lost.start()
    cluster.wait_whole()
