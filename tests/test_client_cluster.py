"""Clients against a real cluster of three members, some of which are killed."""

from __future__ import annotations

import secrets
import threading
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from both_clients import Connect, connect
from harness.cluster import new_cluster
from harness.wait import wait_until
from qed._client.client import Client
from qed.errors import ClusterError, MembershipRefused, NotLeader, OutcomeUnknown, Unavailable
from qed.proofs import AbsenceProof, MembershipProof

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.cluster import Cluster
    from harness.process import Server
    from qed._client.attempts import Send
    from qed._client.topology import Read
    from qed.proofs import Snapshot

__all__ = ["connect"]

NOBODY = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = new_cluster(tmp_path_factory.mktemp("cluster"), 3)
    cluster.start()
    yield cluster
    cluster.forget()


@pytest.fixture
def cluster(shared: Cluster) -> Cluster:
    """Give a cluster whose members are all running, whatever earlier tests have done."""
    shared.heal()
    return shared


def fresh() -> bytes:
    return secrets.token_bytes(16)


def events_in(cluster: Cluster) -> int:
    return cluster.leader().count()


def restart(member: Server, *extra: str) -> None:
    """Kill a member and start it again with only these further options."""
    member.kill()
    member.extra = extra
    member.start()


def asked(client: Client) -> list[tuple[str, str]]:
    """Return a list to which each request adds its server and its path."""
    sent: list[tuple[str, str]] = []
    take = client._take

    def recorded(step: Send) -> object:
        sent.append((step.base, step.call.path))
        return take(step)

    client._take = recorded  # type: ignore[method-assign,assignment]  # the only place that sees every request
    return sent


def test_any_member_leads_to_the_leader_and_to_the_others(cluster: Cluster, connect: Connect) -> None:
    for member in cluster.members:
        client = connect(member.url)
        first = client.add(fresh())
        second = client.add(fresh())
        assert second.version == first.version + 1
        assert {shard.http_addr for shard in client.shards().shards.values()} == {
            url.removeprefix("http://") for url in cluster.urls
        }


def test_one_command_sends_no_request_too_many(cluster: Cluster) -> None:
    leader, follower = (member.url for member in (cluster.leader(), cluster.followers()[0]))
    for given, path in ((leader, ["/events"]), (follower, ["/events", "/events"])):
        with Client(given) as client:
            sent = asked(client)
            client.add(fresh())
            assert [at for _, at in sent] == path
    with Client(follower) as client:
        sent = asked(client)
        client.membership(fresh())
        assert sent == [(follower, "/proofs/digest-membership")]


def test_an_old_list_with_one_living_member_is_enough(cluster: Cluster, connect: Connect) -> None:
    event = fresh()
    client = connect(NOBODY, "http://no-such-host.invalid", cluster.followers()[0].url)
    added = client.add(event)
    assert client.snapshot(added.version) == added
    assert isinstance(client.membership(event), MembershipProof)


def test_a_client_outlives_the_only_member_it_was_given(cluster: Cluster, connect: Connect) -> None:
    given = cluster.followers()[0]
    client = connect(given.url)
    for _ in range(2):
        client.add(fresh())
    given.kill()
    assert isinstance(client.membership(fresh()), AbsenceProof)
    client.add(fresh())


def test_insertions_follow_the_leader(cluster: Cluster, connect: Connect) -> None:
    client = connect(*cluster.urls)
    client.add(fresh())
    for _ in range(2):
        before = cluster.leader()
        after = client.transfer_leadership().leader_id
        assert after != before.name
        client.add(fresh())
        assert cluster.leader().name == after


def test_if_absent_rides_through_the_death_of_the_leader(cluster: Cluster, connect: Connect) -> None:
    before, events = events_in(cluster), [fresh() for _ in range(200)]
    client = connect(cluster.followers()[0].url)
    added: list[Snapshot] = []
    leader = cluster.leader()

    def kill() -> None:
        wait_until(lambda: len(added) >= 60, "sixty events")
        leader.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    # A list grows while it is extended, so the other thread can see the progress.
    added += (client.add(event, if_absent=True) for event in events)
    killer.join()
    assert len(cluster.running()) == 2
    added.append(client.add(fresh(), if_absent=True))
    assert [snapshot.version for snapshot in added] == list(range(before, before + len(events) + 1))
    assert events_in(cluster) == before + len(events) + 1


def test_without_if_absent_the_death_of_the_leader_is_told_honestly(cluster: Cluster) -> None:
    """Nothing acknowledged is lost, and nothing reported as not added was added."""
    before = events_in(cluster)
    added: list[Snapshot] = []
    failures: list[ClusterError] = []
    lock, is_over = threading.Lock(), threading.Event()

    def add() -> None:
        with Client(cluster.urls) as client:
            while not is_over.is_set():
                try:
                    snapshot = client.add(fresh())
                except ClusterError as exc:
                    with lock:
                        failures.append(exc)
                else:
                    with lock:
                        added.append(snapshot)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(added) > 50, "insertions")
    cluster.leader().kill()
    count = len(added)
    wait_until(lambda: len(added) > count + 50, "insertions after the failover")
    is_over.set()
    for thread in threads:
        thread.join()
    unsure = [exc for exc in failures if "may have happened" in str(exc)]
    assert failures == unsure
    assert all(isinstance(exc, OutcomeUnknown | Unavailable) for exc in unsure)
    assert len({snapshot.version for snapshot in added}) == len(added)
    assert 0 <= events_in(cluster) - before - len(added) <= len(unsure)
    with Client(cluster.urls) as client:
        assert all(client.snapshot(snapshot.version) == snapshot for snapshot in added[-100:])


