"""The real implementation gives the recorded answers, name by name and byte by byte, and accepts nothing less."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import qed
import recorded
from qed import _qed
from qed.errors import VerificationError
from subject import Subject, wire_snapshots

if TYPE_CHECKING:
    from recorded import Row


@pytest.fixture(scope="module")
def loaded() -> Subject:
    """Return the log of 10,000 events, after comparing its roots after each bulk."""
    subject = Subject()
    for bulk, root in zip(recorded.load_bulks(), recorded.load()["roots"], strict=True):
        last = subject.append_events(bulk)[-1]
        assert {name: last[name] for name in root} == root
    return subject


def text(answer: Row) -> bytes:
    return json.dumps(answer).encode()


def test_every_recorded_operation_is_reproduced() -> None:
    for row, outcome, demanded in recorded.replay(Subject()):
        assert outcome == demanded, f"row {row}"


@pytest.mark.parametrize("kind", ["membership", "absent", "incremental"])
def test_every_recorded_proof_of_10_000_events_is_reproduced(loaded: Subject, kind: str) -> None:
    for answer in recorded.load()[kind]:
        assert recorded.ask_again(loaded, answer) == answer


def test_recorded_memberships_verify(loaded: Subject) -> None:
    for answer in recorded.load()["membership"]:
        proof = _qed.MembershipProof.from_json(text(answer))
        assert _qed.parse_answer(text(answer)) == proof
        qed.verify(
            qed.Membership(_qed.Digest(recorded.key_digest(answer)), answer["QueryVersion"]),
            proof,
            qed.TrustedSnapshots(loaded.log.snapshot(answer["QueryVersion"]), loaded.log.snapshot(9_999)),
        )


def test_recorded_absences_verify(loaded: Subject) -> None:
    for answer in recorded.load()["absent"]:
        proof = _qed.AbsenceProof.from_json(text(answer))
        assert _qed.parse_answer(text(answer)) == proof
        digest = _qed.Digest(recorded.key_digest(answer))
        qed.verify(qed.Membership(digest), proof, qed.TrustedSnapshots(loaded.log.snapshot(9_999)))


def test_recorded_incrementals_verify(loaded: Subject) -> None:
    for answer in recorded.load()["incremental"]:
        start, end = loaded.log.snapshot(answer["Start"]), loaded.log.snapshot(answer["End"])
        proof = _qed.IncrementalProof.from_json(text(answer))
        qed.verify(qed.Extension(start.version, end.version), proof, qed.TrustedSnapshots(start, end))


def test_clamped_version_as_rc2_echoed_it_is_rejected() -> None:
    """For a version beyond the log, rc2 gives that version as QueryVersion, above CurrentVersion."""
    subject = Subject()
    for event in range(16):
        subject.append_events([b"event %d" % event])
    row = recorded.operations()[recorded.CLAMPED_ROW]
    last = subject.log.snapshot(15)
    with pytest.raises(VerificationError):
        qed.verify(
            qed.Membership(_qed.Digest.of(b"event 3"), 99),
            _qed.MembershipProof.from_json(text(row["response"])),
            qed.TrustedSnapshots(last),
        )


def test_past_snapshots_are_given_as_acknowledged(loaded: Subject) -> None:
    for root in recorded.load()["roots"]:
        snapshot = loaded.snapshot(root["Version"])
        assert {name: snapshot[name] for name in root} == root


def test_events_are_added_as_their_digests() -> None:
    events = [b"", b"a", b"\0" * 1000, b"a"]
    by_event, by_digest = Subject(), Subject()
    added = by_digest.append([bytes(_qed.Digest.of(event)) for event in events])
    assert by_event.append_events(events) == wire_snapshots(added)


def test_added_is_answered_as_snapshots() -> None:
    subject = Subject()
    one = subject.log.add([b"one"])
    assert json.loads(one.to_json()) == subject.snapshot(0)
    more = subject.log.add([b"two", b"three"])
    assert json.loads(more.to_json_array()) == [subject.snapshot(1), subject.snapshot(2)]
    assert (len(one), len(more), one.is_new, more.is_new) == (1, 2, True, True)


def test_full_log_checks(loaded: Subject) -> None:
    loaded.log.check()
    assert len(loaded.log) == 10_000
