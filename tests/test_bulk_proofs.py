"""Bulk proofs: one answer about many events, from the library, from servers, and from servers that lie."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import oracle_bulk
import qed
from both_clients import Connect, connect
from dishonesty import Faces, changed, log_of
from qed import (
    Absent,
    BulkMembership,
    BulkProof,
    Digest,
    Membership,
    Present,
    Receipts,
    TrustedBy,
    TrustedSnapshots,
    verify,
    verify_bulk,
)
from qed.errors import (
    ContradictsReceipt,
    ForkDetected,
    MalformedProof,
    MalformedRequest,
    NotTrusted,
    StaleAnswer,
    UnknownVersion,
    VerificationError,
)
from qed.server.rates import Allowance, RateExceeded, Rates
from seeds import SEED, chance, diverge

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartServer
    from harness.process import Server

__all__ = ["connect"]

ROWS = [b"row %d" % number for number in range(3000)]
NEAR = [Digest(diverge(bytes(Digest.of(ROWS[number])), 24 + number, bytes(32))) for number in range(40)]
"""Absent, except for 24 bits or more: their paths end at the leaves of other events."""


def b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


@pytest.fixture(scope="module")
def log() -> qed.Log:
    """Return a log with all rows, of which the first ten were added twice."""
    log = qed.Log()
    log.add_bulk(ROWS)
    log.add_bulk(ROWS[:10])
    return log


def trusted(log: qed.Log) -> TrustedSnapshots:
    return TrustedSnapshots(log.snapshot(len(log) - 1))


# The library


@pytest.mark.parametrize("count", [1, 2, 3, 7, 999, 1000])
def test_each_event_is_found_as_by_a_proof_of_its_own(log: qed.Log, count: int) -> None:
    chosen: list[bytes | Digest] = [*ROWS, *NEAR, *(b"absent %d" % number for number in range(1000))]
    asked = chance(SEED + count).sample(chosen, count)
    proof = log.membership_many(asked)
    found = verify_bulk(BulkMembership(asked), proof, trusted(log))
    alone = [verify(Membership(event), log.membership(event), trusted(log)) for event in asked]
    assert found == alone


@pytest.mark.parametrize("count", [1, 2, 3, 7, 999, 1000])
def test_the_oracle_finds_the_same(log: qed.Log, count: int) -> None:
    chosen = [*map(Digest.of, ROWS), *NEAR, *(Digest.of(b"absent %d" % number) for number in range(1000))]
    keys = list(map(bytes, chance(SEED + count).sample(chosen, count)))
    question = BulkMembership([Digest(key) for key in keys])
    proof = log.membership_many(question.digests)
    last = log.snapshot(len(log) - 1)
    roots = bytes(last.hyper_digest), bytes(last.history_digest)
    versions = oracle_bulk.verify(keys, json.loads(proof.to_json()), *roots)
    assert versions == proof.versions
    found = dict(zip(question.digests, verify_bulk(question, proof, trusted(log)), strict=True))
    shown = [found[Digest(key)] for key in sorted(keys)]
    assert [each.version if isinstance(each, Present) else None for each in shown] == versions


def test_a_question_has_1_to_1000_different_events() -> None:
    for events in ([], ROWS[:1001]):
        with pytest.raises(ValueError, match="expected 1 to 1000 keys, found"):
            BulkMembership(events)
    question = BulkMembership([*ROWS[:1000], *ROWS[:1000]])
    assert (len(question.digests), len(question.keys)) == (2000, 1000)


def test_findings_are_in_the_order_of_the_events_however_often_one_is_asked_for(log: qed.Log) -> None:
    asked = [ROWS[7], b"absent", ROWS[3], ROWS[7]]
    found = verify_bulk(BulkMembership(asked), log.membership_many(asked), trusted(log))
    assert [each.digest for each in found] == list(map(Digest.of, asked))
    assert [type(each) for each in found] == [Present, Absent, Present, Present]
    assert found[0] == found[3]


def test_both_forms_come_back_as_they_were(log: qed.Log) -> None:
    proof = log.membership_many([*ROWS[::7], *NEAR])
    assert BulkProof.from_bytes(proof.to_bytes()) == proof
    assert BulkProof.from_json(proof.to_json()) == proof
    assert len(proof) == len(ROWS[::7]) + len(NEAR)


def test_no_bit_of_a_proof_can_be_flipped(log: qed.Log) -> None:
    asked: list[bytes | Digest] = [ROWS[1], ROWS[2000], NEAR[0], b"absent"]
    question, honest = BulkMembership(asked), log.membership_many(asked).to_bytes()
    for bit in range(len(honest) * 8):
        flipped = bytearray(honest)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(VerificationError):
            verify_bulk(question, BulkProof.from_bytes(bytes(flipped)), trusted(log))


def ends(proof: Any, number: int) -> dict[str, Any]:  # noqa: ANN401  # decoded JSON
    end: dict[str, Any] = proof["Ends"][number]
    return end


@pytest.mark.parametrize(
    "lie",
    [
        lambda proof: proof["Ends"].pop(),
        lambda proof: proof["Ends"].reverse(),
        lambda proof: proof.update(Ends=[]),
        lambda proof: proof.update(Ends=proof["Ends"] * 400),
        lambda proof: proof.update(History=""),
        lambda proof: proof.update(History=proof["History"][:-4]),
        lambda proof: proof.update(Hyper=""),
        lambda proof: proof.update(Hyper=b64(bytes(4))),
        lambda proof: proof.update(Hyper=b64(b"\xff" * 4)),
        lambda proof: proof.update(CurrentVersion=2**64 - 1),
        lambda proof: proof.update(CurrentVersion=None),
        lambda proof: ends(proof, 0).update(Depth=0),
        lambda proof: ends(proof, 0).update(Depth=257),
        lambda proof: ends(proof, 0).update(Exists=not ends(proof, 0)["Exists"]),
        lambda proof: ends(proof, 0).update(Version=2**64),
        lambda proof: ends(proof, 0).update(Neighbour={"KeyDigest": b64(bytes(32)), "Version": 0}),
        lambda proof: ends(proof, 0).update(Neighbour=[b64(bytes(32)), 0]),
        lambda proof: proof["Ends"].__setitem__(0, [True, 24, 0]),
    ],
)
def test_changed_json_is_refused(log: qed.Log, lie: Any) -> None:  # noqa: ANN401  # a function of decoded JSON
    question = BulkMembership(ROWS[:3])
    answer = json.loads(log.membership_many(ROWS[:3]).to_json())
    lie(answer)
    with pytest.raises(VerificationError):
        verify_bulk(question, BulkProof.from_json(json.dumps(answer)), trusted(log))


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "[" * 100_000, " " * (5 << 20)])
def test_text_that_is_no_proof_is_malformed(text: str) -> None:
    with pytest.raises(MalformedProof):
        BulkProof.from_json(text)


def test_roots_of_another_version_are_not_used(log: qed.Log) -> None:
    proof = log.membership_many(ROWS[:3])
    with pytest.raises(NotTrusted):
        verify_bulk(BulkMembership(ROWS[:3]), proof, TrustedSnapshots(log.snapshot(2)))
    for wrong in (Membership(ROWS[0]), ROWS[0]):
        with pytest.raises(TypeError):
            verify_bulk(wrong, proof, trusted(log))  # type: ignore[arg-type]  # as callers without types do


def test_absence_alone_needs_no_history_root() -> None:
    log = log_of(b"event")
    proof = log.membership_many([b"absent"])
    assert not proof.needs_history
    roots = qed.TrustedRoots(log.snapshot(0).hyper_root())
    (found,) = verify_bulk(BulkMembership([b"absent"]), proof, roots)
    assert isinstance(found, Absent)
    with pytest.raises(NotTrusted):
        verify_bulk(BulkMembership([b"event"]), log.membership_many([b"event"]), roots)


def test_an_empty_log_proves_nothing() -> None:
    with pytest.raises(UnknownVersion):
        qed.Log().membership_many([b"event"])


# A server


def post(server: Server, body: object) -> httpx.Response:
    return httpx.post(f"{server.url}/proofs/membership/bulk", json=body)


def test_a_server_answers_events_and_digests_alike(server: Server) -> None:
    events = [b"bulk %d" % number for number in range(5)]
    with qed.Client(server.url) as client:
        last = client.add_bulk(events)[-1]
    asked = [*events, b"never added"]
    answers = [
        post(server, {"Keys": list(map(b64, asked))}),
        post(server, {"KeyDigests": [b64(bytes(Digest.of(event))) for event in reversed(asked)]}),
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content
    found = verify_bulk(BulkMembership(asked), BulkProof.from_json(answers[0].content), TrustedSnapshots(last))
    assert [isinstance(each, Present) for each in found] == [True] * 5 + [False]


def test_a_bulk_has_at_most_1000_keys_and_none_twice(server: Server) -> None:
    with qed.Client(server.url) as client:
        client.add(b"any event")
    keys = list(map(b64, ROWS[:1001]))
    for count, status in ((1000, 200), (1001, 413), (0, 400)):
        assert post(server, {"Keys": keys[:count]}).status_code == status
    assert post(server, {"Keys": keys[:3] + keys[:1]}).json()["error"] == "malformed"
    # Events that are not there yet are not decoded.
    assert httpx.post(f"{server.url}/proofs/membership/bulk", content=b"," * 100_000).status_code == 413


def test_a_bulk_is_about_the_latest_version_only(server: Server) -> None:
    refused = post(server, {"Keys": [b64(b"event")], "Version": 0})
    assert (refused.status_code, refused.json()["error"]) == (400, "malformed")


def test_a_bulk_of_an_empty_log_is_refused_as_a_single_question_is(start_server: StartServer, tmp_path: Path) -> None:
    answer = post(start_server(tmp_path), {"Keys": [b64(b"event")]})
    assert (answer.status_code, answer.json()["error"]) == (412, "empty_log")


def test_a_bulk_costs_as_many_requests_as_it_has_keys() -> None:
    allowance = Allowance(Rates(requests_per_s=100))
    for _ in range(2):
        allowance.spend_request()
        allowance.spend_proofs(40)
    allowance.spend_request()
    with pytest.raises(RateExceeded):
        allowance.spend_proofs(40)
    # One of more than a second's worth is possible, and leaves a debt.
    allowance = Allowance(Rates(requests_per_s=1))
    allowance.spend_request()
    allowance.spend_proofs(1000)
    with pytest.raises(RateExceeded) as refused:
        allowance.spend_request()
    assert refused.value.retry_after_s >= 999


# Both clients


def test_more_than_a_thousand_events_are_proven_in_their_order(connect: Connect, server: Server) -> None:
    client = connect(server.url)
    client.add_bulk(ROWS)
    asked = [*ROWS, b"never added", ROWS[5]]
    last = client.snapshot(client.info().events - 1)
    found = client.membership_many(iter(asked), TrustedSnapshots(last))
    assert [each.digest for each in found] == list(map(Digest.of, asked))
    assert [isinstance(each, Present) for each in found] == [True] * len(ROWS) + [False, True]
    assert all(each.is_linked and each.trusted_by is TrustedBy.SNAPSHOTS for each in found)
    assert client.membership_many([], None) == []


def test_newer_versions_are_linked_to_receipts(connect: Connect, server: Server, tmp_path: Path) -> None:
    client = connect(server.url)
    receipts = Receipts.open(tmp_path / "receipts.jsonl")
    client.keep(receipts, client.add(b"kept"))
    later = client.add(b"later")
    found = client.membership_many([b"kept", b"later", b"never added"], receipts)
    assert [(type(each), each.trusted_by, each.is_linked) for each in found] == [
        (Present, TrustedBy.RECEIPTS, False),
        (Present, TrustedBy.RECEIPTS, False),
        (Absent, TrustedBy.RECEIPTS, False),
    ]
    assert {each.as_of for each in found} == {later.version}


def test_without_trusted_roots_the_findings_name_the_server(connect: Connect, server: Server) -> None:
    client = connect(server.url)
    client.add(b"event")
    (found,) = client.membership_many([b"event"], None)
    assert found.trusted_by is TrustedBy.SERVER
    with pytest.raises(TypeError):
        client.membership_many([b"event"], client.add(b"another"))  # type: ignore[arg-type]  # a snapshot alone


# Servers that lie

EVENTS = (b"event 0", b"event 1", b"event 2")


def test_a_server_that_denies_a_receipt_is_caught(connect: Connect) -> None:
    true = log_of(*EVENTS)
    with Faces(true, many=log_of(*EVENTS[:2], b"another")) as faces:
        client = connect(faces.url)
        with pytest.raises(ContradictsReceipt):
            client.membership_many(EVENTS, TrustedSnapshots(*map(true.snapshot, range(3))))


def test_a_server_with_another_log_is_convicted_of_a_fork(connect: Connect) -> None:
    true, forged = log_of(*EVENTS), log_of(b"rewritten", *EVENTS[1:], b"more")
    with Faces(forged) as faces:
        client = connect(faces.url)
        with pytest.raises(ForkDetected):
            client.membership_many(EVENTS[1:], TrustedSnapshots(true.snapshot(2)))


def test_a_member_that_lags_is_asked_again_and_one_rolled_back_is_stale(connect: Connect) -> None:
    true, behind = log_of(*EVENTS), log_of(*EVENTS[:2])
    known = TrustedSnapshots(true.snapshot(2))
    with Faces(true, many=behind) as faces:
        faces.faces["many!"] = true
        found = connect(faces.url).membership_many(EVENTS, known)
        assert [type(each) for each in found] == [Present] * 3
        assert faces.asked.count("many") == 2
    for rolled_back in (behind, qed.Log()):
        with Faces(rolled_back) as faces, pytest.raises(StaleAnswer):
            connect(faces.url).membership_many(EVENTS, known)


@pytest.mark.parametrize("lie", [changed(Ends=[]), changed(CurrentVersion=1), changed(History=b64(bytes(32)))])
def test_an_answer_that_was_changed_proves_nothing(connect: Connect, lie: Any) -> None:  # noqa: ANN401  # a lie
    true = log_of(*EVENTS)
    with Faces(true) as faces:
        faces.lies["many"] = lie
        with pytest.raises(VerificationError):
            connect(faces.url).membership_many(EVENTS, TrustedSnapshots(true.snapshot(2)))


def test_an_older_server_is_named_as_such(connect: Connect) -> None:
    with Faces(log_of(*EVENTS)) as faces:
        faces.lies["many"] = lambda _: (404, {"error": "not_found", "message": "no such path"})
        with pytest.raises(MalformedRequest, match="404"):
            connect(faces.url).membership_many(EVENTS, None)
