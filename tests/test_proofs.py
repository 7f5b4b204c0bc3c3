"""Proofs as values: honest ones verify, survive every form, and verify only for the question that they answer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from mutations import flips
from oracle import Json, b64, event_digest
from oracle_compact import answer_bytes, snapshot_bytes
from oracle_verify import RejectedError, parse
from qed import _qed
from qed.errors import MalformedProof, VerificationError
from seeds import diverge
from specimens import (
    ABSENT,
    LONE,
    READDED,
    TAIL,
    Question,
    RangeQuestion,
    Specimen,
    ask,
    dumps,
    log,
    named,
    plain,
    specimens,
    trusted,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

every = pytest.mark.parametrize("specimen", specimens(), ids=str)
every_answer = pytest.mark.parametrize(
    "specimen", [s for s in specimens() if isinstance(s.question, Question)], ids=str
)
every_membership = pytest.mark.parametrize("specimen", [s for s in specimens() if s.answer.get("Exists")], ids=str)


def refused_by_both(specimen: Specimen, question: Question | RangeQuestion) -> None:
    """Check that neither verifier accepts the specimen's honest answer as an answer to `question`."""
    with pytest.raises(VerificationError):
        question.verify(specimen.proof)
    with pytest.raises(RejectedError):
        question.verify_with_oracle(specimen.answer)


@every
def test_honest_proof_verifies(specimen: Specimen) -> None:
    specimen.question.verify_with_oracle(specimen.answer)
    specimen.question.verify(specimen.proof)


@every
def test_json_form_is_the_wire_form(specimen: Specimen) -> None:
    proof = specimen.proof
    assert parse(proof.to_json()) == specimen.answer
    assert type(proof).from_json(proof.to_json()) == proof
    assert type(proof).from_json(proof.to_json().decode()) == proof


@pytest.mark.parametrize("text", ["\ud800", '{"Exists": true, "Key": "\udfff"}'], ids=ascii)
def test_text_that_is_not_unicode_is_malformed(text: str) -> None:
    readers = (_qed.Snapshot, _qed.MembershipProof, _qed.AbsenceProof, _qed.IncrementalProof)
    for read in (_qed.parse_answer, *(kind.from_json for kind in readers)):
        with pytest.raises(MalformedProof):
            read(text)


@every
def test_compact_form_is_the_same_proof(specimen: Specimen) -> None:
    proof = specimen.proof
    assert proof.to_bytes() == answer_bytes(specimen.answer)
    decoded = specimen.decode(proof.to_bytes())
    assert decoded == proof
    assert decoded.to_json() == proof.to_json()
    assert decoded.to_bytes() == proof.to_bytes()
    specimen.question.verify(decoded)


@pytest.mark.parametrize("event", [b"event 0", b"absent", b"nowhere to be found"])
def test_echoed_key_is_carried_but_is_no_part_of_the_proof(event: bytes) -> None:
    specimen = ask(log(), "answer", event_digest(event))
    proof = specimen.proof
    assert isinstance(proof, _qed.MembershipProof | _qed.AbsenceProof)
    text = proof.to_json(key=event)
    assert parse(text) == {**specimen.answer, "Key": b64(event)}
    assert specimen.question.read(text) == proof


@every_answer
def test_echo_of_another_event_is_malformed(specimen: Specimen) -> None:
    with pytest.raises(MalformedProof):
        specimen.question.read(dumps({**specimen.answer, "Key": b64(b"another event")}))


