"""What a removed member's certificate and key are still worth: nothing, until an operator says otherwise."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

import qed
from certificates import Operator
from harness.cluster import Cluster, new_cluster
from harness.process import Server
from harness.wait import wait_until
from intruders import Intruder
from qed.server.acts import Admitted, Announced, Founded, Recovered, Removed, Replaced, now
from qed.server.former_keys import FormerKeys
from test_members_certificates import hang_up, holder, options
from test_members_refused import assert_says

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REFUSED = "its key is that of a member that was removed: join with a new key, and a certificate for it"


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path / "pki")


@pytest.fixture
def cluster(tmp_path: Path, operator: Operator) -> Iterator[Cluster]:
    """Yield three members with certificates of one operator's authority."""
    found = new_cluster(tmp_path, 3)
    for member in found.members:
        member.secret, member.extra = None, options(operator.issue(member.name))
    try:
        found.start()
        yield found
    finally:
        found.forget()


def remove(cluster: Cluster, name: str) -> Server:
    """Remove a member, and return it once its server has ended."""
    member = cluster.named(name)
    with qed.Client(cluster.others(member)[0].url) as client:
        client.remove_member(name)
    assert member.wait() == 1
    cluster.members.remove(member)
    member.forget()
    return member


def attacker(removed: Server, folder: Path, cluster: Cluster) -> Server:
    """Return a server with the certificate and key of a removed member, in an empty folder."""
    joined = tuple(member.address("raft") for member in cluster.members)
    return Server(removed.name, folder, extra=removed.extra, join=joined)


@pytest.mark.parametrize("name", ["server0", "server2"])
def test_the_certificate_of_a_removed_member_does_not_bring_it_back(
    cluster: Cluster, operator: Operator, tmp_path: Path, name: str
) -> None:
    removed = remove(cluster, name)
    left = cluster.names()
    assert_says(attacker(removed, tmp_path / "attacker", cluster).run_to_exit(), "cannot join", REFUSED)
    # Leaders that have only read of the removal know it too.
    for member in cluster.members:
        assert member.stop() == 0
        member.start()
        cluster.wait_whole()
    assert_says(attacker(removed, tmp_path / "again", cluster).run_to_exit(), "cannot join", REFUSED)
    assert {member.node_id for member in cluster.leader().view().members} == left
    # The name is free: for somebody to whom the operator gives a new key.
    welcome = attacker(removed, tmp_path / "welcome", cluster)
    welcome.extra = options(operator.issue(name))
    cluster.members.append(welcome)
    welcome.start()
    cluster.wait_whole()


def test_neither_another_name_nor_an_older_key_of_a_removed_member_helps(
    cluster: Cluster, operator: Operator, tmp_path: Path
) -> None:
    renewed = cluster.follower()
    old = holder(
        tmp_path / "old", operator.issue(renewed.name, "server9", key=operator.key_of(renewed.name)), "server9"
    )
    operator.issue(renewed.name)
    hang_up(renewed, "credentials read again")
    new = holder(
        tmp_path / "new", operator.issue(renewed.name, "server9", key=operator.key_of(renewed.name)), "server9"
    )
    # A certificate is worth a free name while its member is one.
    taken = old.ask(cluster.leader(), old.admission(renewed.name))
    assert "in use" in taken["message"]
    remove(cluster, renewed.name)
    for former in (old, new):
        for wish in (former.admission(renewed.name), former.admission("server9")):
            answer = former.ask(cluster.leader(), wish)
            assert (answer["error"], answer["message"]) == ("refused", REFUSED)


def test_an_operator_may_replace_a_lost_member_by_one_with_its_certificate(cluster: Cluster, tmp_path: Path) -> None:
    lost = cluster.follower()
    lost.kill()
    shutil.rmtree(lost.folder)
    lost.join = tuple(member.address("raft") for member in cluster.others(lost))
    cluster.give_up(lost)
    lost.start()
    cluster.wait_whole()
    # It is a member again, and removing it ends that again.
    removed = remove(cluster, lost.name)
    assert_says(attacker(removed, tmp_path / "attacker", cluster).run_to_exit(), "cannot join", REFUSED)


