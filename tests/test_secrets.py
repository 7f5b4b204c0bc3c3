"""Keys and events go to the servers that a client was given, and not to those that others name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest

from adversary import Adversary, error, http, snapshot
from both_clients import Connect, connect
from commands import one_line, qed
from qed._client.topology import Topology, Trust
from qed.errors import NotLeader, QedError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from qed._client.client import Client

__all__ = ["connect"]

KEY: Final = "qed_0123456789abcdef_secret"
EVENT: Final = b"a confidential event"
INFO: Final = {
    "node_id": "a",
    "raft_addr": "127.0.0.1:1",
    "mgmt_addr": "127.0.0.1:1",
    "http_addr": "127.0.0.1:1",
    "metrics_addr": "127.0.0.1:1",
    "version": "0",
    "current_version": None,
    "events": 0,
    "log": "",
}


def members(thief: Adversary) -> bytes:
    """Return a list of members in which the thief leads."""
    address = thief.url.removeprefix("http://")
    shards = {name: {"nodeId": name, "httpAddr": at} for name, at in (("a", "127.0.0.1:1"), ("thief", address))}
    return http(200, {"nodeId": "a", "leaderId": "thief", "uriScheme": "http", "shards": shards})


def outcome(call: object) -> QedError | None:
    assert callable(call)
    try:
        call()
    except QedError as exc:
        return exc
    return None


def test_a_key_does_not_follow_a_redirect(connect: Connect) -> None:
    with (
        Adversary(http(201, snapshot(EVENT))) as thief,
        Adversary(http(307, {}, location=f"{thief.url}/events")) as given,
    ):
        refused = outcome(lambda: connect(given.url, api_key=KEY, attempts=1).add(EVENT))
        assert thief.received == []
        assert isinstance(refused, NotLeader)
        assert "not given" in str(refused)
        assert given.received[0].headers["api-key"] == KEY


def test_an_event_does_not_follow_a_redirect(connect: Connect) -> None:
    with (
        Adversary(http(201, snapshot(EVENT))) as thief,
        Adversary(http(307, {}, location=f"{thief.url}/events")) as given,
    ):
        outcome(lambda: connect(given.url, send="event", attempts=1).add(EVENT))
        assert thief.received == []


def test_a_named_server_that_refuses_digests_gets_no_event(connect: Connect) -> None:
    old = (error(400, "malformed"), http(200, INFO), http(201, snapshot(EVENT)))
    with Adversary(*old) as thief, Adversary(http(307, {}, location=f"{thief.url}/events")) as given:
        outcome(lambda: connect(given.url, attempts=1).add(EVENT))
        assert thief.received != []
        assert all('"Event"' not in request.body.decode() for request in thief.received)


@pytest.mark.parametrize("read", ["primary", "secondary", "any", "secondary-preferred"])
def test_a_key_does_not_go_to_listed_members(connect: Connect, read: str) -> None:
    with Adversary(error(404, "not_found")) as thief:
        listed = members(thief)
        with Adversary(listed, members=listed) as given:
            client = connect(given.url, api_key=KEY, read=read, attempts=2, timeout_s=0.5)
            for _ in range(3):
                outcome(lambda: client.membership(EVENT))
            outcome(lambda: client.add(EVENT))
        assert thief.received == []


MANAGEMENT: Final[dict[str, Callable[[Client], object]]] = {
    "remove": lambda client: client.remove_member("b"),
    "transfer": lambda client: client.transfer_leadership(),
    "keys": lambda client: client.keys(),
    "cluster": lambda client: client.cluster(),
}


@pytest.mark.parametrize("name", MANAGEMENT)
def test_a_key_does_not_go_to_a_management_address_elsewhere(connect: Connect, name: str) -> None:
    with Adversary(error(404, "not_found")) as thief:
        info = {**INFO, "mgmt_addr": thief.url.removeprefix("http://").replace("127.0.0.1", "localhost")}
        with Adversary(http(200, info)) as given:
            refused = outcome(lambda: MANAGEMENT[name](connect(given.url, api_key=KEY)))
        assert thief.received == []
        assert isinstance(refused, Unavailable)
        assert "gets no key" in str(refused)


def test_a_management_address_on_the_given_host_gets_the_key(connect: Connect) -> None:
    with Adversary(error(403, "forbidden")) as management:
        info = {**INFO, "mgmt_addr": management.url.removeprefix("http://")}
        with Adversary(http(200, info)) as given:
            outcome(lambda: connect(given.url, api_key=KEY).transfer_leadership())
        assert [request.headers["api-key"] for request in management.received] == [KEY]


def test_trusted_members_get_key_and_event(connect: Connect) -> None:
    with (
        Adversary(http(201, snapshot(EVENT))) as other,
        Adversary(http(307, {}, location=f"{other.url}/events")) as given,
    ):
        connect(given.url, api_key=KEY, send="event", trust_members=True).add(EVENT)
        assert [request.headers["api-key"] for request in other.received] == [KEY]


def test_without_secrets_a_redirect_is_followed(connect: Connect) -> None:
    with (
        Adversary(http(201, snapshot(EVENT))) as other,
        Adversary(http(307, {}, location=f"{other.url}/events")) as given,
    ):
        connect(given.url).add(EVENT)
        assert json.loads(other.received[0].body).keys() == {"EventDigest"}


@pytest.mark.parametrize(
    ("trust", "url", "may"),
    [
        (Trust(has_key=True), "https://given:1", True),
        (Trust(has_key=True), "https://other:1", True),
        (Trust(has_key=True, is_verified=False), "https://other:1", False),
        (Trust(has_key=True, is_verified=False), "https://given:1", True),
        (Trust(has_key=True), "http://other:1", False),
        (Trust(has_key=True, has_members=True), "http://other:1", True),
        (Trust(), "http://other:1", True),
    ],
)
def test_a_verified_certificate_is_proof_enough(trust: Trust, url: str, may: bool) -> None:
    topology = Topology.parse("https://given:1", trust=trust)
    assert topology.may_send(url, has_event=False) is may
    assert topology.may_manage(url) is may


def test_the_command_line_says_how_to_go_on() -> None:
    with (
        Adversary(http(201, snapshot(EVENT))) as thief,
        Adversary(http(307, {}, location=f"{thief.url}/events")) as given,
    ):
        done = qed("--endpoints", given.url, "--api-key", KEY, "add", "--event", EVENT)
        assert thief.received == []
        assert done.returncode == 3
        assert "give it as an endpoint" in one_line(done.stderr)
        assert (
            qed("--endpoints", given.url, "--api-key", KEY, "--trust-members", "add", "--event", EVENT).returncode == 0
        )
