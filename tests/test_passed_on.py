"""Operators' requests that a member passes on: the leader checks the caller's key by its own table and clock."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import msgspec
import pytest

from harness.cluster import new_cluster
from harness.wait import LIMIT_S, wait_until
from intruders import Intruder, cluster_of, number_of
from qed import _wire
from qed.server.acts import Author, KeyCreated, KeyRevoked, Removed, TokenCreated, encode, now
from qed.server.api_keys import ApiKey
from qed.server.handshake import LeaderRequest
from qed.server.passed_on import signed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.process import Server

FORGED = Author("key 0123456789abcdef (admin)", "10.0.0.7:4242")


class Closed(NamedTuple):
    """A cluster with keys. One of its members is down, and somebody else has its folder.

    Attributes:
        leader: The leader.
        follower: The other member that is up.
        operator: A key with the role `operate`.
        cluster: Name of the cluster.
        false: The one with the folder.
        via: The name of the member that it was.
    """

    leader: Server
    follower: Server
    operator: ApiKey
    cluster: str
    false: Intruder
    via: str

    def call(self, member: Server, path: str, body: object = None, key: ApiKey | None = None) -> httpx.Response:
        """Call a member's management address."""
        url, headers = f"http://{member.address('mgmt')}{path}", {"Api-Key": (key or self.operator).text}
        if body is None:
            return httpx.get(url, headers=headers, timeout=LIMIT_S)
        return httpx.post(url, json=body, headers=headers, timeout=LIMIT_S)

    def make(self, *roles: str, member: Server | None = None, **fields: object) -> ApiKey:
        """Make a key."""
        answer = self.call(member or self.leader, "/keys", {"Roles": roles, **fields})
        assert answer.status_code == 201, answer.text
        found = ApiKey.parse(answer.json()["Key"].encode())
        assert found is not None
        return found

    def acts(self) -> list[dict[str, Any]]:
        """Return the acts of the leader's history."""
        rows = _wire.HISTORY.decode(self.call(self.leader, "/cluster/history").content).acts
        return [json.loads(row.body) for row in rows]

    def ask(self, request: LeaderRequest, key: ApiKey | None = None, leader: int | None = None) -> dict[str, Any]:
        """Pass a request on as the false member, signed with a key, for the leader or for another member."""
        whole = signed(request, key, self.cluster, leader or number_of(self.leader))
        return self.false.ask(self.leader, msgspec.json.decode(msgspec.json.encode(whole)), cluster=self.cluster)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    cluster = new_cluster(tmp_path_factory.mktemp("cluster"), 3)
    cluster.start()
    try:
        leader, (follower, lost) = cluster.leader(), cluster.followers()
        name, false = cluster_of(leader), Intruder.as_member(lost)
        made = httpx.post(f"http://{leader.address('mgmt')}/keys", json={"Roles": ["operate"], "Name": "admin"})
        operator = ApiKey.parse(made.json()["Key"].encode())
        assert operator is not None
        lost.kill()
        closed = Closed(leader, follower, operator, name, false, lost.name)
        wait_until(lambda: closed.ask(LeaderRequest("introduce")).get("error") != "twin", "the leader to miss a member")
        yield closed
    finally:
        cluster.forget()


def created(key: ApiKey) -> LeaderRequest:
    act = KeyCreated(
        who=FORGED.who,
        origin=FORGED.origin,
        when=now(),
        id=key.id,
        name="minted",
        roles=["operate"],
        hash=key.hash,
        public_key=key.public_key,
    )
    return LeaderRequest("record", who=FORGED.who, origin=FORGED.origin, act=encode(act))


def test_a_call_at_a_follower_has_its_author_and_the_member_it_came_by(closed: Closed) -> None:
    made = closed.make("append", member=closed.follower)
    [act] = [act for act in closed.acts() if act.get("id") == made.id]
    assert act["who"] == f"key {closed.operator.id} (admin)"
    assert act["from"].startswith("127.0.0.1:")
    assert act["from"].endswith(f" via {closed.follower.name}")
    direct = closed.make("append")
    [act] = [act for act in closed.acts() if act.get("id") == direct.id]
    assert " via " not in act["from"]