def test_a_key_that_was_removed_does_not_take_the_place_of_a_lost_member(
    cluster: Cluster, operator: Operator, tmp_path: Path
) -> None:
    name = cluster.follower().name
    removed = remove(cluster, name)
    shutil.copytree(tmp_path / "pki", tmp_path / "stolen")
    successor = attacker(removed, tmp_path / "successor", cluster)
    successor.extra = options(operator.issue(name))
    cluster.members.append(successor)
    successor.start()
    cluster.wait_whole()
    successor.kill()
    cluster.give_up(successor)
    thief = attacker(removed, tmp_path / "thief", cluster)
    thief.extra = tuple(option.replace(str(tmp_path / "pki"), str(tmp_path / "stolen")) for option in removed.extra)
    assert_says(thief.run_to_exit(), "cannot join", REFUSED)


def test_the_key_of_a_removed_member_is_worth_nothing_with_the_cluster_secret_either(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path, 3)
    cluster.start()
    try:
        removed = remove(cluster, cluster.follower().name)
        assert removed.secret is not None
        former = Intruder.with_secret(removed.secret, removed.folder)
        answer = former.ask(cluster.leader(), former.admission(removed.name))
        assert (answer["error"], answer["message"]) == ("refused", REFUSED)
        with qed.Client(cluster.leader().url) as client:
            said = [json.loads(act.body) for act in client.history()]
        assert [act["name"] for act in said if act["deed"] == "removed" and act["key"]] == [removed.name]
        # An empty folder has a new key, and whoever knows the secret may join.
        shutil.rmtree(removed.folder)
        removed.join = tuple(member.address("raft") for member in cluster.members)
        cluster.members.append(removed)
        removed.start()
        wait_until(lambda: removed.shards().leader_id != "", "it to join")
        cluster.wait_whole()
    finally:
        cluster.forget()


BY: dict[str, Any] = {"who": "ops", "origin": "192.0.2.1:5000", "name": "a"}
ADDRESSES: dict[str, Any] = {"raft_addr": "a:1", "http_addr": "a:2", "mgmt_addr": "a:3"}


def test_former_keys_are_those_of_members_that_left() -> None:
    keys, when = FormerKeys(), now()
    keys.fold(Founded(**BY, when=when, member="01", cluster="c", events=0, key=b"1"))
    keys.fold(Admitted(**BY, **ADDRESSES, when=when, member="02", key=b"2"))
    keys.fold(Announced(**BY, **ADDRESSES, when=when, member="02", key=b"3"))
    keys.fold(None)
    assert not any(key in keys for key in (b"1", b"2", b"3"))
    # An act of an earlier build does not name the key.
    keys.fold(Removed(**BY, when=when, member="02"))
    assert [key in keys for key in (b"1", b"2", b"3")] == [False, True, True]
    keys.fold(Replaced(**BY, **ADDRESSES, when=when, replaced="01", replaced_key=b"0", member="04", key=b"4"))
    assert [key in keys for key in (b"0", b"1", b"4")] == [True, True, False]
    keys.fold(Replaced(**BY, **ADDRESSES, when=when, replaced="04", replaced_key=b"4", member="05", key=b"4"))
    assert b"4" not in keys
    keys.fold(Removed(**BY, when=when, member="05", key=b"4"))
    assert b"4" in keys


@pytest.mark.parametrize("is_announced", [False, True])
def test_the_former_keys_of_a_survivor_are_not_forgotten(is_announced: bool) -> None:
    keys, when = FormerKeys(), now()
    keys.fold(Founded(**BY, when=when, member="01", cluster="c", events=0, key=b"1"))
    keys.fold(Announced(**BY, **ADDRESSES, when=when, member="01", key=b"2"))
    keys.fold(Admitted(**BY | {"name": "b"}, **ADDRESSES, when=when, member="02", key=b"3"))
    # It goes on under a new number.
    keys.fold(Recovered(**BY, when=when, cluster="c", events=0))
    if is_announced:
        keys.fold(Announced(**BY, **ADDRESSES, when=when, member="04", key=b"4"))
    assert not any(key in keys for key in (b"1", b"2", b"3", b"4"))
    keys.fold(Removed(**BY, when=when, member="04", key=b"2"))
    assert [key in keys for key in (b"1", b"2", b"3", b"4")] == [True, True, False, is_announced]
