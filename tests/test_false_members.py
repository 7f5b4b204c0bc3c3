"""One member is in false hands: what it may have the leader do, in its own name and in the names of others."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from harness.cluster import Cluster, assert_goes_on, new_cluster
from harness.wait import wait_until
from intruders import Intruder, number_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.process import Server

REFUSED = {"error": "refused", "message": "a member can only ask for its own admission"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Yield three members, shared by the tests of this module."""
    cluster = new_cluster(tmp_path_factory.mktemp("cluster"), 3)
    cluster.start()
    yield cluster
    cluster.forget()


@pytest.fixture
def false(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Intruder]:
    """Yield somebody with all that a follower has, which is down meanwhile."""
    member = cluster.follower()
    intruder = Intruder.as_member(member)
    member.kill()
    yield intruder
    cluster.heal()
    assert_goes_on(cluster, request.node.name)


def pins(cluster: Cluster, intruder: Intruder) -> dict[str, str]:
    """Return the pins of the members, as the leader knows them."""
    answer = intruder.ask(cluster.leader(), {"wish": "introduce"})
    assert "error" not in answer, answer
    return dict(answer["keys"])


def victim(cluster: Cluster) -> Server:
    """Return the follower that is up."""
    return cluster.follower()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize("key", ["own", "none"])
def test_a_member_cannot_take_the_identity_of_another(
    cluster: Cluster, false: Intruder, tmp_path: Path, key: str
) -> None:
    other, before = victim(cluster), pins(cluster, false)
    assert other.secret is not None
    second = Intruder.with_secret(other.secret, tmp_path / "second", number_of(other))
    wish = false.admission(other.name, id=number_of(other), who=other.name, origin=other.address("raft"))
    wish |= {"is_passed_on": True} | ({"key": b64(second.credentials.pin)} if key == "own" else {})
    for member in cluster.running():
        assert false.ask(member, wish) == REFUSED
        # Without the pinned key, the number itself is out of reach.
        assert second.ask(member, second.admission(other.name) | {"is_passed_on": True})["error"] == "stranger"
    assert pins(cluster, false) == before


def test_a_member_cannot_admit_another_server(cluster: Cluster, false: Intruder) -> None:
    wish = false.admission("server9", id=0x1234, who="key 0123456789abcdef (admin)", is_passed_on=True)
    for key in (b"", b"k" * 32):
        assert false.ask(cluster.leader(), wish | {"key": b64(key)}) == REFUSED
    assert f"{0x1234}" not in pins(cluster, false)


@pytest.mark.parametrize("key", [b"k", b"k" * 31, b"k" * 33])
def test_a_member_announces_a_whole_key(cluster: Cluster, false: Intruder, key: bytes) -> None:
    before, [name] = pins(cluster, false), cluster.names() - {member.name for member in cluster.running()}
    answer = false.ask(cluster.leader(), false.admission(name, key=b64(key)))
    assert answer["error"] == "refused"
    assert "expected the SHA-256 of a public key" in answer["message"]
    assert pins(cluster, false) == before


def test_a_member_cannot_announce_the_key_of_another(cluster: Cluster, false: Intruder) -> None:
    before, [name] = pins(cluster, false), cluster.names() - {member.name for member in cluster.running()}
    other = victim(cluster)
    # With that key it would pass for the other one, and take its place and name once that is silent for long enough.
    answer = false.ask(cluster.leader(), false.admission(name, key=before[f"{number_of(other)}"]))
    assert (answer["error"], answer["message"]) == ("refused", "this is the key of another member")
    assert pins(cluster, false) == before


def test_only_the_leader_admits_and_the_others_name_it(cluster: Cluster, false: Intruder, tmp_path: Path) -> None:
    leader = cluster.leader()
    assert leader.secret is not None
    newcomer = Intruder.with_secret(leader.secret, tmp_path / "newcomer", 0x5678)
    answer: dict[str, Any] = newcomer.ask(victim(cluster), newcomer.admission("server8"))
    assert (answer["error"], answer["leader"]) == ("elsewhere", leader.address("raft"))
    assert f"{0x5678}" not in pins(cluster, false)
    assert "error" not in newcomer.ask(leader, newcomer.admission("server8"))
    wait_until(
        lambda: pins(cluster, false).get(f"{0x5678}") == b64(newcomer.credentials.pin), "the pin of the newcomer"
    )
    management = f"http://{leader.address('mgmt')}"
    assert httpx.post(f"{management}/cluster/remove", json={"name": "server8"}).status_code == 200