@pytest.mark.parametrize("who", [FORGED.who, "anonymous", "certificate 12 (admin)", ""])
@pytest.mark.parametrize("kind", ["record", "remove", "replace", "transfer"])
def test_a_member_does_nothing_in_the_name_of_an_operator(closed: Closed, kind: Any, who: str) -> None:  # noqa: ANN401 - one of four words
    before, key = closed.acts(), ApiKey.make()
    request = LeaderRequest(kind, name=closed.follower.name, act=created(key).act if kind == "record" else b"")
    request = msgspec.structs.replace(request, who=who, origin=FORGED.origin)
    assert closed.ask(request)["error"] == "caller"
    # It knows the ids of all keys, but not their secrets.
    for false in (ApiKey(closed.operator.id, key.secret), key, closed.make("append", "prove", "observe")):
        before = closed.acts()
        assert closed.ask(request, false)["error"] == "caller"
    assert closed.acts() == before
    assert closed.call(closed.leader, "/keys", key=key).status_code == 401


def test_a_signature_is_for_one_request_and_one_leader(closed: Closed) -> None:
    request, number = created(ApiKey.make()), number_of(closed.leader)
    for leader, name in ((number_of(closed.follower), closed.cluster), (number, "0" * 32)):
        whole = msgspec.to_builtins(signed(request, closed.operator, name, leader))
        assert closed.false.ask(closed.leader, whole, cluster=closed.cluster)["error"] == "caller"
    whole = signed(request, closed.operator, closed.cluster, number)
    for change in ({"act": created(ApiKey.make()).act}, {"kind": "remove", "name": closed.follower.name}):
        changed = msgspec.to_builtins(msgspec.structs.replace(whole, **change))
        assert closed.false.ask(closed.leader, changed, cluster=closed.cluster)["error"] == "caller"
    assert "error" not in closed.ask(request, closed.operator)


def test_the_leader_sets_author_and_time_and_records_nothing_else(closed: Closed) -> None:
    key, before = ApiKey.make(), datetime.now(UTC)
    request = created(key)
    old = msgspec.json.decode(request.act) | {"when": "2020-01-01T00:00:00Z"}
    for body in (old | {"extra": "x" * 20_000}, {"deed": "unknown"}):
        answer = closed.ask(msgspec.structs.replace(request, act=msgspec.json.encode(body)), closed.operator)
        assert (answer["error"], "update it first" in answer["message"]) == ("refused", True)
    forged = Removed(
        who="x", origin="y", when=now(), name=closed.follower.name, member=f"{number_of(closed.follower):016x}"
    )
    answer = closed.ask(msgspec.structs.replace(request, act=encode(forged)), closed.operator)
    assert (answer["error"], answer["message"]) == ("refused", "this deed is recorded by the leader only")
    for origin in ("\u202e", "x" * 600, "\x1b[2J"):
        answer = closed.ask(msgspec.structs.replace(request, origin=origin), closed.operator)
        assert answer["error"] == "refused"
    assert "error" not in closed.ask(msgspec.structs.replace(request, act=msgspec.json.encode(old)), closed.operator)
    [act] = [act for act in closed.acts() if act.get("id") == key.id]
    assert (act["who"], act["from"]) == (f"key {closed.operator.id} (admin)", f"{FORGED.origin} via {closed.via}")
    assert before - timedelta(seconds=1) < datetime.fromisoformat(act["when"])


def test_a_key_ends_by_the_clock_and_the_table_of_the_leader(closed: Closed) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=2)
    expiring, revoked = closed.make("operate", Expires=ends.isoformat()), closed.make("operate")
    assert closed.call(closed.leader, "/keys/revoke", {"Id": revoked.id}).status_code == 200
    assert closed.ask(created(ApiKey.make()), revoked)["error"] == "caller"
    wait_until(lambda: datetime.now(UTC) > ends, "the key to expire")
    assert closed.ask(created(ApiKey.make()), expiring)["error"] == "caller"


def test_what_has_expired_by_the_clock_of_the_leader_is_not_made(closed: Closed) -> None:
    past, key, before = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC), ApiKey.make(), closed.acts()
    request = created(key)
    minted = msgspec.json.decode(request.act)
    token = TokenCreated(
        who="x", origin="y", when=past, id="0" * 16, name=None, public_key=key.public_key, expires=past
    )
    expiring = minted | {"when": "2020-01-02T02:04:05Z", "expires": "2020-01-02T03:04:05Z"}
    for act in (msgspec.json.encode(expiring), encode(token)):
        answer = closed.ask(msgspec.structs.replace(request, act=act), closed.operator)
        assert answer["error"] == "refused"
        assert "would expire at 2020-01-02T03:04:05Z" in answer["message"]
        assert f"{datetime.now(UTC):%Y-%m-%d}" in answer["message"]
        assert re.search("member that was asked at 2020-01-02T0[23]:04:05Z: set the clocks", answer["message"])
    assert closed.acts() == before


