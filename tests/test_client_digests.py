"""Clients that add by digest: what they send to which server, and how servers without digests refuse them."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

import pytest

from adversary import Adversary, error, hang, http, snapshot
from both_clients import Connect, connect
from qed._client.topology import EVENTS_ONLY_S, Topology
from qed.errors import DigestsRefused, MalformedRequest
from qed.proofs import Digest, MembershipProof

if TYPE_CHECKING:
    from adversary import Play
    from harness.process import Server

__all__ = ["connect"]

EVENT = b"a secret event"
REFUSED = error(400, "malformed")


def info(*accepts: str) -> bytes:
    """Return a member's own description; without names, that of an older one."""
    named = ("node_id", "raft_addr", "mgmt_addr", "http_addr", "metrics_addr", "version")
    said: dict[str, object] = {**dict.fromkeys(named, "x"), "current_version": None, "events": 0}
    return http(200, said | ({"accepts": list(accepts)} if accepts else {}))


def added(*events: bytes) -> Play:
    """Return the answer to adding these events."""
    found = [snapshot(event, number) for number, event in enumerate(events)]
    return http(201, found if len(found) > 1 else found[0])


def bodies(server: Adversary) -> list[dict[str, object]]:
    return [json.loads(each.body) for each in server.received if each.method == "POST"]


def test_only_the_digest_of_an_event_travels(connect: Connect) -> None:
    with Adversary(added(EVENT), added(EVENT, b"another")) as server:
        client = connect(server.url)
        client.add(EVENT)
        client.add_bulk([EVENT, b"another"])
        assert [set(body) for body in bodies(server)] == [{"EventDigest"}, {"EventDigests"}]


def test_events_travel_if_asked_for(connect: Connect) -> None:
    with Adversary(added(EVENT), added(EVENT, b"another")) as server:
        client = connect(server.url, send="event")
        client.add(EVENT)
        client.add_bulk([EVENT, b"another"])
        assert [set(body) for body in bodies(server)] == [{"Event"}, {"Events"}]


def test_an_older_server_is_sent_events(connect: Connect) -> None:
    with Adversary(REFUSED, info(), added(EVENT)) as server:
        client = connect(server.url)
        for _ in range(2):
            client.add(EVENT)
        # The client remembers that the server is an older one.
        assert [set(body) for body in bodies(server)] == [{"EventDigest"}, {"Event"}, {"Event"}]
        assert server.received[1].path == "/info"


@pytest.mark.parametrize("says", [info("digests"), error(500, "broken"), http(200, b"nonsense"), hang])
def test_no_event_is_sent_unless_the_server_says_that_it_needs_it(connect: Connect, says: Play) -> None:
    with Adversary(REFUSED, says) as server:
        client = connect(server.url, timeout_s=0.5)
        with pytest.raises(MalformedRequest):
            client.add(EVENT)
        assert [set(body) for body in bodies(server)] == [{"EventDigest"}]


def test_what_may_have_been_added_is_not_sent_again_as_an_event(connect: Connect) -> None:
    with Adversary(http(500, b""), info(), added(EVENT)) as server:
        client = connect(server.url)
        with pytest.raises(Exception, match="500"):
            client.add(EVENT)
        assert [set(body) for body in bodies(server)] == [{"EventDigest"}]


def test_a_digest_cannot_be_added_on_an_older_server(connect: Connect) -> None:
    with Adversary(REFUSED, info(), added(EVENT)) as server:
        client = connect(server.url)
        with pytest.raises(DigestsRefused, match="accepts events only"):
            client.add(Digest.of(EVENT))
        assert len(bodies(server)) == 1
    with Adversary(REFUSED, info(), added(EVENT)) as server:
        client = connect(server.url, send="event")
        with pytest.raises(DigestsRefused, match="accepts events only"):
            client.add_bulk([EVENT, Digest.of(EVENT)])
        assert len(bodies(server)) == 1


def test_a_digest_is_added_like_its_event(connect: Connect, server: Server) -> None:
    client, event = connect(server.url), secrets.token_bytes(16)
    first = client.add(Digest.of(event))
    assert first.event_digest == Digest.of(event)
    assert client.add(event, if_absent=True) == first
    mixed = client.add_bulk(event for event in (b"one of two", Digest.of(b"the other")))
    assert [each.event_digest for each in mixed] == [Digest.of(b"one of two"), Digest.of(b"the other")]
    assert isinstance(client.membership(Digest.of(b"the other")), MembershipProof)


def test_what_to_send_is_one_of_two(connect: Connect) -> None:
    with pytest.raises(ValueError, match="digest, event"):
        connect("http://127.0.0.1:1", send="everything")


def test_a_server_is_believed_to_be_older_for_a_while() -> None:
    now_s = 100.0
    topology = Topology.parse("http://127.0.0.1:1", lambda: now_s)
    assert topology.may_accept_digests()
    topology.note_no_digests("http://127.0.0.1:1")
    assert not topology.may_accept_digests()
    now_s += EVENTS_ONLY_S
    assert topology.may_accept_digests()
