"""Every call of the protocol against a real server: statuses, bodies, and proofs that verify."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import qed
from qed.proofs import AbsenceProof, Digest, IncrementalProof, MembershipProof, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartServer
    from harness.process import Server

_numbers = itertools.count()


def fresh_event() -> bytes:
    return b"test_server event %d" % next(_numbers)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


def add(http: httpx.Client, event: bytes, **fields: object) -> httpx.Response:
    return http.post("/events", json={"Event": b64(event), **fields})


def add_bulk(http: httpx.Client, events: list[bytes], **fields: object) -> httpx.Response:
    return http.post("/events/bulk", json={"Events": [b64(event) for event in events], **fields})


def snapshot_of(answer: httpx.Response) -> Snapshot:
    return Snapshot.from_json(answer.content)


def snapshot_at(http: httpx.Client, version: int) -> Snapshot:
    answer = http.get(f"/snapshots/{version}")
    assert answer.status_code == 200
    return snapshot_of(answer)


def ask(http: httpx.Client, event: bytes, version: int | None = None) -> MembershipProof | AbsenceProof:
    answer = http.post("/proofs/membership", json={"Key": b64(event), "Version": version})
    assert answer.status_code == 200, answer.text
    return qed.proofs.parse_answer(answer.content)


def assert_refused(answer: httpx.Response, status: int, code: str) -> Any:  # noqa: ANN401  # decoded JSON
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["error"] == code
    assert body["message"]
    return body


# Adding


def test_add_answers_201_with_the_snapshot(http: httpx.Client) -> None:
    event = fresh_event()
    answer = add(http, event)
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["EventDigest", "HistoryDigest", "HyperDigest", "Version"]
    assert base64.b64decode(body["EventDigest"]) == hashlib.sha256(event).digest()
    assert len(base64.b64decode(body["HistoryDigest"])) == len(base64.b64decode(body["HyperDigest"])) == 32


def test_versions_of_adds_are_consecutive(http: httpx.Client) -> None:
    versions = [add(http, fresh_event()).json()["Version"] for _ in range(5)]
    assert versions == list(range(versions[0], versions[0] + 5))


def test_empty_event_is_legal(http: httpx.Client) -> None:
    answer = add(http, b"")
    assert answer.status_code == 201
    assert base64.b64decode(answer.json()["EventDigest"]) == hashlib.sha256(b"").digest()


def test_unknown_fields_are_ignored(http: httpx.Client) -> None:
    assert add(http, fresh_event(), Colour="blue", Nested={"a": [1, None]}).status_code == 201


def test_bulk_has_consecutive_versions_and_one_hyper_digest(http: httpx.Client) -> None:
    events = [fresh_event() for _ in range(10)]
    answer = add_bulk(http, events)
    assert answer.status_code == 201
    snapshots = answer.json()
    first = snapshots[0]["Version"]
    assert [snapshot["Version"] for snapshot in snapshots] == list(range(first, first + 10))
    assert [base64.b64decode(s["EventDigest"]) for s in snapshots] == [hashlib.sha256(e).digest() for e in events]
    assert len({snapshot["HyperDigest"] for snapshot in snapshots}) == 1
    assert len({snapshot["HistoryDigest"] for snapshot in snapshots}) == 10


def test_first_of_equal_events_in_a_bulk_wins(http: httpx.Client) -> None:
    event, other = fresh_event(), fresh_event()
    versions = [snapshot["Version"] for snapshot in add_bulk(http, [event, other, event]).json()]
    assert versions == list(range(versions[0], versions[0] + 3))
    proof = ask(http, event)
    assert isinstance(proof, MembershipProof)
    assert proof.actual_version == versions[0]


def test_later_of_equal_events_across_requests_wins(http: httpx.Client) -> None:
    event = fresh_event()
    add(http, event)
    add(http, fresh_event())
    newest = snapshot_of(add(http, event))
    proof = ask(http, event)
    assert isinstance(proof, MembershipProof)
    assert proof.actual_version == newest.version
    qed.verify(qed.Membership(event), proof, qed.TrustedSnapshots(newest))


def test_a_digest_adds_what_its_event_adds(http: httpx.Client) -> None:
    event = fresh_event()
    digest = b64(hashlib.sha256(event).digest())
    added = http.post("/events", json={"EventDigest": digest})
    assert added.status_code == 201
    assert added.json()["EventDigest"] == digest
    again = add(http, event, IfAbsent=True)
    assert (again.status_code, again.json()) == (200, added.json())
    again = http.post("/events", json={"EventDigest": digest, "IfAbsent": True})
    assert (again.status_code, again.json()) == (200, added.json())
    proof = ask(http, event)
    newest = snapshot_of(added)
    assert isinstance(proof, MembershipProof)
    qed.verify(qed.Membership(event), proof, qed.TrustedSnapshots(newest))


def test_a_bulk_of_digests_adds_what_a_bulk_of_events_adds(http: httpx.Client) -> None:
    events = [fresh_event() for _ in range(10)]
    digests = [b64(hashlib.sha256(event).digest()) for event in events]
    added = http.post("/events/bulk", json={"EventDigests": digests})
    assert added.status_code == 201
    assert [snapshot["EventDigest"] for snapshot in added.json()] == digests
    again = add_bulk(http, events, IfAbsent=True)
    assert (again.status_code, again.json()) == (200, added.json())


def test_if_absent_answers_200_with_the_first_snapshot(http: httpx.Client, server: Server) -> None:
    event = fresh_event()
    first = add(http, event, IfAbsent=True)
    assert first.status_code == 201
    add(http, fresh_event())
    count = server.count()
    again = add(http, event, IfAbsent=True)
    assert again.status_code == 200
    assert again.content == first.content
    assert server.count() == count


def test_if_absent_false_adds_again(http: httpx.Client) -> None:
    event = fresh_event()
    first = add(http, event, IfAbsent=False)
    again = add(http, event, IfAbsent=False)
    assert again.status_code == 201
    assert again.json()["Version"] == first.json()["Version"] + 1


def test_if_absent_bulk_adds_only_what_is_new(http: httpx.Client, server: Server) -> None:
    known, new = fresh_event(), fresh_event()
    first = add(http, known)
    count = server.count()
    mixed = add_bulk(http, [known, new], IfAbsent=True)
    assert mixed.status_code == 201
    assert mixed.json()[0] == first.json()
    assert mixed.json()[1]["Version"] == count
    assert server.count() == count + 1
    nothing_new = add_bulk(http, [new, known], IfAbsent=True)
    assert nothing_new.status_code == 200
    assert nothing_new.json() == [mixed.json()[1], first.json()]
    assert server.count() == count + 1


# Proving


def test_membership_verifies(http: httpx.Client) -> None:
    event = fresh_event()
    snapshot = snapshot_of(add(http, event))
    answer = http.post("/proofs/membership", json={"Key": b64(event)})
    assert answer.status_code == 200
    body = answer.json()
    assert body["Exists"] is True
    assert base64.b64decode(body["Key"]) == event
    assert body["ActualVersion"] == body["QueryVersion"] == body["CurrentVersion"] == snapshot.version
    proof = MembershipProof.from_json(answer.content)
    qed.verify(qed.Membership(event), proof, qed.TrustedSnapshots(snapshot))


def test_membership_verifies_at_an_older_version(http: httpx.Client) -> None:
    event = fresh_event()
    snapshot = snapshot_of(add(http, event))
    current = [snapshot_of(add(http, fresh_event())) for _ in range(7)][-1]
    proof = ask(http, event, snapshot.version)
    assert isinstance(proof, MembershipProof)
    qed.verify(qed.Membership(event, snapshot.version), proof, qed.TrustedSnapshots(snapshot, current))


@pytest.mark.parametrize("version", [10**9, 2**63, 2**64 - 1])
def test_version_beyond_the_log_is_clamped(http: httpx.Client, version: int) -> None:
    event = fresh_event()
    snapshot = snapshot_of(add(http, event))
    proof = ask(http, event, version)
    assert isinstance(proof, MembershipProof)
    assert proof.query_version == proof.current_version == snapshot.version
    qed.verify(qed.Membership(event), proof, qed.TrustedSnapshots(snapshot))
    with pytest.raises(qed.StaleAnswer):
        qed.verify(qed.Membership(event, version), proof, qed.TrustedSnapshots(snapshot))


def test_absence_verifies(http: httpx.Client) -> None:
    current = snapshot_of(add(http, fresh_event()))
    answer = http.post("/proofs/membership", json={"Key": b64(b"never added")})
    assert answer.status_code == 200
    assert answer.json()["Exists"] is False
    assert answer.json()["History"] is None
    proof = AbsenceProof.from_json(answer.content)
    qed.verify(qed.Membership(b"never added"), proof, qed.TrustedSnapshots(current))


def test_digest_membership_answers_without_the_key(http: httpx.Client) -> None:
    event = fresh_event()
    snapshot = snapshot_of(add(http, event))
    answer = http.post("/proofs/digest-membership", json={"KeyDigest": b64(hashlib.sha256(event).digest())})
    assert answer.status_code == 200
    assert answer.json()["Key"] is None
    proof = MembershipProof.from_json(answer.content)
    qed.verify(qed.Membership(Digest.of(event)), proof, qed.TrustedSnapshots(snapshot))


def test_event_added_later_is_refused_with_its_first_version(http: httpx.Client) -> None:
    earlier = snapshot_of(add(http, fresh_event()))
    event = fresh_event()
    first = snapshot_of(add(http, event))
    add(http, event)
    answer = http.post("/proofs/membership", json={"Key": b64(event), "Version": earlier.version})
    assert assert_refused(answer, 412, "added_later")["FirstVersion"] == first.version


def test_older_occurrence_of_an_event_added_again_verifies(http: httpx.Client) -> None:
    event = fresh_event()
    first = snapshot_of(add(http, event))
    newest = snapshot_of(add(http, event))
    proof = ask(http, event, first.version)
    assert isinstance(proof, MembershipProof)
    assert (proof.actual_version, proof.latest_version) == (first.version, newest.version)
    qed.verify(qed.Membership(event, first.version), proof, qed.TrustedSnapshots(first, newest))


def test_incremental_verifies(http: httpx.Client) -> None:
    start = snapshot_of(add(http, fresh_event()))
    end = [snapshot_of(add(http, fresh_event())) for _ in range(9)][-1]
    answer = http.post("/proofs/incremental", json={"Start": start.version, "End": end.version})
    assert answer.status_code == 200
    assert list(answer.json()) == ["Start", "End", "AuditPath"]
    proof = IncrementalProof.from_json(answer.content)
    qed.verify(qed.Extension(start.version, end.version), proof, qed.TrustedSnapshots(start, end))


def test_incremental_of_ranges_that_are_not_is_refused(http: httpx.Client, server: Server) -> None:
    add_bulk(http, [fresh_event(), fresh_event()])
    count = server.count()
    for start, end in [(1, 0), (0, count), (count, count), (0, 2**64 - 1), (2**64 - 1, 0)]:
        answer = http.post("/proofs/incremental", json={"Start": start, "End": end})
        assert_refused(answer, 412, "invalid_range")


def test_past_snapshots_are_answered_as_acknowledged(http: httpx.Client) -> None:
    acknowledged = [add(http, fresh_event()) for _ in range(3)]
    acknowledged_bulk = add_bulk(http, [fresh_event() for _ in range(3)])
    add(http, fresh_event())
    for answer in acknowledged:
        assert http.get(f"/snapshots/{answer.json()['Version']}").content == answer.content
    for snapshot in acknowledged_bulk.json():
        assert http.get(f"/snapshots/{snapshot['Version']}").json() == snapshot


def test_snapshot_beyond_the_log_is_404(http: httpx.Client, server: Server) -> None:
    for version in (server.count(), 2**64 - 1):
        assert_refused(http.get(f"/snapshots/{version}"), 404, "unknown_version")


def test_empty_log_has_nothing_to_prove(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path / "made" / "on demand")
    assert server.events == 0
    with httpx.Client(base_url=server.url) as http:
        digest = b64(hashlib.sha256(b"x").digest())
        assert_refused(http.post("/proofs/membership", json={"Key": b64(b"x")}), 412, "empty_log")
        assert_refused(http.post("/proofs/digest-membership", json={"KeyDigest": digest}), 412, "empty_log")
        assert_refused(http.post("/proofs/incremental", json={"Start": 0, "End": 0}), 412, "empty_log")
        assert_refused(http.get("/snapshots/0"), 404, "unknown_version")
        assert http.get("/info").json()["current_version"] is None
    assert server.stop() == 0


# Information


def test_the_root_says_what_answers(http: httpx.Client) -> None:
    answer = http.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text.startswith(f"qed-server {http.get('/info').json()['version']}, ")
    assert "docs/api.md" in answer.text
    assert http.post("/").status_code == 405


def test_info_describes_the_member(start_server: StartServer, tmp_path: Path) -> None:
    addresses = {"mgmt": "mgmt.example:1", "metrics": "127.0.0.1:2", "raft": "[::1]:3"}
    flags = [text for name, address in addresses.items() for text in (f"--{name}-advertise-addr", address)]
    server = start_server(tmp_path, "--node-id", "server7", "--open", *flags)
    with httpx.Client(base_url=server.url) as http:
        add_bulk(http, [b"a", b"b"])
        info = http.get("/info").json()
        version, log = info.pop("version"), info.pop("log")
        http_addr = server.url.removeprefix("http://")
        assert version
        assert log == json.loads((tmp_path / "MEMBER").read_text())["cluster"]
        assert info == {
            "node_id": "server7",
            "http_addr": http_addr,
            "mgmt_addr": "mgmt.example:1",
            "metrics_addr": "127.0.0.1:2",
            "raft_addr": "[::1]:3",
            "current_version": 1,
            "events": 2,
            "accepts": ["digests"],
            "continues": [],
        }
        assert http.get("/info/shards").json() == {
            "nodeId": "server7",
            "leaderId": "server7",
            "uriScheme": "http",
            "shards": {"server7": {"nodeId": "server7", "httpAddr": http_addr}},
        }
    assert server.stop() == 0


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_healthcheck_answers_204(http: httpx.Client, method: str) -> None:
    answer = http.request(method, "/healthcheck")
    assert (answer.status_code, answer.content) == (204, b"")


def test_unknown_path_is_404(http: httpx.Client) -> None:
    for path in ("/nowhere", "/events/", "/snapshots", "/snapshots/1/2", "/%2e%2e/info"):
        assert_refused(http.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/events", "POST"),
        ("PUT", "/events/bulk", "POST"),
        ("DELETE", "/proofs/membership", "POST"),
        ("PATCH", "/proofs/digest-membership", "POST"),
        ("GET", "/proofs/membership/bulk", "POST"),
        ("OPTIONS", "/proofs/incremental", "POST"),
        ("POST", "/snapshots/0", "GET, HEAD"),
        ("POST", "/info", "GET, HEAD"),
        ("POST", "/info/shards", "GET, HEAD"),
        ("POST", "/healthcheck", "GET, HEAD"),
    ],
)
def test_wrong_method_is_405_and_names_the_right_ones(http: httpx.Client, method: str, path: str, allowed: str) -> None:
    answer = http.request(method, path)
    assert_refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


def test_log_never_shows_what_clients_send(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(tmp_path, "--log", "debug")
    secret = b"a secret of some length"
    with httpx.Client(base_url=server.url) as http:
        add(http, secret)
        ask(http, secret)
        http.post("/events", content=json.dumps({"Event": secret.decode()}))
        http.post("/events", content=secret)
        http.get(f"/snapshots/{secret.decode()}")
    assert server.stop() == 0
    for form in (
        secret.decode(),
        b64(secret),
        hashlib.sha256(secret).hexdigest(),
        b64(hashlib.sha256(secret).digest()),
    ):
        assert form not in server.stderr