def test_without_a_majority_nobody_takes_an_insertion(cluster: Cluster, connect: Connect) -> None:
    url = cluster.leader().url
    for member in cluster.followers():
        member.kill()
    with Client(url, timeout_s=2, attempts=1) as client:
        with pytest.raises((OutcomeUnknown, Unavailable, NotLeader)):
            client.add(fresh())
        wait_until(lambda: client.shards().leader_id == "", "the leader to step down")
    for if_absent in (False, True):
        client = connect(*cluster.urls, timeout_s=1, attempts=1)
        began_s = time.monotonic()
        with pytest.raises((NotLeader, Unavailable), match=f"{url}: answered 503: no leader"):
            client.add(fresh(), if_absent=if_absent)
        assert time.monotonic() - began_s < 5
        assert isinstance(client.membership(fresh()), AbsenceProof)


READS: dict[Read, set[str]] = {
    "primary": {"leader"},
    "primary-preferred": {"leader"},
    "secondary": {"one", "other"},
    "secondary-preferred": {"one", "other"},
    "any": {"leader", "one", "other"},
}


@pytest.mark.parametrize("read", READS)
def test_reads_go_where_they_are_preferred(cluster: Cluster, read: Read) -> None:
    leader, (one, other) = cluster.leader(), cluster.followers()
    names = {leader.url: "leader", one.url: "one", other.url: "other"}
    with Client(one.url, read=read) as client:
        client.healthcheck()
        client.membership(fresh())
        sent = asked(client)
        for _ in range(6):
            client.membership(fresh())
        assert {names[base] for base, path in sent if path != "/info/shards"} == READS[read]


@pytest.mark.parametrize("read", READS)
def test_reads_survive_the_leader_as_far_as_they_are_preferred(cluster: Cluster, connect: Connect, read: Read) -> None:
    leader = cluster.leader()
    client = connect(*cluster.urls, read=read)
    client.membership(fresh())
    leader.kill()
    for _ in range(4):
        assert isinstance(client.membership(fresh()), AbsenceProof)
    assert isinstance(client.membership(fresh(), consistency="linearizable"), AbsenceProof)


def test_a_secondary_read_never_falls_back_to_the_leader(cluster: Cluster, connect: Connect) -> None:
    for member in cluster.followers():
        member.kill()
    client = connect(*cluster.urls, read="secondary", timeout_s=2, attempts=1)
    with pytest.raises(Unavailable, match="connection refused"):
        client.membership(fresh())


def test_a_linearizable_read_of_a_follower_shows_what_the_leader_has_just_taken(
    cluster: Cluster, connect: Connect
) -> None:
    writer, reader = connect(*cluster.urls), connect(*cluster.urls, read="secondary")
    for _ in range(30):
        event = fresh()
        added = writer.add(event)
        assert isinstance(reader.membership(event, consistency="linearizable"), MembershipProof)
        assert reader.snapshot(added.version, consistency="linearizable") == added
        assert reader.incremental(0, added.version, consistency="linearizable").end == added.version


def test_an_unknown_consistency_is_refused_before_anything_is_sent(connect: Connect) -> None:
    with pytest.raises(ValueError, match="linearizable"):
        connect(NOBODY).membership(b"", consistency="strong")  # type: ignore[arg-type]  # what a caller may try


def test_a_wrong_advertised_address_is_named_and_gone_around(cluster: Cluster, connect: Connect) -> None:
    wrong, follower = cluster.followers()
    restart(wrong, "--http-advertise-addr", "127.0.0.1:1")
    cluster.wait_whole()
    with Client(follower.url) as client:
        wait_until(lambda: client.shards().shards[wrong.name].http_addr == "127.0.0.1:1", "the wrong address")
        client.transfer_leadership(wrong.name)
    with pytest.raises(Unavailable) as caught:
        connect(follower.url, timeout_s=1, attempts=1).add(fresh())
    assert f"{follower.url}: names {NOBODY} as the leader" in str(caught.value)
    assert f"{NOBODY}: connection refused" in str(caught.value)
    for given in (cluster.urls, cluster.urls[::-1]):
        client = connect(*given, read="primary")
        for _ in range(3):
            event = fresh()
            client.add(event)
            assert isinstance(client.membership(event), MembershipProof)
    restart(wrong)


def test_a_stopped_member_holds_a_read_no_longer_than_a_time_out(cluster: Cluster, connect: Connect) -> None:
    follower = cluster.followers()[0]
    client = connect(follower.url, *cluster.urls, timeout_s=1)
    client.membership(fresh())
    follower.pause()
    try:
        for _ in range(3):
            client.membership(fresh())
    finally:
        follower.resume()


def test_the_cluster_is_shown_and_changed_through_any_member(cluster: Cluster, connect: Connect) -> None:
    for url in cluster.urls:
        client = connect(NOBODY, url)
        seen = client.cluster()
        assert seen.node_id == seen.leader_id == cluster.leader().name
        assert {member.node_id for member in seen.members} == cluster.names()
        assert all(member.is_reachable for member in seen.members)
    with pytest.raises(MembershipRefused, match="nobody"):
        client.remove_member("nobody")
    with pytest.raises(MembershipRefused, match="nobody"):
        client.transfer_leadership("nobody")
    to = cluster.followers()[0].name
    assert client.transfer_leadership(to).leader_id == to


def test_the_management_address_of_another_member_will_do(cluster: Cluster, connect: Connect) -> None:
    member = cluster.followers()[0]
    restart(member, "--mgmt-advertise-addr", "127.0.0.1:1")
    assert httpx.get(f"{member.url}/info").json()["mgmt_addr"] == "127.0.0.1:1"
    assert connect(member.url).cluster().leader_id == cluster.leader().name
    restart(member)