@every_answer
def test_fields_are_those_of_the_answer(specimen: Specimen) -> None:
    proof, answer = specimen.proof, specimen.answer
    assert isinstance(proof, _qed.MembershipProof | _qed.AbsenceProof)
    assert b64(bytes(proof.key_digest)) == answer["KeyDigest"]
    assert (proof.current_version, proof.query_version) == (answer["CurrentVersion"], answer["QueryVersion"])
    assert wire(proof.hyper_path) == answer["Hyper"]
    if isinstance(proof, _qed.MembershipProof):
        assert proof.actual_version == answer["ActualVersion"]
        assert proof.latest_version == answer.get("LatestVersion", proof.actual_version)
        assert wire(proof.history_path) == answer["History"]
        assert (None if proof.latest_path is None else wire(proof.latest_path)) == answer.get("LatestHistory")
        return
    neighbour = proof.neighbour
    assert (neighbour is None) == ("Neighbour" not in answer)
    if neighbour is not None:
        assert answer["Neighbour"] == {
            "KeyDigest": b64(bytes(neighbour.key_digest)),
            "Version": neighbour.version,
            "History": wire(neighbour.history_path),
        }


def wire(path: list[tuple[str, _qed.Digest]]) -> dict[str, str]:
    positions = {position: b64(bytes(digest)) for position, digest in path}
    assert len(positions) == len(path)
    return positions


def test_incremental_fields_are_those_of_the_answer() -> None:
    specimen = named("incremental 2-13")
    proof = _qed.IncrementalProof.from_json(specimen.text)
    assert (proof.start, proof.end) == (2, 13)
    assert wire(proof.audit_path) == specimen.answer["AuditPath"]


def test_snapshots_survive_both_forms() -> None:
    for version in range(21):
        answer = log().snapshot(version)
        snapshot = _qed.Snapshot.from_json(dumps(answer))
        assert parse(snapshot.to_json()) == answer
        assert snapshot.to_bytes() == snapshot_bytes(answer)
        assert _qed.Snapshot.from_bytes(snapshot.to_bytes()) == snapshot
        assert len({snapshot, _qed.Snapshot.from_json(dumps(answer))}) == 1


def test_snapshot_is_made_of_its_fields() -> None:
    snapshot = trusted(log().snapshot(5))
    same = _qed.Snapshot(
        event_digest=snapshot.event_digest,
        history_digest=snapshot.history_digest,
        hyper_digest=snapshot.hyper_digest,
        version=snapshot.version,
    )
    assert (same, hash(same), same.version) == (snapshot, hash(snapshot), 5)
    assert bytes(same.event_digest) == plain(5)


def test_every_bit_of_a_snapshot_counts() -> None:
    snapshot = _qed.Snapshot.from_json(dumps(log().snapshot(5)))
    for _, flipped in flips(snapshot.to_bytes()):
        try:
            assert _qed.Snapshot.from_bytes(flipped) != snapshot
        except MalformedProof:
            continue


@every
def test_proofs_of_different_questions_differ(specimen: Specimen) -> None:
    assert [other.name for other in specimens() if other.proof == specimen.proof] == [specimen.name]


@every
def test_proof_of_one_kind_is_malformed_as_another(specimen: Specimen) -> None:
    compact, own = specimen.proof.to_bytes(), type(specimen.proof)
    for kind in (_qed.MembershipProof, _qed.AbsenceProof, _qed.IncrementalProof):
        if kind is own:
            continue
        with pytest.raises(MalformedProof):
            kind.from_json(specimen.text)
        with pytest.raises(MalformedProof):
            kind.from_bytes(compact)


@every_answer
@pytest.mark.parametrize("other", [plain(9), ABSENT, LONE, READDED, diverge(LONE, 24, TAIL), bytes(32)], ids=bytes.hex)
def test_answer_for_another_event_is_rejected(specimen: Specimen, other: bytes) -> None:
    assert isinstance(specimen.question, Question)
    if other != specimen.question.digest:
        refused_by_both(specimen, replace(specimen.question, digest=other))


@every_answer
def test_answer_at_another_version_than_asked_is_rejected(specimen: Specimen) -> None:
    assert isinstance(specimen.question, Question)
    answer = specimen.answer
    for version in [None, *range(25), (1 << 64) - 1]:
        current = cast("int", answer["CurrentVersion"])
        question = replace(specimen.question, version=version)
        if answer["QueryVersion"] == (current if version is None else min(version, current)):
            question.verify(specimen.proof)
        else:
            refused_by_both(specimen, question)