def test_a_member_that_lags_gets_the_answer_of_the_leader(closed: Closed) -> None:
    revoked = closed.make("operate")
    act = KeyRevoked(who="x", origin="y", when=now(), id=revoked.id)
    assert "error" not in closed.ask(LeaderRequest("record", act=encode(act)), closed.operator)
    answer = closed.call(closed.follower, "/keys", {"Roles": ["operate"]}, key=revoked)
    assert answer.status_code in {401, 403}, answer.text


def test_calls_at_the_same_time_at_a_follower_are_all_carried_out(closed: Closed) -> None:
    names = [f"together{number}" for number in range(20)]
    with ThreadPoolExecutor(len(names)) as threads:
        made = [
            threads.submit(closed.call, closed.follower, "/keys", {"Roles": ["append"], "Name": name}) for name in names
        ]
        answers = [call.result() for call in made]
    assert {answer.status_code for answer in answers} == {201}, [answer.text for answer in answers]
    rows = closed.call(closed.leader, "/keys").json()["Keys"]
    assert sorted(row["Name"] for row in rows if row["Name"] in names) == sorted(names)


def test_a_key_is_revoked_once_however_often_that_is_asked_for(closed: Closed) -> None:
    revoked = closed.make("append")
    for member in (closed.leader, closed.leader, closed.follower):
        assert closed.call(member, "/keys/revoke", {"Id": revoked.id}).status_code == 200
    acts = [act for act in closed.acts() if act["deed"] == "key_revoked" and act["id"] == revoked.id]
    assert len(acts) == 1


def test_two_operators_cannot_lock_each_other_out(closed: Closed) -> None:
    for _ in range(5):
        first, second = closed.make("operate"), closed.make("operate")
        # Only these two are left.
        for row in closed.call(closed.leader, "/keys", key=first).json()["Keys"]:
            if (
                "operate" in row["Roles"]
                and not row["IsRevoked"]
                and row["Id"] not in {first.id, second.id, closed.operator.id}
            ):
                assert closed.call(closed.leader, "/keys/revoke", {"Id": row["Id"]}, key=first).status_code == 200
        assert closed.call(closed.leader, "/keys/revoke", {"Id": closed.operator.id}, key=first).status_code == 200
        with ThreadPoolExecutor(2) as threads:
            calls = [
                threads.submit(closed.call, member, "/keys/revoke", {"Id": other.id}, own)
                for member, own, other in ((closed.leader, first, second), (closed.leader, second, first))
            ]
            answers = [call.result() for call in calls]
        left = [key for key in (first, second) if closed.call(closed.leader, "/keys", key=key).status_code == 200]
        assert len(left) == 1, [answer.text for answer in answers]
        assert sorted(answer.status_code for answer in answers) in ([200, 401], [200, 409])
        closed = closed._replace(operator=left[0])


def test_an_open_leader_accepts_every_key_and_a_closed_one_believes_no_open_member(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path, 3)
    cluster.start()

    def post(member: Server, path: str, body: object, key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"Api-Key": key}
        return httpx.post(f"http://{member.address('mgmt')}{path}", json=body, headers=headers, timeout=LIMIT_S)

    def token(member: Server, key: str | None = None) -> int:
        return post(member, "/cluster/token", {"ttl_s": 60, "name": None}, key).status_code

    try:
        key = post(cluster.leader(), "/keys", {"Roles": ["append"]}).json()["Key"]
        for member in cluster.members:
            # Operators need no key yet, and this one does not keep anybody out.
            assert (token(member), token(member, key)) == (201, 201), member.name
        operator = post(cluster.leader(), "/keys", {"Roles": ["operate"]}).json()["Key"]
        for member in cluster.members:
            member.key = operator
        opened = cluster.follower()
        assert opened.stop() == 0
        opened.extra += ("--open",)
        opened.start()
        cluster.wait_whole()
        assert (token(opened), token(opened, key), token(opened, operator)) == (403, 403, 201)
    finally:
        cluster.forget()