def other_snapshots(snapshot: Json) -> Iterator[tuple[str, Json]]:
    """Yield snapshots that differ from a trusted one in each field that a verifier may read."""
    wrong = b64(bytes(32))
    yield "HistoryDigest", {**snapshot, "HistoryDigest": wrong}
    yield "HyperDigest", {**snapshot, "HyperDigest": wrong}
    for version in (0, 1, 8, 19, 21, (1 << 64) - 1):
        if version != snapshot["Version"]:
            yield "Version", {**snapshot, "Version": version}


@every_membership
def test_membership_is_held_to_both_snapshots(specimen: Specimen) -> None:
    question = specimen.question
    assert isinstance(question, Question)
    for field, snapshot in other_snapshots(question.query_snapshot):
        if field != "HyperDigest":  # only the history digest of the asked version counts
            refused_by_both(specimen, replace(question, query_snapshot=snapshot))
    for field, snapshot in other_snapshots(question.current_snapshot):
        if field != "HistoryDigest":  # only the hyper digest of the current version counts
            refused_by_both(specimen, replace(question, current_snapshot=snapshot))


@pytest.mark.parametrize("specimen", [s for s in specimens() if s.answer.get("Exists") is False], ids=str)
def test_absence_is_held_to_its_snapshot(specimen: Specimen) -> None:
    question = specimen.question
    assert isinstance(question, Question)
    for field, snapshot in other_snapshots(question.current_snapshot):
        if field != "HistoryDigest" or "Neighbour" in specimen.answer:
            refused_by_both(specimen, replace(question, current_snapshot=snapshot))


@pytest.mark.parametrize("specimen", [s for s in specimens() if isinstance(s.question, RangeQuestion)], ids=str)
def test_incremental_is_held_to_both_snapshots(specimen: Specimen) -> None:
    question = specimen.question
    assert isinstance(question, RangeQuestion)
    for side in (question.start_snapshot, question.end_snapshot):
        for field, snapshot in other_snapshots(side):
            if field != "HyperDigest":
                refused_by_both(specimen, replace(question, start_snapshot=snapshot))
                refused_by_both(specimen, replace(question, end_snapshot=snapshot))


def test_error_says_what_was_expected_and_what_was_computed() -> None:
    specimen = named("incremental 2-13")
    assert isinstance(specimen.question, RangeQuestion)
    wrong = {**specimen.question.end_snapshot, "HistoryDigest": b64(bytes(32))}
    with pytest.raises(VerificationError) as caught:
        replace(specimen.question, end_snapshot=wrong).verify(specimen.proof)
    assert caught.value.expected == bytes(32).hex()
    history_digest = trusted(specimen.question.end_snapshot).history_digest
    assert caught.value.computed == history_digest.hex()


@pytest.mark.parametrize("wrong", [b"", b"\0", bytes(31), bytes(33), bytes(64)], ids=len)
def test_digest_is_32_bytes(wrong: bytes) -> None:
    with pytest.raises(ValueError, match="32"):
        _qed.Digest(wrong)
    with pytest.raises(ValueError, match="64"):
        _qed.Digest.from_hex(wrong.hex())


def test_digest_forms() -> None:
    digest = _qed.Digest.of(b"event 3")
    assert bytes(digest) == plain(3)
    assert _qed.Digest.from_hex(digest.hex()) == digest == _qed.Digest(plain(3))
    assert digest.hex() == plain(3).hex()
    assert hash(digest) == hash(_qed.Digest(plain(3)))
    assert digest != _qed.Digest(bytes(32))


@pytest.mark.parametrize("text", ["zz" * 32, "\u0660" * 64, "0x" + "0" * 62, "+" + "0" * 63, "0" * 63 + " ", "_" * 64])
def test_hex_is_hex(text: str) -> None:
    with pytest.raises(ValueError, match="hex"):
        _qed.Digest.from_hex(text)
